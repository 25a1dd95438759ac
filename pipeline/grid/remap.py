"""Putting the values of a source where they belong: on the cells or footprints of a window.

A source of places is scattered: each place gives its value to the cell that holds it. A source on
a grid of its own is regridded, conserving totals; only its part over the window is read.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.grid.regrid import ProjectedRegridder, Regridder, edges_between, reach

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.grid.ease import Window


def is_grid(dataset: xr.Dataset) -> bool:
    """Whether a source has its own grid, lat and lon; others have places."""
    return "place" not in dataset.dims


def on_days(dataset: xr.Dataset, name: str, days: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """(day, ...) values of a source's variable; NaN on days that it has not."""
    part = dataset[name].sel(time=slice(days[0], days[-1]))
    values: NDArray[np.float32] = part.reindex(time=days).values.astype("float32")
    return values


def is_projected(dataset: xr.Dataset) -> bool:
    """Whether a grid's rows and columns are those of a map projection, y and x."""
    return "y" in dataset.dims


def placed(dataset: xr.Dataset, values: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """Values of a source, (..., place), (..., lat, lon) or (..., y, x), on a window's cells."""
    if is_grid(dataset):
        made = _regridder(dataset, window)(values)
        return made.astype(np.float32, copy=False)
    position = window.cells_of(dataset.lat.values, dataset.lon.values)
    return scattered(values, position, window.cell_shape)


def near(dataset: xr.Dataset, window: Window) -> xr.Dataset:
    """A grid's rows and columns over a window; places as they are.

    Raises:
      DataError: the grid does not reach the window.
    """
    if not is_grid(dataset):
        return dataset
    lat, lon = window.cell_edges
    turns: tuple[int, ...] = (0,)
    if is_projected(dataset):
        x_min, y_min, x_max, y_max = reach(str(dataset.attrs["crs"]), lat, lon)
        wanted = {"y": (y_min, y_max, turns), "x": (x_min, x_max, turns)}
    else:
        dataset = _turned(dataset, float(lon.mean()))
        wanted = {
            "lat": (lat.min(), lat.max(), turns),
            "lon": (lon.min(), lon.max(), (-360, 0, 360)),
        }
    chosen = {}
    for axis, (least, most, turns) in wanted.items():
        edges = _edges(dataset, axis)
        low, high = np.sort(np.stack([edges[:-1], edges[1:]]), axis=0)
        over = [(low + turn < most) & (high + turn > least) for turn in turns]
        index = np.flatnonzero(np.any(over, axis=0))
        if not index.size:
            found = f"its {axis} {low.min():g} to {high.max():g} is outside the domain's"
            remedy = "move the domain, or name another source"
            place = f"catalog entry {dataset.attrs['entry']}"
            raise DataError(place, f"{found} {least:g} to {most:g}", remedy=remedy)
        chosen[axis] = slice(int(index[0]), int(index[-1]) + 1)
    return dataset.isel(chosen)


def _turned(dataset: xr.Dataset, middle: float) -> xr.Dataset:
    """A grid round the whole Earth, its columns from opposite `middle` on, eastward.

    So the columns over a window that lies across the file's first column follow one another.
    """
    bounds = np.sort(dataset.lon_bnds.values, axis=1)
    if bounds.max() - bounds.min() < 360 - 1e-3:
        return dataset
    lon = middle + (dataset.lon.values - middle + 180) % 360 - 180
    bounds += (lon - dataset.lon.values)[:, None]
    turned = dataset.assign_coords(lon=("lon", lon), lon_bnds=(("lon", "bnds"), bounds))
    return turned.sortby("lon")


def _edges(dataset: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """(n + 1,) edges of a grid's rows or columns, degrees, or metres of its projection."""
    if f"{axis}_bnds" not in dataset:
        return edges_between(dataset[axis].values)
    bounds = dataset[f"{axis}_bnds"].values
    return np.append(bounds[:, 0], bounds[-1, 1])


def _regridder(dataset: xr.Dataset, window: Window) -> Regridder | ProjectedRegridder:
    axes = ("y", "x") if is_projected(dataset) else ("lat", "lon")
    rows, cols = (tuple(_edges(dataset, axis).tolist()) for axis in axes)
    return _made(window, rows, cols, str(dataset.attrs["crs"]) if is_projected(dataset) else "")


@functools.lru_cache(maxsize=8)
def _made(
    window: Window, rows: tuple[float, ...], cols: tuple[float, ...], crs: str
) -> Regridder | ProjectedRegridder:
    """From a grid with these edges to a window's cells."""
    edges = (np.array(rows), np.array(cols), *window.cell_edges)
    return ProjectedRegridder(crs, *edges) if crs else Regridder(*edges)


def scattered(
    values: NDArray[np.float32], position: tuple[NDArray[np.int64], ...], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """(..., place) values on a grid of `shape`; NaN where no place is."""
    row, col = position
    inside = row >= 0
    field = np.full((*values.shape[:-1], *shape), np.nan, np.float32)
    field[..., row[inside], col[inside]] = values[..., inside]
    return field
