"""Draw places and windows that depend on (seed, fold, step) only, and gather their data."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil, log
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.features import Features, assemble_input
from model.loss import footprint_mean
from model.seeds import hash_seed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.recipe import ModelKey, Recipe, TrainConfig
    from model.scaling import Scale, Scaler


SPINUP_DAYS = 365  # days at the start of the record that are repeated before it

(
    FOOTPRINT_STREAM,
    SITE_STREAM,
    DROPOUT_STREAM,
    FOOTPRINT_NOISE_STREAM,
    SITE_NOISE_STREAM,
    WEIGHT_STREAM,
) = range(6)  # random streams


@dataclass(frozen=True)
class Places:
    """Scaled inputs of cells or sites over the whole record.

    Attributes:
      forcing: (place, day, forcing) scaled forcing in float16, NaN where missing.
      static: (place, static) scaled static attributes, NaN where missing.
    """

    forcing: Tensor
    static: Tensor

    @classmethod
    def from_arrays(
        cls, forcing: NDArray[np.float16], static: NDArray[np.float32], device: str
    ) -> Places:
        """Move arrays to a device; on a CPU their (shared) memory is used without a copy."""
        return cls(as_tensor(forcing, device), as_tensor(static, device))

    @property
    def n_days(self) -> int:
        """Return the length of the record in days."""
        return int(self.forcing.shape[1])

    def select(self, chosen: NDArray[np.bool_]) -> Places:
        """Return the places where a (place,) mask is True."""
        index = torch.from_numpy(chosen).to(self.static.device)
        return Places(self.forcing[index], self.static[index])

    def take(self, index: NDArray[np.int64]) -> Places:
        """Return the places at (chosen,) indexes, in that order."""
        device_index = torch.from_numpy(index).to(self.static.device)
        return Places(self.forcing[device_index], self.static[device_index])

    def split(self, n: int) -> list[Places]:
        """Return the places in chunks of `n`, without a copy."""
        chunks = zip(torch.split(self.forcing, n), torch.split(self.static, n), strict=True)
        return [Places(*chunk) for chunk in chunks]

    def window(self, place: Tensor, start: Tensor, n_days: int, lead: int) -> Tensor:
        """Return the forcing of some places over one window each.

        Days before the record repeat its first year, or all of it if it is shorter.

        Args:
          place: (batch,) indexes of the places.
          start: (batch,) first day of each window.
          n_days: length of the windows in days.
          lead: number of further days before each window.

        Returns:
          (batch, lead + n_days, forcing) scaled forcing in float32.
        """
        day = start[:, None] + torch.arange(-lead, n_days, device=start.device)
        return self.forcing[place[:, None], self._within(day)].float()

    def days(self, first: int, last: int) -> Tensor:
        """Return the forcing of all places on days first..last-1.

        Days before the record are as in `window`.
        """
        if first >= 0:
            return self.forcing[:, first:last].float()
        day = torch.arange(first, last, device=self.forcing.device)
        return self.forcing[:, self._within(day)].float()

    def _within(self, day: Tensor) -> Tensor:
        return torch.where(day < 0, day % min(SPINUP_DAYS, self.n_days), day)


def as_tensor(array: NDArray[np.generic], device: str) -> Tensor:
    """Return a tensor of an array, without a copy on a CPU."""
    with warnings.catch_warnings():
        # Arrays in Ray's object store are read-only; nothing here writes to them.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def gather_inputs(
    places: Places,
    place: Tensor,
    start: Tensor,
    n_days: int,
    features: Features,
    scaler: Scaler,
    noise: Tensor | None = None,
) -> Tensor:
    """Return the network's input for some places and windows.

    Args:
      places: inputs of all places.
      place: (batch,) indexes of the places.
      start: (batch,) first day of each window.
      n_days: length of the windows in days.
      features: the features, in order.
      scaler: scales of the features.
      noise: (batch, static) noise to add to the scaled static attributes; None for none.

    Returns:
      (batch, n_days, feature) input.
    """
    static = places.static[place]
    static = static if noise is None else static + noise
    forcing = places.window(place, start, n_days, features.lead_days)
    return assemble_input(forcing, static, features, scaler, n_days)


def draw_places(
    key: tuple[int, int, int], stream: int, n_places: int, n_drawn: int, first: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw places, and the first day of a window at each.

    Args:
      key: (seed, fold, step) of a model; with `stream` it determines the draw.
      stream: number of the random stream.
      n_places: number of places to draw from; none is drawn twice if there are enough of them.
      n_drawn: number of places to draw.
      first: earliest first day, may be negative.
      last: latest first day.

    Returns:
      (n_drawn,) indexes of places and (n_drawn,) first days.
    """
    rng = np.random.default_rng([*key, stream])
    place = rng.choice(n_places, n_drawn, replace=n_drawn > n_places)
    return place, rng.integers(first, last, n_drawn, endpoint=True)


