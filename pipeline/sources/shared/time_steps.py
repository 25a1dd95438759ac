"""Infer the interval that each value of a record stands for, and compute daily means.

A record may change its cadence and may have gaps. Both show as a longer distance between times. A
distance that is repeated is a cadence: three values in a row have it, or several values that fill
a day. A distance that is not repeated and is longer than the cadence before it is a gap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]
    Lengths = NDArray[np.timedelta64]


DISTANCE_TOLERANCE = 0.05  # relative difference below which two distances are the same
MIN_GAP = 1.5  # smallest gap, in multiples of the cadence
MAX_DISTANCES_TO_CADENCE = (
    8  # largest number of distances between a distance and the cadence that it begins
)
MIN_CADENCE_VALUES = 3  # smallest number of values in a row that make a cadence
TIME_TOLERANCE = 1e-6  # tolerance for comparing sums of times, in hours or steps
DAY_NS = 24 * 3600 * 10**9  # ns
TIME_UNITS = (
    (DAY_NS, "day"),
    (DAY_NS // 24, "hour"),
    (DAY_NS // 1440, "minute"),
    (10**9, "second"),
)


def median_step(times: Times) -> np.timedelta64:
    """Return the median time between values in ns; a day for a single value."""
    if len(times) < 2:
        return np.timedelta64(DAY_NS, "ns")
    return np.timedelta64(int(np.median(np.diff(_to_ns(times)))), "ns")


def interval_lengths(times: Times, stamp: str = "instant") -> Lengths:
    """Return the length of the interval that each value stands for.

    Args:
      times: (time,) increasing.
      stamp: Where the time of a value is in its interval: `start`, `middle` or `end`. The value of
        an `instant` stands for the time until the next one, as with `start`.

    Returns:
      (time,) timedelta64[ns]; a day for a single value. Intervals do not overlap.
    """
    times_ns = _to_ns(times)
    if len(times_ns) < 2:
        lengths = np.full(len(times_ns), DAY_NS)
    elif stamp == "middle":
        lengths = _lengths_around(times_ns)
    elif stamp == "end":
        lengths = _lengths_until_next(-times_ns[::-1])[::-1]
    else:
        lengths = _lengths_until_next(times_ns)
    return lengths.astype("timedelta64[ns]")


def interval_starts(times: Times, lengths: Any, stamp: str) -> Times:
    """Return (time,) the begin of the interval of each value.

    Args:
      times: (time,).
      lengths: Length of all intervals, or (time,) lengths, as timedelta64.
      stamp: Where the time of a value is in its interval.
    """
    offset = {"end": lengths, "middle": lengths // 2}.get(stamp, np.timedelta64(0, "ns"))
    begin: Times = times - offset
    return begin


def value_hours(times: Times) -> NDArray[np.float64]:
    """Return (time,) the hours that each value of a sensor stands for, until the next value.

    Args:
      times: (time,) increasing. A single value stands for an hour.
    """
    if len(times) < 2:
        return np.ones(len(times))
    lengths, step = interval_lengths(times), median_step(times)
    if is_regular(lengths, step):
        lengths = np.full(len(times), step)
    hours: NDArray[np.float64] = lengths / np.timedelta64(1, "h")
    return hours


def is_regular(lengths: Lengths, step: np.timedelta64) -> bool:
    """Return whether all values stand for one step."""
    return bool(
        (np.abs(lengths - step) <= DISTANCE_TOLERANCE * step.astype("timedelta64[ns]")).all()
    )


def describe_cadences(begin: Times, lengths: Lengths, most: int = 4) -> str:
    """Describe the cadences of a record: `hourly until 2016-01-02, 3-hourly from 2016-01-03`.

    Args:
      begin: (time,) begin of the interval of each value.
      lengths: (time,) lengths of the intervals as timedelta64.
      most: Largest number of successive cadences that are named.
    """
    ns = lengths.astype("timedelta64[ns]").astype(np.int64)
    firsts = np.flatnonzero(np.concatenate([[True], ~_equal_previous(ns)]))
    ends = np.append(firsts[1:], len(begin))
    parts: list[tuple[str, Any, Any]] = []
    for first, last in zip(firsts, ends - 1, strict=True):
        n = last - first + 1
        if len(begin) > 1 and (n < 2 or (n < MIN_CADENCE_VALUES and n * ns[first] < DAY_NS)):
            continue  # too few values to be a cadence
        name, days = name_cadence(lengths[first]), begin[[first, last]].astype("datetime64[D]")
        if parts and parts[-1][0] == name:
            parts[-1] = (name, parts[-1][1], days[1])
        else:
            parts.append((name, *days))
    if len(parts) < 2:
        return parts[0][0] if parts else ""
    texts = [f"{parts[0][0]} until {parts[0][2]}"]
    texts += [f"{name} from {first} to {last}" for name, first, last in parts[1:-1]]
    texts += [f"{parts[-1][0]} from {parts[-1][1]}"]
    more = f", and {len(texts) - most} more changes" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def name_cadence(length: np.timedelta64) -> str:
    """Return the name of a cadence, such as hourly, 3-hourly, daily or every 10 minutes."""
    ns = int(length.astype("timedelta64[ns]").astype(np.int64))
    size, unit = next(
        (pair for pair in TIME_UNITS if ns >= pair[0] * (1 - DISTANCE_TOLERANCE)), TIME_UNITS[-1]
    )
    if unit == "hour" and abs(ns / size - round(ns / size)) > DISTANCE_TOLERANCE:
        size, unit = TIME_UNITS[2]
    n = round(ns / size)
    adverb = {"day": "daily", "hour": "hourly"}.get(unit)
    if adverb is None or (unit == "day" and n > 1):
        return f"every {n} {unit}s" if n > 1 else f"every {unit}"
    return adverb if n == 1 else f"{n}-{adverb}"


# In the following functions, (distance,) arrays hold the ns from each time to the next, and a run
# is a series of equal distances.


def _to_ns(times: Times) -> NDArray[np.int64]:
    """Return (time,) ns since 1970."""
    return times.astype("datetime64[ns]").astype(np.int64)


def _lengths_until_next(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (time,) ns from each time to the next; before a gap, the cadence before it."""
    distance = np.diff(times_ns)
    run, count = _number_runs(distance)
    # The last value of a record belongs to the last run, but has no distance after it.
    n_values = count + (np.arange(len(count)) == run[-1])
    fills_day = np.bincount(run, distance) >= DAY_NS * (1 - DISTANCE_TOLERANCE)
    is_cadence = ((count > 1) & ((n_values >= MIN_CADENCE_VALUES) | fills_day))[run]
    is_cadence |= _begins_cadence(distance, is_cadence)
    nearest = _nearest_cadence(distance, is_cadence)
    lengths = np.where(is_cadence | (distance < MIN_GAP * nearest), distance, nearest)
    lengths = np.where(
        _is_isolated(is_cadence), np.minimum(lengths, _neighbouring_cadence(distance)), lengths
    )
    return np.append(lengths, lengths[-1])


