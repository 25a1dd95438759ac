"""What readers share: the entry's mapping, opening a file, its faults, our names and units."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from intake.source.base import DataSource

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.shared import access, http_errors, missing_values
from pipeline.sources.shared.units import conversion, same

if TYPE_CHECKING:
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray


Mapping = dict[str, dict[str, Any]]

OTHERS = {
    b"CDF\x05": "NetCDF-3 with 64-bit data (CDF-5)",
    b"GRIB": "GRIB",
    b"\x0e\x03\x13\x01": "HDF4",
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive",
}  # formats that are no NetCDF we read, by their first bytes

REMEDY = "correct the file, or its entry in the catalog"


class Source(DataSource):  # type: ignore[misc]
    """What every driver is: an entry's files, under a provider's own names, brought to ours.

    A driver has `to_dask()`, in one of three forms, lazy where it is large:
      points: dims time, place; coords time (datetime64[ns], a day), place (id as text), lat, lon
      grid: dims time, lat, lon, bnds; coords time, lat, lon (degrees), lat_bnds, lon_bnds
      projected: dims time, y, x; coords time, y, x (centres, evenly spaced), attribute crs (WKT)
    Variables are float32 under our names, with the attribute `units`; constants have no time.

    Args:
      urlpath: the file, or the files.
      mapping: {our name: {"from": provider's name, "units": its units, "to": our units, "fill":
        a stored value that is missing though the file does not declare it, or a list of such}},
        or a list of such.
      login: `earthdata`, where the provider wants to know who reads.
      storage_options: passed to fsspec.
      metadata: what the catalog says of the entry.

    Attributes:
      fills: of each variable of the file for which the mapping has `fill`.
      period: first and last day that are wanted, None for all there are; a driver need not look
        for others.
      region: west, south, east, north in degrees, likewise.
    """

    version = "1"
    container = "xarray"
    partition_access = False

    def __init__(
        self,
        urlpath: str,
        mapping: Mapping | list[Mapping],
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(metadata=metadata)
        self.urlpath, self.login = urlpath, login
        self.storage_options = storage_options or {}
        self.period: tuple[date, date] | None = None
        self.region: tuple[float, float, float, float] | None = None
        parts = mapping if isinstance(mapping, list) else [mapping]
        self.mapping: Mapping = {name: spec for part in parts for name, spec in part.items()}
        odd = [n for n, spec in self.mapping.items() if not {"from", "units"} <= spec.keys()]
        if odd:
            msg = f"mapping of {', '.join(odd)} lacks `from` or `units`"
            raise ValueError(msg)
        self.fills = missing_values.fills_of(self.mapping)

    def digest(self) -> str:
        """Identifies the content, without reading all of it.

        Raises:
          FileNotFoundError: there is none.
        """
        options = access.options(self.urlpath, self.storage_options, self.login)
        return files.digest(self.urlpath, **options)

    def absent(self, url: str, found: str) -> DataError:
        """The error of a file that is not there, saying where it comes from."""
        origin = (self.metadata or {}).get("origin", "see the catalog's README")
        return DataError(url, found, remedy=f"get it from {origin}")

    def variable_problems(self, raw: xr.Dataset, others: tuple[str, ...] = ()) -> list[str]:
        """Variables of the mapping, and others, that are missing or in other units."""
        problems = []
        specs = [(spec["from"], spec) for spec in self.mapping.values()]
        for name, spec in [*specs, *((other, {}) for other in others)]:
            if name not in raw:
                have = [str(v) for v in raw.data_vars]
                problems.append(f"{name}: missing; the file has {have}")
            elif spec:
                problems += _units_problems(name, spec, raw[name].attrs.get("units"))
        return problems

    def translated(self, raw: xr.Dataset) -> dict[str, xr.DataArray]:
        """The variables of the mapping, float32, under our names and in our units, lazily."""
        made = {}
        for name, spec in self.mapping.items():
            units = spec.get("to", spec["units"])
            slope, offset = conversion(spec["units"], units)
            values = missing_values.floats(raw[spec["from"]])
            if (slope, offset) != (1.0, 0.0):
                values = (values * slope + offset).astype("float32")
            values.attrs = {"units": units, "source": spec["from"]}
            made[name] = values
        return made


class NetcdfSource(Source):
    """What drivers of NetCDF files share, of version 3 (classic, 64-bit offset) or 4."""

    def opened(
        self, url: str, chunks: dict[str, int] | None, held: BinaryIO | None = None
    ) -> xr.Dataset:
        """One file as it is, nothing read yet.

        Args:
          url: the file.
          chunks: of dask, as xarray has it; {} for the file's own, None for no dask arrays yet.
          held: its content, where that has been fetched.

        Raises:
          DataError: it is absent, or no NetCDF.
        """
        import xarray as xr

        with contextlib.ExitStack() as stack:
            try:
                file: Any = held or url
                if held is None and "://" in url:
                    file = access.opened(url, self.storage_options, self.login)
                    stack.callback(file.close)
                engine = _engine(file, http_errors.shown(url))
                raw = xr.open_dataset(file, engine=engine, chunks=chunks, **missing_values.RAW)
                dataset = self._decoded(raw, url)
                stack.pop_all()
            except FileNotFoundError as error:
                raise self.absent(http_errors.shown(url), "not found") from error
            except (OSError, ValueError, TypeError, IndexError, AssertionError) as error:
                told = " ".join(str(error).split())
                found = f"cannot be read, truncated or no NetCDF-4 or NetCDF-3: {told}"
                raise DataError(http_errors.shown(url), found, remedy="fetch it again") from error
        return dataset

    def _decoded(self, raw: xr.Dataset, url: str) -> xr.Dataset:
        """A file decoded; one whose time cannot be is not called damaged."""
        try:
            return missing_values.decoded(raw, self.fills)
        except ValueError as error:
            told = " ".join(str(error).split()).partition(" Try opening")[0]
            if not told.startswith(("unable to decode time", "Failed to decode variable")):
                raise
            raw.close()
            found = f"its time cannot be decoded: {told}"
            remedy = "correct its units and calendar, such as 'days since 2015-01-01' and standard"
            raise DataError(http_errors.shown(url), found, remedy=remedy) from error


def _engine(file: Any, place: str) -> str:
    """What xarray reads a NetCDF file with, by the file's first bytes.

    Raises:
      DataError: it is of another format, which is named.
    """
    if isinstance(file, str):
        with open(file, "rb") as opened:
            head = opened.read(8)
    else:
        head = file.read(8)
        file.seek(0)
    if head[:4] in (b"CDF\x01", b"CDF\x02"):
        return "scipy"
    other = next((name for begin, name in OTHERS.items() if head.startswith(begin)), None)
    if other is not None:
        remedy = "convert it to NetCDF-4, for example with `nccopy -k nc4` or `cdo -f nc4 copy`"
        raise DataError(place, f"is {other}; expected NetCDF-4 or NetCDF-3", remedy=remedy)
    return "h5netcdf"


def days_of(raw: xr.Dataset) -> NDArray[np.datetime64]:
    """(time,) days of a file."""
    days: NDArray[np.datetime64] = raw["time"].values.astype("datetime64[D]")
    return days.astype("datetime64[ns]")


def time_problems(raw: xr.Dataset) -> list[str]:
    """What is wrong with the times of a file: absent, no dates, or days that do not increase."""
    if "time" not in raw:
        return ["coordinate time missing"]
    times = raw["time"].values
    if calendar := calendar_problems(times):
        return calendar
    if times.dtype.kind != "M":
        return [f"time: {times.dtype} values; expected dates in units like 'days since 2015-01-01'"]
    days = times.astype("datetime64[D]")
    bad = np.flatnonzero(np.diff(days).astype(int) <= 0)
    if not bad.size:
        return []
    return [f"time: day {days[bad[0] + 1]} comes after {days[bad[0]]}; days must increase"]


def calendar_problems(times: NDArray[Any]) -> list[str]:
    """What is wrong with the calendar of times: one with days that no other has, or lacks others.

    Args:
      times: as xarray decodes them, objects of cftime where they are no dates of ours.
    """
    calendar = (
        getattr(times.flat[0], "calendar", "") if times.dtype == object and times.size else ""
    )
    if not calendar:
        return []
    found = f"time: calendar '{calendar}'; accepted: standard, gregorian, proleptic_gregorian, "
    return [found + "noleap, 365_day; xarray's convert_calendar makes one of the others"]


def _units_problems(name: str, spec: dict[str, str], found: str | None) -> list[str]:
    if found is not None and not same(str(found), spec["units"]):
        return [f"{name}: units '{found}', expected '{spec['units']}'"]
    try:
        conversion(spec["units"], spec.get("to", spec["units"]))
    except DataError as error:
        return [f"{name}: {error}"]
    return []
