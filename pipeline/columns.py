"""The columns of all arms' maps, each a task of Ray Data; one that is done leaves a receipt."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline import cluster, files, mapper, schema
from pipeline.config import Experiment

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
    todo = []
    for column in columns:
        name = mapper.receipt_name(**column)
        receipt = files.read_receipt(files.join(orders.root, "maps", "receipts", name), "shards")
        if receipt is None:
            todo.append(column)
        else:
            progress.advance(n_blocks)
            yield receipt
    if not todo:
        return
    threads = Experiment.model_validate_json(orders.experiment_json).compute.threads_per_worker
    with cluster.connected():
        import ray
        import ray.data

        gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        with cluster.told(progress) as told:
            tasks = ray.data.from_items(todo, override_num_blocks=len(todo)).map(
                partial(mapper.map_column, task=task, orders=replace(orders, queue=told.queue)),
                num_cpus=1 if gpus else threads,
                num_gpus=1 / SHARING if gpus else 0,
                max_calls=0,  # a process goes on to the next column, with a GPU too
            )
            for row in tasks.iter_rows():
                yield json.loads(row["receipt"])


def every(experiment: Experiment) -> list[Json]:
    """Every arm and column, by its upper left cell."""
    ny, nx = schema.window(experiment).cell_shape
    return [
        {"arm": arm, "row": row, "col": col}
        for arm in experiment.arms
        for row in range(0, ny, schema.SHARD)
        for col in range(0, nx, schema.SHARD)
    ]
