"""Base classes of drivers: the mapping of a catalog entry, opening NetCDF files, checking them."""

from __future__ import annotations

import contextlib
import math
import warnings
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from intake.source.base import DataSource

from pipeline import failures, files
from pipeline.errors import DataError, UnreachableError
from pipeline.sources.shared import access, http_errors, missing_values
from pipeline.sources.shared.units import are_same_units, linear_conversion

if TYPE_CHECKING:
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray


# Intake 2.0.9 says this of every parameter of an entry that is text.
warnings.filterwarnings("ignore", "Shell command not executed", UserWarning)

EntryMapping = dict[str, dict[str, Any]]

# Formats that are mistaken for NetCDF and cannot be read, by the first bytes of a file.
OTHER_FORMATS = {
    b"CDF\x05": "NetCDF-3 with 64-bit data (CDF-5)",
    b"GRIB": "GRIB",
    b"\x0e\x03\x13\x01": "HDF4",
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip archive",
}

MAX_DIMENSION = 100_000_000  # length of a dimension of a file
MAX_CHUNKS = 2_000_000  # of an array; dask makes an object of each
MAX_PROBLEMS = 8  # problems of a file that a message lists

CORRECT_FILE_HINT = "correct the file, or its entry in the catalog"


class Source(DataSource):  # type: ignore[misc]
    """Base class of drivers, which read files of a provider under soilweave's names and units.

    A driver has a method `to_dask()`, which returns a dataset in one of three forms, with lazy
    arrays where they are large:
      points: dims time, place; coords time (datetime64[ns], a day), place (id as text), lat, lon
      grid: dims time, lat, lon, bnds; coords time, lat, lon (degrees), lat_bnds, lon_bnds
      projected: dims time, y, x; coords time, y, x (centres, evenly spaced), attribute crs (WKT)
    Variables are float32 under soilweave's names and have the attribute `units`. Constants have
    no dimension time.

    Args:
      urlpath: The file or files.
      mapping: {soilweave's name: {"from": provider's name, "units": its units, "to": soilweave's
        units, "fill": a stored value, or a list of such values, that is missing although the file
        does not declare it}}, or a list of such dictionaries. `to` and `fill` are optional.
      login: `earthdata` if the provider requires an Earthdata Login.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.

    Attributes:
      fills: {variable of the file: values of `fill`}, for variables with `fill`.
      period: First and last requested day, None for all days. A driver may return more.
      region: Requested west, south, east, north in degrees, None for all places. A driver may
        return more.

    Raises:
      ValueError: If a variable of the mapping has no `from` or `units`, or an invalid `fill`.
    """

    version = "1"
    container = "xarray"
    partition_access = False

    def __init__(
        self,
        urlpath: str,
        mapping: EntryMapping | list[EntryMapping],
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet."""
        super().__init__(metadata=metadata)
        self.urlpath, self.login = urlpath, login
        self.storage_options = storage_options or {}
        self.period: tuple[date, date] | None = None
        self.region: tuple[float, float, float, float] | None = None
        parts = mapping if isinstance(mapping, list) else [mapping]
        self.mapping: EntryMapping = {name: spec for part in parts for name, spec in part.items()}
        incomplete = [n for n, spec in self.mapping.items() if not {"from", "units"} <= spec.keys()]
        if incomplete:
            msg = f"mapping of {', '.join(incomplete)} lacks `from` or `units`"
            raise ValueError(msg)
        self.fills = missing_values.declared_fills(self.mapping)

    def last_day_on_server(self) -> date | None:
        """Return the last requested day whose files a server has.

        None says that `to_dask` finds out by itself how far the source reaches, as most do.
        """
        return None

    def digest(self) -> str:
        """Return a digest of the content without reading large files.

        Raises:
          FileNotFoundError: If there is no file.
        """
        options = access.fsspec_options(self.urlpath, self.storage_options, self.login)
        return files.content_digest(self.urlpath, **options)

    def absence_error(self, url: str, problem: str) -> DataError:
        """Return the error for a file that does not exist, with a hint where to get it."""
        origin = (self.metadata or {}).get("origin")
        remedy = f"get it from {origin}" if origin else "see the catalog's README"
        return DataError(url, problem, remedy=remedy)

    def variable_problems(self, raw: xr.Dataset, others: tuple[str, ...] = ()) -> list[str]:
        """Return messages about variables that are missing or have other units.

        Args:
          raw: The file.
          others: Variables that must exist in addition to those of the mapping.
        """
        problems = []
        specs = [(spec["from"], spec) for spec in self.mapping.values()]
        for name, spec in [*specs, *((other, {}) for other in others)]:
            if name not in raw:
                names = [str(v) for v in raw.data_vars]
                problems.append(f"{name}: missing; the file has {names}")
            elif spec:
                problems += _units_problems(name, spec, raw[name].attrs.get("units"))
        return problems

    def translate(self, raw: xr.Dataset) -> dict[str, xr.DataArray]:
        """Return the mapping's variables as lazy float32 arrays in soilweave's names and units."""
        variables = {}
        for name, spec in self.mapping.items():
            units = spec.get("to", spec["units"])
            slope, offset = linear_conversion(spec["units"], units)
            values = missing_values.to_float32(raw[spec["from"]])
            if (slope, offset) != (1.0, 0.0):
                values = (values * slope + offset).astype("float32")
            values.attrs = {"units": units, "source": spec["from"]}
            variables[name] = values
        return variables


class NetcdfSource(Source):
    """Base class of drivers of NetCDF files of version 3 (classic, 64-bit offset) or 4."""

    def open_netcdf(
        self, url: str, chunks: dict[str, int] | None, content: BinaryIO | None = None
    ) -> xr.Dataset:
        """Open one file and decode it; read only what decoding needs.

        Args:
          url: The file.
          chunks: Chunks of dask, as in `xarray.open_dataset`: {} for those of the file, None for
            no dask arrays.
          content: Content of the file if it has been fetched already.

        Raises:
          DataError: If the file does not exist, is not NetCDF, or cannot be decoded.
        """
        import xarray as xr

        with contextlib.ExitStack() as stack:
            try:
                file: Any = content or url
                if content is None and "://" in url:
                    file = access.open_file(url, self.storage_options, self.login)
                    stack.callback(file.close)
                engine = _find_netcdf_engine(file, http_errors.format_url(url))
                if engine == "h5netcdf":
                    _check_sizes(file, http_errors.format_url(url))
                raw = xr.open_dataset(
                    file, engine=engine, chunks=chunks, **missing_values.OPEN_OPTIONS
                )
                dataset = self._decode(raw, url)
                stack.pop_all()
            except FileNotFoundError as error:
                raise self.absence_error(http_errors.format_url(url), "not found") from error
            except TimeoutError as error:
                place, problem = http_errors.format_url(url), http_errors.late_answer()
                raise UnreachableError(place, problem, remedy="try again later") from error
            except (OSError, ValueError, TypeError, IndexError, AssertionError) as error:
                place, found = http_errors.format_url(url), failures.explain(error, url)
                if isinstance(error, OSError) and found.known:  # of the system or the server
                    with http_errors.plain_http_errors(url, self.login):
                        raise
                reason = " ".join(str(error).split())
                problem = f"cannot be read, truncated or no NetCDF-4 or NetCDF-3: {reason}"
                raise DataError(place, problem, remedy="fetch it again") from error
        return dataset

    def _decode(self, raw: xr.Dataset, url: str) -> xr.Dataset:
        """Decode a file; the error for a time that cannot be decoded does not call it damaged."""
        try:
            return missing_values.decode(raw, self.fills)
        except ValueError as error:
            reason = " ".join(str(error).split()).partition(" Try opening")[0]
            if not reason.startswith(("unable to decode time", "Failed to decode variable")):
                raise
            raw.close()
            problem = f"its time cannot be decoded: {reason}"
            hint = (
                "correct the attributes of the time, such as units 'days since 2015-01-01' and "
                "calendar 'standard'"
            )
            raise DataError(http_errors.format_url(url), problem, remedy=hint) from error


def _find_netcdf_engine(file: Any, place: str) -> str:
    """Return the name of xarray's engine for a NetCDF file, by the file's first bytes.

    Args:
      file: A path or an open file.
      place: The file's URL, for the error.

    Raises:
      DataError: If the file has another known format.
    """
    if isinstance(file, str):
        with open(file, "rb") as opened:
            head = opened.read(8)
    else:
        head = file.read(8)
        file.seek(0)
    if head[:4] in (b"CDF\x01", b"CDF\x02"):
        return "scipy"
    other = next((name for begin, name in OTHER_FORMATS.items() if head.startswith(begin)), None)
    if other is not None:
        hint = "convert it to NetCDF-4, for example with `nccopy -k nc4` or `cdo -f nc4 copy`"
        raise DataError(place, f"is {other}; expected NetCDF-4 or NetCDF-3", remedy=hint)
    return "h5netcdf"


def _check_sizes(file: Any, place: str) -> None:
    """Check that the arrays of a NetCDF-4 file can be handled: a few bytes may declare any size.

    Args:
      file: A path or an open file.
      place: The file's URL, for the error.

    Raises:
      DataError: If an array has too long a dimension or too many chunks.
    """
    import h5py

    problems = []
    with h5py.File(file, "r") as opened:
        for name in opened:
            item = opened.get(name)
            shape = item.shape if isinstance(item, h5py.Dataset) else None
            if not shape or 0 in shape:
                continue
            sizes = zip(shape, item.chunks or shape, strict=True)
            n_chunks = math.prod(math.ceil(n / size) for n, size in sizes)
            if max(shape) > MAX_DIMENSION or n_chunks > MAX_CHUNKS:
                problems.append(
                    f"{name}: {' x '.join(f'{n:,}' for n in shape)} in {n_chunks:,} chunks; at "
                    f"most {MAX_DIMENSION:,} along a dimension and {MAX_CHUNKS:,} chunks"
                )
    if hasattr(file, "seek"):
        file.seek(0)
    if problems:
        raise DataError(place, *problems[:MAX_PROBLEMS], remedy="divide the file")


def read_days(raw: xr.Dataset) -> NDArray[np.datetime64]:
    """Return (time,) the days of a file as datetime64[ns]."""
    days: NDArray[np.datetime64] = raw["time"].values.astype("datetime64[D]")
    return days.astype("datetime64[ns]")


def time_problems(raw: xr.Dataset) -> list[str]:
    """Return messages about times of a file that are missing, not dates or not increasing days."""
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
    """Return messages about times whose calendar has other days than the standard one.

    A calendar without leap days is accepted.

    Args:
      times: The times as decoded by xarray: datetime64, or objects of cftime.
    """
    calendar = (
        getattr(times.flat[0], "calendar", "") if times.dtype == object and times.size else ""
    )
    if not calendar:
        return []
    problem = f"time: calendar '{calendar}'; accepted: standard, gregorian, proleptic_gregorian, "
    return [problem + "noleap, 365_day; convert the file with xarray's convert_calendar"]


def _units_problems(name: str, spec: dict[str, str], units: str | None) -> list[str]:
    """Return messages about units that differ from the mapping's or cannot be converted.

    Args:
      name: The variable.
      spec: The variable in the mapping.
      units: The units that the file states, None if it states none.
    """
    if units is not None and not are_same_units(str(units), spec["units"]):
        return [f"{name}: units '{units}', expected '{spec['units']}'"]
    try:
        linear_conversion(spec["units"], spec.get("to", spec["units"]))
    except DataError as error:
        return [f"{name}: {error}"]
    return []
