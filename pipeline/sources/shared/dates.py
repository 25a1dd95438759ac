"""Periods of catalog entries, and files with a date in their URL.

A URL pattern has the codes `%Y`, `%m`, `%d`, `%j` and `%H` of strftime.
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


DATE_CODE = re.compile(r"%[YmdjH]")

# Code -> numpy's unit of the time that a file of the pattern covers; the first that occurs counts.
CODE_UNITS = {"%H": "h", "%d": "D", "%j": "D", "%m": "M", "%Y": "Y"}
MAX_LISTED_FOLDERS = 400  # limit for listing folders to find missing files before any file is read


def find_entry_period(
    place: str, metadata: dict[str, Any] | None, period: tuple[datetime.date, datetime.date] | None
) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last day of an entry that are in a requested period.

    Args:
      place: The place of the data, for the error.
      metadata: Metadata of the entry; its `period` is FIRST..LAST or FIRST.. (until today).
      period: First and last requested day; None for all days until today.

    Raises:
      DataError: If the entry has no day of the requested period.
    """
    entry_text = str((metadata or {}).get("period", ""))
    begin, _, end = entry_text.partition("..")
    today = datetime.datetime.now(datetime.UTC).date()
    first = datetime.date.fromisoformat(begin) if begin else datetime.date(1980, 1, 1)
    last = min(datetime.date.fromisoformat(end), today) if end else today
    if period:
        first, last = max(first, period[0]), min(last, period[1])
    if first > last:
        requested = f"the requested period {period[0]}..{period[1]}" if period else "any period"
        problem = f"the entry's period is {entry_text}, which has no day of {requested}"
        raise DataError(place, problem, remedy="change the period, or use another entry")
    return np.datetime64(first, "D"), np.datetime64(last, "D")


def pattern_unit(pattern: str) -> str | None:
    """Return the time that one file of a URL pattern covers.

    Returns:
      One of numpy's units Y, M, D and h; None if the URL has no code.
    """
    codes = set(DATE_CODE.findall(pattern))
    return next((unit for code, unit in CODE_UNITS.items() if code in codes), None)


def dated_urls(pattern: str, first: np.datetime64, last: np.datetime64) -> list[tuple[str, Times]]:
    """Return the files of a URL pattern over a period, in order of time.

    Args:
      pattern: The URL with codes.
      first: First day of the period.
      last: Last day of the period.

    Returns:
      For each file (URL, (2,) datetime64[ns] begin and end of the time that it covers).
    """
    unit: Any = pattern_unit(pattern)
    dtype, one = f"datetime64[{unit}]", np.timedelta64(1, unit)
    last_hour = (last + np.timedelta64(1, "D")).astype("datetime64[h]") - np.timedelta64(1, "h")
    result = []
    for begin in np.arange(first.astype(dtype), last_hour.astype(dtype) + one):
        covered = np.array([begin, begin + one]).astype("datetime64[ns]")
        result.append((fill_pattern(pattern, begin.astype("datetime64[s]").item()), covered))
    return result


def fill_pattern(pattern: str, time: datetime.datetime) -> str:
    """Replace the codes of a URL pattern with a time. Other percent signs are unchanged."""
    return DATE_CODE.sub(lambda match: time.strftime(match[0]), pattern)


def parse_period(text: str) -> tuple[datetime.date, datetime.date | None]:
    """Parse a period of a catalog entry.

    Args:
      text: `2015-01-01..2018-12-31` or, without a last day, `1979-01-01..`.

    Returns:
      First day, and last day or None.

    Raises:
      ValueError: If the text is not a period.
    """
    first, dots, last = str(text).partition("..")
    if not dots:
        raise ValueError(f"period '{text}': expected first..last, or first..")
    day = datetime.date.fromisoformat
    return day(first.strip()), day(last.strip()) if last.strip() else None


def find_absent_files(files: list[str], options: dict[str, Any]) -> set[str]:
    """Return the files that do not exist.

    The result is empty, whether or not files are missing, if listing is not cheap: for HTTP
    servers, and if the files are in more than 400 folders.

    Args:
      files: URLs of one store.
      options: Storage options for fsspec.

    Raises:
      DataError: If the store refuses or does not answer.
    """
    folders = defaultdict(list)
    for url in files:
        folders[url.rsplit("/", 1)[0]].append(url)
    if (
        not files
        or files[0].startswith(("http://", "https://"))
        or len(folders) > MAX_LISTED_FOLDERS
    ):
        return set()
    missing = set()
    for folder, urls_of_folder in folders.items():
        with http_errors.plain_http_errors(folder):
            filesystem, path = fsspec.core.url_to_fs(folder, **options)
            try:
                entries = filesystem.ls(path, detail=False)
            except FileNotFoundError:
                entries = []
        names = {str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries}
        missing |= {url for url in urls_of_folder if url.rsplit("/", 1)[-1] not in names}
    return missing


def format_days(days: Times) -> str:
    """Return days as text, with consecutive days as `first to last`; at most eight such runs."""
    return runs_as_text(runs_of_days(days.astype("datetime64[D]")), most=8, to=" to ")


def decode_times(times: NDArray[Any]) -> NDArray[Any]:
    """Convert times of cftime to datetime64[ns], also those of a calendar without leap days.

    Times of other calendars and times that are no objects of cftime are returned unchanged.
    """
    if times.dtype != object or not times.size:
        return times
    if getattr(times.flat[0], "calendar", "") not in ("noleap", "365_day", "standard", "gregorian"):
        return times
    return np.array([np.datetime64(time.isoformat(), "ns") for time in times.flat])
