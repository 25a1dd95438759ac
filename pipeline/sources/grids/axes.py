"""Latitudes and longitudes of a grid's rows and columns: centres, bounds, and what is wrong.

Rows and columns of a grid: of latitudes and longitudes, or of a map projection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.grid.regrid import edges_between

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Coords = dict[str, tuple[tuple[str, ...], NDArray[Any]]]


AXES = {"lat": ("lat", "latitude"), "lon": ("lon", "longitude")}
GAP = 1e-3  # of a cell's width: bounds are often float32


def name_of(raw: xr.Dataset, axis: str) -> str | None:
    """The file's name of lat or lon; None where it has none."""
    return next((name for name in AXES[axis] if name in raw), None)


def _bounds(raw: xr.Dataset, axis: str) -> NDArray[np.float64] | None:
    """(n, 2) lower and upper bound of each row or column; None where the file has none."""
    name = str(name_of(raw, axis))
    held = raw[name].attrs.get("bounds") or raw[name].encoding.get("bounds") or f"{name}_bnds"
    if held not in raw:
        return None
    bounds = np.sort(raw[held].values.astype("float64"), axis=1)
    return np.asarray(np.clip(bounds, -90, 90) if axis == "lat" else bounds)


def edges_of(raw: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """(n + 1,) edges of rows or columns in degrees, in the file's order."""
    centres = raw[str(name_of(raw, axis))].values.astype("float64")
    bounds = _bounds(raw, axis)
    if bounds is None:
        edges = edges_between(centres)
    elif len(centres) > 1 and centres[1] < centres[0]:
        edges = np.append(bounds[:, 1], bounds[-1, 0])
    else:
        edges = np.append(bounds[:, 0], bounds[-1, 1])
    return np.clip(edges, -90, 90) if axis == "lat" else edges


def axis_problems(raw: xr.Dataset, axis: str) -> list[str]:
    """What is wrong with the latitudes or longitudes of a file."""
    name = name_of(raw, axis)
    if name is None:
        return [f"coordinate {axis} missing, or {AXES[axis][1]}"]
    if raw[name].ndim != 1 or not raw[name].size:
        dims = ", ".join(f"{dim} {size}" for dim, size in raw[name].sizes.items())
        return [f"{name}: dims ({dims}), expected one: a grid of rows and columns has one each"]
    centres = raw[name].values.astype("float64")
    step = np.diff(centres)
    if not (np.all(step > 0) or np.all(step < 0)):
        bad = int(np.flatnonzero(~(step * np.sign(step[0]) > 0))[0])
        found = f"{centres[bad + 1]:g} comes after {centres[bad]:g}"
        return [f"{name}: {found}; it must only increase, or only decrease"]
    limit = 90 if axis == "lat" else 360
    if np.abs(centres).max() > limit:
        found = f"{centres.min():g} to {centres.max():g}"
        return [f"{name}: {found}, expected degrees of at most {limit}"]
    bounds = _bounds(raw, axis)
    if bounds is None and len(centres) == 1:
        return [f"{name}: one value, and no {name}_bnds to tell its width"]
    edges = edges_of(raw, axis)
    if bounds is not None:
        touching = np.sort(np.stack([edges[:-1], edges[1:]], 1), axis=1)
        if np.abs(touching - bounds).max() > GAP * np.abs(np.diff(edges)).max():
            return [f"{name}: bounds overlap or leave gaps; each must end where the next begins"]
    if axis == "lon" and (width := abs(edges[-1] - edges[0])) > 360 + GAP:
        return [f"{name}: {width:g} degrees wide, expected 360 at most; is a column there twice?"]
    return []


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows and columns as one file has them, in its order.

    Attributes:
      dims: the file's names of the two dimensions, rows first.
      axes: ours: lat and lon, or y and x.
      coords: lat, lon (degrees), lat_bnds, lon_bnds; or y, x (metres).
      crs: WKT of the projection; None for latitudes and longitudes.
      taken: the part of rows and columns that is in `coords`.
    """

    dims: tuple[str, str]
    axes: tuple[str, str]
    coords: Coords
    crs: str | None
    taken: tuple[slice, slice]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        rows, columns = (len(self.coords[axis][1]) for axis in self.axes)
        return rows, columns

    def over(self, region: tuple[float, float, float, float] | None) -> Grid:
        """The rows and columns over a region, and one more on each side.

        All of them where the region is None or beside the grid, and of the columns where it lies
        across the first one.

        Args:
          region: west, south, east, north in degrees.
        """
        if region is None:
            return self
        if self.crs is None:
            taken = (_rows_over(self, region), _columns_over(self, region))
        else:
            taken = _projected_over(self, region)
        return self._taking(taken)

    def cut(self, other: Grid) -> Grid:
        """The rows and columns that another grid of the same file takes."""
        return self._taking(other.taken) if self.axes == other.axes else self

    def _taking(self, taken: tuple[slice, slice]) -> Grid:
        coords = {
            name: (dims, values[taken[self.axes.index(dims[0])]])
            for name, (dims, values) in self.coords.items()
        }
        return replace(self, coords=coords, taken=taken)

    def differs(self, other: Grid) -> list[str]:
        """Our names of the axes on which the two are not the same."""
        if self.axes != other.axes:
            return list(self.axes)
        pairs = [(axis, self.coords[axis][1], other.coords[axis][1]) for axis in self.axes]
        return [axis for axis, mine, others in pairs if not np.array_equal(mine, others)]


def grid_of(raw: xr.Dataset, variables: list[str]) -> tuple[Grid | None, list[str]]:
    """The grid of a file, and what is wrong with it.

    Args:
      raw: the file.
      variables: those that lie on the grid.
    """
    held = [name for name in variables if name in raw]
    mapping = _projection(raw, held)
    if mapping is not None:
        return _projected(raw, mapping)
    problems = [problem for axis in AXES for problem in axis_problems(raw, axis)]
    if problems:
        return None, problems
    names = {axis: str(name_of(raw, axis)) for axis in AXES}
    rows, columns = (str(raw[name].dims[0]) for name in names.values())
    if rows == columns:
        return None, [f"lat and lon are both along {rows}: points, not a grid"]
    coords: Coords = {}
    for axis, name in names.items():
        edges = edges_of(raw, axis)
        coords[axis] = ((axis,), raw[name].values.astype("float64"))
        coords[f"{axis}_bnds"] = ((axis, "bnds"), np.stack([edges[:-1], edges[1:]], 1))
    grid = Grid((rows, columns), ("lat", "lon"), coords, None, (slice(None), slice(None)))
    return grid, _dims_problems(raw, held, grid)


def _dims_problems(raw: xr.Dataset, variables: list[str], grid: Grid) -> list[str]:
    dims = ", ".join(grid.dims)
    return [
        f"{name}: dims ({', '.join(map(str, raw[name].dims))}), expected (time, {dims}) or ({dims})"
        for name in variables
        if not set(grid.dims) <= set(raw[name].dims) <= {*grid.dims, "time"}
    ]


def _projection(raw: xr.Dataset, variables: list[str]) -> dict[str, Any] | None:
    """Attributes of the grid mapping of variables on a projection's rows and columns."""
    for name in variables:
        held = raw[name].attrs.get("grid_mapping") or raw[name].encoding.get("grid_mapping")
        if held in raw and raw[held].attrs.get("grid_mapping_name") != "latitude_longitude":
            return dict(raw[held].attrs)
    return None


def _projected(raw: xr.Dataset, mapping: dict[str, Any]) -> tuple[Grid | None, list[str]]:
    import pyproj

    coords: Coords = {}
    problems = []
    for axis in ("y", "x"):
        if axis not in raw or raw[axis].ndim != 1 or raw[axis].size < 2:
            problems.append(f"{axis}: expected two or more coordinates, in metres")
            continue
        metres = raw[axis].values.astype("float64")
        if raw[axis].attrs.get("units") == "km":
            metres = metres * 1000
        steps = np.diff(metres)
        if np.abs(steps - steps.mean()).max() > GAP * abs(steps.mean()) or not steps.mean():
            problems.append(f"{axis}: its steps are {steps.min():g} to {steps.max():g} m; expected")
            problems[-1] += " them to be one"
        coords[axis] = ((axis,), metres)
    try:
        crs = pyproj.CRS.from_cf(mapping).to_wkt()
    except (pyproj.exceptions.CRSError, KeyError, ValueError) as error:
        problems.append(f"grid mapping: no projection: {' '.join(str(error).split())}")
    if problems:
        return None, problems
    return Grid(("y", "x"), ("y", "x"), coords, crs, (slice(None), slice(None))), []


def _span(found: NDArray[np.bool_]) -> slice:
    """From one before the first to one after the last; all where there is none."""
    index = np.flatnonzero(found)
    if not index.size:
        return slice(0, len(found))
    return slice(max(int(index[0]) - 1, 0), min(int(index[-1]) + 2, len(found)))


def _rows_over(grid: Grid, region: tuple[float, float, float, float]) -> slice:
    low, high = np.sort(grid.coords["lat_bnds"][1], axis=1).T
    return _span((low < region[3]) & (high > region[1]))


def _columns_over(grid: Grid, region: tuple[float, float, float, float]) -> slice:
    west, _, east, _ = region
    east += 360 * (east < west)
    low, high = np.sort(grid.coords["lon_bnds"][1], axis=1).T
    turns = (-720, -360, 0, 360, 720)
    found = np.any([(low + turn < east) & (high + turn > west) for turn in turns], axis=0)
    index = np.flatnonzero(found)
    if index.size and (np.diff(index) > 1).any():
        return slice(0, len(found))
    return _span(found)


def _projected_over(grid: Grid, region: tuple[float, float, float, float]) -> tuple[slice, slice]:
    import pyproj

    to_metres = pyproj.Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
    left, bottom, right, top = to_metres.transform_bounds(*region, densify_pts=51)
    made = []
    for axis, low, high in (("y", bottom, top), ("x", left, right)):
        centres = grid.coords[axis][1]
        half = abs(centres[1] - centres[0]) / 2
        near = (centres + half > low) & (centres - half < high)
        made.append(_span(near if np.isfinite([low, high]).all() else np.ones_like(near)))
    return made[0], made[1]
