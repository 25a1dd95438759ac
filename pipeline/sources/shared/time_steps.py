"""How long each value of a record stands for: told by the times around it, value by value.

A record may change its cadence, and it may have gaps; both show as a longer distance between
times. A distance that is repeated is a cadence: three values in a row have it, or several that
fill a day. A distance that is not repeated, and is longer than the cadence before it, is a gap.

From readings to days: daily means of a site's series, and the flag that each day earns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]
    Lengths = NDArray[np.timedelta64]


ALIKE = 0.05  # relative difference below which two distances are the same
GAP = 1.5  # times the cadence, from which on a distance is a gap
SOON = 8  # distances from a gap to a cadence
LEAST = 3  # values in a row that make a cadence
TINY = 1e-6  # of an hour or a step, in comparing sums of times
DAY = 24 * 3600 * 10**9  # ns
UNITS = ((DAY, "day"), (DAY // 24, "hour"), (DAY // 1440, "minute"), (10**9, "second"))


def step_of(times: Times) -> np.timedelta64:
    """The median time between values, in ns; a day for one value alone."""
    if len(times) < 2:
        return np.timedelta64(DAY, "ns")
    return np.timedelta64(int(np.median(np.diff(_ns(times)))), "ns")


def steps(times: Times, stamp: str = "instant") -> Lengths:
    """How long each value stands for.

    Args:
      times: (time,) increasing.
      stamp: where in its interval the time of a value lies: `start`, `middle` or `end`. An
        `instant` stands for the time until the next one, as `start` does.

    Returns:
      (time,) timedelta64[ns]; a day for one value alone. Intervals do not overlap.
    """
    at = _ns(times)
    if len(at) < 2:
        made = np.full(len(at), DAY)
    elif stamp == "middle":
        made = _around(at)
    elif stamp == "end":
        made = _until_next(-at[::-1])[::-1]
    else:
        made = _until_next(at)
    return made.astype("timedelta64[ns]")


def starts(times: Times, lengths: Any, stamp: str) -> Times:
    """(time,) when the interval of each value begins.

    Args:
      times: (time,).
      lengths: timedelta64 of the intervals, one or (time,).
      stamp: where in its interval the time of a value lies.
    """
    back = {"end": lengths, "middle": lengths // 2}.get(stamp, np.timedelta64(0, "ns"))
    made: Times = times - back
    return made


def hours_text(times: Times) -> NDArray[np.float64]:
    """(time,) the hours that each reading of a sensor stands for: until the next one.

    Args:
      times: (time,) increasing. One alone stands for an hour.
    """
    if len(times) < 2:
        return np.ones(len(times))
    lengths, step = steps(times), step_of(times)
    if is_regular(lengths, step):
        lengths = np.full(len(times), step)
    made: NDArray[np.float64] = lengths / np.timedelta64(1, "h")
    return made


def is_regular(lengths: Lengths, step: np.timedelta64) -> bool:
    """Whether all values stand for one step."""
    return bool((np.abs(lengths - step) <= ALIKE * step.astype("timedelta64[ns]")).all())


def told(begin: Times, lengths: Lengths, most: int = 4) -> str:
    """The cadences of a record: `hourly until 2016-01-02, 3-hourly from 2016-01-03`.

    Args:
      begin: (time,) when the interval of each value begins.
      lengths: (time,) timedelta64 of the intervals.
      most: cadences that are told, of those that follow one another.
    """
    ns = lengths.astype("timedelta64[ns]").astype(np.int64)
    firsts = np.flatnonzero(np.concatenate([[True], ~_alike(ns)]))
    ends = np.append(firsts[1:], len(begin))
    parts: list[tuple[str, Any, Any]] = []
    for first, last in zip(firsts, ends - 1, strict=True):
        n = last - first + 1
        if len(begin) > 1 and (n < 2 or (n < LEAST and n * ns[first] < DAY)):
            continue  # too few to be a cadence
        name, days = named(lengths[first]), begin[[first, last]].astype("datetime64[D]")
        if parts and parts[-1][0] == name:
            parts[-1] = (name, parts[-1][1], days[1])
        else:
            parts.append((name, *days))
    if len(parts) < 2:
        return parts[0][0] if parts else ""
    shown = [f"{parts[0][0]} until {parts[0][2]}"]
    shown += [f"{name} from {first} to {last}" for name, first, last in parts[1:-1]]
    shown += [f"{parts[-1][0]} from {parts[-1][1]}"]
    more = f", and {len(shown) - most} more changes" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def named(length: np.timedelta64) -> str:
    """What a cadence is called: hourly, 3-hourly, daily, every 10 minutes."""
    ns = int(length.astype("timedelta64[ns]").astype(np.int64))
    size, unit = next((each for each in UNITS if ns >= each[0] * (1 - ALIKE)), UNITS[-1])
    if unit == "hour" and abs(ns / size - round(ns / size)) > ALIKE:
        size, unit = UNITS[2]
    n = round(ns / size)
    plain = {"day": "daily", "hour": "hourly"}.get(unit)
    if plain is None or (unit == "day" and n > 1):
        return f"every {n} {unit}s" if n > 1 else f"every {unit}"
    return plain if n == 1 else f"{n}-{plain}"


def _ns(times: Times) -> NDArray[np.int64]:
    return times.astype("datetime64[ns]").astype(np.int64)


def _until_next(at: NDArray[np.int64]) -> NDArray[np.int64]:
    """(time,) ns from each time to the next, where that is no gap; else as before the gap."""
    gap = np.diff(at)
    run, count = _runs(gap)
    values = count + (np.arange(len(count)) == run[-1])  # the last value has no distance after it
    filling = np.bincount(run, gap) >= DAY * (1 - ALIKE)
    known = ((count > 1) & ((values >= LEAST) | filling))[run]
    known |= _begins(gap, known)
    before = _nearest(gap, known)
    made = np.where(known | (gap < GAP * before), gap, before)
    made = np.where(_lone(known), np.minimum(made, _at_most(gap)), made)
    return np.append(made, made[-1])


def _lone(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(distance,) whether each is that of no cadence, between two that are."""
    beside = np.concatenate([[False], known, [False]])
    lone: NDArray[np.bool_] = ~known & beside[:-2] & beside[2:]
    return lone


