"""Where a value lies among those of its season in a reference period: percentile and anomaly.

The season of a day are the 31 days centred on its date, in every year of the reference period; the
window crosses the turn of the year. In years without 29 February, its window is that of 1 March.
All arithmetic on values is that of integers, so that results are the same on all machines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from datetime import date

    from numpy.typing import NDArray


WINDOW_DAYS = 31
MIN_YEARS = 3  # of a reference period
MIN_VALUES = WINDOW_DAYS  # in the windows of all years; a day is not compared with fewer


def is_long_enough(reference: tuple[date, date]) -> bool:
    """Return whether a reference period has at least three years."""
    return (reference[1] - reference[0]).days + 1 >= MIN_YEARS * 365


def season_windows(day: date, reference: tuple[date, date]) -> list[slice]:
    """Return the window of a day in every year, counted from the first day of a reference period.

    Args:
      day: Any day.
      reference: First and last day of the reference period; windows are cut at its ends.
    """
    first, last = reference
    n_days, half = (last - first).days + 1, WINDOW_DAYS // 2
    windows = []
    for year in range(first.year - 1, last.year + 2):
        # Counted from the first of the month, 29 February is 1 March in years that lack it.
        centre = first.replace(year=year, month=day.month, day=1).toordinal() + day.day - 1
        centre -= first.toordinal()
        start, stop = max(0, centre - half), min(n_days, centre + half + 1)
        if start < stop:
            windows.append(slice(start, stop))
    return windows


class Reference:
    """The values of a reference period at some places, which days are compared with."""

    def __init__(self, period: tuple[date, date], values: NDArray[np.int16], missing: int) -> None:
        """Add up the values, so that the mean of any window is known.

        Args:
          period: First and last day of the reference period.
          values: (day, place), as integers.
          missing: What stands for a missing value; it must be smaller than every value.
        """
        self.period, self.values, self.missing = period, values, missing
        present = values != missing
        self._sums = _running_sum(np.where(present, values, np.int16(0)))
        self._counts = None if present.all() else _running_sum(present)

    def compare(
        self, day: date, values: NDArray[np.int16]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compare the values of a day with those of its season in the reference period.

        Args:
          day: The day, which need not be in the reference period.
          values: (place,) its values, as integers.

        Returns:
          (place,) the percentile, from 0 to 100: the share of the values of the season that are
          smaller, equal ones counted half; and (place,) the difference from their mean. NaN where
          the value is missing, or the season has fewer than 31 values.
        """
        windows = season_windows(day, self.period)
        # Each value of the season counts 2 if it is smaller and 1 if it is equal.
        twice_smaller = np.zeros(values.shape, np.int32)
        total, n = np.zeros(values.shape, np.int64), np.zeros(values.shape, np.int32)
        n_days = 0
        for window in windows:
            season = self.values[window]
            counts = (season < values).view(np.uint8) + (season <= values).view(np.uint8)
            twice_smaller += counts.sum(0, dtype=np.uint8)  # at most 62
            total += self._sums[window.stop] - self._sums[window.start]
            n_days += len(season)
            if self._counts is not None:
                n += self._counts[window.stop] - self._counts[window.start]
        if self._counts is None:
            n[:] = n_days
        twice_smaller -= 2 * (n_days - n)  # missing ones, which are smaller than every value
        comparable = (values != self.missing) & (n >= MIN_VALUES)
        n = np.where(comparable, n, 1)
        percentile = np.where(comparable, 50.0 * twice_smaller / n, np.nan)
        # One division of integers, so that the result does not depend on the order of sums.
        anomaly = np.where(comparable, (values.astype(np.int64) * n - total) / n, np.nan)
        return percentile, anomaly


def _running_sum(values: NDArray[np.generic]) -> NDArray[np.int32]:
    """Return the (day + 1, place) sums of the values of all days before each day."""
    sums = np.zeros((len(values) + 1, *values.shape[1:]), np.int32)
    np.cumsum(values, axis=0, dtype=np.int32, out=sums[1:])
    return sums
