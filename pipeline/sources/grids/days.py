"""Steps of hours: which day a step belongs to, and the amounts of steps that accumulate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.sources import cadence

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]
    Values = NDArray[np.float32]

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
        begin = cadence.starts(times, step, stamp) + self.offset
        labels: Times = begin.astype("datetime64[D]")
        return labels

    def least(self, step: np.timedelta64) -> int:
        """Steps that a day must have."""
        return self.min_steps or steps_of(step)


def steps_of(step: np.timedelta64) -> int:
    """Steps of a whole day."""
    return max(round(float(DAY / step)), 1)


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
