"""Which days a series of steps has, which of its steps make them, and what it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.sources.grids.days import DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]
    Steps = NDArray[np.int64]


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
class Calendar:
    """Which steps make which day.

    Attributes:
      days: (day,).
      edges: for each stamp, (day,) the first step of each day, and (day,) one after its last.
      least: steps with a value that a day must have.
      full: steps of a whole day; 1 where steps are days.
    """

    days: Times
    edges: dict[str, tuple[Steps, Steps]]
    least: int
    full: int

    @classmethod
    def of(cls, wanted: Times, labels: dict[str, Times], least: int, full: int) -> Calendar:
        """From the days of all steps, for each stamp."""
        edges = {
            stamp: (np.searchsorted(each, wanted), np.searchsorted(each, wanted, side="right"))
            for stamp, each in labels.items()
        }
        return cls(wanted, edges, least, full)

    def reach(self, block: slice, stamps: set[str]) -> tuple[int, int]:
        """First step of a block of days, and one after its last."""
        begin = min(int(self.edges[stamp][0][block].min()) for stamp in stamps)
        return begin, max(int(self.edges[stamp][1][block].max()) for stamp in stamps)

    def since(self, step: int) -> Calendar:
        """The same with steps counted from a later one."""
        edges = {key: (begin - step, end - step) for key, (begin, end) in self.edges.items()}
        return Calendar(self.days, edges, self.least, self.full)


def coverage(
    labels: list[Times], least: int, wanted: tuple[np.datetime64, np.datetime64] | None
) -> Coverage:
    """Which days there are.

    Args:
      labels: the days of all steps, for each way in which variables are stamped.
      least: steps that a day must have.
      wanted: first and last day; None for those from the first to the last that are whole.
    """
    held = [dict(zip(*np.unique(each, return_counts=True), strict=True)) for each in labels]
    if wanted is None:
        every = sorted(set.union(*map(set, held)))
        whole = [day for day in every if all(count.get(day, 0) >= least for count in held)]
        wanted = (whole[0], whole[-1]) if whole else (every[0], every[-1])
    days = np.arange(wanted[0], wanted[1] + DAY).astype("datetime64[D]")
    fewest = np.array([min(count.get(day, 0) for count in held) for day in days])
    return Coverage(days, days[fewest == 0], days[(fewest > 0) & (fewest < least)])
