"""Random places x windows, drawn from (seed, fold, n) alone and gathered on the device."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.features import Features, assemble
from model.footprint import footprint_mean
from model.seeds import hash_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.recipe import Job, Recipe, TrainConfig
    from model.scaling import Scale, Scaler

SPINUP_DAYS = 365
FOOTPRINTS, SITES, DROPOUT, NOISE_FOOTPRINTS, NOISE_SITES, WEIGHTS = range(6)  # random streams


@dataclass(frozen=True)
class Places:
    """Scaled inputs of places over the record: cells, or sites.

    `forcing` is (place, day, forcing) in two bytes, `static` (place, static); NaN where missing.
    """

    forcing: Tensor
    static: Tensor

    @classmethod
    def of(cls, forcing: NDArray[np.float16], static: NDArray[np.float32], device: str) -> Places:
        """Move arrays to the device; on a CPU the (shared) memory is used as it is."""
        return cls(as_tensor(forcing, device), as_tensor(static, device))

    @property
    def n_days(self) -> int:
        """Length of the record."""
        return int(self.forcing.shape[1])

    def at(self, chosen: NDArray[np.bool_]) -> Places:
        """Some of the places."""
        index = torch.from_numpy(chosen).to(self.static.device)
        return Places(self.forcing[index], self.static[index])

    def some(self, index: NDArray[np.int64]) -> Places:
        """The places of some indexes, in that order."""
        at = torch.from_numpy(index).to(self.static.device)
        return Places(self.forcing[at], self.static[at])

    def split(self, n: int) -> list[Places]:
        """The places in parts of `n`, without a copy."""
        parts = zip(torch.split(self.forcing, n), torch.split(self.static, n), strict=True)
        return [Places(*part) for part in parts]

    def window(self, place: Tensor, start: Tensor, n_days: int, lead: int) -> Tensor:
        """Forcing of (batch,) places from (batch,) first days, `lead` days more before them.

        Days before the record are its first year (or what there is of it), repeated.
        """
        day = start[:, None] + torch.arange(-lead, n_days, device=start.device)
        return self.forcing[place[:, None], self._within(day)].float()

    def days(self, first: int, last: int) -> Tensor:
        """Forcing of all places on days first..last-1; those before the record as in `window`."""
        if first >= 0:
            return self.forcing[:, first:last].float()
        day = torch.arange(first, last, device=self.forcing.device)
        return self.forcing[:, self._within(day)].float()

    def _within(self, day: Tensor) -> Tensor:
        return torch.where(day < 0, day % min(SPINUP_DAYS, self.n_days), day)


def as_tensor(array: NDArray[np.generic], device: str) -> Tensor:
    """A tensor over an array, without a copy on the CPU."""
    with warnings.catch_warnings():
        # Arrays of Ray's object store are read-only; nothing here writes to them.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def inputs(
    places: Places,
    place: Tensor,
    start: Tensor,
    n_days: int,
    features: Features,
    scaler: Scaler,
    noise: Tensor | None = None,
) -> Tensor:
    """Network input (batch, n_days, feature) of places and windows; `noise` goes on the statics."""
    static = places.static[place]
    static = static if noise is None else static + noise
    forcing = places.window(place, start, n_days, features.lead_days)
    return assemble(forcing, static, features, scaler, n_days)


def draw(
    key: tuple[int, int, int], stream: int, n_places: int, n_drawn: int, first: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places and first days of windows of step n of a model.

    Args:
      key: (seed, fold, n); the draw depends on it and on `stream` alone.
      stream: which random stream.
      n_places: places to draw from; none is drawn twice while they suffice.
      n_drawn: places wanted.
      first: earliest first day, may be negative.
      last: latest first day.
    """
    rng = np.random.default_rng([*key, stream])
    place = rng.choice(n_places, n_drawn, replace=n_drawn > n_places)
    return place, rng.integers(first, last, n_drawn, endpoint=True)


