"""The network as plain operations day by day, which `torch.vmap` can batch over models.

Train several models of one arm together, which uses a GPU efficiently.

The models share their data. Their weights are stacked to (model, ...), and one day of all LSTMs is
one batched product. On a GPU, the forward and backward passes are CUDA graphs, and the indexes of
several steps are moved to the device at once, so that no step waits for the host. The random draws
are those of separate training; results differ from it by rounding only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call

from model.loss import source_loss
from model.network import Network, dropout_mask
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
    seeded_generator,
)
from model.trainer import (
    DivergedError,
    FiniteMonitor,
    NonFinite,
    all_finite,
    is_curve_point,
    load_optimiser_state,
    make_optimiser,
    optimiser_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from model.network import LSTMState
    from model.trainer import Trainer


class UnrolledNetwork(Network):
    """The same network with the same weights; dropout masks are buffers, which can be stacked."""

    mask_ih: Tensor
    mask_hh: Tensor
    precision: torch.dtype

    @classmethod
    def from_network(cls, network: Network, precision: torch.dtype) -> UnrolledNetwork:
        """Build a network of the same architecture; recurrent products have the given precision."""
        unrolled = cls(network.config, network.n_features, network.likelihood)
        unrolled.precision = precision
        for name in ("mask_ih", "mask_hh"):
            unrolled.register_buffer(name, torch.ones(()))
        return unrolled

    def _weights(self, generator: torch.Generator | None) -> list[Tensor]:
        w_ih, w_hh, b_ih, b_hh = self.lstm.all_weights[0]
        return [w_ih * self.mask_ih, w_hh * self.mask_hh, b_ih, b_hh]

    def _lstm(self, x: Tensor, state: LSTMState, weights: list[Tensor]) -> tuple[Tensor, LSTMState]:
        w_ih, w_hh, b_ih, b_hh = weights
        recurrent = w_hh.T.to(self.precision)
        projected = x.to(self.precision) @ w_ih.T.to(self.precision) + (b_ih + b_hh).to(
            self.precision
        )
        h, c = state[0][0], state[1][0]
        days = []
        for day in projected.unbind(0):
            i, f, g, o = (day + h.to(self.precision) @ recurrent).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            days.append(h)
        return torch.stack(days), (h[None], c[None])


MAX_STACKED_MODELS = (
    8  # models trained together; the memory of their states grows with their number
)

STEPS_AHEAD = 32  # steps whose indexes are moved to the device at once


class StackedTrainer:
    """Several models of one arm that are trained together, at the same step and on the same data.

    Attributes:
      trainers: the single models, which receive their states back after `advance`.
      step: number of updates made.
      faults: first fault of each model that has one, by its index.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        """Take over the state of models that have made the same number of updates."""
        first = trainers[0]
        self.trainers, self.recipe, self.step = trainers, first.recipe, first.step
        self.device, self.data, self.updates = first.device, first.data, first.updates
        self.weight = first.recipe.insitu_weight(first.job.arm)
        states = [trainer.state() for trainer in trainers]
        tensors = {k: _stack_tensors([t[k] for t, _ in states]) for k in states[0][0]}
        half = torch.bfloat16 if self.recipe.train.precision == "bf16" else torch.float32
        self.network = UnrolledNetwork.from_network(first.network, half).to(self.device)
        named = [name for name, _ in first.network.named_parameters()]
        self.weights = {n: tensors[f"network.{n}"].clone().requires_grad_() for n in named}
        self.optimiser, self.schedule = make_optimiser(
            self.weights.values(), self.recipe.train, self.updates
        )
        load_optimiser_state(self.optimiser, self.schedule, tensors, states[0][1])
        self.sums = tensors["sums"]
        scales = [(f.data.target.mean, f.data.target.std) for f in trainers]
        self.mean, self.std = torch.tensor(scales, device=self.device).T[..., None, None]
        self.watch, self.faults = FiniteMonitor(), dict[int, NonFinite]()  # faults by model
        self.keys: tuple[str, ...] = ()
        self.graphed: Callable[..., Any] | None = None

    def advance(self, n_steps: int) -> None:
        """Make up to `n_steps` further updates of every model, and write their states back.

        Raises:
          DivergedError: If a loss, a gradient or a weight of some models is not finite. The other
            models have made their updates undisturbed, and their states are written back too.
        """
        last = min(self.step + n_steps, self.updates)
        while self.step < last:
            for drawn in self._ahead(min(STEPS_AHEAD, last - self.step)):
                self._update(drawn | self._masks())
        self._examine()
        for i in range(len(self.trainers)):
            if i not in self.faults and not all_finite(w[i] for w in self.weights.values()):
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

    def _ahead(self, n: int) -> list[dict[str, Tensor]]:
        """Draw the next n steps and move their (model, ...) draws to the device together."""
        steps = [self._drawn(step) for step in range(self.step, self.step + n)]
        moved = {k: self.data.put(np.stack([arrays[k] for arrays in steps])) for k in steps[0]}
        return [{k: values[i] for k, values in moved.items()} for i in range(n)]

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

    def _masks(self) -> dict[str, Tensor]:
        """Draw the dropout masks of every model as separate training does."""
        rate, (w_ih, w_hh, *_) = (
            self.network.config.weight_dropout,
            self.network.lstm.all_weights[0],
        )
        if rate == 0:
            return {}
        generators = [
            seeded_generator(f.job, self.step, DROPOUT_STREAM, self.device) for f in self.trainers
        ]
        pairs = [
            [dropout_mask(w.shape, rate, random) for w in (w_ih, w_hh)] for random in generators
        ]
        ih, hh = (torch.stack(masks) for masks in zip(*pairs, strict=True))
        return {"mask_ih": ih, "mask_hh": hh}

    def _update(self, drawn: dict[str, Tensor]) -> None:
        arguments = (*drawn.values(), *self.weights.values())
        self.keys = tuple(drawn)
        if self.device == "cuda" and self.graphed is None:
            example = (*(v.clone() for v in drawn.values()), *self.weights.values())
            self.graphed = torch.cuda.make_graphed_callables(
                self._losses, example, allow_unused_input=True
            )
        satellite, insitu, empty = (self.graphed or self._losses)(*arguments)
        self.optimiser.zero_grad()
        loss = (1 - self.weight) * satellite + self.weight * insitu
        torch.autograd.backward(loss.sum())
        self.watch.add(loss, self._clip())
        self.optimiser.step()
        self.sums[:, :2] += torch.stack([satellite, insitu], 1).detach()
        self.sums[:, 2:] += empty
        self.step += 1
        if is_curve_point(self.step, self.updates):
            self._examine()
            for trainer, sums in zip(self.trainers, self.sums, strict=True):
                trainer.add_point(self.step, sums, self.optimiser)
            self.sums.zero_()
        if self.schedule:
            self.schedule.step()

    def _clip(self) -> Tensor:
        """Clip the gradient of each model, as `clip_grad_norm_` does for a single one.

        Returns:
          (model,) norms before clipping.
        """
        limit = self.recipe.train.gradient_clip
        gradients = [w.grad for w in self.weights.values() if w.grad is not None]
        norm: Tensor = torch.stack(
            [gradient.flatten(1).norm(dim=1) for gradient in gradients]
        ).norm(dim=0)
        if limit is not None:
            factor = (limit / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient *= factor.reshape(-1, *[1] * (gradient.ndim - 1))
        return norm

    def _losses(self, *arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses of all models for one batch each.

        Args:
          arguments: the drawn arrays in the order of `keys`, then the weights.

        Returns:
          (model,) losses of footprints, (model,) losses of sites, and (model, 2) whether the batch
            of a source had no observation.
        """
        drawn = dict(zip(self.keys, arguments, strict=False))
        parameters = dict(zip(self.weights, arguments[len(self.keys) :], strict=True))
        parameters |= {k: v for k, v in drawn.items() if k.startswith("mask")}
        n, warmup = 0, self.recipe.train.warmup_days
        parts = []
        if self.weight < 1:
            x, share = self._cells(drawn)
            n = x.shape[1]
            parts.append(x)
        if self.weight > 0:
            parts.append(self._at_sites(drawn))
        site, satellite, width = torch.vmap(self._forward)(parameters, torch.cat(parts, 1))
        losses = [site.new_zeros(len(site)), site.new_zeros(len(site))]
        empty = site.new_zeros(len(site), 2)
        if self.weight < 1:
            footprints = _footprint_means(satellite[:, :n, warmup:], share)
            observed = self._observed(self.data.satellite, drawn["footprint"], drawn["begin"])
            losses[0] = torch.vmap(self._judge)(footprints, observed)
            empty[:, 0] = ~torch.isfinite(observed).flatten(1).any(1)
        if self.weight > 0:
            observed = self._observed(self.data.insitu, drawn["site"], drawn["site_begin"])
            site_arguments = site[:, n:, warmup:], observed, width[:, n:, warmup:]
            losses[1] = torch.vmap(self._judge)(
                *site_arguments[: 3 if self.network.likelihood else 2]
            )
            empty[:, 1] = ~torch.isfinite(observed).flatten(1).any(1)
        return losses[0], losses[1], empty

    def _forward(self, parameters: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return site head, satellite head and width of one model; the site head for no width."""
        heads, _ = functional_call(self.network, parameters, (x,))
        return heads.site, heads.satellite, heads.site if heads.width is None else heads.width

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
        slots, values = optimiser_state(self.optimiser, self.schedule)
        tensors = slots | {f"network.{n}": w.detach() for n, w in self.weights.items()}
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
