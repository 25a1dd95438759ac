"""Runs of consecutive days or years, and how they and periods are written in messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike


def runs_of_days(days: ArrayLike) -> list[tuple[Any, Any]]:
    """Return the first and last day of each run of consecutive days, in time order.

    Args:
      days: datetime64[D], or integers that count days or years, in any order. Duplicates count
        once.
    """
    sorted_days = np.unique(np.asarray(days))
    starts = np.flatnonzero(np.diff(sorted_days).astype(np.int64) != 1) + 1
    return [(run[0], run[-1]) for run in np.split(sorted_days, starts) if run.size]


def runs_as_text(
    runs: Sequence[Sequence[Any]], most: int | None = None, to: str = "..", more: str = "more"
) -> str:
    """Format runs as text, such as `2016-03-01..2016-03-04, 2016-07-09 and 2 more`.

    Args:
      runs: The first and last day of each run.
      most: The number of runs to write out; None for all of them.
      to: The text between the first and last day of a run.
      more: The text after the number of runs that are not written out.
    """
    items = [str(first) if first == last else f"{first}{to}{last}" for first, last in runs[:most]]
    n_more = len(runs) - len(items)
    return ", ".join(items) + (f" and {n_more} {more}" if n_more else "")


def period_as_text(period: tuple[Any, Any]) -> str:
    """Format a period as catalogs and settings write it: `2016-01-01..2018-12-31`."""
    return f"{period[0]}..{period[1]}"
