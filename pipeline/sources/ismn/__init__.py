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

Select what to read at an ISMN site: join successive sensors, and rank the resulting records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.ismn import archive
from pipeline.sources.ismn.days import FLAG_ATTRS, read_site
from pipeline.sources.ismn.days import good_days as days_good_days
from pipeline.sources.shared import http_errors, time_steps
from pipeline.sources.shared import sites as shared_sites
from pipeline.sources.shared.driver import EntryMapping, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.ismn.archive import Sensor


TIME_CONVENTIONS = {"utc": "UTC day", "local": "local standard time day"}


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
        mapping: EntryMapping | list[EntryMapping],
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
        if day not in TIME_CONVENTIONS:
            raise ValueError(f"day: '{day}'; accepted: {', '.join(TIME_CONVENTIONS)}")
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
        return archive.archive_digest(self.urlpath, self.storage_options, self.login)

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays.

        Raises:
          DataError: If the archive is missing or damaged, or has no such sensor in the region.
        """
        import xarray as xr
        from dask.delayed import delayed

        path = archive.local_archive(self.urlpath, self.storage_options, self.login)
        sites, left_out = self._sites(path)
        main_records = [records[0][0] for records in sites]
        offsets = [self._offset(record) for record in main_records]
        days = self._days(sites, offsets)
        where = (path, self.urlpath, self.storage_options, self.login)
        read = delayed(read_site, nout=2)
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
        names = shared_sites.target_first(self.mapping)
        values = shared_sites.stack_records(
            [site[0] for site in lazy_sites], len(days), names, "float32"
        )
        flags = shared_sites.stack_records(
            [site[1] for site in lazy_sites], len(days), ["flag"], "int32"
        )
        raw = xr.Dataset({name: (("time", "place"), array) for name, array in values.items()})
        variables = self.translate(raw)
        variables["provider_flag"] = xr.DataArray(
            flags["flag"], dims=("time", "place"), attrs=FLAG_ATTRS
        )
        coords = _coordinates(main_records) | {"utc_offset_hours": ("place", np.array(offsets))}
        coords["time"] = ("time", days.astype("datetime64[ns]"))
        attrs: dict[str, Any] = {"time_convention": TIME_CONVENTIONS[self.day]}
        if notes := selection_notes(sites, left_out):
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
        names = shared_sites.target_first(self.mapping)
        matching, others = archive.find_sensors(path, names, self.depth)
        groups: dict[tuple[str, str], list[Sensor]] = {}
        for sensor in matching:
            if shared_sites.is_inside(sensor.lat, sensor.lon, self.region):
                groups.setdefault((sensor.network, sensor.site), []).append(sensor)
        sites: list[list[list[Record]]] = []
        left_out: list[tuple[Record, Record]] = []
        for _, group in sorted(groups.items()):
            records = join_sensors(group)
            first = self._chosen(path, records, names[0], None)
            if first:
                rest = [self._chosen(path, records, name, first[0]) for name in names[1:]]
                sites.append([first, *rest])
                unread = [
                    r for r in records if r.sensors[0].variable == names[0] and r not in first
                ]
                left_out += [(first[0], r) for r in records_beyond(first[0], unread, self._period)]
        if not sites:
            top, bottom = self.depth
            where = "" if self.region is None else " in the region"
            problem = f"no sensor of {names[0]} at {top:g} to {bottom:g} m{where}"
            if others:
                problem += f"; the archive has {'; '.join(others)}"
            place = http_errors.format_url(self.urlpath)
            raise DataError(place, problem, remedy="choose another depth or region")
        return sites, left_out

    def _chosen(
        self, path: str, records: list[Record], name: str, beside: Record | None
    ) -> list[Record]:
        """Return the records of a variable to read at a site: all, or the best of the period."""
        candidates = [record for record in records if record.sensors[0].variable == name]
        use_mean = self.several == "mean"
        ranked = rank_records(
            candidates,
            beside,
            None if use_mean else self._period,
            lambda record: self._good_days(path, record),
        )
        return ranked if use_mean else ranked[:1]

    def _good_days(self, path: str, record: Record) -> NDArray[np.datetime64]:
        """Return (day,) the good or unchecked days of a record."""
        return days_good_days(path, record.members, self.min_hours, self._offset(record))

    def _offset(self, record: Record) -> int:
        """Return the hours by which the clock that defines the days is ahead of UTC."""
        return time_steps.utc_offset(record.sensors[0].lon) if self.day == "local" else 0

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


MAX_SITES_NAMED = 5  # largest number of sites that a note names


class Record(NamedTuple):
    """Successive sensors of one variable, depth and position."""

    sensors: tuple[Sensor, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """The files of the sensors."""
        return tuple(sensor.member for sensor in self.sensors)

    @property
    def instrument(self) -> str:
        """The names of the sensors, without duplicates."""
        return " + ".join(dict.fromkeys(sensor.instrument for sensor in self.sensors))

    @property
    def seconds(self) -> float:
        """The time in seconds that the sensors cover."""
        return float(sum((s.last - s.first).astype(float) for s in self.sensors))


def join_sensors(sensors: Sequence[Sensor]) -> list[Record]:
    """Join the sensors of a site to records.

    Sensors of one variable, depth and position that do not overlap in time form one record. A
    sensor continues the record that ends last among those that end before it begins.
    """
    groups: dict[tuple[object, ...], list[list[Sensor]]] = {}
    for sensor in sorted(sensors, key=lambda s: (s.first, s.last, s.member)):
        key = (sensor.variable, sensor.depth_from, sensor.depth_to, sensor.lat, sensor.lon)
        records = groups.setdefault(key, [])
        earlier = [record for record in records if record[-1].last <= sensor.first]
        if earlier:
            max(earlier, key=lambda record: record[-1].last).append(sensor)
        else:
            records.append([sensor])
    return [Record(tuple(record)) for records in groups.values() for record in records]


def rank_records(
    records: Sequence[Record],
    target: Record | None,
    period: tuple[np.datetime64, np.datetime64] | None,
    good_days: Callable[[Record], NDArray[np.datetime64]],
) -> list[Record]:
    """Sort records so that the one with the most good days in the period comes first.

    If a target is given, records with any good day are sorted by the distance of their depth from
    the target's first, and then by the number of good days. Ties are resolved by the time that
    the records cover, and then by the names of their files.

    Args:
      records: Records of one variable at a site.
      target: The record of the target, if `records` are of another variable.
      period: First and last day of the period; None for all days.
      good_days: Returns (day,) the good days of a record. It reads the files, and is called only
        if more than one record may have values in the period.
    """
    if len(records) < 2:
        return list(records)
    candidates = [record for record in records if period is None or _may_overlap(record, period)]
    counts: dict[tuple[str, ...], int] = {}
    if len(candidates) > 1:
        counts = {record.members: _count_days(good_days(record), period) for record in candidates}
    elif candidates:
        counts = {candidates[0].members: 1}

    def sort_key(record: Record) -> tuple[object, ...]:
        n = counts.get(record.members, 0)
        distance = 0.0
        if target is not None:
            distance = abs(record.sensors[0].depth_to - target.sensors[0].depth_to)
        return n == 0, distance, -n, -record.seconds, record.members

    return sorted(records, key=sort_key)


def selection_notes(
    sites: Sequence[Sequence[Sequence[Record]]], left_out: Sequence[tuple[Record, Record]] = ()
) -> list[str]:
    """Return notes for users on the selection of sensors.

    Args:
      sites: For each site and variable, the records that are read.
      left_out: Pairs of a record that is read and one that is not, although it begins earlier or
        ends later.
    """
    joined = [
        f"{s[0].network}_{s[0].site} ({s[0].variable}: {_format_sensors(s)})"
        for site in sites
        for records in site
        for s in (record.sensors for record in records)
        if len(s) > 1
    ]
    unread = [
        f"{record.sensors[0].network}_{record.sensors[0].site} "
        f"({_format_sensors(record.sensors)}, not {_format_sensors(other.sensors)})"
        for record, other in left_out
    ]
    if len(joined) == 1:
        joined_text = "record joins successive sensors of one depth"
    else:
        joined_text = "records join successive sensors of one depth"
    if len(unread) == 1:
        unread_text = "record is not read although it begins before or ends after the one read"
    else:
        unread_text = "records are not read although they begin before or end after the ones read"
    return [*_count_and_name(joined, joined_text), *_count_and_name(unread, unread_text)]


def _count_and_name(items: Sequence[str], what: str) -> list[str]:
    """Return one note that counts items and names the first of them; none without items."""
    if not items:
        return []
    more = f"; and {len(items) - MAX_SITES_NAMED} more" if len(items) > MAX_SITES_NAMED else ""
    return [f"{len(items)} {what}: {'; '.join(items[:MAX_SITES_NAMED])}{more}"]


def records_beyond(
    record: Record, others: Sequence[Record], period: tuple[np.datetime64, np.datetime64] | None
) -> list[Record]:
    """Return other records that begin at least a day earlier or end at least a day later.

    Only the parts of the records inside the period are compared.
    """
    day = np.timedelta64(1, "D")
    first, last = _begin_and_end(record, period)
    ends = ((other, _begin_and_end(other, period)) for other in others if other != record)
    return [
        other
        for other, (begin, end) in ends
        if begin < end and (begin <= first - day or end >= last + day)
    ]


def _begin_and_end(
    record: Record, period: tuple[np.datetime64, np.datetime64] | None
) -> tuple[np.datetime64, np.datetime64]:
    """Return when a record begins and ends inside a period."""
    first = min(sensor.first for sensor in record.sensors)
    last = max(sensor.last for sensor in record.sensors)
    if period is None:
        return first, last
    return max(first, period[0]), min(last, period[1] + np.timedelta64(1, "D"))


def _format_sensors(sensors: Sequence[Sensor]) -> str:
    """Return the names of sensors with their first and last days."""
    parts = (
        f"{s.instrument} {s.first.astype('datetime64[D]')}..{s.last.astype('datetime64[D]')}"
        for s in sensors
    )
    return ", ".join(parts)


def _may_overlap(record: Record, period: tuple[np.datetime64, np.datetime64]) -> bool:
    """Return whether a record may have values in a period of UTC or local days."""
    # A local day may begin up to a day before or after the UTC day of the same date.
    day = np.timedelta64(1, "D")
    first, last = period[0] - day, period[1] + 2 * day
    return any(s.last >= first and s.first <= last for s in record.sensors)


def _count_days(
    days: NDArray[np.datetime64], period: tuple[np.datetime64, np.datetime64] | None
) -> int:
    """Return how many of the days lie in a period."""
    if period is None:
        return len(days)
    return int(((days >= period[0]) & (days <= period[1])).sum())
