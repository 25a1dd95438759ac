"""Which days were made from preliminary forcing: spans in manifests, `input_status` in the maps.

A span is [first day, last day] as text; the spans of a manifest follow one another in time.
"""

from __future__ import annotations

from datetime import date
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from pipeline import schema
from pipeline.dates import runs_of_days

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FILL = 255
Spans = list[list[str]]


class Status(IntEnum):
    """Values of `input_status`."""

    FINAL = 0
    PRELIMINARY = 1


def array(group: str, period: tuple[date, date], preliminary: Spans) -> schema.Array:
    """`input_status` (time,) of a group: the status of each day of the period, else the fill."""
    days = schema.time_axis(period)
    values = np.full(len(days), Status.FINAL.value, np.uint8)
    values[np.isin(days, _days(preliminary))] = Status.PRELIMINARY.value
    begin, end = map(schema.epoch_day, period)
    values[(days < begin) | (days > end)] = FILL
    attrs = {
        "long_name": "status of the forcing when the day was made",
        "standard_name": "status_flag",
        "flag_values": [status.value for status in Status],
        "flag_meanings": " ".join(status.name.lower() for status in Status),
        "_FillValue": FILL,
    }
    path = f"{group}/input_status" if group else "input_status"
    shape = values.shape
    return schema.Array(path, ("time",), shape, "|u1", shape, shape, attrs, values, FILL)


def within(preliminary: Spans, period: tuple[date, date]) -> Spans:
    """The part of spans that lies in a period."""
    days = _days(preliminary)
    begin, end = map(schema.epoch_day, period)
    return _spans(days[(days >= begin) & (days <= end)])


def read_again(preliminary: Spans, since: date, now: Spans) -> Spans:
    """Spans after all days since one were read again: before it as they were, then as now."""
    old, new, begin = _days(preliminary), _days(now), schema.epoch_day(since)
    return _spans(np.concatenate([old[old < begin], new[new >= begin]]))


def _days(spans: Spans) -> NDArray[np.int64]:
    """All days of spans, counted from 1970-01-01."""
    edges: list[Sequence[int]] = [
        [schema.epoch_day(date.fromisoformat(day)) for day in span] for span in spans
    ]
    runs = [np.arange(first, last + 1) for first, last in edges]
    return np.concatenate([np.zeros(0, np.int64), *runs])


def _spans(days: NDArray[np.int64]) -> Spans:
    """Spans of days that are counted from 1970-01-01."""
    runs = runs_of_days(days.astype("datetime64[D]"))
    return [[str(first), str(last)] for first, last in runs]
