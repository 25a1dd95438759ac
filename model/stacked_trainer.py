"""Train several models of one arm together, which uses a GPU efficiently.

The models share their data. Their weights are stacked to (model, ...), and the forward pass, the
backward pass and the update are operations on arrays of all models (`StackedNetwork`,
`StackedOptimiser`). On a GPU, a whole step is one CUDA graph, and what is drawn for several steps
is moved to the device at once, so that no step waits for the host. The random draws are those of
separate training; results differ from it by rounding only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.device import tf32, trains_in_bf16
from model.loss import source_loss
from model.network import StackedNetwork
from model.recorded_step import RecordedStep
from model.sampling import (
    DROPOUT_STREAM,
    FOOTPRINT_NOISE_STREAM,
    FOOTPRINT_STREAM,
    SITE_NOISE_STREAM,
    SITE_STREAM,
    draw_static_noise,
    draw_windows,
    gather_inputs,
    gather_targets,
    stream_seed,
)
from model.stacked_optimiser import StackedOptimiser, clip_gradients
from model.trainer import DivergedError, FiniteMonitor, NonFinite, all_finite, is_curve_point

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from model.trainer import Trainer


STEPS_AHEAD = 32  # steps whose draws are moved to the device at once


class StackedTrainer:
    """Several models of one arm that are trained together, at the same step and on the same data.

    Attributes:
      trainers: the single models, which receive their states back after `advance`.
      step: number of updates made.
      faults: first fault of each model that has one, by its index.
      loss, norm: (model,) loss and norm of the gradient in the last step.
    """

    loss: Tensor
    norm: Tensor

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        """Take over the state of models that have made the same number of updates."""
        first = trainers[0]
        self.trainers, self.recipe, self.step = trainers, first.recipe, first.step
        self.device, self.data, self.updates = first.device, first.data, first.updates
        self.weight = first.recipe.insitu_weight(first.job.arm)
        states = [trainer.state() for trainer in trainers]
        tensors = {k: _stack_tensors([t[k] for t, _ in states]) for k in states[0][0]}
        weights = {n: tensors[f"network.{n}"] for n, _ in first.network.named_parameters()}
        # The gain relates the satellite head to the site head.
        trained = [name for name in weights if name != "gain" or self.weight < 1]
        bf16 = trains_in_bf16(self.recipe.train.precision, self.device)
        precision = torch.bfloat16 if bf16 else torch.float32
        self.network = StackedNetwork(first.network, weights, trained, precision)
        self.optimiser = StackedOptimiser(
            self.network, self.recipe.train, self.updates, tensors, states[0][1]
        )
        self.sums = tensors["sums"]
        scales = [(f.data.target.mean, f.data.target.std) for f in trainers]
        self.mean, self.std = torch.tensor(scales, device=self.device).T[..., None, None]
        self.watch, self.faults = FiniteMonitor(), dict[int, NonFinite]()  # faults by model
        # Draws of the next steps by name, (step, ...), and the number of the step among them.
        self.draws: dict[str, Tensor] = {}
        self.at = torch.zeros(1, dtype=torch.long, device=self.device)
        self.record = RecordedStep(self.device)
        self.generators = [torch.Generator(self.device) for _ in trainers]

    @tf32(True)
    def advance(self, n_steps: int) -> None:
        """Make up to `n_steps` further updates of every model, and write their states back.

        Raises:
          DivergedError: If a loss, a gradient or a weight of some models is not finite. The other
            models have made their updates undisturbed, and their states are written back too.
        """
        last = min(self.step + n_steps, self.updates)
        while self.step < last:
            for learning_rate in self._draw_ahead(min(STEPS_AHEAD, last - self.step)):
                self._draw_dropout()
                self.record(self._update)
                self._count(learning_rate)
        self._examine()
        for i in range(len(self.trainers)):
            if i not in self.faults and not all_finite([self.network.flat[i]]):
                self.faults[i] = NonFinite(self.step, "weights")
        self._hand_back()
        if self.faults:
            divergences = [
                self.trainers[i].divergence(fault) for i, fault in sorted(self.faults.items())
            ]
            raise DivergedError(*divergences)

    def _examine(self) -> None:
        """Examine the losses and gradients since the last call; keep each model's first fault."""
        for i, fault in enumerate(self.watch.look(self.step)):
            if fault is not None:
                self.faults.setdefault(i, fault)

    def _draw_ahead(self, n: int) -> list[float]:
        """Draw the next n steps, move all draws to the device, and return the learning rates."""
        learning_rates, steps = [], []
        for step in range(self.step, self.step + n):
            learning_rates.append(self.optimiser.learning_rate)
            rates = np.array(self.optimiser.next_rates(), np.float32)
            steps.append(self._drawn(step) | {"rates": rates})
        for name in steps[0]:
            drawn = self.data.put(np.stack([arrays[name] for arrays in steps]))
            if name not in self.draws:
                self.draws[name] = drawn.new_zeros(STEPS_AHEAD, *drawn.shape[1:])
            self.draws[name][:n] = drawn
        self.at.zero_()
        return learning_rates

    def _drawn(self, step: int) -> dict[str, NDArray[Any]]:
        """Return places, first days and noise of a step, drawn as `draw_batch` draws them."""
        draws: list[dict[str, Any]] = []
        for trainer in self.trainers:
            arrays: dict[str, Any] = {}
            train, job, data = self.recipe.train, trainer.job, trainer.data
            if self.weight < 1:
                index, arrays["begin"], _ = draw_windows(train, job, data, step, FOOTPRINT_STREAM)
                arrays["footprint"] = data.seen[index]
                arrays["members"] = data.members[arrays["footprint"]]
                arrays["noise"] = draw_static_noise(train, job, data, step, FOOTPRINT_NOISE_STREAM)
            if self.weight > 0:
                index, arrays["site_begin"], _ = draw_windows(train, job, data, step, SITE_STREAM)
                arrays["site"] = data.trainable[index]
                arrays["site_noise"] = draw_static_noise(train, job, data, step, SITE_NOISE_STREAM)
            draws.append(arrays)
        return {
            name: np.stack([arrays[name] for arrays in draws])
            for name, first in draws[0].items()
            if first is not None
        }

    def _draw_dropout(self) -> None:
        """Draw the dropout of every model as separate training does."""
        if self.network.config.weight_dropout > 0:
            for trainer, generator in zip(self.trainers, self.generators, strict=True):
                generator.manual_seed(stream_seed(trainer.job, self.step, DROPOUT_STREAM))
            self.network.draw_dropout(self.generators)

    def _update(self) -> None:
        """Make one update of all models, of which nothing depends on the host: a CUDA graph."""
        drawn = {name: values.index_select(0, self.at)[0] for name, values in self.draws.items()}
        satellite, insitu, empty = self._losses(drawn)
        loss = (1 - self.weight) * satellite + self.weight * insitu
        weights = [w for w in self.network.parameters() if w.requires_grad]
        gradients = torch.autograd.grad(loss.sum(), weights)
        gradient, self.norm = clip_gradients(gradients, self.recipe.train.gradient_clip)
        self.optimiser.update(gradient, drawn["rates"])
        self.sums[:, :2] += torch.stack([satellite, insitu], 1).detach()
        self.sums[:, 2:] += empty
        self.at += 1
        self.loss = loss.detach()

    def _count(self, learning_rate: float) -> None:
        """Count an update, and add its point to the training curves if there is one."""
        self.watch.add(self.loss, self.norm)
        self.step += 1
        if is_curve_point(self.step, self.updates):
            self._examine()
            for trainer, sums in zip(self.trainers, self.sums, strict=True):
                trainer.add_point(self.step, sums, learning_rate)
            self.sums.zero_()

    def _losses(self, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses of all models for one batch each.

        Args:
          drawn: (model, ...) draws of the step by name.

        Returns:
          (model,) losses of footprints, (model,) losses of sites, and (model, 2) whether the batch
            of a source had no observation.
        """
        n, warmup = 0, self.recipe.train.warmup_days
        parts = []
        if self.weight < 1:
            x, share = self._cells(drawn)
            n = x.shape[1]
            parts.append(x)
        if self.weight > 0:
            parts.append(self._at_sites(drawn))
        heads = self.network.run(torch.cat(parts, 1))
        losses = [heads.site.new_zeros(len(heads.site)) for _ in range(2)]
        empty = heads.site.new_zeros(len(heads.site), 2)
        if self.weight < 1:
            footprints = _footprint_means(heads.satellite[:, :n, warmup:], share)
            observed = self._observed(self.data.satellite, drawn["footprint"], drawn["begin"])
            losses[0] = torch.vmap(self._judge)(footprints, observed)
            empty[:, 0] = ~torch.isfinite(observed).flatten(1).any(1)
        if self.weight > 0:
            observed = self._observed(self.data.insitu, drawn["site"], drawn["site_begin"])
            site_arguments = [heads.site[:, n:, warmup:], observed]
            if heads.width is not None:
                site_arguments.append(heads.width[:, n:, warmup:])
            losses[1] = torch.vmap(self._judge)(*site_arguments)
            empty[:, 1] = ~torch.isfinite(observed).flatten(1).any(1)
        return losses[0], losses[1], empty

    def _judge(self, prediction: Tensor, observed: Tensor, width: Tensor | None = None) -> Tensor:
        return source_loss(prediction, observed, width, self.recipe.loss)

    @property
    def _n_days(self) -> int:
        train = self.recipe.train
        return min(train.window_days, self.data.n_days) + train.warmup_days

    def _cells(self, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the inputs of footprints, and the share of each cell in its footprint.

        An absent cell has share 0, so that all batches have the same size.

        Returns:
          (model, sequence, time, feature) inputs, and (model, footprint, cells at most) shares.
        """
        members = drawn["members"]
        share = (members >= 0).float()
        share = share / share.sum(2, keepdim=True)
        x = self._x(self.data.cells, members.clamp(min=0), drawn["begin"], drawn.get("noise"))
        if self.recipe.train.footprint_operator == "inputs":
            return _footprint_means(x, share), torch.ones_like(share[..., :1])
        return x, share

    def _at_sites(self, drawn: dict[str, Tensor]) -> Tensor:
        site = drawn["site"][..., None]
        return self._x(self.data.sites, site, drawn["site_begin"], drawn.get("site_noise"))

    def _x(self, places: Any, place: Tensor, begin: Tensor, noise: Tensor | None) -> Tensor:
        """Return the inputs of (model, drawn, inner) places.

        The `inner` places of one draw share its first day and noise.
        """
        begin = begin[..., None].expand_as(place)
        if noise is not None:
            noise = noise[:, :, None].expand(*place.shape, -1).flatten(0, 2)
        batch = places, place.flatten(), begin.flatten(), self._n_days
        x = gather_inputs(*batch, self.data.features, self.data.scaler, noise)
        return x.reshape(len(place), -1, *x.shape[1:])

    def _observed(self, observed: Tensor, which: Tensor, begin: Tensor) -> Tensor:
        """Return the scaled (model, drawn, time) targets after the warm-up."""
        warmup = self.recipe.train.warmup_days
        values = gather_targets(observed, which.flatten(), begin.flatten(), warmup, self._n_days)
        scaled: Tensor = (values.reshape(*which.shape, -1) - self.mean) / self.std
        return scaled

    def _hand_back(self) -> None:
        """Write weights, optimiser, sums and step back into the single models."""
        slots, values = self.optimiser.state()
        tensors = slots | {f"network.{n}": w.detach() for n, w in self.network.named_parameters()}
        for i, trainer in enumerate(self.trainers):
            own_tensors = {k: (v[i] if v.ndim else v).clone() for k, v in tensors.items()}
            own_values = values | {"step": self.step, "history": trainer.history}
            trainer.restore(own_tensors | {"sums": self.sums[i].clone()}, own_values)


def _stack_tensors(tensors: Sequence[Tensor]) -> Tensor:
    """Stack the tensors of the models to (model, ...); a scalar, which they share, stays one."""
    return torch.stack([*tensors]) if tensors[0].ndim else tensors[0]


def _footprint_means(values: Tensor, share: Tensor) -> Tensor:
    """Return (model, footprint, ...) weighted means of (model, footprint x cell, ...) values."""
    by_cell = values.reshape(*share.shape, *values.shape[2:])
    return (by_cell * share.reshape(*share.shape, *[1] * (values.ndim - 2))).sum(2)
