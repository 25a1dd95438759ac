"""Runs of days and periods, and how they are written for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def runs_of_days(days: ArrayLike) -> list[tuple[Any, Any]]:
    """First and last of each run of days that follow one another, in order of time.

    Args:
      days: datetime64[D], or whole numbers of days or of years; in any order.
    """
    each = np.unique(np.asarray(days))
    starts = np.flatnonzero(np.diff(each).astype(np.int64) != 1) + 1
    return [(run[0], run[-1]) for run in np.split(each, starts) if run.size]


def runs_as_text(
    runs: Sequence[Sequence[Any]], most: int | None = None, to: str = "..", more: str = "more"
) -> str:
    """Runs as text: `2016-03-01..2016-03-04, 2016-07-09 and 2 more`.

    Args:
      runs: first and last of each.
      most: number of runs that are written out; None for all of them.
      to: what stands between the first and the last of a run.
      more: what the other runs are called.
    """
    written = [str(first) if first == last else f"{first}{to}{last}" for first, last in runs[:most]]
    others = len(runs) - len(written)
    return ", ".join(written) + (f" and {others} {more}" if others else "")


def period_as_text(period: tuple[Any, Any]) -> str:
    """First and last day, as catalogs and settings have a period: `2016-01-01..2018-12-31`."""
    return f"{period[0]}..{period[1]}"
