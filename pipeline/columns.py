"""The columns of all arms' maps, each a task of Ray Data; one that is done leaves a receipt."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import cluster, files, mapper, schema, tasks
from pipeline.config import Experiment
from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.files import Json
    from pipeline.progress import Progress


SHARING = 4  # columns at a time on a GPU, which is faster than one process reads and packs


def mapped(
    orders: mapper.Orders,
    columns: list[Json],
    n_blocks: int,
    progress: Progress,
    task: type[mapper.MapColumn] = mapper.MapColumn,
) -> Iterator[Json]:
    """The receipt of each column: those of an interrupted run, then of the columns it left.

    Args:
      orders: of every task; the queue is made here.
      columns: of every arm, as `every` gives them.
      n_blocks: that each advances the progress by.
      progress: is told of them.
      task: what maps a column.
    """
    kept, todo = tasks.split(columns, partial(_receipt, orders.root))
    for _, receipt in kept:
        progress.advance(n_blocks)
        yield receipt
    if not todo:
        return
    threads = Experiment.model_validate_json(orders.experiment_json).compute.threads_per_worker
    with cluster.connected(), cluster.told(progress) as told:
        import ray

        gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        map_column = partial(mapper.map_column, task=task, orders=replace(orders, queue=told.queue))
        resources: dict[str, Any] = {
            "num_cpus": 1 if gpus else threads,
            "num_gpus": 1 / SHARING if gpus else 0,
            "max_calls": 0,  # a process continues with the next column, on a GPU too
        }
        for _, receipt in tasks.run_tasks(todo, map_column, **resources):
            yield receipt


def _receipt(root: str, column: Json) -> Json | None:
    """The receipt of a column that an interrupted run has mapped; None where there is none."""
    name = mapper.receipt_name(**column)
    return files.read_receipt(files.join(root, "maps", "receipts", name), "shards")


def shards_of(url: str, receipts: list[Json]) -> list[Json]:
    """The records of all shards that columns have written.

    Args:
      url: of the maps, for the message.
      receipts: of the columns.

    Raises:
      StoreError: a column could not be mapped.
    """
    if problems := sorted({line for receipt in receipts for line in receipt["problems"]}):
        remedy = "mend that and run again; whole columns are kept"
        raise StoreError(url, *problems, remedy=remedy)
    return [shard for receipt in receipts for shard in receipt["shards"]]


def every(experiment: Experiment) -> list[Json]:
    """Every arm and column, by its upper left cell."""
    ny, nx = schema.window(experiment).cell_shape
    return [
        {"arm": arm, "row": row, "col": col}
        for arm in experiment.arms
        for row in range(0, ny, schema.SHARD)
        for col in range(0, nx, schema.SHARD)
    ]
