"""Times of a table: stamps in whatever zone to days, and rows to one value per site and day."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta, timezone, tzinfo
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from pipeline.sources.table_rows import at_lines

if TYPE_CHECKING:
    import pandas as pd

LOCAL, OFFSET = "local standard", "offset"
ACCEPTED = (
    "`UTC`, `offset` (each stamp carries its own), `local standard`, `UTC-06:00` or the like (no "
    "summer time), or an IANA name such as Europe/Berlin (summer time as there)"
)
_FIXED = re.compile(r"UTC([+-])(\d{1,2})(?::?(\d{2}))?")
_DATE = r"^\d{4}-?\d{2}-?\d{2}"
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


def stamps(rows: pd.DataFrame, time_zone: str | None) -> tuple[Stamps, list[str]]:
    """Times of rows under a time zone; and the problems of stamps, with their lines.

    Without a time zone: that of the stamps, where any carries one, else local standard time.

    A date alone among stamps with times is midnight. An hour that a clock shows twice, when
    summer time ends, is summer time where it comes first in the file.

    Args:
      rows: of `table_rows.checked`.
      time_zone: one of `ACCEPTED`, or none.
    """
    import pandas as pd

    text = rows["time"]
    present = text != ""
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    wrong = present & (parsed.isna() | ~text.str.contains(_DATE, regex=True))
    problems = at_lines("time is no ISO 8601, such as 2019-05-01T13:00", wrong, text)
    offset = has_offset(text) & ~wrong
    time_zone = time_zone or (OFFSET if offset.any() else LOCAL)
    dates = bool(is_date(text[present & ~wrong]).all())
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


KEYS = ("id", "sensor", "depth_from", "depth_to")


def means(rows: pd.DataFrame, target: str, others: list[str], min_share: float) -> pd.DataFrame:
    """One row per series and day.

    A series is one sensor: one id, sensor and depth. A day needs `min_share` of the rows that the
    series' usual step (the median) gives a whole day, at least one. Its value is the mean of its
    good rows where they are that many; else, where all rows are, that of the first one that is
    not good, with its flag, so that quality control drops it, and counts it.

    Args:
      rows: with KEYS, `time`, `day`, `code` (of flags), `good`, the target and others.
      target: name of the target's column.
      others: further columns, of which means are taken.
      min_share: 0..1.

    Returns:
      A frame with KEYS, `day`, `value`, `code`, `good` and others.
    """
    rows = rows.assign(series=rows.groupby(list(KEYS), sort=False).ngroup())
    needed = rows["series"].map(_rows_of_a_day(rows)) * min_share
    rows = rows.assign(needed=np.maximum(needed, 1.0), value=rows[target])
    made = _reduced(rows, ["series", "day"])
    for name in others:
        groups = rows.groupby(["series", "day"])
        enough = groups[name].count() >= groups["needed"].first()
        made[name] = groups[name].mean().where(enough)
    keys = rows.groupby("series")[list(KEYS)].first()
    return made.reset_index().join(keys, on="series")


def merged(days: pd.DataFrame, others: list[str], sensors: str) -> pd.DataFrame:
    """One row per id and day, of its several sensors: their mean, or the `longest` alone."""
    if sensors == "longest":
        count = days[days["good"]].groupby("series").size()
        days = days.assign(n=days["series"].map(count).fillna(0))
        best = days.sort_values("n", ascending=False, kind="stable").groupby("id")["series"].first()
        days = days[days["series"] == days["id"].map(best)]
    days = days.assign(needed=1.0)
    made = _reduced(days, ["id", "day"])
    for name in others:
        made[name] = days.groupby(["id", "day"])[name].mean()
    return made.reset_index()


def _rows_of_a_day(rows: pd.DataFrame) -> pd.Series:
    """(series,) rows of a whole day at the usual step."""
    times = rows.sort_values(["series", "time"])
    step = times.groupby("series")["time"].diff().dt.total_seconds()
    usual = step[step > 0].groupby(times["series"]).median()
    a_day: pd.Series = (86400.0 / usual).clip(lower=1.0)
    return a_day.reindex(rows["series"].unique(), fill_value=1.0)


def _reduced(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Value, code and good of groups of rows: the mean of good ones, else the first other."""
    present = rows[rows["value"].notna()]
    good = present[present["good"]].groupby(by)["value"].agg(["mean", "size"])
    bad = present[~present["good"]].groupby(by)[["value", "code"]].first()
    made = rows.groupby(by)[["needed"]].first().join(good).join(bad)
    made["n"] = present.groupby(by).size()
    fine = made["size"] >= made["needed"]
    rejected = ~fine & (made["n"] >= made["needed"]) & made["value"].notna()
    value = made["mean"].where(fine, made["value"].where(rejected))
    code = made["code"].where(rejected, 0).astype("int64")
    return made[[]].assign(value=value, code=code, good=fine)
