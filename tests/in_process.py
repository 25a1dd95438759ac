"""Stages in the process of the test, by the functions that Ray's tasks and workers call.

For tests of what is made, not of how the work is spread or goes on after an interruption: Ray Train
starts about ten processes for a run, which takes far longer than training small models does.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import dask
import pytest
import tiny

from pipeline import models, tasks, train, worker

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def preparing() -> Iterator[None]:
    """`prepare.run` writes one block after the other in this thread, all of them anew."""

    def run_tasks(items, task, receipts=None):
        return ((item, task(item)) for item in items)

    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        patch.setattr(tasks, "run_tasks", run_tasks)
        yield


@contextlib.contextmanager
def training() -> Iterator[None]:
    """`train.run` trains in this process, on one thread as a worker does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", _fit)
        yield


def _fit(experiment, root, identity, packed, updates, n_models, progress) -> Counter[str]:
    costs = train.costs(experiment, packed)
    orders = worker.Orders(experiment, root, identity, updates, costs, packed, None)
    todo = models.unfinished(root, models.jobs(experiment, packed.fold))
    assert len(todo) == n_models
    with tiny.one_thread():
        like = None
        for team in models.teams(todo, 1):
            like = worker.train_models(orders, team, packed, "cpu", like)
    progress.advance(n_models * updates)
    return Counter({"this process": n_models * updates})
