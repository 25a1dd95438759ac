"""Parse the time stamps of a table, in any time zone, to UTC or local standard time.

Convert the text cells of a table to numbers and check them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from pipeline.sources.table.text import MAX_LINES_NAMED, format_problem, line_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd


SERIES_KEYS = ("id", "sensor", "depth_from", "depth_to")  # columns that identify a series
LOCAL_STANDARD, OWN_OFFSET = "local standard", "offset"

ACCEPTED_ZONES = (
    "`UTC`, `offset` (each stamp has its own), `local standard`, a fixed offset such as "
    "`UTC-06:00` (no summer time), or an IANA name such as Europe/Berlin (with its summer time)"
)

NOT_ISO = "time is not in ISO 8601 format"
FORMAT_EXAMPLE = "such as %d/%m/%Y %H:%M"
_FIXED_OFFSET = re.compile(r"UTC([+-])(\d{1,2})(?::?(\d{2}))?")
_ISO_DATE = r"^\d{4}-?\d{2}-?\d{2}"

_DATE_FORMATS = (
    *("%d/%m/%Y", "%m/%d/%Y", "%Y/%m/%d", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y"),
    *("%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y", "%m-%d-%y", "%d-%b-%Y", "%d %b %Y"),
    *("%Y.%m.%d", "%y/%m/%d", "%y-%m-%d", "%y.%m.%d"),
)

_TIME_FORMATS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p", "T%H:%M", "T%H:%M:%S")
_ENDS_IN_OFFSET = r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)$"


@dataclass(frozen=True)
class ParsedTimes:
    """The times of rows.

    Attributes:
      times: (row,) the times, UTC or local standard time, without time zone.
      dates: Whether all stamps are dates without a time of day.
      convention: Time convention of the days, `UTC day` or `local standard time day`.
    """

    times: pd.Series
    dates: bool
    convention: str


def parse_time_zone(name: str) -> tzinfo | None:
    """Return the time zone of stamps without offsets; None for `local standard` and `offset`.

    Raises:
      ValueError: If there is no such zone.
    """
    if name in (LOCAL_STANDARD, OWN_OFFSET):
        return None
    try:
        if fixed := _FIXED_OFFSET.fullmatch(name):
            sign, hours, minutes = fixed.groups()
            offset = timedelta(hours=int(hours), minutes=int(minutes or 0))
            return timezone(offset if sign == "+" else -offset)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = f"time_zone '{name}': expected {ACCEPTED_ZONES}"
        raise ValueError(msg) from error


def has_offset(text: pd.Series) -> pd.Series:
    """Return (row,) whether a stamp ends in Z or an offset."""
    return text.str.slice(10).str.strip().str.contains(_ENDS_IN_OFFSET, regex=True)


def is_date_only(text: pd.Series) -> pd.Series:
    """Return (row,) whether a stamp is a date without a time of day."""
    return text.str.fullmatch(r"\d{4}-?\d{2}-?\d{2}")


def has_iso_dates(text: pd.Series) -> bool:
    """Return whether any stamp begins with a date in ISO 8601 format."""
    return bool(text.str.contains(_ISO_DATE, regex=True).any())


def time_format_problems(time_format: str) -> list[str]:
    """Return a message if a format of stamps lacks year, month or day."""
    example = datetime(2019, 12, 31)
    try:
        if datetime.strptime(example.strftime(time_format), time_format).date() == example.date():
            return []
    except ValueError:
        pass
    return [f"time_format '{time_format}': expected year, month and day, {FORMAT_EXAMPLE}"]


def find_time_formats(text: pd.Series) -> list[str]:
    """Return the formats, other than ISO 8601, that fit all stamps of a table.

    Several formats are returned if the stamps are ambiguous, and none if no known format fits.
    """
    import pandas as pd

    stamps = text[text != ""].drop_duplicates()
    if stamps.empty:
        return []
    span = {}
    for form in (f"{date}{time}" for date in _DATE_FORMATS for time in _TIME_FORMATS):
        if pd.to_datetime(stamps.iloc[:1], format=form, errors="coerce").isna().any():
            continue
        times = pd.to_datetime(stamps, format=form, errors="coerce")
        if not times.isna().any():
            span[form] = times.max() - times.min()
    # A two-digit year may be first or last in a date. With the wrong choice, days are read as years
    # and the record spans decades; hence the format with the shortest span decides.
    year_is_first = bool(span) and min(span, key=lambda form: span[form]).startswith("%y")
    return [form for form in span if "%y" not in form or form.startswith("%y") == year_is_first]


def format_has_times(time_format: str) -> bool:
    """Return whether stamps of a format have a time of day."""
    return re.search("%[HI]", time_format) is not None


def parse_times(
    rows: pd.DataFrame, time_zone: str | None, time_format: str | None = None
) -> tuple[ParsedTimes, list[str]]:
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
        wrong = present & (parsed.isna() | ~text.str.contains(_ISO_DATE, regex=True))
        message = f"{NOT_ISO}, such as 2019-05-01T13:00"
        offset = has_offset(text) & ~wrong
        dates = bool(is_date_only(text[present & ~wrong]).all())
    else:
        wrong = present & parsed.isna()
        message = f"time is not in the format {time_format} that time_format states"
        offset = ~wrong & ("%z" in time_format)
        dates = not format_has_times(time_format)
    problems = line_problems(message, wrong, text)
    time_zone = time_zone or (OWN_OFFSET if offset.any() else LOCAL_STANDARD)
    problems += _offset_problems(text, time_zone, offset, present & ~wrong)
    times = parsed.dt.tz_localize(None)
    tz = parse_time_zone(time_zone)
    if tz is not None and not dates and time_zone != "UTC":
        times, nonexistent = _to_utc(rows, times, offset, tz)
        message = (
            f"time does not exist in {time_zone}, where clocks were set forward to summer time "
            "(for a logger without summer time, set time_zone to an offset such as UTC+01:00)"
        )
        problems += line_problems(message, nonexistent & ~wrong, text)
    utc = time_zone in ("UTC", OWN_OFFSET) or not (dates or time_zone == LOCAL_STANDARD)
    convention = "UTC day" if utc else "local standard time day"
    return ParsedTimes(times.mask(wrong), dates, convention), problems


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
    if time_zone == OWN_OFFSET:
        return line_problems(
            f"time has no offset, but time_zone is `{OWN_OFFSET}`", valid & ~offset, text
        )
    if time_zone == LOCAL_STANDARD:
        return line_problems(f"time has an offset; set time_zone to `{OWN_OFFSET}`", offset, text)
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
    keys = rows.loc[is_clock_time, [c for c in SERIES_KEYS if c in rows]].assign(time=clock_times)
    is_summer_time = ~keys.duplicated().to_numpy()
    utc = clock_times.dt.tz_localize(tz, ambiguous=is_summer_time, nonexistent="NaT")
    result = times.copy()
    result[is_clock_time] = utc.dt.tz_convert("UTC").dt.tz_localize(None)
    return result, is_clock_time & result.isna()


def parse_rows(
    raw: pd.DataFrame,
    columns: dict[str, str],
    numbers: dict[str, str],
    missing: Mapping[str, Sequence[float]],
) -> tuple[pd.DataFrame, list[str]]:
    """Return the rows of a table as numbers, and messages that name the lines of every problem.

    Args:
      raw: The cells as text, with line numbers as index.
      columns: {role: column} for id, lat, lon and time, and for sensor, depth, depth_from,
        depth_to and flag if the table has them.
      numbers: {soilweave's name: column} of the measured variables.
      missing: {soilweave's name: numbers that stand for missing values}.

    Returns:
      A frame with id, time, sensor and flag as text; lat, lon, depth, depth_from and depth_to if
      there are such columns, and the measured variables under soilweave's names, as floats, NaN
      where missing. The frame is empty if a column is missing or repeated. And the
      messages.
    """
    import pandas as pd

    required = dict.fromkeys([*columns.values(), *numbers.values()])
    absent = [name for name in required if name not in raw]
    if absent:
        return pd.DataFrame(), [
            f"column '{name}' missing; the header has {', '.join(raw.columns)}" for name in absent
        ]
    repeated = [name for name in required if name in raw.attrs["twice"]]
    if repeated:
        return pd.DataFrame(), [
            f"column '{name}': the header has this name more than once" for name in repeated
        ]
    rows = pd.DataFrame(index=raw.index)
    for name in ("id", "time", "sensor", "flag"):
        rows[name] = raw[columns[name]] if name in columns else ""
    problems = []
    for name in ("id", "time"):
        problems += line_problems(f"{columns[name]} is empty", rows[name] == "")
    for name in ("lat", "lon", "depth", "depth_from", "depth_to"):
        if name in columns:
            rows[name], column_problems = _parse_numbers(raw, columns[name], required=True)
            problems += column_problems
    for name, column in numbers.items():
        rows[name], column_problems = _parse_numbers(raw, column, required=False)
        rows[name] = rows[name].mask(rows[name].isin(list(missing[name])))
        problems += column_problems
    return rows, problems + _location_problems(rows)


def _parse_numbers(raw: pd.DataFrame, name: str, *, required: bool) -> tuple[pd.Series, list[str]]:
    """Return a column as floats, and a message if cells are not numbers.

    Args:
      raw: The cells as text.
      name: The column.
      required: Whether an empty cell is a problem.
    """
    import pandas as pd

    text = raw[name]
    if raw.attrs.get("decimal") == ",":
        text = text.str.replace(",", ".", regex=False)
    values = pd.to_numeric(text, errors="coerce").astype("float64")
    values = values.mask(np.isinf(values))
    wrong = values.isna() & ((text != "") | required)
    if not wrong.any():
        return values, []
    examples = [f"'{value}'" for value in raw[name][wrong][:MAX_LINES_NAMED]]
    return values, [format_problem(f"{name} is not a number", raw.index[wrong], examples)]


def _location_problems(rows: pd.DataFrame) -> list[str]:
    """Return messages about coordinates and depths that are not possible or change at a site."""
    problems = []
    for name, limit in (("lat", 90), ("lon", 180)):
        outside = rows[name].abs() > limit
        if outside.any():
            examples = [f"{value:g}" for value in rows[name][outside][:MAX_LINES_NAMED]]
            message = f"{name} outside -{limit} to {limit}"
            if name == "lon" and rows[name][outside].between(180, 360).all():
                message += " (these are from 0 to 360: subtract 360 from those above 180)"
            problems.append(format_problem(message, rows.index[outside], examples))
    known = rows[rows["id"] != ""].dropna(subset=["lat", "lon"])
    first = known.groupby("id")[["lat", "lon"]].transform("first")
    moved = (first != known[["lat", "lon"]]).any(axis=1)
    for site, moved_rows in known[moved].groupby("id"):
        message = f"id {site}: lat or lon differs from its first row"
        problems.append(format_problem(message, moved_rows.index))
    for name in ("depth", "depth_from", "depth_to"):
        if name in rows:
            message = f"{name} is negative; depths are positive downward from the surface"
            problems += line_problems(message, rows[name] < 0)
    if "depth_from" in rows:
        inverted = rows["depth_from"] > rows["depth_to"]
        problems += line_problems("depth_from is deeper than depth_to", inverted)
    return problems


def duplicate_problems(rows: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """Return a message about rows whose keys equal those of an earlier row."""
    repeated = rows.duplicated(list(keys))
    return line_problems("an earlier row has the same id, time, depth and sensor", repeated)
