"""Select what to read at an ISMN site: join successive sensors, and rank the resulting records."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.sources.ismn.sensors import Sensor

SHOWN = 5  # largest number of sites that a note names


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


def joined(sensors: Sequence[Sensor]) -> list[Record]:
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


def ranked(
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
    candidates = [record for record in records if period is None or _touches(record, period)]
    counts: dict[tuple[str, ...], int] = {}
    if len(candidates) > 1:
        counts = {record.members: _n_days(good_days(record), period) for record in candidates}
    elif candidates:
        counts = {candidates[0].members: 1}

    def sort_key(record: Record) -> tuple[object, ...]:
        n = counts.get(record.members, 0)
        distance = 0.0
        if target is not None:
            distance = abs(record.sensors[0].depth_to - target.sensors[0].depth_to)
        return n == 0, distance, -n, -record.seconds, record.members

    return sorted(records, key=sort_key)


def notes(
    sites: Sequence[Sequence[Sequence[Record]]], left_out: Sequence[tuple[Record, Record]] = ()
) -> list[str]:
    """Return notes for users on the selection of sensors.

    Args:
      sites: For each site and variable, the records that are read.
      left_out: Pairs of a record that is read and one that is not, although it begins earlier or
        ends later.
    """
    joined = [
        f"{s[0].network}_{s[0].site} ({s[0].variable}: {_shown(s)})"
        for site in sites
        for records in site
        for s in (record.sensors for record in records)
        if len(s) > 1
    ]
    unread = [
        f"{record.sensors[0].network}_{record.sensors[0].site} "
        f"({_shown(record.sensors)}, not {_shown(other.sensors)})"
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
    return [*_listed(joined, joined_text), *_listed(unread, unread_text)]


def _listed(items: Sequence[str], what: str) -> list[str]:
    """Return one note that counts items and names the first of them; none without items."""
    if not items:
        return []
    more = f"; and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return [f"{len(items)} {what}: {'; '.join(items[:SHOWN])}{more}"]


def longer(
    record: Record, others: Sequence[Record], period: tuple[np.datetime64, np.datetime64] | None
) -> list[Record]:
    """Return other records that begin at least a day earlier or end at least a day later.

    Only the parts of the records inside the period are compared.
    """
    day = np.timedelta64(1, "D")
    first, last = _ends(record, period)
    ends = ((other, _ends(other, period)) for other in others if other != record)
    return [
        other
        for other, (begin, end) in ends
        if begin < end and (begin <= first - day or end >= last + day)
    ]


def _ends(
    record: Record, period: tuple[np.datetime64, np.datetime64] | None
) -> tuple[np.datetime64, np.datetime64]:
    """Return when a record begins and ends inside a period."""
    first = min(sensor.first for sensor in record.sensors)
    last = max(sensor.last for sensor in record.sensors)
    if period is None:
        return first, last
    return max(first, period[0]), min(last, period[1] + np.timedelta64(1, "D"))


def _shown(sensors: Sequence[Sensor]) -> str:
    """Return the names of sensors with their first and last days."""
    parts = (
        f"{s.instrument} {s.first.astype('datetime64[D]')}..{s.last.astype('datetime64[D]')}"
        for s in sensors
    )
    return ", ".join(parts)


def _touches(record: Record, period: tuple[np.datetime64, np.datetime64]) -> bool:
    """Return whether a record may have values in a period of UTC or local days."""
    # A local day may begin up to a day before or after the UTC day of the same date.
    day = np.timedelta64(1, "D")
    first, last = period[0] - day, period[1] + 2 * day
    return any(s.last >= first and s.first <= last for s in record.sensors)


def _n_days(
    days: NDArray[np.datetime64], period: tuple[np.datetime64, np.datetime64] | None
) -> int:
    """Return how many of the days lie in a period."""
    if period is None:
        return len(days)
    return int(((days >= period[0]) & (days <= period[1])).sum())
