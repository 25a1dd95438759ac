"""The training of one model: draw, forward pass, loss, update; stops and goes on bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import OneCycleLR

from model.divergence import DivergedError, Fault, Watch, divergence, finite
from model.footprint import footprint_mean
from model.loss import source_loss
from model.network import Heads, seeded_network
from model.sampling import DROPOUT, WEIGHTS, Batch, TrainingData, draw_batch, generator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from model.divergence import Divergence
    from model.recipe import Job, Recipe, TrainConfig

LOGGED = 50  # points of a training curve


class Fitting:
    """One model in training."""

    def __init__(self, recipe: Recipe, job: Job, data: TrainingData, updates: int) -> None:
        """Start with fresh weights, which depend on (seed, fold) alone."""
        self.recipe, self.job, self.data, self.updates = recipe, job, data, updates
        self.step, self.history = 0, list[dict[str, float]]()
        self.device = data.satellite.device.type
        self.network = seeded_network(
            recipe.network,
            len(data.features.names),
            recipe.likelihood(job.arm),
            (job.seed, job.fold + 1, WEIGHTS),
        ).to(self.device)
        weights = self.network.parameters()
        self.optimiser, self.schedule = optimiser(weights, recipe.train, updates)
        self._sums = torch.zeros(4, device=self.device)  # two losses, two counts of empty batches
        self._watch = Watch()

    @property
    def done(self) -> bool:
        """Whether the last update has been made."""
        return self.step >= self.updates

    def advance(self, n_steps: int) -> None:
        """Make up to `n_steps` further updates.

        Raises:
          DivergedError: a loss, a gradient or a weight is not finite any more; the model cannot be
            trained further, and its state is not one to keep.
        """
        self.network.train()
        for _ in range(min(n_steps, self.updates - self.step)):
            self._update()
            self.step += 1
            if logs_at(self.step, self.updates):
                self._examine()
                self.history.append(logged(self.history, self.step, self._sums, self.optimiser))
                self._sums.zero_()
            if self.schedule:
                self.schedule.step()
        self._examine()
        if not finite(self.network.parameters()):
            raise DivergedError(self.divergence(Fault(self.step, "weights")))

    def divergence(self, fault: Fault) -> Divergence:
        """What a fault of this model is told with."""
        return divergence(self.recipe, self.job, self.data, self.updates, fault)

    def _examine(self) -> None:
        """Look at the losses and gradients since the last time."""
        for fault in self._watch.look(self.step):
            if fault is not None:
                raise DivergedError(self.divergence(fault))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON values from which `restore` goes on."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        slots, values = kept(self.optimiser, self.schedule)
        values |= {"step": self.step, "history": self.history}
        return tensors | slots | {"sums": self._sums}, values

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on from a `state`."""
        prefix = "network."
        weights = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
        self.network.load_state_dict(weights)
        load(self.optimiser, self.schedule, tensors, values)
        self._sums = tensors["sums"].to(self.device)
        self.step, self.history = values["step"], list(values["history"])

    def _update(self) -> None:
        batch = draw_batch(self.recipe, self.job, self.data, self.step)
        bf16 = self.recipe.train.precision == "bf16"
        with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
            mask = generator(self.job, self.step, DROPOUT, self.device)
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
        """Limit the norm of the gradient where the recipe does; returns what it was before."""
        weights, clip = list(self.network.parameters()), self.recipe.train.gradient_clip
        if clip is not None:
            return torch.nn.utils.clip_grad_norm_(weights, clip)
        slopes = [w.grad for w in weights if w.grad is not None]
        norm: Tensor = torch.stack([slope.norm() for slope in slopes]).norm()
        return norm

    def _losses(self, heads: Heads, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss of the footprints and of the sites; 0 for a source without a value."""
        warm = slice(self.recipe.train.warmup_days, None)
        satellite = insitu = heads.site.new_zeros(())
        n_cells = 0
        if batch.members is not None and batch.satellite is not None:
            n_cells = int((batch.members >= 0).sum())
            mean = footprint_mean(heads.satellite[:n_cells, warm], batch.members)
            satellite = source_loss(mean, batch.satellite, None, self.recipe.loss)
            self._sums[2] += ~torch.isfinite(batch.satellite).any()
        if batch.insitu is not None:
            width = None if heads.width is None else heads.width[n_cells:, warm]
            site = heads.site[n_cells:, warm]
            insitu = source_loss(site, batch.insitu, width, self.recipe.loss)
            self._sums[3] += ~torch.isfinite(batch.insitu).any()
        return satellite, insitu


def logs_at(step: int, updates: int) -> bool:
    """Whether a training curve has a point after a step."""
    return step % max(1, updates // LOGGED) == 0 or step >= updates


def logged(
    history: list[dict[str, float]], step: int, sums: Tensor, of: torch.optim.Optimizer
) -> dict[str, float]:
    """A point of a training curve: means of the two losses since the last one, empty batches."""
    n = step - (int(history[-1]["step"]) if history else 0)
    losses = sums.tolist()
    return {
        "step": step,
        "loss_satellite": losses[0] / n,
        "loss_insitu": losses[1] / n,
        "empty_satellite": losses[2],
        "empty_insitu": losses[3],
        "learning_rate": of.param_groups[0]["lr"],
    }


def kept(
    of: torch.optim.Optimizer, schedule: OneCycleLR | None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and JSON values from which `load` puts an optimiser and its schedule back."""
    state = of.state_dict()
    tensors = {
        f"optimiser.{index}.{slot}": value
        for index, slots in state["state"].items()
        for slot, value in slots.items()
    }
    told = schedule.state_dict() if schedule else None
    return tensors, {"groups": state["param_groups"], "schedule": told}


def load(
    of: torch.optim.Optimizer,
    schedule: OneCycleLR | None,
    tensors: dict[str, Tensor],
    values: dict[str, Any],
) -> None:
    """Put an optimiser and its schedule back from what `kept` gave."""
    slots: dict[int, dict[str, Tensor]] = {}
    for key in tensors:
        if key.startswith("optimiser."):
            _, index, slot = key.split(".")
            slots.setdefault(int(index), {})[slot] = tensors[key]
    of.load_state_dict({"state": slots, "param_groups": values["groups"]})
    if schedule:
        schedule.load_state_dict(values["schedule"])


def optimiser(
    weights: Iterable[Tensor], train: TrainConfig, updates: int
) -> tuple[torch.optim.Optimizer, OneCycleLR | None]:
    """Optimiser of some weights as a recipe has it, and its schedule."""
    rate, decay = train.learning_rate, train.weight_decay
    if train.optimiser == "adadelta":
        return torch.optim.Adadelta(weights, rate, rho=0.9, weight_decay=decay), None
    adamw = torch.optim.AdamW(weights, rate, weight_decay=decay)
    return adamw, OneCycleLR(adamw, rate, total_steps=updates)