def _is_isolated(is_cadence: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return (distance,) whether each is not of a cadence but between two that are."""
    padded = np.concatenate([[False], is_cadence, [False]])
    lone: NDArray[np.bool_] = ~is_cadence & padded[:-2] & padded[2:]
    return lone


def _neighbouring_cadence(distance: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (distance,) ns that a value stands for if its distance is not a cadence.

    A value is missing there. If the distance is longer than the one before, the value belongs to
    the cadence before it; otherwise it is the first value of the cadence after it.
    """
    before, after = np.append(distance[:1], distance[:-1]), np.append(distance[1:], distance[-1:])
    return np.where(distance > (1 + DISTANCE_TOLERANCE) * before, before, after)


def _begins_cadence(
    distance: NDArray[np.int64], is_cadence: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return (distance,) whether each begins a cadence that follows soon.

    It has the distance of that cadence, and no distance between them is shorter.
    """
    n, index = len(distance), np.arange(len(distance))
    next_cadence = np.minimum.accumulate(np.where(is_cadence, index, n)[::-1])[::-1]
    begins = ~is_cadence & (next_cadence < n) & (next_cadence - index <= MAX_DISTANCES_TO_CADENCE)
    cadence = distance[np.minimum(next_cadence, n - 1)]
    begins &= np.abs(distance - cadence) <= DISTANCE_TOLERANCE * cadence
    for i in np.flatnonzero(begins):
        begins[i] = distance[i : next_cadence[i]].min() >= (1 - DISTANCE_TOLERANCE) * cadence[i]
    return begins


def _lengths_around(times_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (time,) ns of the intervals whose middles are the times.

    Where a cadence changes from a to b, the times are (a + b) / 2 apart.
    """
    distance = np.diff(times_ns)
    run, count = _number_runs(distance)
    last = np.cumsum(count) - 1
    first = last - count + 1
    is_bounded = _joins_neighbour(distance, first, -1) & _joins_neighbour(distance, last, 1)
    n_values = count + is_bounded
    fills_day = n_values * distance[first] >= DAY_NS * (1 - DISTANCE_TOLERANCE)
    is_short_cadence = is_bounded & (n_values > 1) & ((n_values >= MIN_CADENCE_VALUES) | fills_day)
    is_cadence = ((count >= MIN_CADENCE_VALUES) | is_short_cadence)[run]
    limit = np.minimum(distance, _nearest_cadence(distance, is_cadence))
    # A value has a distance on both sides; the smaller one that is a cadence counts, if any.
    huge = np.iinfo(np.int64).max
    certain, guess = np.where(is_cadence, distance, huge), np.where(is_cadence, huge, limit)
    smaller_certain, smaller_guess = (
        np.minimum(np.append(side, huge), np.append(huge, side)) for side in (certain, guess)
    )
    lengths: NDArray[np.int64] = np.where(smaller_certain < huge, smaller_certain, smaller_guess)
    return lengths


def _joins_neighbour(
    distance: NDArray[np.int64], edge: NDArray[np.int64], side: int
) -> NDArray[np.bool_]:
    """Return (run,) whether a run ends with the record, or changes to the cadence beside it.

    Args:
      distance: (distance,) ns.
      edge: (run,) index of the first or last distance of each run.
      side: -1 to look before the run, 1 to look after it.
    """
    n = len(distance)
    is_end = (edge + side < 0) | (edge + side >= n)
    next_distance = distance[np.clip(edge + side, 0, n - 1)]
    second_distance = distance[np.clip(edge + 2 * side, 0, n - 1)]
    has_second = (edge + 2 * side >= 0) & (edge + 2 * side < n)
    excess = np.abs(2 * next_distance - distance[edge] - second_distance)
    joins: NDArray[np.bool_] = is_end | (
        has_second & (excess <= 2 * DISTANCE_TOLERANCE * next_distance)
    )
    return joins


def _equal_previous(distance: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (distance - 1,) whether each distance but the first equals the one before it."""
    limit = DISTANCE_TOLERANCE * np.minimum(distance[1:], distance[:-1])
    same: NDArray[np.bool_] = np.abs(np.diff(distance)) <= limit
    return same


def _number_runs(distance: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (distance,) the index of the run of each, and (run,) the number of distances."""
    run = np.concatenate([[0], np.cumsum(~_equal_previous(distance))])
    return run, np.bincount(run)


def _nearest_cadence(
    distance: NDArray[np.int64], is_cadence: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return (distance,) the cadence at or before each distance.

    Before the first cadence it is the first one; without any cadence it is the median distance.
    """
    if not is_cadence.any():
        return np.full(len(distance), np.sort(distance)[(len(distance) - 1) // 2])
    index = np.maximum.accumulate(np.where(is_cadence, np.arange(len(distance)), -1))
    return distance[np.where(index < 0, is_cadence.argmax(), index)]


class SensorRecord(NamedTuple):
    """A sensor's record.

    Attributes:
      times: (n,) datetime64, UTC. Of several values at one time, the first is used.
      values: (n,) float32, NaN where missing.
      flags: (n,) quality codes.
    """

    times: NDArray[np.datetime64]
    values: NDArray[np.float32]
    flags: NDArray[np.int32]


class DailyValues(NamedTuple):
    """Daily values: (day,) float32 values and (day,) quality codes."""

    values: NDArray[np.float32]
    flags: NDArray[np.int32]


class QualityCodes(NamedTuple):
    """Quality codes of a good day, a day with too few good hours, and a day without values."""

    good: int
    few: int
    missing: int


def utc_offset(lon: float) -> int:
    """Return the hours from UTC to local standard time at a longitude in degrees east."""
    return int(np.rint(((lon + 180) % 360 - 180) / 15))


def average_days(
    hours: SensorRecord,
    days: NDArray[np.datetime64],
    codes: QualityCodes,
    min_hours: int,
    offset_hours: int = 0,
) -> DailyValues:
    """Return daily means of a record.

    A value is weighted by the time that it stands for: until the next value, except across gaps.

    If the good values of a day cover at least `min_hours`, the day is good, and its value is their
    mean. Otherwise its value is the mean of all values, and its flag the most frequent one that is
    not good, so that values dropped because of their flag can be counted. If no value has such a
    flag, the day's flag is that for too few hours.

    Args:
      hours: The record.
      days: (day,) consecutive days as datetime64[D].
      codes: The flags with a meaning in this function.
      min_hours: Smallest number of hours that the good values of a good day cover.
      offset_hours: Hours from UTC to the clock that defines days.
    """
    times, first = np.unique(hours.times, return_index=True)
    local = hours.times[first] + np.timedelta64(offset_hours, "h")
    day = (local.astype("datetime64[D]") - days[0]).astype(np.int64)
    inside = (day >= 0) & (day < len(days))
    day, values, flags = day[inside], hours.values[first][inside], hours.flags[first][inside]
    time = value_hours(times)[inside]
    has_value = np.isfinite(values)
    flags = np.where(~has_value & (flags == codes.good), codes.missing, flags)
    good = flags == codes.good
    good_hours, good_sum = _weighted_sums(day[good], values[good], time[good], len(days))
    all_hours, all_sum = _weighted_sums(
        day[has_value], values[has_value], time[has_value], len(days)
    )
    is_good_day = good_hours >= min_hours - TIME_TOLERANCE
    with np.errstate(invalid="ignore"):
        mean = np.where(is_good_day, good_sum / good_hours, all_sum / all_hours)
    flag = np.full(len(days), codes.missing)
    flag[day] = codes.few
    # Count pairs of day and flag. Pairs are sorted by count, so that the assignment for a day's
    # most frequent flag comes last and stays.
    pairs, pair_count = np.unique((day << 32 | flags)[~good], return_counts=True)
    pairs = pairs[np.lexsort((-pairs, pair_count))]
    flag[pairs >> 32] = pairs & 0xFFFFFFFF
    return DailyValues(
        mean.astype(np.float32), np.where(is_good_day, codes.good, flag).astype(np.int32)
    )


def average_sensors(parts: Sequence[DailyValues], good: int) -> DailyValues:
    """Return the mean of the sensors that are good on a day.

    If none is good, the value and the flag are those of the first sensor with a value.

    Args:
      parts: Daily values of each sensor.
      good: Quality code of a good day.
    """
    values, flags = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    is_good = (flags == good) & np.isfinite(values)
    n = is_good.sum(0)
    first = np.isfinite(values).argmax(0)[None]
    mean = np.where(is_good, values, 0).sum(0) / np.maximum(n, 1)
    single = np.take_along_axis(values, first, 0)[0]
    flag = np.where(n, good, np.take_along_axis(flags, first, 0)[0])
    return DailyValues(np.where(n, mean, single).astype(np.float32), flag.astype(np.int32))


def _weighted_sums(
    day: NDArray[np.int64], values: NDArray[np.float32], time: NDArray[np.float64], n: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (day,) the time that values cover, and (day,) the sum of values times their time."""
    weighted = values.astype(np.float64) * time
    return np.bincount(day, time, minlength=n), np.bincount(day, weighted, minlength=n)
