"""Run a task for each block of 32 days, and check what the tasks have done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.catalog import task_memory
from pipeline.cluster import ray_cluster
from pipeline.errors import DataError, StoreError
from pipeline.prepare.block_task import empty_receipt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress


def run_blocks(
    blocks: Sequence[int],
    task: Callable[[Json], Json],
    finished_receipt: Callable[[Json], Json | None],
    experiment: Experiment,
    n_forcing: int,
    progress: Progress,
) -> list[Json]:
    """Run one task for each block, until a store does not answer; return the receipts.

    Args:
      blocks: The numbers of the blocks.
      task: Takes {"block": number of the block} and returns its receipt, as `write_block` does.
      finished_receipt: Returns the receipt that an interrupted run left for an item, or None.
      experiment: The experiment.
      n_forcing: Number of forcing variables.
      progress: Receives the number of blocks done.
    """
    receipts: list[Json] = []
    memory = task_memory.prepare_task_mb(experiment, n_forcing) * 1e6
    items = [{"block": block} for block in blocks]
    try:
        for _, receipt in ray_cluster.run_tasks(items, task, finished_receipt, memory=memory):
            receipts.append(receipt)
            progress.advance()
            if receipt["outage"]:  # all other blocks would fail too, each after its retries
                break
    except StoreError as error:
        receipts.append(empty_receipt() | {"unwritten": [str(error)], "outage": True})
    return receipts


def check_receipts(place: str, receipts: list[Json]) -> None:
    """Check that all tasks have written their blocks.

    Args:
      place: What the tasks write, for the message.
      receipts: The receipts of the tasks.

    Raises:
      StoreError: If objects could not be written, whatever other problems there are.
      DataError: If sources cannot be read or have invalid values; it lists all of them.
    """
    lines = {
        key: sorted({line for receipt in receipts for line in receipt[key]})
        for key in ("unwritten", "unread", "problems")
    }
    if lines["unwritten"]:
        hint = "correct this and run again; finished blocks are kept"
        raise StoreError(place, *lines["unwritten"], *lines["unread"], remedy=hint)
    if lines["problems"]:
        hint = "correct the data, or the variable's range"
        raise DataError("sources", *lines["problems"], *lines["unread"], remedy=hint)
    if lines["unread"]:
        hint = "run again when the sources can be read; finished blocks are kept"
        raise DataError("sources", *lines["unread"], remedy=hint)
