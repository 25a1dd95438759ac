"""Run one Ray Data task per item; an item whose receipt is already there is not run again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline import cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pipeline.files import Json

    Receipts = Callable[[Json], Json | None]


@dataclass(frozen=True)
class Actors:
    """Actors that run tasks: objects of `task`, made once each and then called with every item.

    Attributes:
      task: class of the actors; its objects take an item and return a receipt.
      arguments: of the constructor.
      size: number of actors.
      num_cpus: that each actor reserves.
      num_gpus: that each actor reserves; a fraction where several share one.
    """

    task: Callable[..., Callable[[Json], Json]]
    arguments: tuple[Any, ...]
    size: int
    num_cpus: float
    num_gpus: float


def run_tasks(
    items: Iterable[Json], task: Callable[[Json], Json] | Actors, receipts: Receipts | None = None
) -> Iterator[tuple[Json, Json]]:
    """Yield every item with its receipt, those of an interrupted run first.

    Args:
      items: of JSON values, one per task.
      task: takes an item and returns its receipt, of JSON values; called in a process of its own.
      receipts: returns the receipt that an earlier run left of an item, None where there is none;
        left out where every item is to be run.
    """
    kept, todo = split(items, receipts) if receipts else ([], [*items])
    yield from kept
    if not todo:
        return
    with cluster.connected():
        import ray.data

        data = ray.data.from_items(todo, override_num_blocks=len(todo))
        if isinstance(task, Actors):
            tasks = data.map(
                _Actor,  # type: ignore[arg-type]  # a class whose objects are called
                fn_constructor_args=(task.task, task.arguments),
                compute=ray.data.ActorPoolStrategy(size=task.size),
                num_cpus=task.num_cpus,
                num_gpus=task.num_gpus,
            )
        else:
            tasks = data.map(partial(_call, task=task))
        for row in tasks.iter_rows():
            yield json.loads(row["item"]), json.loads(row["receipt"])


def split(items: Iterable[Json], receipts: Receipts) -> tuple[list[tuple[Json, Json]], list[Json]]:
    """Items that have a receipt, each with it, and items that have none; as of `run_tasks`."""
    kept, todo = [], []
    for item in items:
        receipt = receipts(item)
        if receipt is None:
            todo.append(item)
        else:
            kept.append((item, receipt))
    return kept, todo


def _call(item: Json, task: Callable[[Json], Json]) -> Json:
    """Run one task; the row that Ray Data keeps, as text because receipts differ in their keys."""
    return {"item": json.dumps(item), "receipt": json.dumps(task(item))}


class _Actor:
    """One actor of a pool: `_call` with a task that was made once."""

    def __init__(
        self, make: Callable[..., Callable[[Json], Json]], arguments: tuple[Any, ...]
    ) -> None:
        self.task = make(*arguments)

    def __call__(self, item: Json) -> Json:
        return _call(item, self.task)
