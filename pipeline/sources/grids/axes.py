"""Rows and columns of a grid, by latitude and longitude or by the axes of a map projection.

The functions read coordinates and bounds from a file, check them, and select what covers a region.
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


AXIS_NAMES = {"lat": ("lat", "latitude"), "lon": ("lon", "longitude")}  # accepted names
WIDTH_TOLERANCE = 1e-3  # tolerance for bounds and steps, in cell widths; bounds are often float32


def axis_name(raw: xr.Dataset, axis: str) -> str | None:
    """Return a file's name of lat or lon, None if it has none."""
    return next((name for name in AXIS_NAMES[axis] if name in raw), None)


def _read_bounds(raw: xr.Dataset, axis: str) -> NDArray[np.float64] | None:
    """Return (n, 2) lower and upper bound of each row or column; None if the file has none."""
    name = str(axis_name(raw, axis))
    attribute = raw[name].attrs.get("bounds") or raw[name].encoding.get("bounds")
    bounds_name = attribute or f"{name}_bnds"
    if bounds_name not in raw:
        return None
    bounds = np.sort(raw[bounds_name].values.astype("float64"), axis=1)
    return np.asarray(np.clip(bounds, -90, 90) if axis == "lat" else bounds)


def cell_edges_along(raw: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """Return (n + 1,) edges of rows or columns in degrees, in the file's order.

    They are the file's bounds or, if it has none, halfway between centres.
    """
    centres = raw[str(axis_name(raw, axis))].values.astype("float64")
    bounds = _read_bounds(raw, axis)
    if bounds is None:
        edges = edges_between(centres)
    elif len(centres) > 1 and centres[1] < centres[0]:
        edges = np.append(bounds[:, 1], bounds[-1, 0])
    else:
        edges = np.append(bounds[:, 0], bounds[-1, 1])
    return np.clip(edges, -90, 90) if axis == "lat" else edges


def axis_problems(raw: xr.Dataset, axis: str) -> list[str]:
    """Return messages about the latitudes or longitudes of a file that cannot be used.

    Args:
      raw: The file.
      axis: `lat` or `lon`.
    """
    name = axis_name(raw, axis)
    if name is None:
        return [f"coordinate {axis} or {AXIS_NAMES[axis][1]} missing"]
    if raw[name].ndim != 1 or not raw[name].size:
        dims = ", ".join(f"{dim} {size}" for dim, size in raw[name].sizes.items())
        return [f"{name}: dims ({dims}), expected one dim, of the grid's rows or columns"]
    centres = raw[name].values.astype("float64")
    step = np.diff(centres)
    if not (np.all(step > 0) or np.all(step < 0)):
        bad = int(np.flatnonzero(~(step * np.sign(step[0]) > 0))[0])
        order = f"{centres[bad + 1]:g} comes after {centres[bad]:g}"
        return [f"{name}: {order}; values must only increase, or only decrease"]
    limit = 90 if axis == "lat" else 360
    if np.abs(centres).max() > limit:
        extent = f"{centres.min():g} to {centres.max():g}"
        return [f"{name}: {extent}, expected degrees of at most {limit}"]
    bounds = _read_bounds(raw, axis)
    if bounds is None and len(centres) == 1:
        return [f"{name}: one value without {name}_bnds; its width is unknown"]
    edges = cell_edges_along(raw, axis)
    if bounds is not None:
        contiguous = np.sort(np.stack([edges[:-1], edges[1:]], 1), axis=1)
        if np.abs(contiguous - bounds).max() > WIDTH_TOLERANCE * np.abs(np.diff(edges)).max():
            return [f"{name}: bounds overlap or leave gaps; each must end where the next begins"]
    if axis == "lon" and (width := abs(edges[-1] - edges[0])) > 360 + WIDTH_TOLERANCE:
        return [f"{name}: {width:g} degrees wide, expected at most 360; is a column repeated?"]
    return []


@dataclass(frozen=True, eq=False)
class Grid:
    """Rows and columns of a file, or a part of them, in the file's order.

    Attributes:
      dims: The file's names of the two dimensions, rows first.
      axes: soilweave's names of the dimensions: lat and lon, or y and x.
      coords: lat, lon (degrees), lat_bnds and lon_bnds; or y and x (metres).
      crs: WKT of the projection; None for latitudes and longitudes.
      slices: Rows and columns of the file that `coords` has.
    """

    dims: tuple[str, str]
    axes: tuple[str, str]
    coords: Coords
    crs: str | None
    slices: tuple[slice, slice]

    @property
    def shape(self) -> tuple[int, int]:
        """Return the numbers of rows and columns."""
        rows, columns = (len(self.coords[axis][1]) for axis in self.axes)
        return rows, columns

    def clip(self, region: tuple[float, float, float, float] | None) -> Grid:
        """Return the rows and columns that cover a region, and one more on each side.

        The result has all rows or columns if none covers the region, and all columns if the region
        crosses the border between the last and the first column.

        Args:
          region: West, south, east, north in degrees; None for the whole grid.
        """
        if region is None:
            return self
        if self.crs is None:
            slices = (_covering_rows(self, region), _covering_columns(self, region))
        else:
            slices = _covering_projected(self, region)
        return self._select(slices)

    def clip_like(self, other: Grid) -> Grid:
        """Return the same rows and columns that another grid has of its file."""
        return self._select(other.slices) if self.axes == other.axes else self

    def _select(self, slices: tuple[slice, slice]) -> Grid:
        """Return a part of the rows and columns."""
        coords = {
            name: (dims, values[slices[self.axes.index(dims[0])]])
            for name, (dims, values) in self.coords.items()
        }
        return replace(self, coords=coords, slices=slices)

    def differing_axes(self, other: Grid) -> list[str]:
        """Return the names of the axes whose coordinates differ from another grid's."""
        if self.axes != other.axes:
            return list(self.axes)
        return [
            axis
            for axis in self.axes
            if not np.array_equal(self.coords[axis][1], other.coords[axis][1])
        ]


def read_file_grid(raw: xr.Dataset, variables: list[str]) -> tuple[Grid | None, list[str]]:
    """Return the grid of a file, and messages about what is wrong with it.

    Args:
      raw: The file.
      variables: Names of the variables on the grid.

    Returns:
      The grid, None if its coordinates cannot be used; and the messages.
    """
    present = [name for name in variables if name in raw]
    mapping = _find_projection(raw, present)
    if mapping is not None:
        return _projected_grid(raw, mapping)
    problems = [problem for axis in AXIS_NAMES for problem in axis_problems(raw, axis)]
    if problems:
        return None, problems
    names = {axis: str(axis_name(raw, axis)) for axis in AXIS_NAMES}
    rows, columns = (str(raw[name].dims[0]) for name in names.values())
    if rows == columns:
        return None, [f"lat and lon both have the dim {rows}; expected a grid, not points"]
    coords: Coords = {}
    for axis, name in names.items():
        edges = cell_edges_along(raw, axis)
        coords[axis] = ((axis,), raw[name].values.astype("float64"))
        coords[f"{axis}_bnds"] = ((axis, "bnds"), np.stack([edges[:-1], edges[1:]], 1))
    grid = Grid((rows, columns), ("lat", "lon"), coords, None, (slice(None), slice(None)))
    return grid, _dims_problems(raw, present, grid)


def _dims_problems(raw: xr.Dataset, variables: list[str], grid: Grid) -> list[str]:
    """Return messages about variables with other dimensions than the grid's and time."""
    dims = ", ".join(grid.dims)
    return [
        f"{name}: dims ({', '.join(map(str, raw[name].dims))}), expected (time, {dims}) or ({dims})"
        for name in variables
        if not set(grid.dims) <= set(raw[name].dims) <= {*grid.dims, "time"}
    ]


def _find_projection(raw: xr.Dataset, variables: list[str]) -> dict[str, Any] | None:
    """Return the attributes of a grid mapping that describes a projection, None without one."""
    for name in variables:
        mapping = raw[name].attrs.get("grid_mapping") or raw[name].encoding.get("grid_mapping")
        if mapping in raw and raw[mapping].attrs.get("grid_mapping_name") != "latitude_longitude":
            return dict(raw[mapping].attrs)
    return None


def _projected_grid(raw: xr.Dataset, mapping: dict[str, Any]) -> tuple[Grid | None, list[str]]:
    """Return a file's grid on a map projection, and messages about what is wrong with it.

    Args:
      raw: The file.
      mapping: Attributes of the grid mapping (CF).
    """
    import pyproj

    coords: Coords = {}
    problems = []
    for axis in ("y", "x"):
        if axis not in raw or raw[axis].ndim != 1 or raw[axis].size < 2:
            problems.append(f"{axis}: expected a coordinate of two or more values in metres")
            continue
        metres = raw[axis].values.astype("float64")
        if raw[axis].attrs.get("units") == "km":
            metres = metres * 1000
        steps = np.diff(metres)
        if (
            np.abs(steps - steps.mean()).max() > WIDTH_TOLERANCE * abs(steps.mean())
            or not steps.mean()
        ):
            extremes = f"{steps.min():g} to {steps.max():g} m"
            problems.append(f"{axis}: steps of {extremes}; expected evenly spaced values")
        coords[axis] = ((axis,), metres)
    try:
        crs = pyproj.CRS.from_cf(mapping).to_wkt()
    except (pyproj.exceptions.CRSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        problems.append(f"grid mapping: does not describe a projection: {reason}")
    if problems:
        return None, problems
    return Grid(("y", "x"), ("y", "x"), coords, crs, (slice(None), slice(None))), []


def _covering_slice(is_covering: NDArray[np.bool_]) -> slice:
    """Return the slice from one before the first True to one after the last; all if none is."""
    index = np.flatnonzero(is_covering)
    if not index.size:
        return slice(0, len(is_covering))
    return slice(max(int(index[0]) - 1, 0), min(int(index[-1]) + 2, len(is_covering)))


def _covering_rows(grid: Grid, region: tuple[float, float, float, float]) -> slice:
    """Return the rows that cover a region."""
    low, high = np.sort(grid.coords["lat_bnds"][1], axis=1).T
    return _covering_slice((low < region[3]) & (high > region[1]))


def _covering_columns(grid: Grid, region: tuple[float, float, float, float]) -> slice:
    """Return the columns that cover a region; all columns if the region crosses their border."""
    west, _, east, _ = region
    east += 360 * (east < west)
    low, high = np.sort(grid.coords["lon_bnds"][1], axis=1).T
    turns = (-720, -360, 0, 360, 720)
    is_covering = np.any([(low + turn < east) & (high + turn > west) for turn in turns], axis=0)
    index = np.flatnonzero(is_covering)
    if index.size and (np.diff(index) > 1).any():
        return slice(0, len(is_covering))
    return _covering_slice(is_covering)


def _covering_projected(
    grid: Grid, region: tuple[float, float, float, float]
) -> tuple[slice, slice]:
    """Return the rows and columns of a projected grid that cover a region."""
    import pyproj

    to_metres = pyproj.Transformer.from_crs("EPSG:4326", grid.crs, always_xy=True)
    left, bottom, right, top = to_metres.transform_bounds(*region, densify_pts=51)
    slices = []
    for axis, low, high in (("y", bottom, top), ("x", left, right)):
        centres = grid.coords[axis][1]
        half = abs(centres[1] - centres[0]) / 2
        is_covering = (centres + half > low) & (centres - half < high)
        is_bounded = bool(np.isfinite([low, high]).all())
        slices.append(_covering_slice(is_covering if is_bounded else np.ones_like(is_covering)))
    return slices[0], slices[1]
