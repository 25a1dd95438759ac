"""Run one Ray Data task per item; an item whose receipt is already there is not run again."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pipeline.files import Json

    Receipts = Callable[[Json], Json | None]


def run_tasks(
    items: Iterable[Json],
    task: Callable[[Json], Json],
    receipts: Receipts | None = None,
    **options: Any,
) -> Iterator[tuple[Json, Json]]:
    """Yield every item with its receipt, those of an interrupted run first.

    Args:
      items: JSON values, one for each task.
      task: Takes an item and returns its receipt, a JSON value; called in another process.
      receipts: Returns the receipt that an earlier run left for an item, or None; omitted if every
        item is to be run.
      options: Passed to `ray.data.Dataset.map`, such as `num_cpus`.
    """
    kept, todo = split(items, receipts) if receipts else ([], [*items])
    yield from kept
    if not todo:
        return
    with cluster.connected():
        import ray.data

        data = ray.data.from_items(todo, override_num_blocks=len(todo))
        for row in data.map(_row_of(task), **options).iter_rows():
            yield json.loads(row["item"]), json.loads(row["receipt"])


def split(items: Iterable[Json], receipts: Receipts) -> tuple[list[tuple[Json, Json]], list[Json]]:
    """Return the items that have a receipt, each with it, and the items that have none."""
    kept, todo = [], []
    for item in items:
        receipt = receipts(item)
        if receipt is None:
            todo.append(item)
        else:
            kept.append((item, receipt))
    return kept, todo


def _row_of(task: Callable[[Json], Json]) -> Callable[[Json], Json]:
    """Return a function that runs one task and returns a row of JSON text.

    Rows are text because receipts differ in their keys. The function has the name of the task, as
    Ray shows it.
    """

    def row_of(item: Json) -> Json:
        return {"item": json.dumps(item), "receipt": json.dumps(task(item))}

    row_of.__name__ = (task.func if isinstance(task, partial) else task).__name__
    return row_of
