"""Inputs of cells and sites from a cube, scaled, in two bytes: read a block of days at a time.

What is held at once is a block of one variable; the whole, which may be more than memory has room
for twice, goes into a file without a name, whose pages the system writes out when it must.

Training data, decoded once: scaled two-byte inputs and observations, ready to be shared.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from model import scaling
from model.features import Features, slow_features
from model.sampling import Places, TrainingData, as_tensor
from model.scaling import Scale, Scaler, fit_plain_scale, fit_sampled_scale, fit_trimmed_scale
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import config
from pipeline.grid import collocated_sites, lookup, spatial_blocks

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model.recipe import ModelKey
    from pipeline.experiment.config import Experiment
    from pipeline.storage.cube import Cube

    Inputs = tuple[NDArray[np.float16], NDArray[np.float32]]


SLOW_SAMPLE = 512  # cells on which the scales of slow features are fitted


def fitted(cube: Cube, features: Features, cells: NDArray[np.int64], train: slice) -> Scaler:
    """Scales of forcing and statics over cells (cell, 2) and the training period."""
    n_days = train.stop - train.start
    picked = scaling.sample_index(len(cells) * n_days)
    which = np.arange(len(cells) * n_days) if isinstance(picked, slice) else picked
    place, day = (index.astype(np.int32) for index in divmod(which, n_days))
    del picked, which
    held = {name: np.empty(len(day), np.float32) for name in features.forcing}
    at = _flat(cube, cells)
    for days in cube.blocks(train):
        here = (day >= days.start - train.start) & (day < days.stop - train.start)
        of_block = day[here] - (days.start - train.start)
        for name, kept in held.items():
            field = cube.part(cube.cells, name, days)
            kept[here] = field.reshape(len(field), -1)[of_block, at[place[here]]]
    statics = _statics(cube, features, cells)
    scales = {name: fit_sampled_scale(kept) for name, kept in held.items()}
    scales |= {name: fit_trimmed_scale(statics[:, i]) for i, name in enumerate(features.static)}
    return Scaler(scales)


def of_cells(cube: Cube, features: Features, scaler: Scaler, cells: NDArray[np.int64]) -> Inputs:
    """(cell, day, forcing) and (cell, static), scaled, of cells (cell, 2)."""
    every, at = slice(0, len(cube.days)), _flat(cube, cells)
    made = _paged((len(cells), len(cube.days), len(features.forcing)))
    mean, std = scaler.arrays(features.forcing)
    for days in cube.blocks(every):
        block = np.empty((len(cells), days.stop - days.start, len(mean)), np.float16)
        for i, name in enumerate(features.forcing):
            field = cube.part(cube.cells, name, days)
            values = field.reshape(len(field), -1)[:, at]
            block[..., i] = ((values - mean[i]) / std[i]).T
        made[:, days] = block
    return made, _scaled_statics(features, scaler, _statics(cube, features, cells))


def of_sites(cube: Cube, features: Features, scaler: Scaler) -> Inputs:
    """(site, day, forcing) and (site, static), scaled."""
    n, sites = len(cube.site_ids), cube.sites
    forcing = np.empty((n, len(cube.days), len(features.forcing)), np.float16)
    static = np.empty((n, len(features.static)), np.float32)
    mean, std = scaler.arrays(features.forcing)
    if sites is not None:
        for i, name in enumerate(features.forcing):
            forcing[..., i] = (cube.series(sites, name).T - mean[i]) / std[i]
        for i, name in enumerate(features.static):
            static[:, i] = sites[name].values
    return forcing, _scaled_statics(features, scaler, static)


def with_slow(
    features: Features, scaler: Scaler, forcing: NDArray[np.float16], train: slice
) -> Scaler:
    """The scaler with the scales of the slow features, fitted on an even sample of cells."""
    if not features.slow:
        return scaler
    some = np.array(forcing[:: max(1, len(forcing) // SLOW_SAMPLE)])
    places = Places.from_arrays(some, np.zeros((len(some), 0), np.float32), "cpu")
    every, n_days = torch.arange(len(some)), train.stop - train.start
    start = torch.full_like(every, train.start)
    window = places.window(every, start, n_days, features.lead_days)
    slow = slow_features(window, features, scaler, n_days)
    named = zip(features.slow_names, slow, strict=True)
    scales = {name: fit_trimmed_scale(values.numpy()) for name, values in named}
    return Scaler(scaler.scales | scales)


def _flat(cube: Cube, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where cells (cell, 2) lie in a field whose rows follow one another."""
    return np.asarray(cells[:, 0] * cube.cells["mask"].shape[1] + cells[:, 1])


