"""The grid form of what lies on EASE-Grid 2.0 of 36 or 9 km, whole or the part over a region."""

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
}  # M36 and M09: cells along the side of a footprint


def window_over(region: tuple[float, float, float, float] | None, refinement: int) -> Window:
    """The window that holds a region; of all columns where it lies across 180 degrees."""
    west, south, east, north = region or (-180.0, -90.0, 180.0, 90.0)
    if west >= east or west < -180 or east > 180:
        west, east = -180.0, 180.0
    return Window.from_bbox(west, south, east, north, refinement)


def part_of(window: Window) -> Part:
    """Where a window's cells are in the arrays of a global file: rows, columns."""
    n = window.refinement
    rows, cols = window.cell_shape
    return slice(window.row * n, window.row * n + rows), slice(
        window.col * n, window.col * n + cols
    )


def elsewhere(told: NDArray[np.int64], part: Part, axis: int, fill: int) -> str:
    """What is wrong with the rows (axis 0) or columns (1) that a file tells; "" if nothing.

    Args:
      told: (row, column) indices.
      part: where they are in the whole.
      axis: which of the two they are.
      fill: what stands where none is told.
    """
    here = np.moveaxis(np.arange(part[axis].start, part[axis].stop)[:, None], 0, axis)
    here = np.broadcast_to(here, told.shape)
    wrong = (told != fill) & (told != here)
    if not wrong.any():
        return ""
    example = f"index {told[wrong][0]} at {here[wrong][0]}"
    return f"{int(wrong.sum())} cells are elsewhere, such as {example}"


def dataset(
    window: Window, days: NDArray[np.datetime64], variables: dict[str, da.Array]
) -> xr.Dataset:
    """The grid form, with bounds, of (time, row, column) arrays of a window."""
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
    made: Callable[[np.datetime64], Any],
    days: NDArray[np.datetime64],
    types: dict[str, type],
    window: Window,
) -> dict[str, da.Array]:
    """(time, row, column) dask arrays, one block a day.

    Args:
      made: what gives the delayed {name: (row, column) array} of a day.
      days: (time,) the days.
      types: the arrays' names and types.
      window: the window that they cover.
    """
    from dask import array

    shape = (1, *window.cell_shape)
    ready: list[Any] = [made(day) for day in days]
    joined = {}
    for name, dtype in types.items():
        blocks = [array.from_delayed(day[name][None], shape, dtype) for day in ready]  # type: ignore[no-untyped-call]
        joined[name] = array.concatenate(blocks)  # type: ignore[no-untyped-call]
    return joined
