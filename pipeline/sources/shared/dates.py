"""The days that an entry has and an experiment wants.

URLs with dates in them: `%Y`, `%m`, `%d`, `%j`, `%H`, as strftime has them, over a period.
"""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np

from pipeline.dates import runs_as_text, runs_of_days
from pipeline.errors import DataError
from pipeline.sources.shared import http_errors

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Times = NDArray[np.datetime64]


def entry_period(
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


CODE = re.compile(r"%[YmdjH]")
SPANS = {"%H": "h", "%d": "D", "%j": "D", "%m": "M", "%Y": "Y"}
MOST_FOLDERS = 400  # that are listed to find missing files before any is read


def span(pattern: str) -> str | None:
    """What one file of a pattern holds, as numpy's unit: Y, M, D, h; None for no pattern."""
    codes = set(CODE.findall(pattern))
    return next((unit for code, unit in SPANS.items() if code in codes), None)


def urls(pattern: str, first: np.datetime64, last: np.datetime64) -> list[tuple[str, Times]]:
    """The files of a pattern over a period, in order of time.

    Args:
      pattern: the URL, with codes.
      first: day of the period.
      last: day of the period.

    Returns:
      (URL, (2,) datetime64[ns] when what it holds begins and ends) of each.
    """
    unit: Any = span(pattern)
    kind, one = f"datetime64[{unit}]", np.timedelta64(1, unit)
    end = (last + np.timedelta64(1, "D")).astype("datetime64[h]") - np.timedelta64(1, "h")
    found = []
    for each in np.arange(first.astype(kind), end.astype(kind) + one):
        held = np.array([each, each + one]).astype("datetime64[ns]")
        found.append((filled(pattern, each.astype("datetime64[s]").item()), held))
    return found


def filled(pattern: str, time: datetime.datetime) -> str:
    """A pattern with the codes of a time put in; other signs of per cent stay."""
    return CODE.sub(lambda match: time.strftime(match[0]), pattern)


def period_of(text: str) -> tuple[datetime.date, datetime.date | None]:
    """First and last day of a period as catalogs have it: `2015-01-01..2018-12-31`, `1979-01-01..`.

    Raises:
      ValueError: it is none.
    """
    first, dots, last = str(text).partition("..")
    if not dots:
        raise ValueError(f"period '{text}': expected first..last, or first..")
    day = datetime.date.fromisoformat
    return day(first.strip()), day(last.strip()) if last.strip() else None


def absent(files: list[str], options: dict[str, Any]) -> set[str]:
    """Those of several files that are not there, where a store can list its folders cheaply.

    Raises:
      DataError: the store refuses or does not answer.
    """
    folders = defaultdict(list)
    for url in files:
        folders[url.rsplit("/", 1)[0]].append(url)
    if not files or files[0].startswith(("http://", "https://")) or len(folders) > MOST_FOLDERS:
        return set()
    missing = set()
    for folder, wanted in folders.items():
        with http_errors.answering(folder):
            filesystem, path = fsspec.core.url_to_fs(folder, **options)
            try:
                entries = filesystem.ls(path, detail=False)
            except FileNotFoundError:
                entries = []
        names = {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries}
        missing |= {url for url in wanted if url.rsplit("/", 1)[-1] not in names}
    return missing


def shown(days: Times) -> str:
    """Days as a person reads them: those in a row as first to last, at most eight of them."""
    return runs_as_text(runs_of_days(days.astype("datetime64[D]")), most=8, to=" to ")


def decode_times(times: NDArray[Any]) -> NDArray[Any]:
    """Times as datetime64[ns]; those of a calendar without leap days too, others as they are."""
    if times.dtype != object or not times.size:
        return times
    if getattr(times.flat[0], "calendar", "") not in ("noleap", "365_day", "standard", "gregorian"):
        return times
    return np.array([np.datetime64(time.isoformat(), "ns") for time in times.flat])
