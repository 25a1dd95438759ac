"""Aggregate the steps of a series, which may be shorter than a day, to days.

The module decides to which day a step belongs, which days are missing or partial, and computes
daily values. Time within a day is counted in the usual steps of the series.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.sources.shared import time_steps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]
    Values = NDArray[np.float32]
    Steps = NDArray[np.int64]
    Floats = NDArray[np.float64]


Stamp = Literal["start", "middle", "end", "instant"]
Aggregation = Literal["mean", "sum", "max", "min"]
STAMPS = ("start", "middle", "end", "instant")
AGGREGATIONS = ("mean", "sum", "max", "min")
DAY = np.timedelta64(1, "D")
SINCE_00 = "since_00"  # used as the stamp of amounts that accumulate from 00 UTC on


@dataclass(frozen=True)
class DayDefinition:
    """Definition of a day.

    Attributes:
      stamp: Where the time of a step is in its interval; an `instant` has no interval.
      offset_hours: Hours from UTC to the clock of the days. With -6, days begin at 06 UTC.
      min_steps: Smallest number of steps with a value that a day needs; None for all steps of a
        day. If steps differ in length, the time of that many usual steps.

    Raises:
      ValueError: If `stamp` is invalid.
    """

    stamp: str = "instant"
    offset_hours: float = 0
    min_steps: int | None = None

    def __post_init__(self) -> None:
        """Check the stamp."""
        if self.stamp not in STAMPS:
            raise ValueError(f"day.stamp: '{self.stamp}', expected one of {', '.join(STAMPS)}")

    @property
    def convention(self) -> str:
        """Return a name of such days, such as `UTC day`."""
        return f"UTC{self.offset_hours:+g} h day" if self.offset_hours else "UTC day"

    @property
    def offset(self) -> np.timedelta64:
        """Return the offset of the days' clock from UTC."""
        return np.timedelta64(round(self.offset_hours * 3600), "s")

    def labels(self, times: Times, step: np.timedelta64, stamp: str) -> Times:
        """Return (time,) the day, datetime64[D], that contains the interval of each step.

        Args:
          times: (time,).
          step: Length of all steps.
          stamp: Where the time of a step is in its interval, or SINCE_00.
        """
        stamp = "end" if stamp == SINCE_00 else stamp
        begin = time_steps.interval_starts(times, step, stamp) + self.offset
        labels: Times = begin.astype("datetime64[D]")
        return labels

    def required_steps(self, step: np.timedelta64) -> int:
        """Return the number of steps of a length that a day must have."""
        return self.min_steps or count_day_steps(step)


def count_day_steps(step: np.timedelta64) -> int:
    """Return the number of steps of a length in a whole day, at least 1."""
    return max(round(float(DAY / step)), 1)


def order_problems(times: NDArray[Any]) -> list[str]:
    """Return messages about times that are not dates, repeated or not increasing.

    Unlike `time_problems` of the base classes, times may be less than a day apart.
    """
    if times.dtype.kind != "M":
        return [
            f"time: {times.dtype} values; expected dates in units like 'hours since 2015-01-01'"
        ]
    bad = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "ns"))
    if not bad.size:
        return []
    before, after = (times[bad[0] + i].astype("datetime64[m]") for i in (0, 1))
    problem = f"{after} is repeated" if before == after else f"{after} comes after {before}"
    return [f"time: {problem}; times must increase"]


def previous_midnight(times: Times) -> Times:
    """Return (time,) the last 00 UTC before each time; for 00 UTC, the one a day earlier."""
    midnight: Times = (times - np.timedelta64(1, "ns")).astype("datetime64[D]").astype(times.dtype)
    return midnight


def accumulation_starts(times: Times) -> Times:
    """Return (time,) the previous time of each, or 00 UTC before it, whichever is later."""
    midnight = previous_midnight(times)
    begin: Times = np.maximum(midnight, np.append(midnight[:1], times[:-1]))
    return begin


