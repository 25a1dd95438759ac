"""Detect diverging training: the first update with a loss, gradient or weight that is not finite.

Losses and gradient norms of single updates stay on their device and are examined only when a point
of the training curve is read anyway, so that no update waits for a transfer.

Train one model: draw a batch, run the network, update the weights. Resuming is bit-identical.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch.optim.lr_scheduler import OneCycleLR

from model.device import tf32, trains_in_bf16
from model.loss import footprint_mean, source_loss
from model.network import Heads, seeded_network
from model.sampling import (
    DROPOUT_STREAM,
    FOOTPRINT_STREAM,
    SITE_STREAM,
    WEIGHT_STREAM,
    Batch,
    TrainingData,
    draw_batch,
    draw_windows,
    seeded_generator,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from model.recipe import ModelKey, Recipe, TrainConfig


Quantity = Literal["loss", "gradient", "weights"]


class NonFinite(NamedTuple):
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

    job: ModelKey
    fault: NonFinite
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


def diverged(
    recipe: Recipe, job: ModelKey, data: TrainingData, updates: int, fault: NonFinite
) -> Divergence:
    """Return the divergence of a model, with the places in the batch of the update at fault."""
    weight, step = recipe.insitu_weight(job.arm), fault.update - 1

    def drawn(stream: int) -> NDArray[np.int64]:
        return draw_windows(recipe.train, job, data, step, stream)[0]

    footprints = data.seen[drawn(FOOTPRINT_STREAM)] if weight < 1 else ()
    sites = data.trainable[drawn(SITE_STREAM)] if weight > 0 else ()
    return Divergence(job, fault, updates, _sorted_unique(footprints), _sorted_unique(sites))


def _sorted_unique(places: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({int(place) for place in places}))


class FiniteMonitor:
    """Collect losses and gradient norms of updates; all have one shape, () or (model,)."""

    def __init__(self) -> None:
        """Start without any value."""
        self._kept: list[Tensor] = []

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Keep the loss and the gradient norm of one update."""
        self._kept.append(torch.stack([loss.detach(), norm.detach()]))

    def look(self, update: int) -> list[NonFinite | None]:
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
        return [_first_fault(rows, first_update) for rows in by_model]


