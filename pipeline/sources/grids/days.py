"""Steps of hours: which day a step belongs to, and the amounts of steps that accumulate.

Which days a series of steps has, which of its steps make them, their values and what it lacks.

Time within a day is counted in the usual steps of the series, of which a day has `full`.
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
How = Literal["mean", "sum", "max", "min"]
STAMPS = ("start", "middle", "end", "instant")
HOWS = ("mean", "sum", "max", "min")
DAY = np.timedelta64(1, "D")
SINCE_00 = "since_00"  # stands for the stamp of amounts since 00 UTC


@dataclass(frozen=True)
class Day:
    """What a day is.

    Attributes:
      stamp: where in its interval the time of a step lies; `instant` has none.
      offset_hours: of the day's clock from UTC: -6 lets days begin at 06 UTC.
      min_steps: of a day, below which it has no value; None for all. Where steps differ in
        length, the time of as many usual ones.
    """

    stamp: str = "instant"
    offset_hours: float = 0
    min_steps: int | None = None

    def __post_init__(self) -> None:
        """Refuse a stamp that is none."""
        if self.stamp not in STAMPS:
            raise ValueError(f"day.stamp: '{self.stamp}', expected one of {', '.join(STAMPS)}")

    @property
    def convention(self) -> str:
        """What to call such days."""
        return f"UTC{self.offset_hours:+g} h day" if self.offset_hours else "UTC day"

    @property
    def offset(self) -> np.timedelta64:
        """Of the day's clock from UTC."""
        return np.timedelta64(round(self.offset_hours * 3600), "s")

    def labels(self, times: Times, step: np.timedelta64, stamp: str) -> Times:
        """(time,) the day, datetime64[D], that holds the interval of each step."""
        stamp = "end" if stamp == SINCE_00 else stamp
        begin = time_steps.starts(times, step, stamp) + self.offset
        labels: Times = begin.astype("datetime64[D]")
        return labels

    def least(self, step: np.timedelta64) -> int:
        """Steps that a day must have."""
        return self.min_steps or steps_of(step)


def steps_of(step: np.timedelta64) -> int:
    """Steps of a whole day."""
    return max(round(float(DAY / step)), 1)


def order_problems(times: NDArray[Any]) -> list[str]:
    """What is wrong with times of less than a day's step: no dates, twice, or not increasing."""
    if times.dtype.kind != "M":
        return [
            f"time: {times.dtype} values; expected dates in units like 'hours since 2015-01-01'"
        ]
    bad = np.flatnonzero(np.diff(times) <= np.timedelta64(0, "ns"))
    if not bad.size:
        return []
    before, after = (times[bad[0] + i].astype("datetime64[m]") for i in (0, 1))
    found = f"{after} is there twice" if before == after else f"{after} comes after {before}"
    return [f"time: {found}; times must increase"]


def midnight_before(times: Times) -> Times:
    """(time,) 00 UTC before each; before 00 UTC that of the day that ends there."""
    midnight: Times = (times - np.timedelta64(1, "ns")).astype("datetime64[D]").astype(times.dtype)
    return midnight


def accumulated_from(times: Times) -> Times:
    """(time,) the time before each, or 00 UTC before it, whichever is later."""
    midnight = midnight_before(times)
    begun: Times = np.maximum(midnight, np.append(midnight[:1], times[:-1]))
    return begun


def increments(values: Values, times: Times) -> Values:
    """What accumulated from one time to the next, of what accumulates from 00 UTC on.

    The value at 00 UTC is the total of the day before. The amount between two values of a day is
    spread evenly over the times between them that have none.

    Args:
      values: (time, row, column), NaN where missing.
      times: (time,); those of a day must all be there, from the first after 00 UTC on.
    """
    begun = accumulated_from(times)
    fresh = (begun == begun.astype("datetime64[D]")).reshape(-1, 1, 1)
    made = np.full_like(values, np.nan)
    made[1:] = values[1:] - values[:-1]
    made = np.where(fresh, values, made)
    there = np.isfinite(values)
    some = there.any(0) & ~there.all(0)
    if some.any():
        made[:, some] = _spread(values[:, some], times, begun)
    return made


def _spread(values: Values, times: Times, begun: Times) -> Values:
    """(time, cell) increments where values are missing; times begin at `begun`."""
    hours = (times - begun) / np.timedelta64(1, "h")
    fresh = begun == begun.astype("datetime64[D]")
    amount = np.full_like(values, np.nan)  # since the value before
    lasted = np.zeros_like(values)  # hours since then
    known, waited = np.zeros_like(values[0]), np.zeros_like(values[0])
    for i in range(len(values)):
        known = np.zeros_like(known) if fresh[i] else known
        waited = (0 if fresh[i] else waited) + np.float32(hours[i])
        there = np.isfinite(values[i])
        amount[i], lasted[i] = values[i] - known, waited
        known, waited = np.where(there, values[i], known), np.where(there, 0, waited)
    for i in range(len(values) - 2, -1, -1):
        later = ~np.isfinite(amount[i]) & ~fresh[i + 1]
        amount[i], lasted[i] = (
            np.where(later, following[i + 1], following[i]) for following in (amount, lasted)
        )
    part: Values = amount * (hours[:, None].astype(np.float32) / lasted)
    return part


