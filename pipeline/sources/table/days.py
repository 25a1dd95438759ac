"""Rows of a table to one value per site and day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.sources import cadence
from pipeline.sources.table.stamps import KEYS

if TYPE_CHECKING:
    from datetime import date

    import pandas as pd
    from numpy.typing import NDArray


def means(rows: pd.DataFrame, target: str, others: list[str], min_share: float) -> pd.DataFrame:
    """One row per series and day.

    A series is one sensor: one id, sensor and depth. A row stands for the time until the next one,
    gaps apart. A day needs rows that stand for `min_share` of it. Its value is the mean of its
    good rows, by their time, where they are that many; else, where all rows are, that of the first
    one that is not good, with its flag, so that quality control drops it, and counts it.

    Args:
      rows: with KEYS, `time`, `day`, `code` (of flags), `good`, the target and others.
      target: name of the target's column.
      others: further columns, of which means are taken.
      min_share: 0..1.

    Returns:
      A frame with KEYS, `day`, `value`, `code`, `good` and others.
    """
    rows = rows.assign(series=rows.groupby(list(KEYS), sort=False).ngroup())
    rows = rows.assign(value=rows[target], **_times(rows, min_share))
    made = _reduced(rows, ["series", "day"])
    for name in others:
        held = rows[rows[name].notna()]
        held = held.assign(weighed=held[name] * held["held"])
        found = held.groupby(["series", "day"])[["weighed", "held"]].sum()
        needed = rows.groupby(["series", "day"])["needed"].first()
        enough = found["held"] >= needed.reindex(found.index)
        made[name] = (found["weighed"] / found["held"]).where(enough)
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
    days = days.assign(held=1.0, needed=1.0)
    made = _reduced(days, ["id", "day"])
    for name in others:
        made[name] = days.groupby(["id", "day"])[name].mean()
    return made.reset_index()


def changes(rows: pd.DataFrame, most: int = 3) -> str:
    """Sensors whose readings change their cadence: `A: hourly until 2019-05-02, daily from ...`."""
    found: dict[str, str] = {}
    for keys, held in rows.groupby(list(KEYS), sort=False):
        times = np.sort(held["time"].to_numpy("datetime64[ns]"))
        told = cadence.told(times, cadence.steps(times))
        if " until " in told:
            found.setdefault(str(keys[0]), told)
    shown = [f"{site}: {told}" for site, told in found.items()]
    more = f"; and {len(shown) - most} more sites" if len(shown) > most else ""
    return "; ".join(shown[:most]) + more


def _times(rows: pd.DataFrame, min_share: float) -> dict[str, NDArray[np.float64]]:
    """(row,) `held`, the time that each stands for; and `needed`, that a day of its series needs.

    Both in usual steps of the series, or in days where that is shorter.
    """
    held, needed = np.ones(len(rows)), np.ones(len(rows))
    every = rows["time"].to_numpy("datetime64[ns]")
    for found in rows.groupby("series").indices.values():
        at = np.asarray(found)[np.argsort(every[found], kind="stable")]
        times = every[at]
        step = cadence.step_of(times)
        lengths, a_day = cadence.steps(times), np.timedelta64(1, "D")
        if not cadence.is_regular(lengths, step):
            held[at] = lengths / min(step, a_day)
            needed[at] = max(min_share * (a_day / min(step, a_day)), 0) - cadence.TINY
        else:
            needed[at] = max(min_share * (a_day / step), 1)
    return {"held": held, "needed": needed}


def _reduced(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Value, code and good of groups of rows: the mean of good ones, else the first other."""
    present = rows[rows["value"].notna()]
    present = present.assign(weighed=present["value"] * present["held"])
    good = present[present["good"]].groupby(by)[["weighed", "held"]].sum()
    bad = present[~present["good"]].groupby(by)[["value", "code"]].first()
    made = rows.groupby(by)[["needed"]].first().join(good).join(bad)
    made["all"] = present.groupby(by)["held"].sum()
    fine = made["held"] >= made["needed"]
    rejected = ~fine & (made["all"] >= made["needed"]) & made["value"].notna()
    mean = made["weighed"] / made["held"]
    value = mean.where(fine, made["value"].where(rejected))
    code = made["code"].where(rejected, 0).astype("int64")
    return made[[]].assign(value=value, code=code, good=fine)
