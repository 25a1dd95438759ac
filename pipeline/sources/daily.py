"""From readings to days: daily means of a site's series, and the flag that each day earns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.sources import cadence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
    time = cadence.hours(times)[inside]
    held = np.isfinite(values)
    flags = np.where(~held & (flags == codes.good), codes.missing, flags)
    good = flags == codes.good
    h_good, of_good = _sums(day[good], values[good], time[good], len(days))
    h_all, of_all = _sums(day[held], values[held], time[held], len(days))
    enough = h_good >= min_hours - cadence.TINY
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
