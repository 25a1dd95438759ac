"""Models of one arm that share their data, trained side by side as one: how a GPU is filled.

Weights are stacked, (model, ...), and a day of all the LSTMs is one batched product. On a GPU the
forward and the backward pass are CUDA graphs, and the indices of several steps are moved at a time,
so that no step waits for the host. Draws are those of `Fitting`: what a stack trains differs from
models trained one by one by rounding alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.func import functional_call

from model.divergence import DivergedError, Fault, Watch, finite
from model.fit import kept, load, logged, logs_at, optimiser
from model.loss import source_loss
from model.network import dropout_mask
from model.sampling import (
    DROPOUT,
    FOOTPRINTS,
    NOISE_FOOTPRINTS,
    NOISE_SITES,
    SITES,
    generator,
    inputs,
    noise_of,
    targets,
    windows,
)
from model.unrolled import Unrolled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from model.fit import Fitting

MOST = 8  # models side by side; the memory of their states grows with their number
AHEAD = 32  # steps whose indices are moved to the device at once


class Stack:
    """Fittings of one arm at one step, on the same data."""

    def __init__(self, fittings: Sequence[Fitting]) -> None:
        """Take over from the fittings, which stand where `advance` leaves them."""
        first = fittings[0]
        self.fittings, self.recipe, self.step = fittings, first.recipe, first.step
        self.device, self.data, self.updates = first.device, first.data, first.updates
        self.weight = first.recipe.insitu_weight(first.job.arm)
        states = [fitting.state() for fitting in fittings]
        tensors = {k: _joined([t[k] for t, _ in states]) for k in states[0][0]}
        half = torch.bfloat16 if self.recipe.train.precision == "bf16" else torch.float32
        self.network = Unrolled.like(first.network, half).to(self.device)
        named = [name for name, _ in first.network.named_parameters()]
        self.weights = {n: tensors[f"network.{n}"].clone().requires_grad_() for n in named}
        made = optimiser(self.weights.values(), self.recipe.train, self.updates)
        self.optimiser, self.schedule = made
        load(self.optimiser, self.schedule, tensors, states[0][1])
        self.sums = tensors["sums"]
        scales = [(f.data.target.mean, f.data.target.std) for f in fittings]
        self.mean, self.std = torch.tensor(scales, device=self.device).T[..., None, None]
        self.watch, self.faults = Watch(), dict[int, Fault]()  # faults by model
        self.keys: tuple[str, ...] = ()
        self.graphed: Callable[..., Any] | None = None

    def advance(self, n_steps: int) -> None:
        """Make up to `n_steps` further updates of every model, and hand them back.

        Raises:
          DivergedError: a loss, a gradient or a weight of some models is not finite any more. The
            others have made their updates, undisturbed, and are handed back too.
        """
        last = min(self.step + n_steps, self.updates)
        while self.step < last:
            for drawn in self._ahead(min(AHEAD, last - self.step)):
                self._update(drawn | self._masks())
        self._examine()
        for i in range(len(self.fittings)):
            if i not in self.faults and not finite(w[i] for w in self.weights.values()):
                self.faults[i] = Fault(self.step, "weights")
        self._hand_back()
        if self.faults:
            found = [self.fittings[i].divergence(f) for i, f in sorted(self.faults.items())]
            raise DivergedError(*found)

    def _examine(self) -> None:
        """Look at the losses and gradients since the last time; keep each model's first fault."""
        for i, fault in enumerate(self.watch.look(self.step)):
            if fault is not None:
                self.faults.setdefault(i, fault)

    def _ahead(self, n: int) -> list[dict[str, Tensor]]:
        """What the next steps draw, (model, ...), moved to the device together."""
        steps = [self._drawn(step) for step in range(self.step, self.step + n)]
        moved = {k: self.data.put(np.stack([each[k] for each in steps])) for k in steps[0]}
        return [{k: values[i] for k, values in moved.items()} for i in range(n)]

    def _drawn(self, step: int) -> dict[str, NDArray[Any]]:
        """Places, first days and noise of a step, as `draw_batch` has them."""
        every: list[dict[str, Any]] = []
        for fitting in self.fittings:
            of: dict[str, Any] = {}
            train, job, data = self.recipe.train, fitting.job, fitting.data
            if self.weight < 1:
                drawn, of["begin"], _ = windows(train, job, data, step, FOOTPRINTS)
                of["footprint"] = data.seen[drawn]
                of["members"] = data.members[of["footprint"]]
                of["noise"] = noise_of(train, job, data, step, NOISE_FOOTPRINTS)
            if self.weight > 0:
                drawn, of["site_begin"], _ = windows(train, job, data, step, SITES)
                of["site"] = data.trainable[drawn]
                of["site_noise"] = noise_of(train, job, data, step, NOISE_SITES)
            every.append(of)
        return {k: np.stack([of[k] for of in every]) for k, v in every[0].items() if v is not None}

    def _masks(self) -> dict[str, Tensor]:
        """Masks of dropout, drawn for every model as its `Fitting` does."""
        rate, (w_ih, w_hh, *_) = (
            self.network.config.weight_dropout,
            self.network.lstm.all_weights[0],
        )
        if rate == 0:
            return {}
        of = [generator(f.job, self.step, DROPOUT, self.device) for f in self.fittings]
        pairs = [[dropout_mask(w.shape, rate, drawn) for w in (w_ih, w_hh)] for drawn in of]
        ih, hh = (torch.stack(masks) for masks in zip(*pairs, strict=True))
        return {"mask_ih": ih, "mask_hh": hh}

    def _update(self, drawn: dict[str, Tensor]) -> None:
        given = (*drawn.values(), *self.weights.values())
        self.keys = tuple(drawn)
        if self.device == "cuda" and self.graphed is None:
            example = (*(v.clone() for v in drawn.values()), *self.weights.values())
            self.graphed = torch.cuda.make_graphed_callables(
                self._losses, example, allow_unused_input=True
            )
        satellite, insitu, empty = (self.graphed or self._losses)(*given)
        self.optimiser.zero_grad()
        loss = (1 - self.weight) * satellite + self.weight * insitu
        torch.autograd.backward(loss.sum())
        self.watch.add(loss, self._clip())
        self.optimiser.step()
        self.sums[:, :2] += torch.stack([satellite, insitu], 1).detach()
        self.sums[:, 2:] += empty
        self.step += 1
        if logs_at(self.step, self.updates):
            self._examine()
            for fitting, sums in zip(self.fittings, self.sums, strict=True):
                history = fitting.history
                history.append(logged(history, self.step, sums, self.optimiser))
            self.sums.zero_()
        if self.schedule:
            self.schedule.step()

    def _clip(self) -> Tensor:
        """Limit the norm of each model's gradient, as `clip_grad_norm_` does for one.

        Returns the norms before, (model,).
        """
        most = self.recipe.train.gradient_clip
        slopes = [w.grad for w in self.weights.values() if w.grad is not None]
        norm: Tensor = torch.stack([g.flatten(1).norm(dim=1) for g in slopes]).norm(dim=0)
        if most is not None:
            share = (most / (norm + 1e-6)).clamp(max=1.0)
            for slope in slopes:
                slope *= share.reshape(-1, *[1] * (slope.ndim - 1))
        return norm

    def _losses(self, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(model,) losses of footprints and of sites, (model, 2) whether a batch had no value.

        Args:
          given: what was drawn, in the order of `keys`, then the weights.
        """
        drawn = dict(zip(self.keys, given, strict=False))
        held = dict(zip(self.weights, given[len(self.keys) :], strict=True))
        held |= {k: v for k, v in drawn.items() if k.startswith("mask")}
        n, judged = 0, self.recipe.train.warmup_days
        parts = []
        if self.weight < 1:
            x, share = self._cells(drawn)
            n = x.shape[1]
            parts.append(x)
        if self.weight > 0:
            parts.append(self._at_sites(drawn))
        site, satellite, width = torch.vmap(self._forward)(held, torch.cat(parts, 1))
        losses = [site.new_zeros(len(site)), site.new_zeros(len(site))]
        empty = site.new_zeros(len(site), 2)
        if self.weight < 1:
            mean = _means(satellite[:, :n, judged:], share)
            seen = self._observed(self.data.satellite, drawn["footprint"], drawn["begin"])
            losses[0] = torch.vmap(self._judge)(mean, seen)
            empty[:, 0] = ~torch.isfinite(seen).flatten(1).any(1)
        if self.weight > 0:
            seen = self._observed(self.data.insitu, drawn["site"], drawn["site_begin"])
            own = site[:, n:, judged:], seen, width[:, n:, judged:]
            losses[1] = torch.vmap(self._judge)(*own[: 3 if self.network.likelihood else 2])
            empty[:, 1] = ~torch.isfinite(seen).flatten(1).any(1)
        return losses[0], losses[1], empty

    def _forward(self, held: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Site head, satellite head and width (the site head without likelihood) of one model."""
        heads, _ = functional_call(self.network, held, (x,))
        return heads.site, heads.satellite, heads.site if heads.width is None else heads.width

    def _judge(self, prediction: Tensor, seen: Tensor, width: Tensor | None = None) -> Tensor:
        return source_loss(prediction, seen, width, self.recipe.loss)

    @property
    def _n_days(self) -> int:
        train = self.recipe.train
        return min(train.window_days, self.data.n_days) + train.warmup_days

    def _cells(self, drawn: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Inputs (model, sequence, time, feature) of footprints, and each cell's share of one.

        A place without a cell has share 0, so that all batches are of one size.
        """
        members = drawn["members"]
        share = (members >= 0).float()
        share = share / share.sum(2, keepdim=True)
        x = self._x(self.data.cells, members.clamp(min=0), drawn["begin"], drawn.get("noise"))
        if self.recipe.train.footprint_operator == "inputs":
            return _means(x, share), torch.ones_like(share[..., :1])
        return x, share

    def _at_sites(self, drawn: dict[str, Tensor]) -> Tensor:
        site = drawn["site"][..., None]
        return self._x(self.data.sites, site, drawn["site_begin"], drawn.get("site_noise"))

    def _x(self, places: Any, place: Tensor, begin: Tensor, noise: Tensor | None) -> Tensor:
        """Inputs of (model, drawn, inner) places, `inner` of which share first day and noise."""
        begin = begin[..., None].expand_as(place)
        if noise is not None:
            noise = noise[:, :, None].expand(*place.shape, -1).flatten(0, 2)
        flat = places, place.flatten(), begin.flatten(), self._n_days
        x = inputs(*flat, self.data.features, self.data.scaler, noise)
        return x.reshape(len(place), -1, *x.shape[1:])

    def _observed(self, observed: Tensor, which: Tensor, begin: Tensor) -> Tensor:
        """Scaled targets (model, drawn, time) after the warm-up."""
        warm = self.recipe.train.warmup_days
        found = targets(observed, which.flatten(), begin.flatten(), warm, self._n_days)
        scaled: Tensor = (found.reshape(*which.shape, -1) - self.mean) / self.std
        return scaled

    def _hand_back(self) -> None:
        """Put weights, optimiser, sums and step back into the fittings."""
        slots, values = kept(self.optimiser, self.schedule)
        tensors = slots | {f"network.{n}": w.detach() for n, w in self.weights.items()}
        for i, fitting in enumerate(self.fittings):
            own = {k: (v[i] if v.ndim else v).clone() for k, v in tensors.items()}
            told = values | {"step": self.step, "history": fitting.history}
            fitting.restore(own | {"sums": self.sums[i].clone()}, told)


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of the models as one, (model, ...); a number that they share stays one."""
    return torch.stack([*tensors]) if tensors[0].ndim else tensors[0]


def _means(values: Tensor, share: Tensor) -> Tensor:
    """Means (model, footprint, ...) of (model, footprint x cell, ...) values."""
    inner = values.reshape(*share.shape, *values.shape[2:])
    return (inner * share.reshape(*share.shape, *[1] * (values.ndim - 2))).sum(2)
