"""Training in the process of the test, by the function that every worker of Ray Train calls.

For tests of what is trained, not of how the models are spread: Ray Train starts about ten
processes for a run, which takes far longer than training small models does.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import tiny

from pipeline import models, train, worker

if TYPE_CHECKING:
    from collections.abc import Iterator


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
