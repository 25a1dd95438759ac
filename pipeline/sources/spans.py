"""The days that an entry has and an experiment wants."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from pipeline.errors import DataError


def span(
    place: str, metadata: dict[str, Any] | None, period: tuple[datetime.date, datetime.date] | None
) -> tuple[np.datetime64, np.datetime64]:
    """First and last day: of `metadata.period`, FIRST..LAST or FIRST.., within the period wanted.

    Args:
      place: where the data are, for the error.
      metadata: of the entry.
      period: first and last day wanted; None for all there are, until today.

    Raises:
      DataError: the entry has none of them.
    """
    told = str((metadata or {}).get("period", ""))
    begin, _, end = told.partition("..")
    today = datetime.datetime.now(datetime.UTC).date()
    first = datetime.date.fromisoformat(begin) if begin else datetime.date(1980, 1, 1)
    last = min(datetime.date.fromisoformat(end), today) if end else today
    if period:
        first, last = max(first, period[0]), min(last, period[1])
    if first > last:
        asked = f"{period[0]}..{period[1]}" if period else "any day"
        found = f"has {told}, and {asked} is asked for"
        raise DataError(place, found, remedy="change the period, or name another entry")
    return np.datetime64(first, "D"), np.datetime64(last, "D")
