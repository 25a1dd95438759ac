"""Read the inputs and observations of a cube once, scaled, into the arrays that models learn from.

Forcing is stored as float16, two bytes a value. Only one block of days of one variable is in memory
while it is read. The inputs of the cells, which may be larger than half the memory, are in an
unnamed temporary file, which the system writes to disk when memory is short.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from model import scaling
from model.device import bytes_per_model
from model.features import Features, slow_features
from model.sampling import Places, TrainingData, as_tensor
from model.scaling import Scale, Scaler, fit_plain_scale, fit_sampled_scale, fit_trimmed_scale
from pipeline import failures
from pipeline.errors import ConfigError, StoreError
from pipeline.experiment import config
from pipeline.grid import collocated_sites, lookup, spatial_blocks

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model.recipe import Arm, ModelKey, Recipe
    from pipeline.experiment.config import Experiment
    from pipeline.storage.cube import Cube

    Inputs = tuple[NDArray[np.float16], NDArray[np.float32]]


SLOW_SAMPLE = 512  # cells on which the scales of slow features are fitted
STRATUM_FOOTPRINTS = 8  # side, in footprints, of the squares that `max_footprints` samples evenly
CEILING_REPEATS = 5  # a maximum that a footprint repeats this often is the retrieval's ceiling
MIN_SITE_VALUES = 1  # values in the training period that a site must have to be learned from


def fit_scaler(cube: Cube, features: Features, cells: NDArray[np.int64], train: slice) -> Scaler:
    """Fit the scales of forcing and static variables.

    Args:
      cube: The cube.
      features: The variables.
      cells: (cell, 2) row and column of the cells.
      train: The days of the training period, counted along the cube's.
    """
    n_days = train.stop - train.start
    sample = scaling.sample_index(len(cells) * n_days)
    flat = np.arange(len(cells) * n_days) if isinstance(sample, slice) else sample
    place, day = (index.astype(np.int32) for index in divmod(flat, n_days))
    del sample, flat
    sampled = {name: np.empty(len(day), np.float32) for name in features.forcing}
    cell_index = _flat_index(cube, cells)
    for days in cube.blocks(train):
        in_block = (day >= days.start - train.start) & (day < days.stop - train.start)
        day_in_block = day[in_block] - (days.start - train.start)
        for name, values in sampled.items():
            field = cube.part(cube.cells, name, days)
            values[in_block] = field.reshape(len(field), -1)[
                day_in_block, cell_index[place[in_block]]
            ]
    statics = _read_statics(cube, features, cells)
    scales = {name: fit_sampled_scale(values) for name, values in sampled.items()}
    scales |= {name: fit_trimmed_scale(statics[:, i]) for i, name in enumerate(features.static)}
    return Scaler(scales)


def read_cells(cube: Cube, features: Features, scaler: Scaler, cells: NDArray[np.int64]) -> Inputs:
    """Return the scaled inputs of cells (cell, 2): (cell, day, forcing) and (cell, static)."""
    all_days, cell_index = slice(0, len(cube.days)), _flat_index(cube, cells)
    inputs = _file_backed_array((len(cells), len(cube.days), len(features.forcing)))
    mean, std = scaler.arrays(features.forcing)
    for days in cube.blocks(all_days):
        block = np.empty((len(cells), days.stop - days.start, len(mean)), np.float16)
        for i, name in enumerate(features.forcing):
            field = cube.part(cube.cells, name, days)
            values = field.reshape(len(field), -1)[:, cell_index]
            block[..., i] = ((values - mean[i]) / std[i]).T
        inputs[:, days] = block
    return inputs, _scale_statics(features, scaler, _read_statics(cube, features, cells))


def read_sites(cube: Cube, features: Features, scaler: Scaler) -> Inputs:
    """Return the scaled inputs of the sites: (site, day, forcing) and (site, static)."""
    n, sites = len(cube.site_ids), cube.sites
    forcing = np.empty((n, len(cube.days), len(features.forcing)), np.float16)
    static = np.empty((n, len(features.static)), np.float32)
    mean, std = scaler.arrays(features.forcing)
    if sites is not None:
        for i, name in enumerate(features.forcing):
            forcing[..., i] = (cube.series(sites, name).T - mean[i]) / std[i]
        for i, name in enumerate(features.static):
            static[:, i] = sites[name].values
    return forcing, _scale_statics(features, scaler, static)


def add_slow_scales(
    features: Features, scaler: Scaler, forcing: NDArray[np.float16], train: slice
) -> Scaler:
    """Return the scaler with the scales of the slow features added.

    They are fitted on an evenly spaced sample of the cells.

    Args:
      features: The features.
      scaler: The scales of forcing and static variables.
      forcing: (cell, day, forcing) scaled inputs.
      train: The days of the training period.
    """
    if not features.slow:
        return scaler
    sample = np.array(forcing[:: max(1, len(forcing) // SLOW_SAMPLE)])
    places = Places.from_arrays(sample, np.zeros((len(sample), 0), np.float32), "cpu")
    index, n_days = torch.arange(len(sample)), train.stop - train.start
    start = torch.full_like(index, train.start)
    window = places.window(index, start, n_days, features.lead_days)
    slow = slow_features(window, features, scaler, n_days)
    named = zip(features.slow_names, slow, strict=True)
    scales = {name: fit_trimmed_scale(values.numpy()) for name, values in named}
    return Scaler(scaler.scales | scales)


def _flat_index(cube: Cube, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the index of cells (cell, 2) in a flattened field."""
    return np.asarray(cells[:, 0] * cube.cells["mask"].shape[1] + cells[:, 1])


