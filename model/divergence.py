"""Detect diverging training: the first update with a loss, gradient or weight that is not finite.

Losses and gradient norms of single updates stay on their device and are examined only when a point
of the training curve is read anyway, so that no update waits for a transfer.
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
    """The first update with a value that is not finite.

    Attributes:
      update: number of the update, counted from 1 as in the training curve. Weights are examined
        less often than losses and gradients; for `weights` it is the last update made.
      quantity: what is not finite.
    """

    update: int
    quantity: Quantity


class Divergence(NamedTuple):
    """A model that cannot be trained further.

    Attributes:
      job: the model.
      fault: the first value that is not finite.
      updates: number of updates planned.
      footprints: footprints of the batch of that update, as ascending and distinct rows of
        `members` in the model's `TrainingData`.
      sites: sites of that batch, as ascending and distinct rows of `insitu`.
    """

    job: Job
    fault: Fault
    updates: int
    footprints: tuple[int, ...]
    sites: tuple[int, ...]

    def __str__(self) -> str:
        """Return one line that names the model, the update and the places by their indexes."""
        update, quantity = self.fault
        verb = "are" if quantity == "weights" else "is"
        return (
            f"arm {self.job.arm}, fold {self.job.fold}, seed {self.job.seed}: "
            f"the {quantity} {verb} not finite at update {update} of {self.updates}; "
            f"the batch had footprints {list(self.footprints)} and sites {list(self.sites)}"
        )


class DivergedError(ArithmeticError):
    """Raised when training stops because of values that are not finite.

    Attributes:
      divergences: one divergence for every model that cannot be trained further.
    """

    def __init__(self, *divergences: Divergence) -> None:
        """Keep the divergences; `str()` has one line for each."""
        super().__init__("\n".join(map(str, divergences)))
        self.divergences = divergences


def divergence(
    recipe: Recipe, job: Job, data: TrainingData, updates: int, fault: Fault
) -> Divergence:
    """Return the divergence of a model, with the places in the batch of the update at fault."""
    weight, step = recipe.insitu_weight(job.arm), fault.update - 1

    def drawn(stream: int) -> NDArray[np.int64]:
        return windows(recipe.train, job, data, step, stream)[0]

    footprints = data.seen[drawn(FOOTPRINTS)] if weight < 1 else ()
    sites = data.trainable[drawn(SITES)] if weight > 0 else ()
    return Divergence(job, fault, updates, _each_once(footprints), _each_once(sites))


def _each_once(places: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({int(place) for place in places}))


class Watch:
    """Collect losses and gradient norms of updates; all have one shape, () or (model,)."""

    def __init__(self) -> None:
        """Start without any value."""
        self._kept: list[Tensor] = []

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Keep the loss and the gradient norm of one update."""
        self._kept.append(torch.stack([loss.detach(), norm.detach()]))

    def look(self, update: int) -> list[Fault | None]:
        """Examine the values collected since the last call, and forget them.

        Args:
          update: number of updates made so far, including the one added last.

        Returns:
          The first fault of every model, or None for a model without one; a single entry where
            values are scalars; an empty list if nothing was collected.
        """
        if not self._kept:
            return []
        not_finite = ~torch.isfinite(torch.stack(self._kept))  # (update, 2) or (update, 2, model)
        first_update, self._kept = update - len(self._kept) + 1, []
        by_model = not_finite.reshape(*not_finite.shape[:2], -1).permute(2, 0, 1).tolist()
        return [_first(rows, first_update) for rows in by_model]


def _first(rows: Sequence[Sequence[bool]], update: int) -> Fault | None:
    for number, (loss, gradient) in enumerate(rows, update):
        if loss or gradient:
            return Fault(number, "loss" if loss else "gradient")
    return None


def finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether all values of all tensors are finite, as a () bool tensor on their device."""
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()