@dataclass(frozen=True)
class Coverage:
    """Days of a series, and what they lack.

    Attributes:
      days: from the first to the last, without holes.
      missing: those of which a variable has no step.
      partial: those with some steps, but too few for a value.
    """

    days: Times
    missing: Times
    partial: Times


@dataclass(frozen=True, eq=False)
class Intervals:
    """The intervals that steps stand for, where they differ in length; on the clock of the days.

    Attributes:
      begin: (step,) when each begins.
      end: (step,) when it ends; no two overlap.
      full: usual steps of a day.
    """

    begin: Times
    end: Times
    full: int

    @classmethod
    def of(
        cls, times: Times, stamp: str, day: Day, usual: np.timedelta64, lengths: Any = None
    ) -> Intervals | None:
        """The intervals of steps; None where all have the usual length.

        Args:
          times: (step,) of all steps.
          stamp: where in its interval the time of a step lies; SINCE_00 for amounts since 00 UTC.
          day: what a day is.
          usual: length of a step.
          lengths: (step,) timedelta64 of the intervals as the files tell; NaT where they do not.
        """
        if stamp == SINCE_00:
            begin = accumulated_from(times)
            each = times - begin
        else:
            each = time_steps.steps(times, stamp)
            if lengths is not None and not time_steps.is_regular(np.diff(times), usual):
                each = np.where(np.isnat(lengths), each, lengths)
            begin = time_steps.starts(times, each, stamp)
        if time_steps.is_regular(each, usual):
            return None
        end = begin + each
        if stamp in ("end", SINCE_00):  # one that would overlap is cut away from its time
            begin[1:] = np.maximum(begin[1:], end[:-1])
        else:
            end[:-1] = np.minimum(end[:-1], begin[1:])
        return cls(begin + day.offset, end + day.offset, steps_of(usual))

    def edges(self, days: Times) -> tuple[Steps, Steps]:
        """(day,) the first step that lies in each day, and (day,) one after its last."""
        begin, end = days.astype(self.end.dtype), (days + DAY).astype(self.end.dtype)
        first = np.searchsorted(self.end, begin, side="right")
        return first, np.maximum(np.searchsorted(self.begin, end), first)

    def within(self, day: np.datetime64, steps: slice) -> tuple[Floats, Floats]:
        """(step,) the time of steps within a day, in usual steps; and its share of each step."""
        begin, end = self.begin[steps], self.end[steps]
        inside = np.minimum(end, day + DAY) - np.maximum(begin, day)
        return inside / DAY * self.full, inside / np.maximum(end - begin, np.timedelta64(1, "ns"))

    def pieces(self) -> tuple[Times, Floats]:
        """(piece,) days of the steps, each step once for each day it lies in; and their time."""
        first = self.begin.astype("datetime64[D]")
        last = (self.end - np.timedelta64(1, "ns")).astype("datetime64[D]")
        n = np.maximum((last - first).astype(np.int64) + 1, 1)
        step = np.repeat(np.arange(len(n)), n)
        label = first[step] + (np.arange(len(step)) - np.repeat(np.cumsum(n) - n, n))
        inside = np.minimum(self.end[step], label + DAY) - np.maximum(self.begin[step], label)
        return label, inside / DAY * self.full

    def since(self, step: int) -> Intervals:
        """The same with steps counted from a later one."""
        return Intervals(self.begin[step:], self.end[step:], self.full)


def intervals_of(
    times: Times, stamps: set[str], day: Day, usual: np.timedelta64, lengths: Any = None
) -> tuple[dict[str, Intervals], dict[str, Times]]:
    """For each stamp, the intervals of steps that differ in length; of others the steps' days."""
    made = {stamp: Intervals.of(times, stamp, day, usual, lengths) for stamp in stamps}
    labels = {stamp: day.labels(times, usual, stamp) for stamp in stamps if made[stamp] is None}
    return {stamp: each for stamp, each in made.items() if each is not None}, labels