def _statics(cube: Cube, features: Features, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    row, col = cells.T
    static = [cube.cells[name].values[row, col] for name in features.static]
    return np.stack(static, 1) if static else np.zeros((len(cells), 0), np.float32)


def _scaled_statics(
    features: Features, scaler: Scaler, static: NDArray[np.float32]
) -> NDArray[np.float32]:
    mean, std = scaler.arrays(features.static)
    return ((static - mean) / std).astype(np.float32)


def _paged(shape: tuple[int, ...]) -> NDArray[np.float16]:
    """An array in a file of the folder for temporary files, gone with the array.

    Raises:
      StoreError: there is no room for it.
    """
    size = 2 * int(np.prod(shape))
    with tempfile.TemporaryFile() as file:
        if size == 0:
            return np.empty(shape, np.float16)
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk kills the process later
        except OSError as error:
            found = f"no room for {size / 1e9:.1f} GB of training data: {error}"
            remedy = "name another folder with TMPDIR, or set train.max_footprints"
            raise StoreError(tempfile.gettempdir(), found, remedy=remedy) from error
        return np.asarray(np.memmap(file, np.float16, "r+", shape=shape))


STRATUM_FOOTPRINTS = 8  # side of the squares that `max_footprints` takes its share of each from
CEILING_REPEATS = 5  # a footprint's maximum met this often is the retrieval's ceiling
SITE_FEWEST = 1  # values in the training period that make a site one to learn from


@dataclass(frozen=True)
class Packed:
    """All data of an experiment's models, in plain arrays.

    Inputs of cells and sites are (place, day, forcing) float16 and (place, static) float32,
    scaled, NaN where missing; `members` (footprint, cells at most) indexes cells, -1 for none;
    `satellite` (footprint, day) and `insitu` (site, day) are observations in the target's unit,
    over the whole period; `learn_satellite`, `learn_insitu` the same, NaN where not to learn from.
    `footprints` (footprint, 2) row and column. `dropped` (site,) is the footprint not to learn from
    where the site is held out, -1 for none. `place` (site,) numbers places as twins.places does.
    """

    features: Features
    scaler: Scaler
    first_day: int
    n_days: int
    cell_forcing: NDArray[np.float16]
    cell_static: NDArray[np.float32]
    members: NDArray[np.int64]
    footprints: NDArray[np.int64]
    satellite: NDArray[np.float32]
    learn_satellite: NDArray[np.float32]
    site_forcing: NDArray[np.float16]
    site_static: NDArray[np.float32]
    insitu: NDArray[np.float32]
    learn_insitu: NDArray[np.float32]
    site_ids: tuple[str, ...]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    fold: NDArray[np.int64]
    dropped: NDArray[np.int64]
    place: NDArray[np.int64]

    def training_sites(self, fold: int, buffer_km: float) -> NDArray[np.int64]:
        """Sites a model that leaves out `fold` (-1: none) may learn from."""
        allowed = np.isfinite(self.learn_insitu).sum(1) >= SITE_FEWEST
        if fold >= 0:
            where = self.lat, self.lon, self.fold
            allowed &= self.fold != fold
            allowed &= ~spatial_blocks.buffer_mask(*where, fold, buffer_km, self.place)
        return np.flatnonzero(allowed)

    def elsewhere(self, fold: int) -> NDArray[np.bool_]:
        """(site,) whether a site is in another fold, and at another place than any of `fold`."""
        return collocated_sites.elsewhere(self.place, self.fold, fold)

    def training_footprints(self, fold: int) -> NDArray[np.int64]:
        """Footprints a model that leaves out `fold` (-1: none) may learn from."""
        allowed = np.asarray(np.isfinite(self.learn_satellite).any(axis=1))
        if fold >= 0:
            held_out = self.dropped[self.fold == fold]
            allowed[held_out[held_out >= 0]] = False
        return np.flatnonzero(allowed)

    def target(self, footprints: NDArray[np.int64], sites: NDArray[np.int64]) -> Scale:
        """Scale of the target: of the footprints learnt from, else of such sites."""
        seen = _some(self.learn_satellite, footprints)
        return fit_plain_scale(seen if len(footprints) else self.learn_insitu[sites])

    def cells(self, device: str) -> Places:
        """Inputs of the cells."""
        return Places.from_arrays(self.cell_forcing, self.cell_static, device)

    def sites(self, device: str) -> Places:
        """Inputs of the sites."""
        return Places.from_arrays(self.site_forcing, self.site_static, device)

    def data(
        self, job: ModelKey, buffer_km: float, device: str, like: TrainingData | None = None
    ) -> TrainingData:
        """What one model learns from; held-out sites are not among its sites.

        `like` is that of another model on the same device, with which it shares the arrays.
        """
        trainable = self.training_sites(job.fold, buffer_km)
        seen = self.training_footprints(job.fold)
        if like is not None:
            own = self.target(seen, trainable)
            return replace(like, target=own, seen=seen, trainable=trainable)
        return TrainingData(
            self.features,
            self.scaler,
            self.target(seen, trainable),
            self.first_day,
            self.n_days,
            self.cells(device),
            self.members,
            as_tensor(self.learn_satellite, device),
            seen,
            self.sites(device),
            as_tensor(self.learn_insitu, device),
            trainable,
        )


def _some(values: NDArray[np.float32], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of an array; the (shared) array itself where that is all."""
    return values if len(chosen) == len(values) else values[chosen]


def pack(experiment: Experiment, cube: Cube, folds: pd.DataFrame) -> Packed:
    """Read a cube into the form models learn from.

    Raises:
      ConfigError: the recipe wants variables that the cube lacks.
    """
    features = resolve_features(experiment, cube)
    cells, footprints, members = cube.membership()
    chosen = _chosen(experiment, cube, footprints)
    cells, members = _of_footprints(cells, members, chosen)
    observed = _read_footprints(cube, footprints)
    dropped = _dropped(experiment, cube, footprints, observed, chosen)
    footprints, observed = footprints[chosen], observed[chosen]
    train = cube.day_index(experiment.train_period)
    scaler = fitted(cube, features, cells, train)
    cell_forcing, cell_static = of_cells(cube, features, scaler, cells)
    scaler = with_slow(features, scaler, cell_forcing, train)
    site_forcing, site_static = of_sites(cube, features, scaler)
    insitu = np.zeros((0, len(cube.days)), np.float32)
    if cube.sites is not None:
        insitu = cube.series(cube.sites, cube.target).T
    return Packed(
        features,
        scaler,
        train.start,
        train.stop - train.start,
        cell_forcing,
        cell_static,
        members,
        footprints,
        observed,
        _only(without_ceiling(observed) if experiment.train.mask_ceiling else observed, train),
        site_forcing,
        site_static,
        insitu,
        _only(insitu, train),
        cube.site_ids,
        folds["lat"].to_numpy(),
        folds["lon"].to_numpy(),
        folds["fold"].to_numpy(),
        dropped,
        config.number_places(experiment, folds["lat"].to_numpy(), folds["lon"].to_numpy()),
    )


def resolve_features(experiment: Experiment, cube: Cube) -> Features:
    """The features a recipe asks for, in order.

    Raises:
      ConfigError: naming every variable that the cube lacks and the recipe does not call optional.
    """
    wanted, has = experiment.inputs, cube.attrs
    forcing = tuple(has["forcing"]) if wanted.forcing == "all" else wanted.forcing
    static = tuple(has["static"]) if wanted.static == "all" else wanted.static
    problems = [
        f"{key} {name} is not in the cube, which has {has[key]}"
        for key, names in (("forcing", forcing), ("static", static))
        for name in names
        if name not in has[key] and name not in wanted.optional
    ]
    forcing = tuple(name for name in forcing if name in has["forcing"])
    problems += [
        f"slow feature of {slow.variable}, which is no forcing of the network: {list(forcing)}"
        for slow in wanted.slow
        if slow.variable not in forcing
    ]
    if problems:
        remedy = "add it to the catalog, or list it under inputs.optional"
        raise ConfigError(f"recipe {experiment.recipe}", *problems, remedy=remedy)
    return Features(forcing, tuple(n for n in static if n in has["static"]), wanted.slow)


def without_ceiling(satellite: NDArray[np.float32]) -> NDArray[np.float32]:
    """(footprint, day) values less those stuck at their footprint's ceiling.

    A retrieval ends at a porosity, so a wet footprint repeats exactly one largest value.
    """
    highest = np.where(np.isfinite(satellite), satellite, -np.inf).max(1, keepdims=True)
    at_ceiling = satellite == highest
    stuck = at_ceiling & (at_ceiling.sum(1, keepdims=True) >= CEILING_REPEATS)
    return np.where(stuck, np.nan, satellite).astype(np.float32)


def _only(values: NDArray[np.float32], days: slice) -> NDArray[np.float32]:
    """The values of some days, NaN on all others."""
    kept = np.full_like(values, np.nan)
    kept[:, days] = values[:, days]
    return kept


def _read_footprints(cube: Cube, footprints: NDArray[np.int64]) -> NDArray[np.float32]:
    if cube.footprints is None:
        return np.full((len(footprints), len(cube.days)), np.nan, np.float32)
    row, col = footprints.T
    return cube.series(cube.footprints, cube.target)[:, row, col].T.copy()


def _chosen(experiment: Experiment, cube: Cube, footprints: NDArray[np.int64]) -> NDArray[np.int64]:
    """(footprint,) which of the cube's are learnt from: all, or `max_footprints`, evenly spread."""
    most = experiment.train.max_footprints
    if most is None or most >= len(footprints):
        return np.arange(len(footprints))
    square = footprints // STRATUM_FOOTPRINTS
    return spatial_blocks.spread(square[:, 0] * len(cube.cells["x"]) + square[:, 1], most)


def _of_footprints(
    cells: NDArray[np.int64], members: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cells and members of some of the footprints, numbered anew."""
    members = members[chosen]
    valid = members >= 0
    kept = cells[members[valid]]
    members[valid] = np.arange(len(kept))
    return kept, members


def _dropped(
    experiment: Experiment,
    cube: Cube,
    footprints: NDArray[np.int64],
    values: NDArray[np.float32],
    kept: NDArray[np.int64],
) -> NDArray[np.int64]:
    """(site,) footprint that holds each site, or stands for it; -1 where none is to be dropped.

    Looked for among all footprints, and numbered among those `kept`.
    """
    if not experiment.folds.drop_footprints or cube.footprints is None or cube.sites is None:
        return np.full(len(cube.site_ids), -1)
    lat, lon = (cube.footprints[name].values for name in ("lat", "lon"))
    number = np.full((len(lat), len(lon)), -1)
    row, col = footprints.T
    number[row, col] = np.arange(len(footprints))
    fy, fx = cube.sites["fy"].values, cube.sites["fx"].values
    chosen, _ = lookup.standing_for(
        np.asarray(np.isfinite(values).any(axis=1)),
        (lat[row], lon[col]),
        (cube.sites["lat"].values, cube.sites["lon"].values),
        np.where(fy >= 0, number[fy, fx], -1),
        experiment.judging.max_footprint_km,
    )
    numbered = np.full(len(footprints) + 1, -1)  # the last is where -1 leads
    numbered[kept] = np.arange(len(kept))
    return numbered[chosen]
