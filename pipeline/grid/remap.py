"""Bring the values of a source to the cells or footprints of a window.

The values of a source of places go to the cells that contain the places. A source with its own grid
is regridded conservatively; only the part of it over the window is read.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.grid.regrid import ProjectedRegridder, Regridder, edges_between, projected_extent

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.grid.ease import Window


def is_grid(dataset: xr.Dataset) -> bool:
    """Return whether a source has its own grid; other sources have places."""
    return "place" not in dataset.dims


def read_days(dataset: xr.Dataset, name: str, days: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """Read the (day, ...) values of a variable; NaN on days that the source does not have."""
    return read_variables(dataset, [name], days)[name]


def read_variables(
    dataset: xr.Dataset, names: list[str], days: NDArray[np.datetime64]
) -> dict[str, NDArray[np.float32]]:
    """Read the (day, ...) values of variables at once, by name, as `read_days`."""
    part = dataset[names].sel(time=slice(days[0], days[-1])).load()
    return {name: part[name].reindex(time=days).values.astype("float32") for name in names}


def is_projected(dataset: xr.Dataset) -> bool:
    """Return whether a grid is in a map projection, with rows y and columns x."""
    return "y" in dataset.dims


def remap_to_cells(
    dataset: xr.Dataset, values: NDArray[np.float32], window: Window
) -> NDArray[np.float32]:
    """Return values of a source on the cells of a window.

    Args:
      dataset: The source, for its coordinates.
      values: (..., place), (..., lat, lon) or (..., y, x).
      window: The window.

    Returns:
      (..., y, x) values of the cells, NaN where missing.
    """
    if is_grid(dataset):
        regridded = _regridder(dataset, window)(values)
        return regridded.astype(np.float32, copy=False)
    position = window.cells_of(dataset.lat.values, dataset.lon.values)
    return scatter_to_grid(values, position, window.cell_shape)


def select_over_window(dataset: xr.Dataset, window: Window) -> xr.Dataset:
    """Select the rows and columns of a grid that are over a window; places do not change.

    Raises:
      DataError: If no part of the grid is over the window.
    """
    if not is_grid(dataset):
        return dataset
    lat, lon = window.cell_edges
    turns: tuple[int, ...] = (0,)
    if is_projected(dataset):
        x_min, y_min, x_max, y_max = projected_extent(str(dataset.attrs["crs"]), lat, lon)
        extents = {"y": (y_min, y_max, turns), "x": (x_min, x_max, turns)}
    else:
        dataset = _centre_longitudes(dataset, float(lon.mean()))
        extents = {
            "lat": (lat.min(), lat.max(), turns),
            "lon": (lon.min(), lon.max(), (-360, 0, 360)),
        }
    selection = {}
    for axis, (least, most, turns) in extents.items():
        edges = _grid_edges(dataset, axis)
        low, high = np.sort(np.stack([edges[:-1], edges[1:]]), axis=0)
        over = [(low + turn < most) & (high + turn > least) for turn in turns]
        index = np.flatnonzero(np.any(over, axis=0))
        if not index.size:
            extent = f"its {axis} {low.min():g} to {high.max():g}"
            problem = f"{extent} is outside the domain's {least:g} to {most:g}"
            hint = "move the domain, or name another source"
            raise DataError(f"catalog entry {dataset.attrs['entry']}", problem, remedy=hint)
        selection[axis] = slice(int(index[0]), int(index[-1]) + 1)
    return dataset.isel(selection)


def _centre_longitudes(dataset: xr.Dataset, middle: float) -> xr.Dataset:
    """Rotate the columns of a global grid, so that longitude `middle` is in the centre.

    The columns over a window around `middle` are then consecutive, even if the window contains the
    first column of the file. Other grids do not change.
    """
    bounds = np.sort(dataset.lon_bnds.values, axis=1)
    if bounds.max() - bounds.min() < 360 - 1e-3:
        return dataset
    lon = middle + (dataset.lon.values - middle + 180) % 360 - 180
    bounds += (lon - dataset.lon.values)[:, None]
    turned = dataset.assign_coords(lon=("lon", lon), lon_bnds=(("lon", "bnds"), bounds))
    return turned.sortby("lon")


def _grid_edges(dataset: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """Return the (n + 1,) edges of rows or columns, in degrees or units of the projection."""
    if f"{axis}_bnds" not in dataset:
        return edges_between(dataset[axis].values)
    bounds = dataset[f"{axis}_bnds"].values
    return np.append(bounds[:, 0], bounds[-1, 1])


def _regridder(dataset: xr.Dataset, window: Window) -> Regridder | ProjectedRegridder:
    axes = ("y", "x") if is_projected(dataset) else ("lat", "lon")
    rows, cols = (tuple(_grid_edges(dataset, axis).tolist()) for axis in axes)
    return _cached_regridder(
        window, rows, cols, str(dataset.attrs["crs"]) if is_projected(dataset) else ""
    )


@functools.lru_cache(maxsize=8)
def _cached_regridder(
    window: Window, rows: tuple[float, ...], cols: tuple[float, ...], crs: str
) -> Regridder | ProjectedRegridder:
    """Return the regridder from a grid with these edges to the cells of a window.

    Edges are tuples, so that they can be keys of the cache.
    """
    edges = (np.array(rows), np.array(cols), *window.cell_edges)
    return ProjectedRegridder(crs, *edges) if crs else Regridder(*edges)


def scatter_to_grid(
    values: NDArray[np.float32], position: tuple[NDArray[np.int64], ...], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return values of places on a grid.

    Args:
      values: (..., place).
      position: (place,) row and (place,) column; a negative row is outside of the grid.
      shape: Number of rows and columns.

    Returns:
      (..., row, column) values; NaN where there is no place.
    """
    row, col = position
    inside = row >= 0
    field = np.full((*values.shape[:-1], *shape), np.nan, np.float32)
    field[..., row[inside], col[inside]] = values[..., inside]
    return field
