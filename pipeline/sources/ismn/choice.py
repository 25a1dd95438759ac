"""Which sensors of a site are read: successive ones joined, and the best record of the period."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pipeline.sources.ismn.sensors import Sensor

SHOWN = 5  # sites that a note names


class Record(NamedTuple):
    """Sensors of one variable, depth and position that follow one another in time."""

    sensors: tuple[Sensor, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """Their files."""
        return tuple(sensor.member for sensor in self.sensors)

    @property
    def instrument(self) -> str:
        """Their names, each once."""
        return " + ".join(dict.fromkeys(sensor.instrument for sensor in self.sensors))

    @property
    def seconds(self) -> float:
        """Time that they cover."""
        return float(sum((s.last - s.first).astype(float) for s in self.sensors))


def joined(sensors: Sequence[Sensor]) -> list[Record]:
    """Records of a site: sensors of one variable, depth and position that do not overlap are one.

    A sensor continues the record that ended last before it begins.
    """
    groups: dict[tuple[object, ...], list[list[Sensor]]] = {}
    for sensor in sorted(sensors, key=lambda s: (s.first, s.last, s.member)):
        key = (sensor.variable, sensor.depth_from, sensor.depth_to, sensor.lat, sensor.lon)
        records = groups.setdefault(key, [])
        ended = [record for record in records if record[-1].last <= sensor.first]
        if ended:
            max(ended, key=lambda record: record[-1].last).append(sensor)
        else:
            records.append([sensor])
    return [Record(tuple(held)) for records in groups.values() for held in records]


def ranked(
    records: Sequence[Record],
    beside: Record | None,
    wanted: tuple[np.datetime64, np.datetime64] | None,
    good_days: Callable[[Record], NDArray[np.datetime64]],
) -> list[Record]:
    """Records, the one of most good days in the period first.

    Of another variable, those with good days come by their distance from the target's depth, and
    then by good days. Equals come by the time they cover, and by their files' names.

    Args:
      records: of one variable at a site.
      beside: the target's record, where these are of another variable.
      wanted: first and last day of the period; None for all that there is.
      good_days: days of a record that are good; it is asked only where there is a choice.
    """
    if len(records) < 2:
        return list(records)
    may_have = [record for record in records if wanted is None or _touches(record, wanted)]
    counts: dict[tuple[str, ...], int] = {}
    if len(may_have) > 1:
        counts = {record.members: _n_days(good_days(record), wanted) for record in may_have}
    elif may_have:
        counts = {may_have[0].members: 1}

    def order(record: Record) -> tuple[object, ...]:
        n = counts.get(record.members, 0)
        away = 0.0
        if beside is not None:
            away = abs(record.sensors[0].depth_to - beside.sensors[0].depth_to)
        return n == 0, away, -n, -record.seconds, record.members

    return sorted(records, key=order)


def notes(
    sites: Sequence[Sequence[Sequence[Record]]], left_out: Sequence[tuple[Record, Record]] = ()
) -> list[str]:
    """What a person should know of the sensors that were chosen.

    Args:
      sites: for each site, for each variable, the records that are read.
      left_out: pairs of the record that is read and one that is not, although it has days before
        or after it.
    """
    joined = [
        f"{s[0].network}_{s[0].site} ({s[0].variable}: {_shown(s)})"
        for site in sites
        for records in site
        for s in (record.sensors for record in records)
        if len(s) > 1
    ]
    beside = [
        f"{s[0].network}_{s[0].site} ({_shown(s)}, not {_shown(other.sensors)})"
        for s, other in ((record.sensors, other) for record, other in left_out)
    ]
    joins = "record joins" if len(joined) == 1 else "records join"
    are = "record is" if len(beside) == 1 else "records are"
    what = f"{are} not read for overlap or another depth, with days outside the one that is read"
    return [
        *_listed(joined, f"{joins} successive sensors of one depth"),
        *_listed(beside, what),
    ]


def _listed(told: Sequence[str], what: str) -> list[str]:
    if not told:
        return []
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return [f"{len(told)} {what}: {'; '.join(told[:SHOWN])}{more}"]


def longer(
    record: Record, others: Sequence[Record], wanted: tuple[np.datetime64, np.datetime64] | None
) -> list[Record]:
    """Others that begin a day or more before a record, or end so much after it, in a period."""
    day = np.timedelta64(1, "D")
    first, last = _ends(record, wanted)
    ends = ((other, _ends(other, wanted)) for other in others if other != record)
    return [
        other
        for other, (begin, end) in ends
        if begin < end and (begin <= first - day or end >= last + day)
    ]


def _ends(
    record: Record, wanted: tuple[np.datetime64, np.datetime64] | None
) -> tuple[np.datetime64, np.datetime64]:
    """When a record begins and ends, in a period."""
    first = min(sensor.first for sensor in record.sensors)
    last = max(sensor.last for sensor in record.sensors)
    if wanted is None:
        return first, last
    return max(first, wanted[0]), min(last, wanted[1] + np.timedelta64(1, "D"))


def _shown(sensors: Sequence[Sensor]) -> str:
    parts = (
        f"{s.instrument} {s.first.astype('datetime64[D]')}..{s.last.astype('datetime64[D]')}"
        for s in sensors
    )
    return ", ".join(parts)


def _touches(record: Record, wanted: tuple[np.datetime64, np.datetime64]) -> bool:
    """Whether a record may have values in a period; days of local time begin a day apart."""
    day = np.timedelta64(1, "D")
    first, last = wanted[0] - day, wanted[1] + 2 * day
    return any(s.last >= first and s.first <= last for s in record.sensors)


def _n_days(
    days: NDArray[np.datetime64], wanted: tuple[np.datetime64, np.datetime64] | None
) -> int:
    if wanted is None:
        return len(days)
    return int(((days >= wanted[0]) & (days <= wanted[1])).sum())
