"""Steps of hours to days: which day a step belongs to, means, sums, and de-accumulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.sources.grids.calendars import Calendar

    Times = NDArray[np.datetime64]
    Values = NDArray[np.float32]

Stamp = Literal["start", "middle", "end", "instant"]
How = Literal["mean", "sum", "max", "min"]
STAMPS = ("start", "middle", "end", "instant")
HOWS = ("mean", "sum", "max", "min")
DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Day:
    """What a day is.

    Attributes:
      stamp: where in its interval the time of a step lies; `instant` has none.
      offset_hours: of the day's clock from UTC: -6 lets days begin at 06 UTC.
      min_steps: of a day, below which it has no value; None for all.
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

    def labels(self, times: Times, step: np.timedelta64, stamp: str) -> Times:
        """(time,) the day, datetime64[D], that holds the interval of each step."""
        back = {"end": step, "middle": step // 2}.get(stamp, np.timedelta64(0, "ns"))
        offset = np.timedelta64(round(self.offset_hours * 3600), "s")
        labels: Times = (times - back + offset).astype("datetime64[D]")
        return labels

    def least(self, step: np.timedelta64) -> int:
        """Steps that a day must have."""
        return self.min_steps or steps_of(step)


def steps_of(step: np.timedelta64) -> int:
    """Steps of a whole day."""
    return max(round(float(DAY / step)), 1)


def step_of(times: Times) -> np.timedelta64:
    """The usual time between steps; a day for one step alone."""
    if len(times) < 2:
        return np.timedelta64(24 * 3600 * 10**9, "ns")
    usual = int(np.median(np.diff(times).astype("timedelta64[ns]").astype(np.int64)))
    return np.timedelta64(usual, "ns")


def decoded(times: NDArray[Any]) -> NDArray[Any]:
    """Times as datetime64[ns]; those of a calendar without leap days too, others as they are."""
    if times.dtype != object or not times.size:
        return times
    if getattr(times.flat[0], "calendar", "") not in ("noleap", "365_day", "standard", "gregorian"):
        return times
    return np.array([np.datetime64(time.isoformat(), "ns") for time in times.flat])


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


def daily(values: Values, calendar: Calendar, stamp: str, how: str, block: slice) -> Values:
    """One value for each day of a block.

    A sum over fewer steps than a whole day's is their mean times the steps of a day.

    Args:
      values: (time, row, column), NaN where missing.
      calendar: which of these steps make a day.
      stamp: of the steps.
      how: mean, sum, max or min.
      block: of the calendar's days.

    Returns:
      (day, row, column) float32; NaN where fewer steps than `calendar.least` have a value.
    """
    begin, end = (edge[block] for edge in calendar.edges[stamp])
    made = np.full((len(begin), *values.shape[1:]), np.nan, np.float32)
    for i, (first, last) in enumerate(zip(begin, end, strict=True)):
        if last - first < calendar.least:
            continue
        steps = values[first:last]
        valid = np.isfinite(steps)
        count = valid.sum(0)
        if how in ("max", "min"):
            empty, reduce = (-np.inf, np.max) if how == "max" else (np.inf, np.min)
            found = reduce(np.where(valid, steps, empty), axis=0)
        else:
            total = np.where(valid, steps, 0).sum(0, dtype=np.float64)
            found = total / np.maximum(count, 1) * (calendar.full if how == "sum" else 1)
        made[i] = np.where(count >= calendar.least, found, np.nan)
    return made


def increments(values: Values, times: Times, step: np.timedelta64) -> Values:
    """What accumulated in each step, of what accumulates from 00 UTC on.

    The value at 00 UTC is the total of the day before; NaN where the step before is missing.

    Args:
      values: (time, row, column).
      times: (time,), each at the end of its step.
      step: between them.
    """
    begun = times - step
    fresh = (begun == begun.astype("datetime64[D]")).reshape(-1, 1, 1)
    follows = (np.diff(times) == step).reshape(-1, 1, 1)
    made = np.full_like(values, np.nan)
    made[1:] = np.where(follows, values[1:] - values[:-1], np.nan)
    return np.where(fresh, values, made)
