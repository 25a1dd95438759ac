"""Times of a table: stamps in whatever zone to UTC, or to local standard time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.sources.table.text import at_lines

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("id", "sensor", "depth_from", "depth_to")  # of a series
LOCAL, OFFSET = "local standard", "offset"
ACCEPTED = (
    "`UTC`, `offset` (each stamp carries its own), `local standard`, `UTC-06:00` or the like (no "
    "summer time), or an IANA name such as Europe/Berlin (summer time as there)"
)
NO_ISO = "time is no ISO 8601"
FORM = "such as %d/%m/%Y %H:%M"
_FIXED = re.compile(r"UTC([+-])(\d{1,2})(?::?(\d{2}))?")
_DATE = r"^\d{4}-?\d{2}-?\d{2}"
_DATES = (
    *("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%d-%b-%Y", "%d %b %Y"),
    *("%Y.%m.%d", "%y/%m/%d", "%y-%m-%d", "%y.%m.%d"),
)
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M", "T%H:%M:%S")
_ENDS_IN_OFFSET = r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"


@dataclass(frozen=True)
class Stamps:
    """Times of rows, and how days are to be told.

    `times` (row,) without a zone: UTC, or local standard time; `dates` where stamps are dates
    alone, `convention` is that of the days.
    """

    times: pd.Series
    dates: bool
    convention: str


def zone(name: str) -> tzinfo | None:
    """The zone of stamps without offsets; None for `local standard` and `offset`.

    Raises:
      ValueError: there is none of that name.
    """
    if name in (LOCAL, OFFSET):
        return None
    try:
        if fixed := _FIXED.fullmatch(name):
            sign, hours, minutes = fixed.groups()
            offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
            return timezone(offset if sign == "+" else -offset)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"time_zone '{name}': expected {ACCEPTED}"
        raise ValueError(msg) from error


def has_offset(text: pd.Series) -> pd.Series:
    """(row,) whether a stamp ends in Z or an offset."""
    return text.str.slice(10).str.strip().str.contains(_ENDS_IN_OFFSET, regex=True)


def is_date(text: pd.Series) -> pd.Series:
    """(row,) whether a stamp is a date alone."""
    return text.str.fullmatch(r"\d{4}-?\d{2}-?\d{2}")


def is_iso(text: pd.Series) -> bool:
    """Whether some stamp begins as ISO 8601 does."""
    return bool(text.str.contains(_DATE, regex=True).any())


def format_faults(time_format: str) -> list[str]:
    """What is wrong with a form of stamps: it must tell year, month and day."""
    moment = datetime(2019, 12, 31)
    try:
        if datetime.strptime(moment.strftime(time_format), time_format).date() == moment.date():
            return []
    except ValueError:
        pass
    return [f"time_format '{time_format}': expected year, month and day, {FORM}"]


def fitting(text: pd.Series) -> list[str]:
    """Forms other than ISO 8601 that every stamp of a table has; of ambiguous ones, several."""
    import pandas as pd

    written = text[text != ""].drop_duplicates()
    if written.empty:
        return []
    span = {}
    for form in (f"{date}{time}" for date in _DATES for time in _TIMES):
        if pd.to_datetime(written.iloc[:1], format=form, errors="coerce").isna().any():
            continue
        times = pd.to_datetime(written, format=form, errors="coerce")
        if not times.isna().any():
            span[form] = times.max() - times.min()
    # A year of two digits stands first or last: read as a day, it would spread days over decades.
    first = bool(span) and min(span, key=lambda form: span[form]).startswith("%y")
    return [form for form in span if "%y" not in form or form.startswith("%y") == first]


def has_times(time_format: str) -> bool:
    """Whether stamps of a form have a time of day."""
    return re.search("%[HI]", time_format) is not None


def stamps(
    rows: pd.DataFrame, time_zone: str | None, time_format: str | None = None
) -> tuple[Stamps, list[str]]:
    """Times of rows under a time zone; and the problems of stamps, with their lines.

    Without a time zone: that of the stamps, where any carries one, else local standard time.

    A date alone among stamps with times is midnight. An hour that a clock shows twice, when
    summer time ends, is summer time where it comes first in the file.

    Args:
      rows: of `rows.checked`.
      time_zone: one of `ACCEPTED`, or none.
      time_format: of stamps that are not ISO 8601.
    """
    import pandas as pd

    text = rows["time"]
    present = text != ""
    form = time_format or "ISO8601"
    parsed = pd.to_datetime(text, format=form, utc=True, errors="coerce")
    if time_format is None:
        wrong = present & (parsed.isna() | ~text.str.contains(_DATE, regex=True))
        accepted = f"{NO_ISO}, such as 2019-05-01T13:00"
        offset = has_offset(text) & ~wrong
        dates = bool(is_date(text[present & ~wrong]).all())
    else:
        wrong = present & parsed.isna()
        accepted = f"time is not written as time_format {time_format} says"
        offset = ~wrong & ("%z" in time_format)
        dates = not has_times(time_format)
    problems = at_lines(accepted, wrong, text)
    time_zone = time_zone or (OFFSET if offset.any() else LOCAL)
    if time_zone == OFFSET:
        lacking = ~offset & present & ~wrong
        problems += at_lines(f"time without an offset, with time_zone `{OFFSET}`", lacking, text)
    if time_zone == LOCAL:
        problems += at_lines(f"time with an offset; say time_zone `{OFFSET}`", offset, text)
    times = parsed.dt.tz_localize(None)
    where = zone(time_zone)
    if where is not None and not dates and time_zone != "UTC":
        times, odd = _to_utc(rows, times, offset, where)
        what = f"time that no clock showed in {time_zone}, where summer time began"
        hint = "a logger that keeps standard time has a time_zone such as UTC+01:00"
        problems += at_lines(f"{what} ({hint})", odd & ~wrong, text)
    utc = time_zone in ("UTC", OFFSET) or not (dates or time_zone == LOCAL)
    convention = "UTC day" if utc else "local standard time day"
    return Stamps(times.mask(wrong), dates, convention), problems


def _to_utc(
    rows: pd.DataFrame, times: pd.Series, offset: pd.Series, where: tzinfo
) -> tuple[pd.Series, pd.Series]:
    """Clock times of a zone as UTC; and which no clock showed."""
    known = times.notna() & ~offset
    clock = times[known]
    keys = rows.loc[known, [c for c in KEYS if c in rows]].assign(time=clock)
    summer = ~keys.duplicated().to_numpy()
    utc = clock.dt.tz_localize(where, ambiguous=summer, nonexistent="NaT")
    result = times.copy()
    result[known] = utc.dt.tz_convert("UTC").dt.tz_localize(None)
    return result, known & result.isna()
