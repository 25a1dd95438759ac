"""Rows of a table to one value per site and day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.sources.table.stamps import KEYS

if TYPE_CHECKING:
    from datetime import date

    import pandas as pd


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


def merged(
    days: pd.DataFrame, others: list[str], sensors: str, period: tuple[date, date] | None = None
) -> pd.DataFrame:
    """One row per id and day, of its several sensors: their mean, or the `longest` alone.

    The longest is the one of most good days in a period, or in the whole table.
    """
    if sensors == "longest":
        counted = days["good"]
        if period is not None:
            first, last = (np.datetime64(day, "ns") for day in period)
            counted = counted & (days["day"] >= first) & (days["day"] <= last)
        count = days[counted].groupby("series").size()
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