def accumulated_increments(values: Values, times: Times) -> Values:
    """Return the amount from each previous time, of values that accumulate from 00 UTC on.

    The value at 00 UTC is the total of the day before. Where values are missing, the amount
    between two values of a day is spread evenly over the time between them.

    Args:
      values: (time, row, column), NaN where missing.
      times: (time,) with all times of a day, from the first after 00 UTC on.

    Returns:
      (time, row, column), NaN where missing.
    """
    begin = accumulation_starts(times)
    is_first = (begin == begin.astype("datetime64[D]")).reshape(-1, 1, 1)
    amounts = np.full_like(values, np.nan)
    amounts[1:] = values[1:] - values[:-1]
    amounts = np.where(is_first, values, amounts)
    has_value = np.isfinite(values)
    is_incomplete = has_value.any(0) & ~has_value.all(0)
    if is_incomplete.any():
        amounts[:, is_incomplete] = _spread_increments(values[:, is_incomplete], times, begin)
    return amounts


def _spread_increments(values: Values, times: Times, begin: Times) -> Values:
    """Return (time, cell) the amounts of cells where values are missing.

    Args:
      values: (time, cell) accumulated values, NaN where missing.
      times: (time,).
      begin: (time,) begin of the interval that ends at each time.
    """
    hours = (times - begin) / np.timedelta64(1, "h")
    is_first = begin == begin.astype("datetime64[D]")  # of a day
    amount = np.full_like(values, np.nan)  # since the last value
    elapsed = np.zeros_like(values)  # hours since the last value
    last_value, last_elapsed = np.zeros_like(values[0]), np.zeros_like(values[0])
    for i in range(len(values)):
        last_value = np.zeros_like(last_value) if is_first[i] else last_value
        last_elapsed = (0 if is_first[i] else last_elapsed) + np.float32(hours[i])
        has_value = np.isfinite(values[i])
        amount[i], elapsed[i] = values[i] - last_value, last_elapsed
        last_value = np.where(has_value, values[i], last_value)
        last_elapsed = np.where(has_value, 0, last_elapsed)
    # A time without a value takes the amount and the hours of the next value of its day.
    for i in range(len(values) - 2, -1, -1):
        takes_next = ~np.isfinite(amount[i]) & ~is_first[i + 1]
        amount[i], elapsed[i] = (
            np.where(takes_next, array[i + 1], array[i]) for array in (amount, elapsed)
        )
    share: Values = amount * (hours[:, None].astype(np.float32) / elapsed)
    return share


@dataclass(frozen=True)
class DayCoverage:
    """Days of a series that exist, are missing or partial.

    Attributes:
      days: (day,) all days from the first to the last.
      missing: Days of which a variable has no step.
      partial: Days with some steps, but too few for a value.
    """

    days: Times
    missing: Times
    partial: Times


@dataclass(frozen=True, eq=False)
class StepIntervals:
    """Intervals of steps that differ in length, on the clock of the days.

    Attributes:
      begin: (step,) begin of each interval.
      end: (step,) end of each interval; intervals do not overlap.
      steps_per_day: Number of usual steps in a day.
    """

    begin: Times
    end: Times
    steps_per_day: int

    @classmethod
    def from_times(
        cls,
        times: Times,
        stamp: str,
        day: DayDefinition,
        usual: np.timedelta64,
        lengths: Any = None,
    ) -> StepIntervals | None:
        """Return the intervals of steps; None if all steps have the usual length.

        Args:
          times: (step,) times of all steps.
          stamp: Where the time of a step is in its interval; SINCE_00 for amounts since 00 UTC.
          day: Definition of a day.
          usual: Usual length of a step.
          lengths: (step,) lengths of the intervals by the files' bounds, as timedelta64; NaT
            where a file has no bounds. They are used if the times are not regular.
        """
        if stamp == SINCE_00:
            begin = accumulation_starts(times)
            step_lengths = times - begin
        else:
            step_lengths = time_steps.interval_lengths(times, stamp)
            if lengths is not None and not time_steps.is_regular(np.diff(times), usual):
                step_lengths = np.where(np.isnat(lengths), step_lengths, lengths)
            begin = time_steps.interval_starts(times, step_lengths, stamp)
        if time_steps.is_regular(step_lengths, usual):
            return None
        end = begin + step_lengths
        # Intervals that overlap are shortened on the side that is away from their own time.
        if stamp in ("end", SINCE_00):
            begin[1:] = np.maximum(begin[1:], end[:-1])
        else:
            end[:-1] = np.minimum(end[:-1], begin[1:])
        return cls(begin + day.offset, end + day.offset, count_day_steps(usual))

    def day_edges(self, days: Times) -> tuple[Steps, Steps]:
        """Return (day,) the first step that overlaps each day, and (day,) one after its last."""
        begin, end = days.astype(self.end.dtype), (days + DAY).astype(self.end.dtype)
        first = np.searchsorted(self.end, begin, side="right")
        return first, np.maximum(np.searchsorted(self.begin, end), first)

    def overlap(self, day: np.datetime64, steps: slice) -> tuple[Floats, Floats]:
        """Return (step,) the time of steps in a day in usual steps, and the share of each step."""
        begin, end = self.begin[steps], self.end[steps]
        inside = np.minimum(end, day + DAY) - np.maximum(begin, day)
        share = inside / np.maximum(end - begin, np.timedelta64(1, "ns"))
        return inside / DAY * self.steps_per_day, share

    def split_by_day(self) -> tuple[Times, Floats]:
        """Split steps at the ends of days.

        Returns:
          (piece,) the day of each piece, and (piece,) its time in usual steps.
        """
        first = self.begin.astype("datetime64[D]")
        last = (self.end - np.timedelta64(1, "ns")).astype("datetime64[D]")
        n = np.maximum((last - first).astype(np.int64) + 1, 1)
        step = np.repeat(np.arange(len(n)), n)
        label = first[step] + (np.arange(len(step)) - np.repeat(np.cumsum(n) - n, n))
        inside = np.minimum(self.end[step], label + DAY) - np.maximum(self.begin[step], label)
        return label, inside / DAY * self.steps_per_day

    def from_step(self, step: int) -> StepIntervals:
        """Return the intervals from a step on, which becomes step 0."""
        return StepIntervals(self.begin[step:], self.end[step:], self.steps_per_day)


