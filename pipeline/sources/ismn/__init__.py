"""Intake driver for archives of the International Soil Moisture Network (ISMN).

The driver reads the zip that a user downloads from ismn.earth, or the folder that it unpacks to:
hourly values in UTC with quality flags. `to_dask()` returns daily values of sites:

  dims     time, place
  coords   time (datetime64, a day), place (network_site), lat, lon (degrees), network, sensor,
           elevation (m), depth_from, depth_to (m), utc_offset_hours
  data     soilweave's variables, float32, in soilweave's units; provider_flag (time, place), sums
           of bits, with attributes flag_masks, flag_values, flag_meanings, `good` and
           `unchecked` (values to which ISMN applied no check)
  attrs    time_convention; notes, which name the records that join several sensors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import daily, http_errors, places
from pipeline.sources.form import Mapping, Source
from pipeline.sources.ismn import archive, choice, sensors
from pipeline.sources.ismn.days import TOLD, good_days, record

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.ismn.choice import Record
    from pipeline.sources.ismn.sensors import Sensor

CONVENTION = {"utc": "UTC day", "local": "local standard time day"}


class IsmnSource(Source):
    """Read an ISMN archive as points with daily values.

    Successive sensors of one depth, such as a sensor and its replacement, form one record. If a
    site has several records, the one with the most good days in the requested period is read, so
    that another period may select another record.

    Args:
      urlpath: The zip, or the folder it unpacks to. A remote zip is copied to the user's cache.
      mapping: {soilweave's name: {"from": ISMN's name, "units": its units, "to": soilweave's
        units}}, or a list of such dictionaries. The places are the sites that measure the target,
        or the first variable if there is no target; `provider_flag` belongs to that variable.
      depth: Top and bottom of the depth range, m. Only sensors inside it are read.
      day: `utc`, or `local` for days of local standard time, computed from the longitude.
      min_hours: Fewest hours of a day that good values must cover. Each value covers the time
        until the next one. The default is half a day, because readings follow the temperature of
        the soil through the day, so that the mean of a night differs from that of a day.
      several: If a site has several records in the depth range, read the `longest`, which is the
        one with the most good days in the period, or the `mean` of all.
      login: As in `Source`.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.
    """

    name = "soilweave_ismn"

    def __init__(
        self,
        urlpath: str,
        mapping: Mapping | list[Mapping],
        depth: tuple[float, float] = (0.0, 0.075),
        day: Literal["utc", "local"] = "utc",
        min_hours: int = 12,
        several: Literal["longest", "mean"] = "longest",
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If an argument is not accepted.
        """
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        if day not in CONVENTION:
            raise ValueError(f"day: '{day}'; accepted: {', '.join(CONVENTION)}")
        if several not in ("longest", "mean"):
            raise ValueError(f"several: '{several}'; accepted: longest, mean")
        if self.fills:
            raise ValueError("fill: not accepted; ISMN uses -999 and lower for missing values")
        if not 1 <= min_hours <= 24:
            raise ValueError(f"min_hours: {min_hours}; accepted: 1 to 24")
        self.depth = (float(depth[0]), float(depth[1]))
        self.day, self.min_hours, self.several = day, min_hours, several

    def digest(self) -> str:
        """Return a digest of the sensors' files that is the same for a zip and its folder.

        Raises:
          DataError: If the archive is missing or damaged.
        """
        return archive.digest(self.urlpath, self.storage_options, self.login)

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays.

        Raises:
          DataError: If the archive is missing or damaged, or has no such sensor in the region.
        """
        import xarray as xr
        from dask.delayed import delayed

        path = archive.local(self.urlpath, self.storage_options, self.login)
        sites, left_out = self._sites(path)
        main_records = [records[0][0] for records in sites]
        offsets = [self._offset(record) for record in main_records]
        days = self._days(sites, offsets)
        where = (path, self.urlpath, self.storage_options, self.login)
        read = delayed(record, nout=2)
        lazy_sites = [
            read(
                where,
                [[r.members for r in variable_records] for variable_records in records],
                days,
                self.min_hours,
                offset,
            )
            for records, offset in zip(sites, offsets, strict=True)
        ]
        names = places.by_target(self.mapping)
        values = places.side_by_side([site[0] for site in lazy_sites], len(days), names, "float32")
        flags = places.side_by_side([site[1] for site in lazy_sites], len(days), ["flag"], "int32")
        raw = xr.Dataset({name: (("time", "place"), array) for name, array in values.items()})
        variables = self.translated(raw)
        variables["provider_flag"] = xr.DataArray(flags["flag"], dims=("time", "place"), attrs=TOLD)
        coords = _coordinates(main_records) | {"utc_offset_hours": ("place", np.array(offsets))}
        coords["time"] = ("time", days.astype("datetime64[ns]"))
        attrs: dict[str, Any] = {"time_convention": CONVENTION[self.day]}
        if notes := choice.notes(sites, left_out):
            attrs["notes"] = notes
        return xr.Dataset(variables, coords, attrs)

    read = to_dask

    def _sites(self, path: str) -> tuple[list[list[list[Record]]], list[tuple[Record, Record]]]:
        """Select the records to read.

        Returns:
          For each site and variable, the records to read, an empty list where there is none; and
          for the first variable, pairs of a record to read and one that is not read although it
          begins earlier or ends later.
        """
        names = places.by_target(self.mapping)
        matching, others = sensors.sensors(path, names, self.depth)
        groups: dict[tuple[str, str], list[Sensor]] = {}
        for sensor in matching:
            if places.inside(sensor.lat, sensor.lon, self.region):
                groups.setdefault((sensor.network, sensor.site), []).append(sensor)
        sites: list[list[list[Record]]] = []
        left_out: list[tuple[Record, Record]] = []
        for _, group in sorted(groups.items()):
            records = choice.joined(group)
            first = self._chosen(path, records, names[0], None)
            if first:
                rest = [self._chosen(path, records, name, first[0]) for name in names[1:]]
                sites.append([first, *rest])
                unread = [
                    r for r in records if r.sensors[0].variable == names[0] and r not in first
                ]
                left_out += [(first[0], r) for r in choice.longer(first[0], unread, self._period)]
        if not sites:
            top, bottom = self.depth
            where = "" if self.region is None else " in the region"
            problem = f"no sensor of {names[0]} at {top:g} to {bottom:g} m{where}"
            if others:
                problem += f"; the archive has {'; '.join(others)}"
            place = http_errors.shown(self.urlpath)
            raise DataError(place, problem, remedy="choose another depth or region")
        return sites, left_out

    def _chosen(
        self, path: str, records: list[Record], name: str, beside: Record | None
    ) -> list[Record]:
        """Return the records of a variable to read at a site: all, or the best of the period."""
        candidates = [record for record in records if record.sensors[0].variable == name]
        use_mean = self.several == "mean"
        ranked = choice.ranked(
            candidates,
            beside,
            None if use_mean else self._period,
            lambda record: self._good_days(path, record),
        )
        return ranked if use_mean else ranked[:1]

    def _good_days(self, path: str, record: Record) -> NDArray[np.datetime64]:
        """Return (day,) the good or unchecked days of a record."""
        return good_days(path, record.members, self.min_hours, self._offset(record))

    def _offset(self, record: Record) -> int:
        """Return the hours by which the clock that defines the days is ahead of UTC."""
        return daily.utc_offset(record.sensors[0].lon) if self.day == "local" else 0

    @property
    def _period(self) -> tuple[np.datetime64, np.datetime64] | None:
        """The first and last requested day; None for all days of the archive."""
        if self.period is None:
            return None
        return np.datetime64(self.period[0], "D"), np.datetime64(self.period[1], "D")

    def _days(self, sites: list[list[list[Record]]], offsets: list[int]) -> NDArray[np.datetime64]:
        """Return (time,) the requested days, by default all from the first to the last record."""
        if (period := self._period) is not None:
            return np.arange(period[0], period[1] + 1)
        ends = [
            np.array([sensor.first, sensor.last]) + np.timedelta64(offset, "h")
            for records, offset in zip(sites, offsets, strict=True)
            for record in records[0]
            for sensor in record.sensors
        ]
        days = np.array(ends).astype("datetime64[D]")
        return np.arange(days.min(), days.max() + 1)


def _coordinates(records: list[Record]) -> dict[str, Any]:
    """Return the coordinates along `place`, those of the first sensor of each record."""
    sensors = [record.sensors[0] for record in records]
    ids = [f"{sensor.network}_{sensor.site}" for sensor in sensors]
    coordinates: dict[str, Any] = {"place": ("place", ids)}
    for name in ("lat", "lon", "elevation", "depth_from", "depth_to"):
        values = np.array([getattr(sensor, name) for sensor in sensors], float)
        coordinates[name] = ("place", values)
    coordinates["network"] = ("place", [sensor.network for sensor in sensors])
    coordinates["sensor"] = ("place", [record.instrument for record in records])
    return coordinates
