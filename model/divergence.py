"""Training that fails: the first update whose loss, gradient or weights are not finite.

Losses and gradient norms of single updates stay where they were computed and are looked at only
when a point of the training curve is read anyway, so that no update waits for the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from model.sampling import FOOTPRINTS, SITES, windows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from model.recipe import Job, Recipe
    from model.sampling import TrainingData

Quantity = Literal["loss", "gradient", "weights"]


class Fault(NamedTuple):
    """The first update, counted from 1 as in the training curve, with a value that is not finite.

    For `weights`, which are examined less often, it is the last update made.
    """

    update: int
    quantity: Quantity


class Divergence(NamedTuple):
    """A model that cannot be trained further.

    `footprints` and `sites` are the places of the batch of that update: rows of `members` and of
    `insitu` in the model's `TrainingData`, in ascending order, each once.
    """

    job: Job
    fault: Fault
    updates: int
    footprints: tuple[int, ...]
    sites: tuple[int, ...]

    def __str__(self) -> str:
        """One line, with the places by their index."""
        update, quantity = self.fault
        be = "are" if quantity == "weights" else "is"
        return (
            f"arm {self.job.arm}, fold {self.job.fold}, seed {self.job.seed}: the {quantity} {be} "
            f"not finite at update {update} of {self.updates}; the batch had footprints "
            f"{list(self.footprints)} and sites {list(self.sites)}"
        )


class DivergedError(ArithmeticError):
    """Training stopped: `found` has a `Divergence` for every model that cannot go on."""

    def __init__(self, *found: Divergence) -> None:
        """Keep what was found; `str()` has a line for each."""
        super().__init__("\n".join(map(str, found)))
        self.found = found


def divergence(
    recipe: Recipe, job: Job, data: TrainingData, updates: int, fault: Fault
) -> Divergence:
    """A fault of one model, with the places that the batch of that update was drawn from."""
    weight, step = recipe.insitu_weight(job.arm), fault.update - 1

    def drawn(stream: int) -> NDArray[np.int64]:
        return windows(recipe.train, job, data, step, stream)[0]

    footprints = data.seen[drawn(FOOTPRINTS)] if weight < 1 else ()
    sites = data.trainable[drawn(SITES)] if weight > 0 else ()
    return Divergence(job, fault, updates, _each_once(footprints), _each_once(sites))


def _each_once(places: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({int(place) for place in places}))


class Watch:
    """Losses and gradient norms since the last look, each of any one shape."""

    def __init__(self) -> None:
        """Nothing is kept yet."""
        self._kept: list[Tensor] = []

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Keep the loss and the gradient's norm of one update."""
        self._kept.append(torch.stack([loss.detach(), norm.detach()]))

    def look(self, update: int) -> list[Fault | None]:
        """The first fault of every model since the last look; one model where they are scalars.

        Args:
          update: how many updates have been made, the one added last among them.
        """
        if not self._kept:
            return []
        bad = ~torch.isfinite(torch.stack(self._kept))  # (update, 2) or (update, 2, model)
        first, self._kept = update - len(self._kept) + 1, []
        by_model = bad.reshape(*bad.shape[:2], -1).permute(2, 0, 1).tolist()
        return [_first(rows, first) for rows in by_model]


def _first(rows: Sequence[Sequence[bool]], update: int) -> Fault | None:
    for number, (loss, gradient) in enumerate(rows, update):
        if loss or gradient:
            return Fault(number, "loss" if loss else "gradient")
    return None


def finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all values of all tensors are finite, () bool on their device."""
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
