"""From files of a grid to a dataset: the wanted steps and rows, our variables, days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import dated, remote
from pipeline.sources.grids import days, derive, effort
from pipeline.sources.grids.blocks import Series
from pipeline.sources.grids.calendars import Calendar, coverage

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.gridsource import GridSource
    from pipeline.sources.grids.parts import Part

    Names = dict[str, derive.Term]


def assembled(
    source: GridSource, template: xr.Dataset, grid: Grid, parts: list[Part]
) -> xr.Dataset:
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
    parts, times = _wanted(source, parts)
    calendar, told = _calendar(source, times, [name for name, has in timed.items() if has])
    series = Series(source, tuple(parts), window, times, calendar, source.day.stamp)
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
    steps = len(times) / max(len(calendar.days), 1)
    dataset.encoding["files"] = len(parts)
    dataset.encoding["bytes_a_day"] = effort.bytes_a_day(source.terms, template, window, steps)
    return dataset


def _wanted(source: GridSource, parts: list[Part]) -> tuple[list[Part], days.Times]:
    """Files with wanted steps, a day more on both sides of a period, and their times."""
    wanted = source.wanted_days()
    times = np.concatenate([part.times for part in parts])
    if wanted is None or not len(times):
        return parts, times
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
        raise DataError(remote.shown(source.urlpath), found, remedy=remedy)
    return kept, np.concatenate([part.times for part in kept])


def _calendar(
    source: GridSource, times: days.Times, names: list[str]
) -> tuple[Calendar, dict[str, Any]]:
    """Which steps make which day, and attributes that tell of them.

    Args:
      source: what is wanted.
      times: of all steps.
      names: of the variables that change in time.
    """
    if not names:
        return Calendar(times.astype("datetime64[D]"), {}, 1, 1), {}
    step = days.step_of(times)
    hourly = step < days.DAY
    undecided = [name for name in names if hourly and source.terms[name].how is None]
    if undecided:
        found = f"{days.steps_of(step)} steps a day, and no `daily` for {', '.join(undecided)}"
        remedy = "say mean, sum, max or min in the mapping"
        raise DataError(remote.shown(source.urlpath), found, remedy=remedy)
    labels = {
        stamp: source.day.labels(times, step, stamp) if hourly else times.astype("datetime64[D]")
        for stamp in {source.terms[name].stamp or source.day.stamp for name in names}
    }
    least, full = (source.day.least(step), days.steps_of(step)) if hourly else (1, 1)
    if not (hourly or source.strict or dated.span(source.urlpath)):
        return Calendar.of(times.astype("datetime64[D]"), labels, least, full), {}
    cover = coverage(list(labels.values()), least, source.wanted_days())
    lacking = source.may_not_lack(cover.missing)
    if lacking.size:
        found = f"missing: {dated.shown(lacking)}"
        raise DataError(remote.shown(source.urlpath), found, remedy=source.remedy_of_gaps())
    told = {"time_convention": source.day.convention} if hourly else {}
    for key, lacks in (("missing_days", cover.missing), ("partial_days", cover.partial)):
        if lacks.size:
            told[key] = dated.shown(lacks)
    return Calendar.of(cover.days, labels, least, full), told