def find_intervals(
    times: Times, stamps: set[str], day: DayDefinition, usual: np.timedelta64, lengths: Any = None
) -> tuple[dict[str, StepIntervals], dict[str, Times]]:
    """Return the intervals of steps for stamps where they differ in length, else the steps' days.

    Args:
      times: (step,) times of all steps.
      stamps: Where the time of a step is in its interval, for each group of variables.
      day: Definition of a day.
      usual: Usual length of a step.
      lengths: (step,) lengths of the intervals by the files' bounds; NaT where there are none.

    Returns:
      {stamp: intervals}, and {stamp: (step,) days} for the other stamps.
    """
    by_stamp = {
        stamp: StepIntervals.from_times(times, stamp, day, usual, lengths) for stamp in stamps
    }
    labels = {stamp: day.labels(times, usual, stamp) for stamp in stamps if by_stamp[stamp] is None}
    return {stamp: one for stamp, one in by_stamp.items() if one is not None}, labels


@dataclass(frozen=True, eq=False)
class DayCalendar:
    """The steps that belong to each day.

    Attributes:
      days: (day,).
      edges: {stamp: ((day,) the first step of each day, (day,) one after its last)}.
      min_steps: Smallest number of steps with a value that a day needs. If steps differ in length,
        the time of that many usual steps.
      steps_per_day: Number of usual steps in a whole day; 1 if steps are days.
      intervals: {stamp: intervals of the steps}, for stamps where steps differ in length.
    """

    days: Times
    edges: dict[str, tuple[Steps, Steps]]
    min_steps: int
    steps_per_day: int
    intervals: dict[str, StepIntervals] = field(default_factory=dict)

    @classmethod
    def from_labels(
        cls,
        days: Times,
        labels: dict[str, Times],
        min_steps: int,
        steps_per_day: int,
        intervals: dict[str, StepIntervals] | None = None,
    ) -> DayCalendar:
        """Return the calendar of a series.

        Args:
          days: (day,) the days of the calendar.
          labels: {stamp: (step,) day of each step}.
          min_steps: Smallest number of steps with a value that a day needs.
          steps_per_day: Number of usual steps in a whole day.
          intervals: {stamp: intervals}, for stamps where steps differ in length.
        """
        edges = {
            stamp: (
                np.searchsorted(step_days, days),
                np.searchsorted(step_days, days, side="right"),
            )
            for stamp, step_days in labels.items()
        }
        intervals = intervals or {}
        edges |= {stamp: one.day_edges(days) for stamp, one in intervals.items()}
        return cls(days, edges, min_steps, steps_per_day, intervals)

    def step_range(self, block: slice, stamps: set[str]) -> tuple[int, int]:
        """Return the first step of a block of days, and one after its last."""
        begin = min(int(self.edges[stamp][0][block].min()) for stamp in stamps)
        return begin, max(int(self.edges[stamp][1][block].max()) for stamp in stamps)

    def from_step(self, step: int) -> DayCalendar:
        """Return the same calendar with steps counted from a later step, which becomes step 0."""
        edges = {key: (begin - step, end - step) for key, (begin, end) in self.edges.items()}
        intervals = {key: one.from_step(step) for key, one in self.intervals.items()}
        return DayCalendar(self.days, edges, self.min_steps, self.steps_per_day, intervals)


