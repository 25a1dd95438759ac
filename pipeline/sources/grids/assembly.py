"""From files of a grid to a dataset: the wanted steps and rows, our variables, days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import cadence, dated, http_errors
from pipeline.sources.grids import days, derive, effort
from pipeline.sources.grids.blocks import Series
from pipeline.sources.grids.calendars import Calendar, Intervals, coverage, intervals_of
from pipeline.sources.grids.parts import steps_in

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.parts import Files, Part

    Names = dict[str, derive.Term]


def assembled(source: Files, template: xr.Dataset, grid: Grid, parts: list[Part]) -> xr.Dataset:
    """A source's files in our names, units and days, lazily.

    Args:
      source: what is wanted, and how to open the files.
      template: one of them, open.
      grid: its rows and columns.
      parts: all of them, in order of time.

    Raises:
      DataError: days are missing, or steps of hours have no `daily` in the mapping.
    """
    import xarray as xr

    window = grid.over(source.region)
    timed = {
        name: any("time" in template[native].dims for native, _ in term.inputs)
        for name, term in source.terms.items()
    }
    parts = _wanted(source, parts)
    calendar, told = _calendar(source, parts, [name for name, has in timed.items() if has])
    series = Series(source, tuple(parts), window, calendar, source.day)
    together = dated.span(source.urlpath) == "h" and all(timed.values())
    made = series.variables(source.terms, template, together=together)
    coords: dict[str, Any] = dict(window.coords)
    if any(timed.values()):
        coords["time"] = ("time", calendar.days.astype("datetime64[ns]"))
    variables = {}
    for name, term in source.terms.items():
        attrs = {"units": term.to, "source": ", ".join(native for native, _ in term.inputs)}
        variables[name] = ((("time",) if timed[name] else ()) + window.axes, made[name], attrs)
    dataset = xr.Dataset(variables, coords, told | ({"crs": window.crs} if window.crs else {}))
    steps = len(series.times) / max(len(calendar.days), 1)
    dataset.encoding["files"] = len(parts)
    dataset.encoding["bytes_a_day"] = effort.bytes_a_day(source.terms, template, window, steps)
    return dataset


def _wanted(source: Files, parts: list[Part]) -> list[Part]:
    """Files with wanted steps, a day more on both sides of a period."""
    wanted = source.wanted_days()
    times = np.concatenate([part.times for part in parts])
    if wanted is None or not len(times):
        return parts
    reach = wanted[0] - days.DAY, wanted[1] + days.DAY
    kept = [
        part
        for part in parts
        if len(part.times)
        and part.times[-1].astype("datetime64[D]") >= reach[0]
        and part.times[0].astype("datetime64[D]") <= reach[1]
    ]
    there = (times.astype("datetime64[D]") >= wanted[0]) & (
        times.astype("datetime64[D]") <= wanted[1]
    )
    if not kept or not there.any():
        held = f"{times[0].astype('datetime64[D]')} to {times[-1].astype('datetime64[D]')}"
        found = f"holds {held}, and nothing of {wanted[0]} to {wanted[1]}"
        remedy = "name another period, or another source"
        raise DataError(http_errors.shown(source.urlpath), found, remedy=remedy)
    return kept


def _calendar(
    source: Files, parts: list[Part], names: list[str]
) -> tuple[Calendar, dict[str, Any]]:
    """Which steps make which day, and attributes that tell of them.

    Args:
      source: what is wanted.
      parts: the files.
      names: of the variables that change in time.
    """
    times, lengths = steps_in(parts)
    each_day = times.astype("datetime64[D]")
    if not names:
        return Calendar(each_day, {}, 1, 1), {}
    usual = cadence.step_of(times)
    hourly = usual < days.DAY or len(np.unique(each_day)) < len(times)
    undecided = [name for name in names if hourly and source.terms[name].how is None]
    if undecided:
        most = np.unique(each_day, return_counts=True)[1].max()
        found = f"{max(days.steps_of(usual), most)} steps a day, and no `daily` for "
        remedy = "say mean, sum, max or min in the mapping"
        raise DataError(
            http_errors.shown(source.urlpath), found + ", ".join(undecided), remedy=remedy
        )
    stamps = {source.terms[name].stamp_over(source.day.stamp) for name in names}
    if not hourly:
        labels = dict.fromkeys(stamps, each_day)
        if not (source.strict or dated.span(source.urlpath)):
            return Calendar.of(each_day, labels, 1, 1), {}
        return _covering(source, labels, {}, usual)
    intervals, labels = intervals_of(times, stamps, source.day, usual, lengths)
    calendar, told = _covering(source, labels, intervals, usual)
    each = cadence.steps(times, source.day.stamp)
    told["cadence"] = cadence.told(cadence.starts(times, each, source.day.stamp), each)
    return calendar, told | {"time_convention": source.day.convention}


def _covering(
    source: Files,
    labels: dict[str, days.Times],
    intervals: dict[str, Intervals],
    usual: np.timedelta64,
) -> tuple[Calendar, dict[str, Any]]:
    """The calendar of the days that are wanted; and which of them are missing or partial.

    Raises:
      DataError: days are missing that may not be.
    """
    full, least = days.steps_of(usual), source.day.least(usual) if usual < days.DAY else 1
    least = min(least, full) if intervals else least
    cover = coverage(list(labels.values()), least, source.wanted_days(), list(intervals.values()))
    lacking = source.may_not_lack(cover.missing)
    if lacking.size:
        found = f"missing: {dated.shown(lacking)}"
        raise DataError(http_errors.shown(source.urlpath), found, remedy=source.remedy_of_gaps())
    told = {
        key: dated.shown(lacks)
        for key, lacks in (("missing_days", cover.missing), ("partial_days", cover.partial))
        if lacks.size
    }
    return Calendar.of(cover.days, labels, least, full, intervals), told
