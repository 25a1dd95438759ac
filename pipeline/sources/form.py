"""What readers share: the entry's mapping, opening a file, its faults, our names and units."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
from intake.source.base import DataSource

from pipeline.errors import DataError
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

Mapping = dict[str, dict[str, str]]
REMEDY = "correct the file, or its entry in the catalog"


class NetcdfSource(DataSource):  # type: ignore[misc]
    """Intake driver of NetCDF-4 files, under a provider's own names.

    Args:
      urlpath: the file, or the files.
      mapping: {our name: {"from": provider's name, "units": its units, "to": our units}}, or a
        list of such.
      storage_options: passed to fsspec.
      metadata: what the catalog says of the entry.
    """

    version = "1"
    container = "xarray"
    partition_access = False

    def __init__(
        self,
        urlpath: str,
        mapping: Mapping | list[Mapping],
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(metadata=metadata)
        self.urlpath, self.storage_options = urlpath, storage_options or {}
        parts = mapping if isinstance(mapping, list) else [mapping]
        self.mapping: Mapping = {name: spec for part in parts for name, spec in part.items()}
        odd = [n for n, spec in self.mapping.items() if not {"from", "units"} <= spec.keys()]
        if odd:
            msg = f"mapping of {', '.join(odd)} lacks `from` or `units`"
            raise ValueError(msg)

    def opened(self, url: str, chunks: dict[str, int] | None) -> xr.Dataset:
        """One file as it is, nothing read yet.

        Args:
          url: the file.
          chunks: of dask, as xarray has it; {} for the file's own, None for no dask arrays yet.

        Raises:
          DataError: it is absent, or no NetCDF-4.
        """
        import xarray as xr

        with contextlib.ExitStack() as stack:
            try:
                file = url
                if "://" in url:
                    file = fsspec.open(url, **self.storage_options).open()
                    stack.callback(file.close)
                dataset = xr.open_dataset(file, engine="h5netcdf", chunks=chunks)
                stack.pop_all()
            except FileNotFoundError as error:
                raise self.absent(url, "not found") from error
            except (OSError, ValueError) as error:
                found = f"cannot be read, truncated or no NetCDF-4: {error}"
                raise DataError(url, found, remedy="fetch it again") from error
        return dataset

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
            values = raw[spec["from"]].astype("float32")
            if (slope, offset) != (1.0, 0.0):
                values = (values * slope + offset).astype("float32")
            values.attrs = {"units": units, "source": spec["from"]}
            made[name] = values
        return made


def days_of(raw: xr.Dataset) -> NDArray[np.datetime64]:
    """(time,) days of a file."""
    days: NDArray[np.datetime64] = raw["time"].values.astype("datetime64[D]")
    return days.astype("datetime64[ns]")


def time_problems(raw: xr.Dataset) -> list[str]:
    """What is wrong with the times of a file: absent, no dates, or days that do not increase."""
    if "time" not in raw:
        return ["coordinate time missing"]
    times = raw["time"].values
    if times.dtype.kind != "M":
        return [f"time: {times.dtype} values; expected dates in units like 'days since 2015-01-01'"]
    days = times.astype("datetime64[D]")
    bad = np.flatnonzero(np.diff(days).astype(int) <= 0)
    if not bad.size:
        return []
    return [f"time: day {days[bad[0] + 1]} comes after {days[bad[0]]}; days must increase"]


def _units_problems(name: str, spec: dict[str, str], found: str | None) -> list[str]:
    if found is not None and found != spec["units"]:
        return [f"{name}: units '{found}', expected '{spec['units']}'"]
    try:
        conversion(spec["units"], spec.get("to", spec["units"]))
    except DataError as error:
        return [f"{name}: {error}"]
    return []
