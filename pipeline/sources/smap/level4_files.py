"""A file of SMAP's Level 4: its faults, and the mean of several."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import http_errors
from pipeline.sources.form import REMEDY
from pipeline.sources.smap import ease, hdf5

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.sources.earthdata.named import Granule
    from pipeline.sources.missing import Fills

GROUP = "Geophysical_Data"
SHAPE = next(shape for shape, refinement in ease.SHAPES.items() if refinement == 4)
_NEAR_DEGREES = 1e-3  # the file's are float32


class Task(NamedTuple):
    """What to read of every file: datasets, their units and fills, the part, and how."""

    units: dict[str, str]
    fills: Fills
    part: ease.Part
    options: dict[str, Any]
    login: str | None


def problems(file: h5py.File, task: Task) -> list[str]:
    """Datasets that are absent, in other units, of another fill or shape."""
    found = hdf5.problems(file, GROUP, dict(task.units))
    return found or [
        f"{GROUP}/{name}: shape {file[GROUP][name].shape}, expected {SHAPE}"
        for name in task.units
        if file[GROUP][name].shape != SHAPE
    ]


def misplaced(file: h5py.File, part: ease.Part, window: Window) -> list[str]:
    """Whether the rows and columns are elsewhere than on the grid."""
    rows, cols = part
    wanted = {
        "cell_lat": ((rows, cols.start), window.cell_lat),
        "cell_lon": ((rows.start, cols), window.cell_lon),
    }
    found = []
    for name, (place, centres) in wanted.items():
        if name not in file or file[name].shape != SHAPE:
            found.append(f"{name}: missing, or not of {SHAPE}")
            continue
        told = file[name][place].astype(np.float64)
        wrong = np.abs(told - centres) > _NEAR_DEGREES
        if wrong.any():
            found.append(f"{name}: {told[wrong][0]:g} where the grid has {centres[wrong][0]:g}")
    return found


def mean(
    task: Task, granules: list[Granule], shape: tuple[int, int]
) -> dict[str, NDArray[np.float32]]:
    """(row, column) mean of each dataset over files, NaN where one of them has no value.

    Raises:
      DataError: a file cannot be read, or is not as the first was.
    """
    if not granules:
        return {name: np.full(shape, np.nan, np.float32) for name in task.units}
    total = {name: np.zeros(shape, np.float64) for name in task.units}
    for granule in granules:
        place = http_errors.shown(granule.url)
        with hdf5.opened(granule.url, task.options, task.login) as file:
            found = problems(file, task)
            if found:
                raise DataError(place, *found, remedy=REMEDY)
            for name in task.units:
                fills = task.fills.get(name, ())
                total[name] += hdf5.values(file, f"{GROUP}/{name}", task.part, place, fills)
    return {name: (values / len(granules)).astype(np.float32) for name, values in total.items()}
