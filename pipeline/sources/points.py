"""Points: a NetCDF-4 file of places x days, with lat and lon, under a provider's own names.

In: dims (place, time) in any order; variables named in `mapping`; `lat`, `lon` (place); statics
(place). Out, as `to_dask()` gives it to anyone:

  dims time, place; coords time (datetime64, UTC day), place (id as text), lat, lon (degrees)
  our names, float32, in our units; provider_flag (time, place) with flag_values, flag_meanings
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
from intake.source.base import DataSource

from pipeline.errors import DataError
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    import xarray as xr

Mapping = dict[str, dict[str, str]]


class PointsSource(DataSource):  # type: ignore[misc]
    """Intake driver for files of points.

    Args:
      urlpath: the file.
      place: name of the place dim in the file.
      mapping: {our name: {"from": provider's name, "units": its units, "to": our units}}, or a
        list of such.
      flag: {"from": variable of quality flags, "good": values that are kept}.
      storage_options: passed to fsspec.
    """

    name = "soilweave_points"
    version = "1"
    container = "xarray"
    partition_access = False

    def __init__(
        self,
        urlpath: str,
        place: str,
        mapping: Mapping | list[Mapping],
        flag: dict[str, Any] | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(metadata=metadata)
        self.urlpath, self.place, self.flag = urlpath, place, flag
        parts = mapping if isinstance(mapping, list) else [mapping]
        self.mapping: Mapping = {name: spec for part in parts for name, spec in part.items()}
        odd = [n for n, spec in self.mapping.items() if not {"from", "units"} <= spec.keys()]
        if odd:
            msg = f"mapping of {', '.join(odd)} lacks `from` or `units`"
            raise ValueError(msg)
        self.storage_options = storage_options or {}

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, lazily.

        Raises:
          DataError: listing every way in which the file is not as the catalog says.
        """
        raw = self._open()
        problems = self._problems(raw)
        if problems:
            remedy = "correct the file, or its entry in the catalog"
            raise DataError(self.urlpath, *problems, remedy=remedy)
        return self._translated(raw)

    read = to_dask

    def _open(self) -> xr.Dataset:
        import xarray as xr

        try:
            local = "://" not in self.urlpath
            file = (
                self.urlpath if local else fsspec.open(self.urlpath, **self.storage_options).open()
            )
            return xr.open_dataset(file, engine="h5netcdf", chunks={})
        except FileNotFoundError as error:
            origin = (self.metadata or {}).get("origin", "see the catalog's README")
            raise DataError(self.urlpath, "not found", remedy=f"get it from {origin}") from error
        except (OSError, ValueError) as error:
            found = f"cannot be read, truncated or no NetCDF-4: {error}"
            raise DataError(self.urlpath, found, remedy="fetch it again") from error

    def _problems(self, raw: xr.Dataset) -> list[str]:
        problems = [
            f"coordinate {name} missing" for name in ("time", "lat", "lon") if name not in raw
        ]
        if self.place not in raw.dims:
            problems.append(f"dim {self.place} missing; dims are {list(raw.dims)}")
        if self.place in raw.coords:
            ids, counts = np.unique(raw[self.place].values.astype(str), return_counts=True)
            problems += [
                f"{self.place} {i}: {n} of that id"
                for i, n in zip(ids, counts, strict=True)
                if n > 1
            ]
        wanted = {spec["from"]: spec for spec in self.mapping.values()}
        if self.flag:
            wanted[self.flag["from"]] = {}
        for name, spec in wanted.items():
            if name not in raw:
                have = [str(v) for v in raw.data_vars]
                problems.append(f"{name}: missing; the file has {have}")
            elif spec:
                problems += _units_problems(name, spec, raw[name].attrs.get("units"))
        if "time" in raw:
            problems += _time_problems(raw["time"].values)
        return problems

    def _translated(self, raw: xr.Dataset) -> xr.Dataset:
        import xarray as xr

        days = raw["time"].values.astype("datetime64[D]").astype("datetime64[ns]")
        ids = (
            raw[self.place].values if self.place in raw.coords else np.arange(raw.sizes[self.place])
        )
        made: dict[str, xr.DataArray] = {}
        for name, spec in self.mapping.items():
            slope, offset = conversion(spec["units"], spec.get("to", spec["units"]))
            values = raw[spec["from"]].astype("float32")
            made[name] = (
                values if (slope, offset) == (1.0, 0.0) else values * slope + offset
            ).astype("float32")
            made[name].attrs = {"units": spec.get("to", spec["units"]), "source": spec["from"]}
        if self.flag:
            made["provider_flag"] = raw[self.flag["from"]].assign_attrs(good=self.flag["good"])
        dataset = xr.Dataset({k: v.drop_vars(list(v.coords)) for k, v in made.items()})
        dataset = dataset.rename({self.place: "place"})
        dataset = dataset.assign_coords(
            time=days,
            place=[str(i) for i in ids],
            lat=("place", raw["lat"].values.astype("float64")),
            lon=("place", raw["lon"].values.astype("float64")),
        )
        return dataset.transpose("time", "place")


def _units_problems(name: str, spec: dict[str, str], found: str | None) -> list[str]:
    if found is not None and found != spec["units"]:
        return [f"{name}: units '{found}', expected '{spec['units']}'"]
    try:
        conversion(spec["units"], spec.get("to", spec["units"]))
    except DataError as error:
        return [f"{name}: {error}"]
    return []


def _time_problems(times: Any) -> list[str]:
    days = times.astype("datetime64[D]")
    steps = np.diff(days).astype(int)
    bad = np.flatnonzero(steps <= 0)
    if not bad.size:
        return []
    return [f"time: day {days[bad[0] + 1]} comes after {days[bad[0]]}; days must increase"]
