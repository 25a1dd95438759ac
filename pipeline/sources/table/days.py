"""Reduce the rows of a table to one value per site and day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.sources.shared import time_steps
from pipeline.sources.table.rows import SERIES_KEYS

if TYPE_CHECKING:
    from datetime import date

    import pandas as pd
    from numpy.typing import NDArray


def daily_means(
    rows: pd.DataFrame, target: str, others: list[str], min_share: float
) -> pd.DataFrame:
    """Return one row per series and day.

    A series is one sensor, with one id, sensor name and depth. A row covers the time until the
    next row, except in gaps. The rows of a day must cover `min_share` of it. If its good rows do,
    the value of the day is their mean, weighted by the time that they cover. If only all its rows
    together do, the value is that of the first row that is not good, with its flag, so that
    quality control drops and counts the day. Otherwise the value is missing.

    Args:
      rows: A frame with the columns that identify a series (`id`, `sensor`, `depth_from`,
        `depth_to`), and `time`, `day`, `code` (of flags), `good`, the target and others.
      target: Name of the target's column.
      others: Further columns to average.
      min_share: Share of a day that must be covered, 0 to 1.

    Returns:
      A frame with the columns that identify a series, and `day`, `value`, `code`, `good` and
      others.
    """
    rows = rows.assign(series=rows.groupby(list(SERIES_KEYS), sort=False).ngroup())
    rows = rows.assign(value=rows[target], **_covered_and_needed(rows, min_share))
    days = _reduce_groups(rows, ["series", "day"])
    for name in others:
        present = rows[rows[name].notna()]
        present = present.assign(weighted=present[name] * present["covered"])
        sums = present.groupby(["series", "day"])[["weighted", "covered"]].sum()
        needed = rows.groupby(["series", "day"])["needed"].first()
        enough = sums["covered"] >= needed.reindex(sums.index)
        days[name] = (sums["weighted"] / sums["covered"]).where(enough)
    keys = rows.groupby("series")[list(SERIES_KEYS)].first()
    return days.reset_index().join(keys, on="series")


def merge_sensors(
    days: pd.DataFrame, others: list[str], sensors: str, period: tuple[date, date] | None = None
) -> pd.DataFrame:
    """Combine the sensors of each id.

    Args:
      days: A frame with one row per series and day.
      others: Columns other than `value` to average.
      sensors: `mean` to average the sensors of an id; `longest` to keep only the series with the
        most good days.
      period: First and last day in which good days are counted; None for all days.

    Returns:
      A frame with one row per id and day: `id`, `day`, `value`, `code`, `good` and others.
    """
    if sensors == "longest":
        is_counted = days["good"]
        if period is not None:
            first, last = (np.datetime64(day, "ns") for day in period)
            is_counted = is_counted & (days["day"] >= first) & (days["day"] <= last)
        count = days[is_counted].groupby("series").size()
        days = days.assign(n=days["series"].map(count).fillna(0))
        best = days.sort_values("n", ascending=False, kind="stable").groupby("id")["series"].first()
        days = days[days["series"] == days["id"].map(best)]
    days = days.assign(covered=1.0, needed=1.0)  # all sensors have equal weight
    combined = _reduce_groups(days, ["id", "day"])
    for name in others:
        combined[name] = days.groupby(["id", "day"])[name].mean()
    return combined.reset_index()


def describe_cadence_changes(rows: pd.DataFrame, most: int = 3) -> str:
    """Describe changes of the interval between readings.

    Args:
      rows: A frame with the columns that identify a series and `time`.
      most: Largest number of sites to name.

    Returns:
      A text such as `A: hourly until 2019-05-02, daily from 2019-05-03`, empty without changes.
    """
    description_by_site: dict[str, str] = {}
    for keys, series in rows.groupby(list(SERIES_KEYS), sort=False):
        times = np.sort(series["time"].to_numpy("datetime64[ns]"))
        description = time_steps.describe_cadences(times, time_steps.interval_lengths(times))
        if " until " in description:
            description_by_site.setdefault(str(keys[0]), description)
    sites = [f"{site}: {description}" for site, description in description_by_site.items()]
    more = f"; and {len(sites) - most} more sites" if len(sites) > most else ""
    return "; ".join(sites[:most]) + more


def _covered_and_needed(rows: pd.DataFrame, min_share: float) -> dict[str, NDArray[np.float64]]:
    """Return the time that rows cover and the time that their days must be covered.

    Args:
      rows: A frame with `series` and `time`.
      min_share: Share of a day that must be covered, 0 to 1.

    Returns:
      `covered`: (row,) the time that each row covers; `needed`: (row,) the time that the rows of
      a day of its series must cover. The unit is the median interval between the rows of a series,
      or a day if that is shorter.
    """
    covered, needed = np.ones(len(rows)), np.ones(len(rows))
    all_times = rows["time"].to_numpy("datetime64[ns]")
    for indices in rows.groupby("series").indices.values():
        order = np.asarray(indices)[np.argsort(all_times[indices], kind="stable")]
        times = all_times[order]
        step = time_steps.median_step(times)
        lengths, one_day = time_steps.interval_lengths(times), np.timedelta64(1, "D")
        if not time_steps.is_regular(lengths, step):
            covered[order] = lengths / min(step, one_day)
            needed[order] = (
                max(min_share * (one_day / min(step, one_day)), 0) - time_steps.TIME_TOLERANCE
            )
        else:
            needed[order] = max(min_share * (one_day / step), 1)
    return {"covered": covered, "needed": needed}


def _reduce_groups(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return `value`, `code` and `good` of groups of rows.

    If the good rows of a group cover the needed time, the value is their weighted mean. If only
    all rows together do, it is the first value that is not good, with its code; otherwise NaN.

    Args:
      rows: A frame with `value`, `code`, `good`, `covered`, `needed` and the columns of `by`.
      by: Columns that define the groups.
    """
    present = rows[rows["value"].notna()]
    present = present.assign(weighted=present["value"] * present["covered"])
    good = present[present["good"]].groupby(by)[["weighted", "covered"]].sum()
    bad = present[~present["good"]].groupby(by)[["value", "code"]].first()
    groups = rows.groupby(by)[["needed"]].first().join(good).join(bad)
    groups["covered_by_all"] = present.groupby(by)["covered"].sum()
    is_good = groups["covered"] >= groups["needed"]
    is_rejected = (
        ~is_good & (groups["covered_by_all"] >= groups["needed"]) & groups["value"].notna()
    )
    mean = groups["weighted"] / groups["covered"]
    value = mean.where(is_good, groups["value"].where(is_rejected))
    code = groups["code"].where(is_rejected, 0).astype("int64")
    return groups[[]].assign(value=value, code=code, good=is_good)
