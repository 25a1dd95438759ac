"""Build datasets on EASE-Grid 2.0 with 36 or 9 km, for the whole grid or the part over a region."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import grid
from pipeline.grid import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

Part = tuple[slice, slice]
SHAPES = {
    (grid.FOOTPRINT_ROWS * n, grid.FOOTPRINT_COLS * n): n for n in (1, 4)
}  # shape of the global grid, M36 or M09 -> cells along the side of a 36 km footprint


def window_over(region: tuple[float, float, float, float] | None, refinement: int) -> Window:
    """Return the window that contains a region.

    Args:
      region: West, south, east, north in degrees; None for the whole grid. If the region crosses
        the antimeridian, the window has all columns.
      refinement: Cells along the side of a 36 km footprint.
    """
    west, south, east, north = region or (-180.0, -90.0, 180.0, 90.0)
    if west >= east or west < -180 or east > 180:
        west, east = -180.0, 180.0
    return Window.from_bbox(west, south, east, north, refinement)


def part_of(window: Window) -> Part:
    """Return the rows and columns of a window in the arrays of a global file."""
    n = window.refinement
    rows, cols = window.cell_shape
    return slice(window.row * n, window.row * n + rows), slice(
        window.col * n, window.col * n + cols
    )


def elsewhere(indices: NDArray[np.int64], part: Part, axis: int, fill: int) -> str:
    """Check that the row or column indices in a file are those of its arrays.

    Args:
      indices: (row, column) row or column indices of cells, as stored in the file.
      part: Rows and columns of the global arrays from which they are read.
      axis: 0 if they are row indices, 1 if they are column indices.
      fill: Stored value where the file has no index.

    Returns:
      A message about wrong indices, empty if there are none.
    """
    expected = np.moveaxis(np.arange(part[axis].start, part[axis].stop)[:, None], 0, axis)
    expected = np.broadcast_to(expected, indices.shape)
    wrong = (indices != fill) & (indices != expected)
    if not wrong.any():
        return ""
    n_wrong, first, position = int(wrong.sum()), indices[wrong][0], expected[wrong][0]
    return f"{n_wrong} cells have another index than their position, such as {first} at {position}"


def dataset(
    window: Window, days: NDArray[np.datetime64], variables: dict[str, da.Array]
) -> xr.Dataset:
    """Return a dataset in the grid form of `Source`.

    Args:
      window: The window.
      days: (time,) the days.
      variables: {name: (time, row, column) array} on the cells of the window.
    """
    import xarray as xr

    lat, lon = window.cell_edges
    coords = {
        "time": ("time", days.astype("datetime64[ns]")),
        "lat": ("lat", window.cell_lat),
        "lon": ("lon", window.cell_lon),
        "lat_bnds": (("lat", "bnds"), np.stack([lat[:-1], lat[1:]], 1)),
        "lon_bnds": (("lon", "bnds"), np.stack([lon[:-1], lon[1:]], 1)),
    }
    return xr.Dataset(
        {name: (("time", "lat", "lon"), values) for name, values in variables.items()}, coords
    )


def stacked(
    read_day: Callable[[np.datetime64], Any],
    days: NDArray[np.datetime64],
    types: dict[str, type],
    window: Window,
) -> dict[str, da.Array]:
    """Return {name: (time, row, column) dask array} with one block per day.

    Args:
      read_day: Returns the delayed {name: (row, column) array} of a day.
      days: (time,) the days.
      types: {name: data type} of the arrays.
      window: The window that the arrays cover.
    """
    from dask import array

    shape = (1, *window.cell_shape)
    lazy_days: list[Any] = [read_day(day) for day in days]
    arrays = {}
    for name, dtype in types.items():
        blocks = [array.from_delayed(day[name][None], shape, dtype) for day in lazy_days]  # type: ignore[no-untyped-call]
        arrays[name] = array.concatenate(blocks)  # type: ignore[no-untyped-call]
    return arrays