def find_coverage(
    labels: list[Times],
    min_steps: int,
    period: tuple[np.datetime64, np.datetime64] | None,
    intervals: list[StepIntervals] | None = None,
) -> DayCoverage:
    """Find the days of a series that are missing or partial.

    A day is as complete as in the variables for which it has the fewest steps.

    Args:
      labels: (step,) the day of each step, for each stamp of variables.
      min_steps: Smallest number of steps that a day needs, or the time of that many usual steps.
      period: First and last day; None for the first to the last complete day.
      intervals: Intervals, for each stamp where steps differ in length.
    """
    day_times: list[dict[Any, float]] = [
        dict(zip(*np.unique(step_days, return_counts=True), strict=True)) for step_days in labels
    ]
    for one in intervals or []:
        label, time = one.split_by_day()
        unique, which = np.unique(label, return_inverse=True)
        day_times.append(dict(zip(unique, np.bincount(which, time), strict=True)))
    if period is None:
        all_days = sorted(set.union(*map(set, day_times)))
        complete = [
            day
            for day in all_days
            if all(time.get(day, 0) >= min_steps - time_steps.TIME_TOLERANCE for time in day_times)
        ]
        period = (complete[0], complete[-1]) if complete else (all_days[0], all_days[-1])
    days = np.arange(period[0], period[1] + DAY).astype("datetime64[D]")
    fewest = np.array([min(time.get(day, 0) for time in day_times) for day in days])
    has_too_few = fewest < min_steps - time_steps.TIME_TOLERANCE
    return DayCoverage(days, days[fewest == 0], days[(fewest > 0) & has_too_few])


def aggregate_days(
    values: Values, calendar: DayCalendar, stamp: str, how: str, block: slice
) -> Values:
    """Aggregate steps to one value for each day of a block.

    If steps are missing, a sum is scaled to the whole day by the time of its steps. If steps differ
    in length, a mean weights each step by its time.

    Args:
      values: (time, row, column), NaN where missing.
      calendar: The steps that belong to each day.
      stamp: Where the time of a step is in its interval.
      how: mean, sum, max or min.
      block: The days of the calendar.

    Returns:
      (day, row, column) float32; NaN where fewer than `calendar.min_steps` steps have a value.
    """
    begin, end = (edge[block] for edge in calendar.edges[stamp])
    intervals = calendar.intervals.get(stamp)
    result = np.full((len(begin), *values.shape[1:]), np.nan, np.float32)
    for i, (first, last) in enumerate(zip(begin, end, strict=True)):
        if last == first or (intervals is None and last - first < calendar.min_steps):
            continue
        steps = values[first:last]
        valid = np.isfinite(steps)
        if intervals is None:
            time = share = None
            valid_time = valid.sum(0)
        else:
            time, share = intervals.overlap(calendar.days[block][i], slice(first, last))
            valid_time = np.tensordot(time, valid, 1)
        if how in ("max", "min"):
            empty, reduce = (-np.inf, np.max) if how == "max" else (np.inf, np.min)
            day_value = reduce(np.where(valid, steps, empty), axis=0)
        else:
            total = _weighted_sum(np.where(valid, steps, 0), share if how == "sum" else time)
            divisor = np.maximum(valid_time, 1 if intervals is None else time_steps.TIME_TOLERANCE)
            day_value = total / divisor * (calendar.steps_per_day if how == "sum" else 1)
        is_enough = valid_time >= calendar.min_steps - time_steps.TIME_TOLERANCE
        result[i] = np.where(is_enough, day_value, np.nan)
    return result


def _weighted_sum(steps: Values, weight: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """Return (row, column) the sum of (time, row, column) steps, weighted by (time,) weights."""
    if weight is None:
        total: NDArray[np.float64] = steps.sum(0, dtype=np.float64)
        return total
    return np.tensordot(weight, steps.astype(np.float64), 1)
