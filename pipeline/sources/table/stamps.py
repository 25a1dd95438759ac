"""Parse the time stamps of a table, in any time zone, to UTC or local standard time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipeline.sources.table.text import at_lines

if TYPE_CHECKING:
    import pandas as pd

KEYS = ("id", "sensor", "depth_from", "depth_to")  # columns that identify a series
LOCAL, OFFSET = "local standard", "offset"
ACCEPTED = (
    "`UTC`, `offset` (each stamp has its own), `local standard`, a fixed offset such as "
    "`UTC-06:00` (no summer time), or an IANA name such as Europe/Berlin (with its summer time)"
)
NO_ISO = "time is not in ISO 8601 format"
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
    """The times of rows.

    Attributes:
      times: (row,) the times, UTC or local standard time, without time zone.
      dates: Whether all stamps are dates without a time of day.
      convention: Time convention of the days, `UTC day` or `local standard time day`.
    """

    times: pd.Series
    dates: bool
    convention: str


def zone(name: str) -> tzinfo | None:
    """Return the time zone of stamps without offsets; None for `local standard` and `offset`.

    Raises:
      ValueError: If there is no such zone.
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
    """Return (row,) whether a stamp ends in Z or an offset."""
    return text.str.slice(10).str.strip().str.contains(_ENDS_IN_OFFSET, regex=True)


def is_date(text: pd.Series) -> pd.Series:
    """Return (row,) whether a stamp is a date without a time of day."""
    return text.str.fullmatch(r"\d{4}-?\d{2}-?\d{2}")


def is_iso(text: pd.Series) -> bool:
    """Return whether any stamp begins with a date in ISO 8601 format."""
    return bool(text.str.contains(_DATE, regex=True).any())


def format_faults(time_format: str) -> list[str]:
    """Return a message if a format of stamps lacks year, month or day."""
    example = datetime(2019, 12, 31)
    try:
        if datetime.strptime(example.strftime(time_format), time_format).date() == example.date():
            return []
    except ValueError:
        pass
    return [f"time_format '{time_format}': expected year, month and day, {FORM}"]


def fitting(text: pd.Series) -> list[str]:
    """Return the formats, other than ISO 8601, that fit all stamps of a table.

    Several formats are returned if the stamps are ambiguous, and none if no known format fits.
    """
    import pandas as pd

    stamps = text[text != ""].drop_duplicates()
    if stamps.empty:
        return []
    span = {}
    for form in (f"{date}{time}" for date in _DATES for time in _TIMES):
        if pd.to_datetime(stamps.iloc[:1], format=form, errors="coerce").isna().any():
            continue
        times = pd.to_datetime(stamps, format=form, errors="coerce")
        if not times.isna().any():
            span[form] = times.max() - times.min()
    # A two-digit year may be first or last in a date. With the wrong choice, days are read as years
    # and the record spans decades; hence the format with the shortest span decides.
    year_is_first = bool(span) and min(span, key=lambda form: span[form]).startswith("%y")
    return [form for form in span if "%y" not in form or form.startswith("%y") == year_is_first]


def has_times(time_format: str) -> bool:
    """Return whether stamps of a format have a time of day."""
    return re.search("%[HI]", time_format) is not None


def stamps(
    rows: pd.DataFrame, time_zone: str | None, time_format: str | None = None
) -> tuple[Stamps, list[str]]:
    """Parse the time stamps of rows.

    A date among stamps with times of day means midnight. When summer time ends, clocks show an hour
    twice: the first row of a series in that hour is summer time, a later one is standard time.

    Args:
      rows: A frame with the stamps as text in `time`, the columns that identify a series, as far as
        the table has them, and line numbers as index.
      time_zone: The time zone, as in `TableSource`; None for `offset` if any stamp has an offset,
        and `local standard` otherwise.
      time_format: Format of the stamps; None for ISO 8601.

    Returns:
      The times, NaT where a stamp cannot be parsed; and messages that name the lines of all
      problems.
    """
    import pandas as pd

    text = rows["time"]
    present = text != ""
    parsed = pd.to_datetime(text, format=time_format or "ISO8601", utc=True, errors="coerce")
    if time_format is None:
        wrong = present & (parsed.isna() | ~text.str.contains(_DATE, regex=True))
        message = f"{NO_ISO}, such as 2019-05-01T13:00"
        offset = has_offset(text) & ~wrong
        dates = bool(is_date(text[present & ~wrong]).all())
    else:
        wrong = present & parsed.isna()
        message = f"time is not in the format {time_format} that time_format states"
        offset = ~wrong & ("%z" in time_format)
        dates = not has_times(time_format)
    problems = at_lines(message, wrong, text)
    time_zone = time_zone or (OFFSET if offset.any() else LOCAL)
    problems += _offset_problems(text, time_zone, offset, present & ~wrong)
    times = parsed.dt.tz_localize(None)
    tz = zone(time_zone)
    if tz is not None and not dates and time_zone != "UTC":
        times, nonexistent = _to_utc(rows, times, offset, tz)
        message = (
            f"time does not exist in {time_zone}, where clocks were set forward to summer time "
            "(for a logger without summer time, set time_zone to an offset such as UTC+01:00)"
        )
        problems += at_lines(message, nonexistent & ~wrong, text)
    utc = time_zone in ("UTC", OFFSET) or not (dates or time_zone == LOCAL)
    convention = "UTC day" if utc else "local standard time day"
    return Stamps(times.mask(wrong), dates, convention), problems


def _offset_problems(
    text: pd.Series, time_zone: str, offset: pd.Series, valid: pd.Series
) -> list[str]:
    """Return a message about stamps that lack an offset, or have one, against the time zone.

    Args:
      text: (row,) the stamps.
      time_zone: The time zone, as in `TableSource`.
      offset: (row,) whether the stamp has an offset.
      valid: (row,) whether the stamp can be parsed.
    """
    if time_zone == OFFSET:
        return at_lines(f"time has no offset, but time_zone is `{OFFSET}`", valid & ~offset, text)
    if time_zone == LOCAL:
        return at_lines(f"time has an offset; set time_zone to `{OFFSET}`", offset, text)
    return []


def _to_utc(
    rows: pd.DataFrame, times: pd.Series, offset: pd.Series, tz: tzinfo
) -> tuple[pd.Series, pd.Series]:
    """Return (row,) clock times converted to UTC, and (row,) which times do not exist in the zone.

    Args:
      rows: A frame with the columns that identify a series, as far as the table has them.
      times: (row,) clock times, or UTC where `offset`.
      offset: (row,) whether the stamp has its own offset.
      tz: The time zone of the other stamps.
    """
    is_clock_time = times.notna() & ~offset
    clock_times = times[is_clock_time]
    keys = rows.loc[is_clock_time, [c for c in KEYS if c in rows]].assign(time=clock_times)
    is_summer_time = ~keys.duplicated().to_numpy()
    utc = clock_times.dt.tz_localize(tz, ambiguous=is_summer_time, nonexistent="NaT")
    result = times.copy()
    result[is_clock_time] = utc.dt.tz_convert("UTC").dt.tz_localize(None)
    return result, is_clock_time & result.isna()