@dataclass(frozen=True)
class TrainingData:
    """What a model learns from, on its device.

    `members` (footprint, cells at most) indexes `cells`, -1 for none; `satellite` (footprint, day)
    and `insitu` (site, day) are observations, NaN where missing or not to be learnt from. Models
    share all of it but `target`, `seen` (training footprint,) and `trainable` (training site,): the
    footprints and sites the model may learn from. These two and `members` stay on the host, so that
    what a draw needs is known without asking a GPU. The training period begins at `first_day` of
    the record and has `n_days`.
    """

    features: Features
    scaler: Scaler
    target: Scale
    first_day: int
    n_days: int
    cells: Places
    members: NDArray[np.int64]
    satellite: Tensor
    seen: NDArray[np.int64]
    sites: Places
    insitu: Tensor
    trainable: NDArray[np.int64]

    def put(self, array: NDArray[np.generic]) -> Tensor:
        """An array on the device of the observations."""
        return torch.from_numpy(array).to(self.satellite.device, non_blocking=True)


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one update.

    `x` (sequence, time, feature) holds the cells of all footprints drawn, then the sites;
    `members` (footprint, cells at most) is -1 where a footprint has no cell. Targets are
    (footprint, time) and (site, time), over the days of the loss; None for a source not in use.
    """

    x: Tensor
    members: NDArray[np.int64] | None
    satellite: Tensor | None
    insitu: Tensor | None


def draw_batch(recipe: Recipe, job: Job, data: TrainingData, step: int) -> Batch:
    """The batch of update `step` of a model: what `draw` says, gathered."""
    weight = recipe.insitu_weight(job.arm)
    parts, members, satellite, insitu = [], None, None, None
    if weight < 1:
        x, members, satellite = _draw_footprints(recipe.train, job, data, step)
        parts.append(x)
    if weight > 0:
        x, insitu = _draw_sites(recipe.train, job, data, step)
        parts.append(x)
    return Batch(torch.cat(parts), members, satellite, insitu)


def generator(job: Job, step: int, stream: int, device: str = "cpu") -> torch.Generator:
    """A device's generator that depends on (seed, fold, step, stream) alone."""
    seed = hash_seed((job.seed, job.fold + 1, step, stream))
    return torch.Generator(device).manual_seed(seed)


def _draw_footprints(
    train: TrainConfig, job: Job, data: TrainingData, step: int
) -> tuple[Tensor, NDArray[np.int64], Tensor]:
    drawn, start, n_days = windows(train, job, data, step, FOOTPRINTS)
    which = data.seen[drawn]
    members = data.members[which]
    valid = members >= 0
    row = valid.nonzero()[0]
    noise = noise_of(train, job, data, step, NOISE_FOOTPRINTS)
    x = inputs(
        data.cells,
        data.put(members[valid]),
        data.put(start[row]),
        n_days,
        data.features,
        data.scaler,
        None if noise is None else data.put(noise)[data.put(row)],
    )
    if train.footprint_operator == "inputs":
        x = footprint_mean(x, members)
        members = np.arange(len(x))[:, None]
    observed = targets(data.satellite, data.put(which), data.put(start), train.warmup_days, n_days)
    return x, members, data.target.to(observed)


def _draw_sites(
    train: TrainConfig, job: Job, data: TrainingData, step: int
) -> tuple[Tensor, Tensor]:
    drawn, begin, n_days = windows(train, job, data, step, SITES)
    which, start = data.put(data.trainable[drawn]), data.put(begin)
    noise = noise_of(train, job, data, step, NOISE_SITES)
    scattered = None if noise is None else data.put(noise)
    x = inputs(data.sites, which, start, n_days, data.features, data.scaler, scattered)
    observed = targets(data.insitu, which, start, train.warmup_days, n_days)
    return x, data.target.to(observed)


def windows(
    train: TrainConfig, job: Job, data: TrainingData, step: int, stream: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Places, first days and length (warm-up included) of the windows of a step.

    `stream` is FOOTPRINTS or SITES; places index `seen` or `trainable`.
    """
    drawn = {
        FOOTPRINTS: (len(data.seen), train.footprints_per_step),
        SITES: (len(data.trainable), train.sites_per_step),
    }
    window = min(train.window_days, data.n_days)
    first = data.first_day - train.warmup_days
    key = (job.seed, job.fold + 1, step)
    place, start = draw(key, stream, *drawn[stream], first, first + data.n_days - window)
    return place, start, window + train.warmup_days


def noise_of(
    train: TrainConfig, job: Job, data: TrainingData, step: int, stream: int
) -> NDArray[np.float32] | None:
    """(place, static) noise of a step, constant in time; None where the recipe has none.

    `stream` is NOISE_FOOTPRINTS or NOISE_SITES.
    """
    if train.static_noise == 0:
        return None
    n = train.footprints_per_step if stream == NOISE_FOOTPRINTS else train.sites_per_step
    shape = (n, len(data.features.static))
    noise = torch.randn(shape, generator=generator(job, step, stream)) * train.static_noise
    return noise.numpy()


def targets(observed: Tensor, which: Tensor, start: Tensor, warmup: int, n_days: int) -> Tensor:
    """Observations (place, day) of the days after the warm-up."""
    day = start[:, None] + torch.arange(warmup, n_days, device=start.device)
    return observed[which[:, None], day]


def steps_per_epoch(batch: int, window_days: int, n_places: int, n_days: int) -> int:
    """Updates after which 99 % of place-days have been drawn (Liu et al. 2022).

    ceil(ln 0.01 / ln(1 - B T / (N D))); 1 where one batch holds them all.
    """
    share = batch * window_days / (n_places * n_days)
    return 1 if share >= 1 else ceil(log(0.01) / log(1 - share))