@dataclass(frozen=True, eq=False)
class Calendar:
    """Which steps make which day.

    Attributes:
      days: (day,).
      edges: for each stamp, (day,) the first step of each day, and (day,) one after its last.
      least: steps with a value that a day must have; of steps of several lengths the time of as
        many usual ones.
      full: usual steps of a whole day; 1 where steps are days.
      intervals: of the steps, for stamps where they differ in length.
    """

    days: Times
    edges: dict[str, tuple[Steps, Steps]]
    least: int
    full: int
    intervals: dict[str, Intervals] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        wanted: Times,
        labels: dict[str, Times],
        least: int,
        full: int,
        intervals: dict[str, Intervals] | None = None,
    ) -> Calendar:
        """From the days of all steps, for each stamp; or from intervals, where there are some."""
        edges = {
            stamp: (np.searchsorted(each, wanted), np.searchsorted(each, wanted, side="right"))
            for stamp, each in labels.items()
        }
        intervals = intervals or {}
        edges |= {stamp: each.edges(wanted) for stamp, each in intervals.items()}
        return cls(wanted, edges, least, full, intervals)

    def reach(self, block: slice, stamps: set[str]) -> tuple[int, int]:
        """First step of a block of days, and one after its last."""
        begin = min(int(self.edges[stamp][0][block].min()) for stamp in stamps)
        return begin, max(int(self.edges[stamp][1][block].max()) for stamp in stamps)

    def since(self, step: int) -> Calendar:
        """The same with steps counted from a later one."""
        edges = {key: (begin - step, end - step) for key, (begin, end) in self.edges.items()}
        intervals = {key: each.since(step) for key, each in self.intervals.items()}
        return Calendar(self.days, edges, self.least, self.full, intervals)


def coverage(
    labels: list[Times],
    least: int,
    wanted: tuple[np.datetime64, np.datetime64] | None,
    intervals: list[Intervals] | None = None,
) -> Coverage:
    """Which days there are.

    Args:
      labels: the days of all steps, for each way in which variables are stamped.
      least: steps that a day must have, or the time of as many usual ones.
      wanted: first and last day; None for those from the first to the last that are whole.
      intervals: those of the ways in which steps differ in length.
    """
    held: list[dict[Any, float]] = [
        dict(zip(*np.unique(each, return_counts=True), strict=True)) for each in labels
    ]
    for each in intervals or []:
        label, time = each.pieces()
        unique, which = np.unique(label, return_inverse=True)
        held.append(dict(zip(unique, np.bincount(which, time), strict=True)))
    if wanted is None:
        every = sorted(set.union(*map(set, held)))
        whole = [
            day
            for day in every
            if all(time.get(day, 0) >= least - time_steps.TINY for time in held)
        ]
        wanted = (whole[0], whole[-1]) if whole else (every[0], every[-1])
    days = np.arange(wanted[0], wanted[1] + DAY).astype("datetime64[D]")
    fewest = np.array([min(time.get(day, 0) for time in held) for day in days])
    lacking = fewest < least - time_steps.TINY
    return Coverage(days, days[fewest == 0], days[(fewest > 0) & lacking])


def daily(values: Values, calendar: Calendar, stamp: str, how: str, block: slice) -> Values:
    """One value for each day of a block.

    A sum over less than a whole day is scaled to the whole day, by the time of its steps. Where
    steps differ in length, a mean weighs each by its time.

    Args:
      values: (time, row, column), NaN where missing.
      calendar: which of these steps make a day.
      stamp: of the steps.
      how: mean, sum, max or min.
      block: of the calendar's days.

    Returns:
      (day, row, column) float32; NaN where less than `calendar.least` steps have a value.
    """
    begin, end = (edge[block] for edge in calendar.edges[stamp])
    intervals = calendar.intervals.get(stamp)
    made = np.full((len(begin), *values.shape[1:]), np.nan, np.float32)
    for i, (first, last) in enumerate(zip(begin, end, strict=True)):
        if last == first or (intervals is None and last - first < calendar.least):
            continue
        steps = values[first:last]
        valid = np.isfinite(steps)
        if intervals is None:
            time = share = None
            held = valid.sum(0)
        else:
            time, share = intervals.within(calendar.days[block][i], slice(first, last))
            held = np.tensordot(time, valid, 1)
        if how in ("max", "min"):
            empty, reduce = (-np.inf, np.max) if how == "max" else (np.inf, np.min)
            found = reduce(np.where(valid, steps, empty), axis=0)
        else:
            total = _total(np.where(valid, steps, 0), share if how == "sum" else time)
            at_least = 1 if intervals is None else time_steps.TINY
            found = total / np.maximum(held, at_least) * (calendar.full if how == "sum" else 1)
        made[i] = np.where(held >= calendar.least - time_steps.TINY, found, np.nan)
    return made


def _total(steps: Values, weight: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """(row, column) sum of (time, row, column) steps, each times its weight if there is one."""
    if weight is None:
        total: NDArray[np.float64] = steps.sum(0, dtype=np.float64)
        return total
    return np.tensordot(weight, steps.astype(np.float64), 1)
