"""Grids: NetCDF-4 files on rows of one latitude and columns of one longitude.

In: one file, or several that follow one another in time; variables named in `mapping`, dims
(time, row, column), or (row, column) for constants, in any order and under any names; `lat` and
`lon` (or `latitude`, `longitude`) on rows and columns. Out, as `to_dask()` gives it to anyone:

  dims time, lat, lon, bnds; coords time (datetime64, UTC day), lat, lon (degrees, in the file's
  order), lat_bnds (lat, bnds), lon_bnds (lon, bnds): the file's, or halfway between centres
  our names, float32, in our units, (time, lat, lon) or (lat, lon)
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.regrid import edges_between
from pipeline.sources.form import REMEDY, NetcdfSource, days_of, time_problems

if TYPE_CHECKING:
    from collections.abc import Hashable

    import xarray as xr
    from numpy.typing import NDArray

AXES = {"lat": ("lat", "latitude"), "lon": ("lon", "longitude")}
READ_AT_ONCE = {"time": 32, "lat": 256, "lon": 256}  # or more: whole chunks of the file
_GAP = 1e-3  # of a cell's width: bounds are often float32


class GriddedSource(NetcdfSource):
    """Intake driver for grids of latitude and longitude.

    Args:
      urlpath: the file; with `*` in it, the files.
      mapping: {our name: {"from": provider's name, "units": its units, "to": our units}}, or a
        list of such.
      storage_options: passed to fsspec.
    """

    name = "soilweave_gridded"

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, lazily.

        Raises:
          DataError: listing every way in which the files are not as the catalog says.
        """
        urls = files.matching(self.urlpath, **self.storage_options)
        if not urls:
            found = "no file matches" if "*" in self.urlpath else "not found"
            raise self.absent(self.urlpath, found)
        parts: dict[str, xr.Dataset] = {}
        problems, raws = [], []
        for url in urls:
            prefix = f"{_short(url)}: " if len(urls) > 1 else ""
            try:
                raw = self.opened(url, chunks=None)
            except DataError as error:
                problems += [prefix + problem for problem in error.problems]
                continue
            raws.append(raw)
            wrong = self._problems(raw)
            problems += [prefix + problem for problem in wrong]
            if not wrong:
                parts[url] = self._dataset(raw)
        problems += _disagreements(parts)
        if problems:
            _close(raws)
            raise DataError(self.urlpath, *problems, remedy=REMEDY)
        dataset = _joined(list(parts.values()))
        dataset.set_close(functools.partial(_close, raws))
        return dataset

    read = to_dask

    def _problems(self, raw: xr.Dataset) -> list[str]:
        """What is wrong with one file."""
        problems = [problem for axis in AXES for problem in _axis_problems(raw, axis)]
        dims = [raw[name].dims[0] for axis in AXES if (name := _name(raw, axis)) and raw[name].dims]
        variables = [spec["from"] for spec in self.mapping.values() if spec["from"] in raw]
        if not problems and dims[0] == dims[1]:
            problems.append(f"lat and lon are both along {dims[0]}: points, not a grid")
        elif not problems:
            grid = ", ".join(map(str, dims))
            problems += [
                f"{name}: dims ({', '.join(map(str, raw[name].dims))}), expected "
                f"(time, {grid}) or ({grid})"
                for name in variables
                if not set(dims) <= set(raw[name].dims) <= {*dims, "time"}
            ]
        problems += self.variable_problems(raw)
        if any("time" in raw[name].dims for name in variables):
            problems += time_problems(raw)
        return problems

    def _dataset(self, raw: xr.Dataset) -> xr.Dataset:
        """One file in our form."""
        import xarray as xr

        names = {axis: str(_name(raw, axis)) for axis in AXES}
        ours: dict[Hashable, str] = {raw[name].dims[0]: axis for axis, name in names.items()}
        lazy = raw[[spec["from"] for spec in self.mapping.values()]]
        lazy = lazy.drop_vars(list(lazy.coords))
        for name in lazy.data_vars:
            lazy[name] = _chunked(lazy[name], ours)
        made = {}
        for name, values in self.translated(lazy).items():
            dims = ("time", "lat", "lon") if "time" in values.dims else ("lat", "lon")
            held = values.rename({old: new for old, new in ours.items() if old != new})
            made[name] = held.transpose(*dims)
        coords: dict[str, tuple[str | tuple[str, str], NDArray[Any]]] = {}
        for axis, name in names.items():
            edges = _edges(raw, axis)
            coords[axis] = (axis, raw[name].values.astype("float64"))
            coords[f"{axis}_bnds"] = ((axis, "bnds"), np.stack([edges[:-1], edges[1:]], 1))
        if any("time" in values.dims for values in made.values()):
            coords["time"] = ("time", days_of(raw))
        return xr.Dataset(made, coords)


def _close(raws: list[xr.Dataset]) -> None:
    for raw in raws:
        raw.close()


def _short(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _name(raw: xr.Dataset, axis: str) -> str | None:
    return next((name for name in AXES[axis] if name in raw), None)


def _bounds(raw: xr.Dataset, axis: str) -> NDArray[np.float64] | None:
    """(n, 2) lower and upper bound of each row or column; None where the file has none."""
    name = str(_name(raw, axis))
    held = raw[name].attrs.get("bounds") or raw[name].encoding.get("bounds") or f"{name}_bnds"
    if held not in raw:
        return None
    bounds = np.sort(raw[held].values.astype("float64"), axis=1)
    return np.asarray(np.clip(bounds, -90, 90) if axis == "lat" else bounds)


def _edges(raw: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """(n + 1,) edges of rows or columns in degrees, in the file's order."""
    centres = raw[str(_name(raw, axis))].values.astype("float64")
    bounds = _bounds(raw, axis)
    if bounds is None:
        edges = edges_between(centres)
    elif len(centres) > 1 and centres[1] < centres[0]:
        edges = np.append(bounds[:, 1], bounds[-1, 0])
    else:
        edges = np.append(bounds[:, 0], bounds[-1, 1])
    return np.clip(edges, -90, 90) if axis == "lat" else edges


def _axis_problems(raw: xr.Dataset, axis: str) -> list[str]:
    """What is wrong with the latitudes or longitudes of a file."""
    name = _name(raw, axis)
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
    edges = _edges(raw, axis)
    if bounds is not None:
        touching = np.sort(np.stack([edges[:-1], edges[1:]], 1), axis=1)
        if np.abs(touching - bounds).max() > _GAP * np.abs(np.diff(edges)).max():
            return [f"{name}: bounds overlap or leave gaps; each must end where the next begins"]
    if axis == "lon" and (width := abs(edges[-1] - edges[0])) > 360 + _GAP:
        return [f"{name}: {width:g} degrees wide, expected 360 at most; is a column there twice?"]
    return []


def _chunked(values: xr.DataArray, ours: dict[Hashable, str]) -> xr.DataArray:
    """As dask array, in whole chunks of the file, so that a part is read without the rest."""
    stored = values.encoding.get("preferred_chunks", {})
    sizes = {}
    for dim in values.dims:
        step = int(stored.get(dim, 1))
        sizes[dim] = -(-READ_AT_ONCE[ours.get(dim, str(dim))] // step) * step
    return values.chunk(sizes)


def _disagreements(parts: dict[str, xr.Dataset]) -> list[str]:
    """Files that are not of one grid, or whose days do not follow one another."""
    if len(parts) < 2:
        return []
    first, *others = parts
    problems = [
        f"{_short(url)}: another {axis} than {_short(first)}"
        for url in others
        for axis in AXES
        if not np.array_equal(parts[url][axis].values, parts[first][axis].values)
    ]
    timeless = [url for url in parts if "time" not in parts[url]]
    if timeless:
        return problems + [f"{_short(url)}: no times, and not the only file" for url in timeless]
    ends = {url: parts[url].time.values[[0, -1]].astype("datetime64[D]") for url in parts}
    for before, after in itertools.pairwise(sorted(parts, key=lambda url: ends[url][0])):
        if ends[after][0] <= ends[before][1]:
            found = f"begins {ends[after][0]}, but {_short(before)} ends {ends[before][1]}"
            problems.append(f"{_short(after)}: {found}; days must increase from file to file")
    return problems


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Files of one grid along time; constants are those of the first."""
    import xarray as xr

    if len(parts) == 1:
        return parts[0]
    return xr.concat(
        sorted(parts, key=lambda part: part.time.values[0]),
        dim="time",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="override",
        combine_attrs="override",
    )