@dataclass(frozen=True)
class TrainingData:
    """All data that a model is trained on, on its device.

    Models share all of it except `target`, `seen` and `trainable`. These two and `members` stay on
    the host, so that a batch can be drawn without waiting for a GPU.

    Attributes:
      features: the input features, in order.
      scaler: scales of the input features.
      target: scale of the target.
      first_day: first day of the training period, counted from the start of the record.
      n_days: length of the training period in days.
      cells: inputs of the cells.
      members: (footprint, cells at most) indexes of the cells of each footprint, -1 for an absent
        cell.
      satellite: (footprint, day) observations, NaN where missing or not to be trained on.
      seen: (training footprint,) indexes of the footprints that the model may be trained on.
      sites: inputs of the sites.
      insitu: (site, day) observations, NaN where missing or not to be trained on.
      trainable: (training site,) indexes of the sites that the model may be trained on.
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
        """Return an array as a tensor on the device of the observations."""
        return torch.from_numpy(array).to(self.satellite.device, non_blocking=True)


@dataclass(frozen=True)
class Batch:
    """Inputs and targets of one update.

    Attributes:
      x: (sequence, time, feature) inputs of the cells of all drawn footprints, then of the drawn
        sites.
      members: (footprint, cells at most) as in `TrainingData`, -1 where there is no cell; None if
        the satellite is not used.
      satellite: (footprint, time) targets on the days that count in the loss; None if not used.
      insitu: (site, time) targets on the days that count in the loss; None if not used.
    """

    x: Tensor
    members: NDArray[np.int64] | None
    satellite: Tensor | None
    insitu: Tensor | None


def draw_batch(recipe: Recipe, job: ModelKey, data: TrainingData, step: int) -> Batch:
    """Draw the batch of update `step` of a model, and gather its inputs and targets."""
    weight = recipe.insitu_weight(job.arm)
    parts, members, satellite, insitu = [], None, None, None
    if weight < 1:
        x, members, satellite = _draw_footprints(recipe.train, job, data, step)
        parts.append(x)
    if weight > 0:
        x, insitu = _draw_sites(recipe.train, job, data, step)
        parts.append(x)
    return Batch(torch.cat(parts), members, satellite, insitu)


def seeded_generator(job: ModelKey, step: int, stream: int, device: str = "cpu") -> torch.Generator:
    """Return a generator of a device that depends on (seed, fold, step, stream) only."""
    return torch.Generator(device).manual_seed(stream_seed(job, step, stream))


def stream_seed(job: ModelKey, step: int, stream: int) -> int:
    """Return the seed of a generator that depends on (seed, fold, step, stream) only."""
    return hash_seed((job.seed, job.fold + 1, step, stream))


def _draw_footprints(
    train: TrainConfig, job: ModelKey, data: TrainingData, step: int
) -> tuple[Tensor, NDArray[np.int64], Tensor]:
    drawn, start, n_days = draw_windows(train, job, data, step, FOOTPRINT_STREAM)
    which = data.seen[drawn]
    members = data.members[which]
    valid = members >= 0
    row = valid.nonzero()[0]
    noise = draw_static_noise(train, job, data, step, FOOTPRINT_NOISE_STREAM)
    x = gather_inputs(
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
    observed = gather_targets(
        data.satellite, data.put(which), data.put(start), train.warmup_days, n_days
    )
    return x, members, data.target.apply(observed)


def _draw_sites(
    train: TrainConfig, job: ModelKey, data: TrainingData, step: int
) -> tuple[Tensor, Tensor]:
    drawn, first_day, n_days = draw_windows(train, job, data, step, SITE_STREAM)
    which, start = data.put(data.trainable[drawn]), data.put(first_day)
    noise = draw_static_noise(train, job, data, step, SITE_NOISE_STREAM)
    device_noise = None if noise is None else data.put(noise)
    x = gather_inputs(data.sites, which, start, n_days, data.features, data.scaler, device_noise)
    observed = gather_targets(data.insitu, which, start, train.warmup_days, n_days)
    return x, data.target.apply(observed)


def draw_windows(
    train: TrainConfig, job: ModelKey, data: TrainingData, step: int, stream: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Draw the places and windows of an update.

    Args:
      train: settings of the training.
      job: the model.
      data: what it is trained on.
      step: number of the update.
      stream: FOOTPRINTS or SITES.

    Returns:
      (drawn,) indexes into `data.seen` or `data.trainable`, (drawn,) first days, and the length of
        the windows in days; the last two include the warm-up.
    """
    numbers = {
        FOOTPRINT_STREAM: (len(data.seen), train.footprints_per_step),
        SITE_STREAM: (len(data.trainable), train.sites_per_step),
    }
    window = min(train.window_days, data.n_days)
    first = data.first_day - train.warmup_days
    key = (job.seed, job.fold + 1, step)
    place, start = draw_places(key, stream, *numbers[stream], first, first + data.n_days - window)
    return place, start, window + train.warmup_days


def draw_static_noise(
    train: TrainConfig, job: ModelKey, data: TrainingData, step: int, stream: int
) -> NDArray[np.float32] | None:
    """Draw the noise on the static attributes for an update; it is constant in time.

    Args:
      train: settings of the training.
      job: the model.
      data: what it is trained on.
      step: number of the update.
      stream: NOISE_FOOTPRINTS or NOISE_SITES.

    Returns:
      (place, static) noise in scaled units; None if the recipe has none.
    """
    if train.static_noise == 0:
        return None
    n = train.footprints_per_step if stream == FOOTPRINT_NOISE_STREAM else train.sites_per_step
    shape = (n, len(data.features.static))
    noise = torch.randn(shape, generator=seeded_generator(job, step, stream)) * train.static_noise
    return noise.numpy()


def gather_targets(
    observed: Tensor, which: Tensor, start: Tensor, warmup: int, n_days: int
) -> Tensor:
    """Return the (place, day) observations on the days after the warm-up."""
    day = start[:, None] + torch.arange(warmup, n_days, device=start.device)
    return observed[which[:, None], day]


def steps_per_epoch(batch: int, window_days: int, n_places: int, n_days: int) -> int:
    """Return the number of updates after which 99 % of all place-days have been drawn.

    It is ceil(ln 0.01 / ln(1 - B T / (N D))) (Liu et al. 2022), or 1 if one batch holds them all.

    Args:
      batch: B, places per update.
      window_days: T, days per window.
      n_places: N, number of places.
      n_days: D, number of days.
    """
    share = batch * window_days / (n_places * n_days)
    return 1 if share >= 1 else ceil(log(0.01) / log(1 - share))
