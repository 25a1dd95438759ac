"""Inputs of cells and sites from a cube, scaled, in two bytes: read a block of days at a time.

What is held at once is a block of one variable; the whole, which may be more than memory has room
for twice, goes into a file without a name, whose pages the system writes out when it must.
"""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch

from model import scaling
from model.features import slow_features
from model.sampling import Places
from model.scaling import Scaler, scale_of, trimmed_scale
from pipeline.errors import StoreError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.features import Features
    from pipeline.cube import Cube

    Inputs = tuple[NDArray[np.float16], NDArray[np.float32]]

SLOW_SAMPLE = 512  # cells on which the scales of slow features are fitted


def fitted(cube: Cube, features: Features, cells: NDArray[np.int64], train: slice) -> Scaler:
    """Scales of forcing and statics over cells (cell, 2) and the training period."""
    n_days = train.stop - train.start
    picked = scaling.sample(len(cells) * n_days)
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
    scales = {name: scale_of(kept) for name, kept in held.items()}
    scales |= {name: trimmed_scale(statics[:, i]) for i, name in enumerate(features.static)}
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
    scales = {name: trimmed_scale(values.numpy()) for name, values in named}
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
