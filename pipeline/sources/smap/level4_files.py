"""Check files of SMAP's Level 4 product (SPL4SMGP) and compute their mean."""

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
_NEAR_DEGREES = 1e-3  # tolerance of coordinates, which are float32 in the file


class Task(NamedTuple):
    """What to read from every file.

    Attributes:
      units: {dataset: units that it must have}.
      fills: {dataset: stored values that the entry declares as missing}.
      part: Rows and columns to read.
      options: Storage options for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.
    """

    units: dict[str, str]
    fills: Fills
    part: ease.Part
    options: dict[str, Any]
    login: str | None


def problems(file: h5py.File, task: Task) -> list[str]:
    """Return messages about datasets that are missing, or have other units or another shape."""
    messages = hdf5.problems(file, GROUP, dict(task.units))
    return messages or [
        f"{GROUP}/{name}: shape {file[GROUP][name].shape}, expected {SHAPE}"
        for name in task.units
        if file[GROUP][name].shape != SHAPE
    ]


def misplaced(file: h5py.File, part: ease.Part, window: Window) -> list[str]:
    """Return messages if the latitudes and longitudes in a file differ from the grid's.

    Args:
      file: The file.
      part: Rows and columns of the window in the file.
      window: The window.
    """
    rows, cols = part
    expected = {
        "cell_lat": ((rows, cols.start), window.cell_lat),
        "cell_lon": ((rows.start, cols), window.cell_lon),
    }
    messages = []
    for name, (line, centres) in expected.items():
        if name not in file or file[name].shape != SHAPE:
            messages.append(f"{name}: missing, or not of shape {SHAPE}")
            continue
        degrees = file[name][line].astype(np.float64)
        wrong = np.abs(degrees - centres) > _NEAR_DEGREES
        if wrong.any():
            first, centre = degrees[wrong][0], centres[wrong][0]
            messages.append(f"{name}: {first:g} where the grid has {centre:g}")
    return messages


def mean(
    task: Task, granules: list[Granule], shape: tuple[int, int]
) -> dict[str, NDArray[np.float32]]:
    """Compute the mean of each dataset over files.

    Args:
      task: What to read.
      granules: The files; if there are none, all values are NaN.
      shape: Numbers of rows and columns.

    Returns:
      {dataset: (row, column) mean}, NaN where any of the files has no value.

    Raises:
      DataError: If a file cannot be read, or has another form than the first file.
    """
    if not granules:
        return {name: np.full(shape, np.nan, np.float32) for name in task.units}
    total = {name: np.zeros(shape, np.float64) for name in task.units}
    for granule in granules:
        place = http_errors.shown(granule.url)
        with hdf5.opened(granule.url, task.options, task.login) as file:
            messages = problems(file, task)
            if messages:
                raise DataError(place, *messages, remedy=REMEDY)
            for name in task.units:
                fills = task.fills.get(name, ())
                total[name] += hdf5.values(file, f"{GROUP}/{name}", task.part, place, fills)
    return {name: (values / len(granules)).astype(np.float32) for name, values in total.items()}