def _first_fault(rows: Sequence[Sequence[bool]], update: int) -> NonFinite | None:
    for number, (loss, gradient) in enumerate(rows, update):
        if loss or gradient:
            return NonFinite(number, "loss" if loss else "gradient")
    return None


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Return whether all values of all tensors are finite, as a () bool tensor on their device."""
    return torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all()


CURVE_POINTS = 50  # approximate number of points of a training curve


class Trainer:
    """One model in training.

    Attributes:
      recipe: the method.
      job: the model to train.
      data: what it is trained on.
      updates: number of updates planned.
      step: number of updates made.
      history: points of the training curve.
      on_point: called with the model and each new point of its training curve, if set.
    """

    on_point: Callable[[ModelKey, dict[str, float]], None] | None = None

    def __init__(self, recipe: Recipe, job: ModelKey, data: TrainingData, updates: int) -> None:
        """Start with fresh weights, which depend on the seed and the fold only."""
        self.recipe, self.job, self.data, self.updates = recipe, job, data, updates
        self.step, self.history = 0, list[dict[str, float]]()
        self.device = data.satellite.device.type
        self.network = seeded_network(
            recipe.network,
            len(data.features.names),
            recipe.likelihood(job.arm),
            (job.seed, job.fold + 1, WEIGHT_STREAM),
        ).to(self.device)
        weights = self.network.parameters()
        self.optimiser, self.schedule = make_optimiser(weights, recipe.train, updates)
        # The sums of the two losses since the last point of the curve, and the numbers of batches
        # without an observation of each source.
        self._sums = torch.zeros(4, device=self.device)
        self._watch = FiniteMonitor()

    @property
    def done(self) -> bool:
        """Return whether all updates have been made."""
        return self.step >= self.updates

    @tf32(True)
    def advance(self, n_steps: int) -> None:
        """Make up to `n_steps` further updates.

        Raises:
          DivergedError: If a loss, a gradient or a weight is not finite. The model cannot be
            trained further, and its state should not be saved.
        """
        self.network.train()
        for _ in range(min(n_steps, self.updates - self.step)):
            self._update()
            self.step += 1
            if is_curve_point(self.step, self.updates):
                self._examine()
                self.add_point(self.step, self._sums, self.optimiser.param_groups[0]["lr"])
                self._sums.zero_()
            if self.schedule:
                self.schedule.step()
        self._examine()
        if not all_finite(self.network.parameters()):
            raise DivergedError(self.divergence(NonFinite(self.step, "weights")))

    def add_point(self, step: int, sums: Tensor, learning_rate: float) -> None:
        """Add a point to the training curve, from what `curve_point` takes, and report it."""
        self.history.append(curve_point(self.history, step, sums, learning_rate))
        if self.on_point is not None:
            self.on_point(self.job, self.history[-1])

    def divergence(self, fault: NonFinite) -> Divergence:
        """Return the divergence of this model at a fault."""
        return diverged(self.recipe, self.job, self.data, self.updates, fault)

    def _examine(self) -> None:
        """Raise an error if a loss or gradient since the last call is not finite."""
        for fault in self._watch.look(self.step):
            if fault is not None:
                raise DivergedError(self.divergence(fault))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and JSON values from which `restore` resumes training."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        slots, values = optimiser_state(self.optimiser, self.schedule)
        values |= {"step": self.step, "history": self.history}
        return tensors | slots | {"sums": self._sums}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Resume from a state returned by `state`."""
        prefix = "network."
        weights = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self.network.load_state_dict(weights)
        load_optimiser_state(self.optimiser, self.schedule, tensors, values)
        self._sums = tensors["sums"].to(self.device)
        self.step, self.history = values["step"], list(values["history"])

    def _update(self) -> None:
        batch = draw_batch(self.recipe, self.job, self.data, self.step)
        bf16 = trains_in_bf16(self.recipe.train.precision, self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
            mask = seeded_generator(self.job, self.step, DROPOUT_STREAM, self.device)
            heads, _ = self.network(batch.x, generator=mask)
        satellite, insitu = self._losses(heads, batch)
        w = self.recipe.insitu_weight(self.job.arm)
        self.optimiser.zero_grad()
        loss = (1 - w) * satellite + w * insitu
        torch.autograd.backward(loss)
        self._watch.add(loss, self._clip())
        self.optimiser.step()
        self._sums[:2] += torch.stack([satellite, insitu]).detach()

    def _clip(self) -> Tensor:
        """Clip the gradient if the recipe asks for it; return its norm before clipping."""
        weights, clip = list(self.network.parameters()), self.recipe.train.gradient_clip
        if clip is not None:
            return torch.nn.utils.clip_grad_norm_(weights, clip)
        gradients = [w.grad for w in weights if w.grad is not None]
        norm: Tensor = torch.stack([gradient.norm() for gradient in gradients]).norm()
        return norm

    def _losses(self, heads: Heads, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the losses of footprints and of sites; 0 for a source without observations."""
        loss_days = slice(self.recipe.train.warmup_days, None)
        satellite = insitu = heads.site.new_zeros(())
        n_cells = 0
        if batch.members is not None and batch.satellite is not None:
            n_cells = int((batch.members >= 0).sum())
            footprints = footprint_mean(heads.satellite[:n_cells, loss_days], batch.members)
            satellite = source_loss(footprints, batch.satellite, None, self.recipe.loss)
            self._sums[2] += ~torch.isfinite(batch.satellite).any()
        if batch.insitu is not None:
            width = None if heads.width is None else heads.width[n_cells:, loss_days]
            site = heads.site[n_cells:, loss_days]
            insitu = source_loss(site, batch.insitu, width, self.recipe.loss)
            self._sums[3] += ~torch.isfinite(batch.insitu).any()
        return satellite, insitu


def is_curve_point(step: int, updates: int) -> bool:
    """Return whether the training curve has a point after a step."""
    return step % max(1, updates // CURVE_POINTS) == 0 or step >= updates


def curve_point(
    history: list[dict[str, float]], step: int, sums: Tensor, learning_rate: float
) -> dict[str, float]:
    """Return one point of a training curve.

    Args:
      history: points so far.
      step: number of updates made.
      sums: (4,) sums of the satellite and the in-situ loss since the last point, and the numbers of
        batches without an observation.
      learning_rate: the learning rate of the last update.

    Returns:
      The step, the mean losses since the last point, the numbers of empty batches, the learning
        rate.
    """
    n = step - (int(history[-1]["step"]) if history else 0)
    losses = sums.tolist()
    return {
        "step": step,
        "loss_satellite": losses[0] / n,
        "loss_insitu": losses[1] / n,
        "empty_satellite": losses[2],
        "empty_insitu": losses[3],
        "learning_rate": learning_rate,
    }


def optimiser_state(
    optimiser: torch.optim.Optimizer, schedule: OneCycleLR | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and JSON values from which an optimiser and its schedule can be restored."""
    state = optimiser.state_dict()
    tensors = {
        f"optimiser.{index}.{slot}": value
        for index, slots in state["state"].items()
        for slot, value in slots.items()
    }
    schedule_state = schedule.state_dict() if schedule else None
    return tensors, {"groups": state["param_groups"], "schedule": schedule_state}


def load_optimiser_state(
    optimiser: torch.optim.Optimizer,
    schedule: OneCycleLR | None,
    tensors: dict[str, Tensor],
    values: dict[str, Any],
) -> None:
    """Restore an optimiser and its schedule from the tensors and values saved before."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key in tensors:
        if key.startswith("optimiser."):
            _, index, slot = key.split(".")
            slots.setdefault(int(index), {})[slot] = tensors[key]
    optimiser.load_state_dict({"state": slots, "param_groups": values["groups"]})
    if schedule:
        schedule.load_state_dict(values["schedule"])


def make_optimiser(
    weights: Iterable[Tensor], train: TrainConfig, updates: int
) -> tuple[torch.optim.Optimizer, OneCycleLR | None]:
    """Return the optimiser of a recipe for some weights, and its schedule.

    The schedule is None for Adadelta, whose learning rate is constant.
    """
    rate, decay = train.learning_rate, train.weight_decay
    if train.optimiser == "adadelta":
        return torch.optim.Adadelta(weights, rate, rho=0.9, weight_decay=decay), None
    adamw = torch.optim.AdamW(weights, rate, weight_decay=decay)
    return adamw, OneCycleLR(adamw, rate, total_steps=updates)