def _read_statics(cube: Cube, features: Features, cells: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the static variables of cells (cell, 2), unscaled: (cell, static)."""
    row, col = cells.T
    static = [cube.cells[name].values[row, col] for name in features.static]
    return np.stack(static, 1) if static else np.zeros((len(cells), 0), np.float32)


def _scale_statics(
    features: Features, scaler: Scaler, static: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scale static variables (place, static)."""
    mean, std = scaler.arrays(features.static)
    return ((static - mean) / std).astype(np.float32)


def _file_backed_array(shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Return an array in an unnamed temporary file, which is deleted with the array.

    Raises:
      StoreError: If the disk has no room for it.
    """
    size = 2 * int(np.prod(shape))
    with tempfile.TemporaryFile() as file:
        if size == 0:
            return np.empty(shape, np.float16)
        try:
            os.posix_fallocate(
                file.fileno(), 0, size
            )  # or else a full disk kills the process later
        except OSError as error:
            found = failures.explain(error)
            problem = f"cannot hold {size / 1e9:.1f} GB of training data: {found.reason}"
            hint = "name another folder with TMPDIR, or set train.max_footprints"
            raise StoreError(tempfile.gettempdir(), problem, remedy=hint) from error
        return np.asarray(np.memmap(file, np.float16, "r+", shape=shape))


@dataclass(frozen=True)
class PackedData:
    """All data of an experiment's models, in plain arrays.

    Observations are in the target's unit; NaN is a missing value everywhere.

    Attributes:
      features, scaler: The inputs of the models, and their scales.
      first_day, n_days: The training period, counted along the cube's days.
      cell_forcing, site_forcing: (place, day, forcing) float16, scaled.
      cell_static, site_static: (place, static) float32, scaled.
      members: (footprint, cells at most) indices of the footprint's cells, -1 for none.
      footprints: (footprint, 2) row and column.
      satellite, insitu: (footprint, day) and (site, day) observations of the whole period.
      learn_satellite, learn_insitu: The same, NaN where models may not learn from them.
      site_ids, lat, lon, fold: (site,) identifier, degrees, degrees, fold.
      dropped: (site,) the footprint not to learn from when the site is held out, -1 for none.
      place: (site,) number of the site's place; sites at one place share a number.
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
        """Return the sites (site,) that a model which leaves out a fold may learn from.

        Sites within `buffer_km` of the fold's sites are left out too. Fold -1 leaves out nothing.
        """
        allowed = np.isfinite(self.learn_insitu).sum(1) >= MIN_SITE_VALUES
        if fold >= 0:
            where = self.lat, self.lon, self.fold
            allowed &= self.fold != fold
            allowed &= ~spatial_blocks.select_buffer(*where, fold, buffer_km, self.place)
        return np.flatnonzero(allowed)

    def elsewhere(self, fold: int) -> NDArray[np.bool_]:
        """Return whether each site (site,) is in another fold, and at no place of `fold`."""
        return collocated_sites.select_elsewhere(self.place, self.fold, fold)

    @property
    def cells_per_footprint(self) -> float:
        """Return the mean number of cells of a footprint; 1 if there is no footprint."""
        return float((self.members >= 0).sum(1).mean()) if len(self.members) else 1.0

    def model_bytes(self, recipe: Recipe, arm: Arm) -> float:
        """Estimate the memory on a GPU of a model of an arm that is trained beside others."""
        return bytes_per_model(recipe, arm, self.cells_per_footprint)

    def training_footprints(self, fold: int) -> NDArray[np.int64]:
        """Return the footprints (footprint,) that a model which leaves out a fold may learn from.

        Fold -1 leaves out nothing.
        """
        allowed = np.asarray(np.isfinite(self.learn_satellite).any(axis=1))
        if fold >= 0:
            held_out = self.dropped[self.fold == fold]
            allowed[held_out[held_out >= 0]] = False
        return np.flatnonzero(allowed)

    def target(self, footprints: NDArray[np.int64], sites: NDArray[np.int64]) -> Scale:
        """Return the scale of the target: from the given footprints, else from the given sites."""
        values = _take_rows(self.learn_satellite, footprints)
        return fit_plain_scale(values if len(footprints) else self.learn_insitu[sites])

    def cells(self, device: str) -> Places:
        """Return the inputs of the cells."""
        return Places.from_arrays(self.cell_forcing, self.cell_static, device)

    def sites(self, device: str) -> Places:
        """Return the inputs of the sites."""
        return Places.from_arrays(self.site_forcing, self.site_static, device)

    def data(
        self, key: ModelKey, buffer_km: float, device: str, like: TrainingData | None = None
    ) -> TrainingData:
        """Return what one model learns from; held-out sites are not among its sites.

        Args:
          key: Arm, fold and seed of the model.
          buffer_km: Distance from held-out sites within which no site is learned from, in km.
          device: "cpu" or "cuda".
          like: Data of another model on the same device, to share arrays with.
        """
        trainable = self.training_sites(key.fold, buffer_km)
        seen = self.training_footprints(key.fold)
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


def _take_rows(values: NDArray[np.float32], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the chosen rows of an array; the (shared) array itself if these are all rows."""
    return values if len(chosen) == len(values) else values[chosen]


def pack_data(experiment: Experiment, cube: Cube, folds: pd.DataFrame) -> PackedData:
    """Read a cube into the arrays that models learn from.

    Args:
      experiment: The experiment.
      cube: Its cube.
      folds: folds.parquet: `lat`, `lon` and `fold` of every site of the cube, in its order.

    Raises:
      ConfigError: If the recipe needs variables that the cube does not have.
      StoreError: If the disk has no room for the inputs.
    """
    features = resolve_features(experiment, cube)
    cells, footprints, members = cube.membership()
    chosen = _choose_footprints(experiment, cube, footprints)
    cells, members = _select_footprints(cells, members, chosen)
    observed = _read_footprints(cube, footprints)
    dropped = _dropped_footprints(experiment, cube, footprints, observed, chosen)
    footprints, observed = footprints[chosen], observed[chosen]
    train = cube.day_index(experiment.train_period)
    scaler = fit_scaler(cube, features, cells, train)
    cell_forcing, cell_static = read_cells(cube, features, scaler, cells)
    scaler = add_slow_scales(features, scaler, cell_forcing, train)
    site_forcing, site_static = read_sites(cube, features, scaler)
    insitu = np.zeros((0, len(cube.days)), np.float32)
    if cube.sites is not None:
        insitu = cube.series(cube.sites, cube.target).T
    lat, lon = folds["lat"].to_numpy(), folds["lon"].to_numpy()
    return PackedData(
        features,
        scaler,
        train.start,
        train.stop - train.start,
        cell_forcing,
        cell_static,
        members,
        footprints,
        observed,
        _keep_days(mask_ceiling(observed) if experiment.train.mask_ceiling else observed, train),
        site_forcing,
        site_static,
        insitu,
        _keep_sites(_keep_days(insitu, train), experiment),
        cube.site_ids,
        lat,
        lon,
        folds["fold"].to_numpy(),
        dropped,
        config.label_experiment_places(experiment, lat, lon),
    )


def _keep_sites(observed: NDArray[np.float32], experiment: Experiment) -> NDArray[np.float32]:
    """Return observations (site, day) of `folds.train_sites` random sites, NaN at all others.

    Raises:
      ConfigError: If fewer sites have enough values.
    """
    n, seed = experiment.folds.train_sites, experiment.folds.train_sites_seed
    if n is None:
        return observed
    usable = np.flatnonzero(np.isfinite(observed).sum(1) >= MIN_SITE_VALUES)
    if n > len(usable):
        problem = (
            f"folds.train_sites {n}: only {len(usable)} sites have at least {MIN_SITE_VALUES} "
            "values in train_period"
        )
        remedy = f"set folds.train_sites to {len(usable)} or fewer"
        raise ConfigError(f"experiment {experiment.name}", problem, remedy=remedy)
    chosen = np.zeros(len(observed), bool)
    chosen[np.random.default_rng(seed).permutation(usable)[:n]] = True
    return np.where(chosen[:, None], observed, np.float32(np.nan))


def resolve_features(experiment: Experiment, cube: Cube) -> Features:
    """Return the features that a recipe names, in its order.

    Raises:
      ConfigError: If the cube lacks variables that are not optional, or a slow feature is of a
        variable that is not among the network's forcing; all of them are named.
    """
    inputs, available = experiment.inputs, cube.attrs
    forcing = tuple(available["forcing"]) if inputs.forcing == "all" else inputs.forcing
    static = tuple(available["static"]) if inputs.static == "all" else inputs.static
    problems = [
        f"{key} {name} is not in the cube, which has {available[key]}"
        for key, names in (("forcing", forcing), ("static", static))
        for name in names
        if name not in available[key] and name not in inputs.optional
    ]
    forcing = tuple(name for name in forcing if name in available["forcing"])
    problems += [
        f"slow feature of {slow.variable}, which is not among the network's forcing {list(forcing)}"
        for slow in inputs.slow
        if slow.variable not in forcing
    ]
    if problems:
        hint = "add it to the catalog, or list it under inputs.optional"
        raise ConfigError(f"recipe {experiment.recipe}", *problems, remedy=hint)
    return Features(forcing, tuple(n for n in static if n in available["static"]), inputs.slow)


def mask_ceiling(satellite: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (footprint, day) values with those at their footprint's ceiling replaced by NaN.

    A retrieval cannot exceed the soil's porosity, so a wet footprint repeats its
    largest value exactly.
    """
    highest = np.where(np.isfinite(satellite), satellite, -np.inf).max(1, keepdims=True)
    at_ceiling = satellite == highest
    stuck = at_ceiling & (at_ceiling.sum(1, keepdims=True) >= CEILING_REPEATS)
    return np.where(stuck, np.nan, satellite).astype(np.float32)


def _keep_days(values: NDArray[np.float32], days: slice) -> NDArray[np.float32]:
    """Return the values (place, day) of some days, NaN on all others."""
    kept = np.full_like(values, np.nan)
    kept[:, days] = values[:, days]
    return kept


def _read_footprints(cube: Cube, footprints: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the satellite's observations (footprint, day)."""
    if cube.footprints is None:
        return np.full((len(footprints), len(cube.days)), np.nan, np.float32)
    row, col = footprints.T
    return cube.series(cube.footprints, cube.target)[:, row, col].T.copy()


def _choose_footprints(
    experiment: Experiment, cube: Cube, footprints: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the indices of the footprints to learn from.

    These are all of the cube's, or `max_footprints` of them, evenly spread over the domain.
    """
    limit = experiment.train.max_footprints
    if limit is None or limit >= len(footprints):
        return np.arange(len(footprints))
    square = footprints // STRATUM_FOOTPRINTS
    return spatial_blocks.draw_by_block(square[:, 0] * len(cube.cells["x"]) + square[:, 1], limit)


def _select_footprints(
    cells: NDArray[np.int64], members: NDArray[np.int64], chosen: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return cells and members of some footprints, with the cells renumbered."""
    members = members[chosen]
    valid = members >= 0
    kept = cells[members[valid]]
    members[valid] = np.arange(len(kept))
    return kept, members


def _dropped_footprints(
    experiment: Experiment,
    cube: Cube,
    footprints: NDArray[np.int64],
    values: NDArray[np.float32],
    kept: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the footprint (site,) to drop when a site is held out, -1 for none.

    That is the footprint that holds the site, or the nearest with values that stands for it. It is
    looked up among all footprints, and numbered among those that are kept.

    Args:
      experiment: The experiment.
      cube: Its cube.
      footprints: (footprint, 2) row and column of all footprints.
      values: (footprint, day) their observations.
      kept: Indices of the footprints to learn from.
    """
    if not experiment.folds.drop_footprints or cube.footprints is None or cube.sites is None:
        return np.full(len(cube.site_ids), -1)
    lat, lon = (cube.footprints[name].values for name in ("lat", "lon"))
    number = np.full((len(lat), len(lon)), -1)
    row, col = footprints.T
    number[row, col] = np.arange(len(footprints))
    fy, fx = cube.sites["fy"].values, cube.sites["fx"].values
    chosen, _ = lookup.footprints_of_sites(
        np.asarray(np.isfinite(values).any(axis=1)),
        (lat[row], lon[col]),
        (cube.sites["lat"].values, cube.sites["lon"].values),
        np.where(fy >= 0, number[fy, fx], -1),
        experiment.judging.max_footprint_km,
    )
    numbered = np.full(len(footprints) + 1, -1)  # the last element is the answer for -1
    numbered[kept] = np.arange(len(kept))
    return numbered[chosen]