def _at_most(gap: NDArray[np.int64]) -> NDArray[np.int64]:
    """(distance,) ns that a value stands for if its distance is that of no cadence.

    Something is missing there. Where the distance is longer than the one before, the value is of
    the cadence before; else it is the first one of the cadence after.
    """
    before, after = np.append(gap[:1], gap[:-1]), np.append(gap[1:], gap[-1:])
    return np.where(gap > (1 + ALIKE) * before, before, after)


def _begins(gap: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(distance,) whether each begins the cadence that follows soon, with none shorter between."""
    n, at = len(gap), np.arange(len(gap))
    later = np.minimum.accumulate(np.where(known, at, n)[::-1])[::-1]
    made = ~known & (later < n) & (later - at <= SOON)
    cadence = gap[np.minimum(later, n - 1)]
    made &= np.abs(gap - cadence) <= ALIKE * cadence
    for i in np.flatnonzero(made):
        made[i] = gap[i : later[i]].min() >= (1 - ALIKE) * cadence[i]
    return made


def _around(at: NDArray[np.int64]) -> NDArray[np.int64]:
    """(time,) ns of the intervals that have the times in their middles.

    Where a cadence changes from a to b the times are (a + b) / 2 apart.
    """
    gap = np.diff(at)
    run, count = _runs(gap)
    last = np.cumsum(count) - 1
    first = last - count + 1
    between = _joins(gap, first, -1) & _joins(gap, last, 1)
    values = count + between
    filling = values * gap[first] >= DAY * (1 - ALIKE)
    known = ((count >= LEAST) | (between & (values > 1) & ((values >= LEAST) | filling)))[run]
    limit = np.minimum(gap, _nearest(gap, known))
    huge = np.iinfo(np.int64).max
    sure, guess = np.where(known, gap, huge), np.where(known, huge, limit)
    sides = [np.minimum(np.append(each, huge), np.append(huge, each)) for each in (sure, guess)]
    made: NDArray[np.int64] = np.where(sides[0] < huge, sides[0], sides[1])
    return made


def _joins(gap: NDArray[np.int64], at: NDArray[np.int64], side: int) -> NDArray[np.bool_]:
    """(run,) whether a run ends with the record, or goes over into the cadence beside it."""
    n = len(gap)
    ends = (at + side < 0) | (at + side >= n)
    beside = gap[np.clip(at + side, 0, n - 1)]
    beyond = gap[np.clip(at + 2 * side, 0, n - 1)]
    there = (at + 2 * side >= 0) & (at + 2 * side < n)
    joins: NDArray[np.bool_] = ends | (
        there & (np.abs(2 * beside - gap[at] - beyond) <= 2 * ALIKE * beside)
    )
    return joins


def _alike(gap: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each but the first is as the one before."""
    same: NDArray[np.bool_] = np.abs(np.diff(gap)) <= ALIKE * np.minimum(gap[1:], gap[:-1])
    return same


def _runs(gap: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(distance,) in which run of the same distance each is, and (run,) how many each has."""
    run = np.concatenate([[0], np.cumsum(~_alike(gap))])
    return run, np.bincount(run)


def _nearest(gap: NDArray[np.int64], known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(distance,) the cadence there or before it, else the first; the median where none is."""
    if not known.any():
        return np.full(len(gap), np.sort(gap)[(len(gap) - 1) // 2])
    at = np.maximum.accumulate(np.where(known, np.arange(len(gap)), -1))
    return gap[np.where(at < 0, known.argmax(), at)]


class Hours(NamedTuple):
    """A sensor's record.

    Attributes:
      times: (n,) datetime64, UTC; of several values at one time the first counts.
      values: (n,) float32, NaN where missing.
      flags: (n,) codes of quality.
    """

    times: NDArray[np.datetime64]
    values: NDArray[np.float32]
    flags: NDArray[np.int32]


class Days(NamedTuple):
    """What came of it: (day,) float32 values and (day,) codes of quality."""

    values: NDArray[np.float32]
    flags: NDArray[np.int32]


class Codes(NamedTuple):
    """Codes of a day that is good, of one with too few good hours, and of one without values."""

    good: int
    few: int
    missing: int


def utc_offset(lon: float) -> int:
    """Hours from UTC to local standard time, by the longitude alone, degrees east."""
    return int(np.rint(((lon + 180) % 360 - 180) / 15))


def means(
    hours: Hours, days: NDArray[np.datetime64], codes: Codes, min_hours: int, offset_hours: int = 0
) -> Days:
    """Daily means. A value stands for the time until the next one, gaps apart, and weighs by it.

    A day of which good values cover `min_hours` is the mean of these, and good. Another is the
    mean of all values, under its most frequent flag that is not good, so that what is dropped for
    its flag can be counted; without such a flag it has too few hours.

    Args:
      hours: the record.
      days: (day,) datetime64[D], one after another.
      codes: flags that have a meaning here.
      min_hours: fewest hours that the good values of a good day cover.
      offset_hours: from UTC to the time whose days are meant.
    """
    times, first = np.unique(hours.times, return_index=True)
    local = hours.times[first] + np.timedelta64(offset_hours, "h")
    day = (local.astype("datetime64[D]") - days[0]).astype(np.int64)
    inside = (day >= 0) & (day < len(days))
    day, values, flags = day[inside], hours.values[first][inside], hours.flags[first][inside]
    time = hours_text(times)[inside]
    held = np.isfinite(values)
    flags = np.where(~held & (flags == codes.good), codes.missing, flags)
    good = flags == codes.good
    h_good, of_good = _sums(day[good], values[good], time[good], len(days))
    h_all, of_all = _sums(day[held], values[held], time[held], len(days))
    enough = h_good >= min_hours - TINY
    with np.errstate(invalid="ignore"):
        mean = np.where(enough, of_good / h_good, of_all / h_all)
    flag = np.full(len(days), codes.missing)
    flag[day] = codes.few
    pairs, n_of_pair = np.unique((day << 32 | flags)[~good], return_counts=True)
    pairs = pairs[np.lexsort((-pairs, n_of_pair))]  # of a day's, the last stays: the most frequent
    flag[pairs >> 32] = pairs & 0xFFFFFFFF
    return Days(mean.astype(np.float32), np.where(enough, codes.good, flag).astype(np.int32))


def mean_of(parts: Sequence[Days], good: int) -> Days:
    """Mean of the sensors that are good on a day; where none is, the first that has a value."""
    values, flags = (np.stack(held) for held in zip(*parts, strict=True))
    kept = (flags == good) & np.isfinite(values)
    n = kept.sum(0)
    first = np.isfinite(values).argmax(0)[None]
    mean = np.where(kept, values, 0).sum(0) / np.maximum(n, 1)
    single = np.take_along_axis(values, first, 0)[0]
    flag = np.where(n, good, np.take_along_axis(flags, first, 0)[0])
    return Days(np.where(n, mean, single).astype(np.float32), flag.astype(np.int32))


def _sums(
    day: NDArray[np.int64], values: NDArray[np.float32], time: NDArray[np.float64], n: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """(day,) the time that values cover, and the sum of values times their time."""
    weighed = values.astype(np.float64) * time
    return np.bincount(day, time, minlength=n), np.bincount(day, weighed, minlength=n)
