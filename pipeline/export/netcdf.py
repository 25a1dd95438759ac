"""NetCDF-4, a file for each calendar year, which follows CF and ACDD as the maps do.

A file is written in strips of 32 days and 256 rows, so memory depends neither on the height of the
region nor on the length of the record.
"""

from __future__ import annotations

import contextlib
import io
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import __version__, files
from pipeline.export.maps import FLAG
from pipeline.export.pieces import Piece, record_of, split_days
from pipeline.grid import ease
from pipeline.storage.maps_schema import DIMS
from pipeline.storage.schema import BLOCK_DAYS, SHARD

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5netcdf
    import xarray as xr

    from pipeline.export.maps import Maps
    from pipeline.export.pieces import Advance
    from pipeline.files import Json


CHUNK = (BLOCK_DAYS, 64, 64)  # a compromise of maps and series: 256 KB of packed values
STORED = {"compression": "gzip", "compression_opts": 4, "shuffle": True, "fletcher32": True}

# Attributes whose values must have the type of their variable.
TYPED = ("flag_masks", "flag_values", "valid_range")


def plan(maps: Maps, days: range) -> Iterator[Piece]:
    """Yield the pieces of an export of some days of maps."""
    for year, part in split_days(maps.days, days, "Y"):
        name = f"{maps.stem}_{year}.nc"
        yield Piece((name,), part, {"format": "netcdf"}, partial(_write, maps, part, name))


def _write(maps: Maps, days: range, name: str, url: str, advance: Advance) -> dict[str, Json]:
    """Write the file of a year; see `Piece.write`."""
    import h5netcdf

    with files.written_whole(files.join(url, name)) as path:
        with _PatientFile(path, "w+") as file:
            with h5netcdf.File(file, "w") as out:
                _describe(out, maps, days)
                for start in range(days.start, days.stop, BLOCK_DAYS):
                    block = slice(start, min(start + BLOCK_DAYS, days.stop))
                    _copy_days(out, maps, block, days.start)
                    advance(block.stop - block.start)
                    if file.error is not None:
                        break
            file.check()
        return record_of(name, path)


class _PatientFile(io.FileIO):
    """A file that keeps the error of a write that failed, instead of raising it.

    HDF5 crashes the process if it cannot complete a file that it closes, as on a full disk.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all bytes, if all went well so far: the system may take only a part at a time."""
        view, done = memoryview(data).cast("B"), 0
        with self._keeping_error():
            while done < len(view) and self.error is None:
                done += super().write(view[done:]) or 0
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size of the file."""
        with self._keeping_error():
            return super().truncate(size)
        return size or 0

    @contextlib.contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self.error is not None:
            raise self.error


def _copy_days(out: h5netcdf.File, maps: Maps, block: slice, first: int) -> None:
    """Copy all layers on some days, one strip of rows after the other."""
    place = slice(block.start - first, block.stop - first)
    for name in maps.layers:
        n_rows = maps.root[name].shape[1]
        for row in range(0, n_rows, SHARD):
            rows = slice(row, min(row + SHARD, n_rows))
            out[name][place, rows, :] = maps.read(name, block, rows)


def _describe(out: h5netcdf.File, maps: Maps, days: range) -> None:
    """Create all variables, and write those that have no layer for each day."""
    dataset, part = maps.root, slice(days.start, days.stop)
    out.dimensions = {"time": len(days)} | {
        str(k): n for k, n in dataset.sizes.items() if k != "time"
    }
    for key, value in _file_attributes(maps, days).items():
        out.attrs[key] = value
    for name, variable in dataset.variables.items():
        dims = tuple(map(str, variable.dims))
        options = _storage(str(name), dims, variable, len(days))
        created = out.create_variable(str(name), dims, variable.dtype, **options)
        for key, value in _attributes(maps, str(name)).items():
            created.attrs[key] = np.array(value, variable.dtype) if key in TYPED else value
        if dims != DIMS:
            index = {"time": part} if "time" in dims else {}
            created[...] = variable.isel(index).values


def _storage(name: str, dims: tuple[str, ...], variable: xr.Variable, n_days: int) -> Json:
    """Return how a variable is stored: chunks, compression and fill value."""
    if dims[-2:] != DIMS[1:]:
        return {}
    sizes = variable.sizes
    chunks = {"time": min(CHUNK[0], n_days), "y": min(CHUNK[1], sizes["y"])}
    chunks["x"] = min(CHUNK[2], sizes["x"])
    options: Json = STORED | {"chunks": tuple(chunks[dim] for dim in dims)}
    if variable.dtype.kind == "f":
        options["fillvalue"] = np.nan
    elif name != FLAG and "_FillValue" in variable.attrs:
        options["fillvalue"] = variable.dtype.type(variable.attrs["_FillValue"])
    return options


def _attributes(maps: Maps, name: str) -> Json:
    """Return the attributes of a variable: those of the maps, and what CF and ACDD also ask for."""
    attrs = {k: v for k, v in maps.root[name].attrs.items() if k != "_FillValue"}
    more: Json = {"axis": name[0].upper()} if name in DIMS else {}
    if name == "time":
        more["units_metadata"] = "leap_seconds: none"
    if name in maps.root.data_vars and maps.root[name].dims[-2:] == DIMS[1:]:
        kinds = {maps.target: "modelResult", FLAG: "qualityInformation"}
        kinds[f"{maps.target}_std"] = "qualityInformation"
        more["coverage_content_type"] = kinds.get(name, "auxiliaryInformation")
    return more | attrs


def _file_attributes(maps: Maps, days: range) -> Json:
    """Return the attributes of the file of some days."""
    first, last = str(maps.days[days.start]), str(maps.days[days.stop - 1])
    made = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: soilweave {__version__} export"
    resolution = f"{maps.transform[0]:.0f} m"
    attrs: Json = {"Conventions": maps.root.attrs["Conventions"]}
    attrs |= maps.attrs | {
        "history": "\n".join(filter(None, (maps.attrs.get("history"), made))),
        "time_coverage_start": first,
        "time_coverage_end": last,
        "time_coverage_duration": f"P{len(days)}D",
        "time_coverage_resolution": "P1D",
        "geospatial_bounds": _bounds(maps),
        "geospatial_bounds_crs": "EPSG:4326",
        "geospatial_lat_units": "degrees_north",
        "geospatial_lon_units": "degrees_east",
        "geospatial_lat_resolution": resolution,
        "geospatial_lon_resolution": resolution,
    }
    if "depth_bnds" in maps.root:
        top, bottom = maps.root["depth_bnds"].values.tolist()
        attrs |= {"geospatial_vertical_min": top, "geospatial_vertical_max": bottom}
        attrs |= {"geospatial_vertical_positive": "down", "geospatial_vertical_units": "m"}
    return attrs


def _bounds(maps: Maps) -> str:
    """Return the outline of the maps as WKT; ACDD wants latitude before longitude."""
    size, left, top = maps.transform
    ny, nx = maps.root[maps.target].shape[1:]
    lat, lon = ease.unproject([left, left + nx * size], [top, top - ny * size])
    corners = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
    return f"POLYGON (({', '.join(f'{lat[i]:.5f} {lon[j]:.5f}' for i, j in corners)}))"
