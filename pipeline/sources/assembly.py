"""From files of a grid to a dataset: the wanted steps and rows, our variables, days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import dated, days, derive, remote
from pipeline.sources.blocks import Part, Series

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.axes import Grid
    from pipeline.sources.gridded import GridSource

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
    times = np.concatenate([part.times for part in parts])
    step = days.step_of(times)
    timed = {
        name: any("time" in template[native].dims for native, _ in term.inputs)
        for name, term in source.terms.items()
    }
    begin, end = _wanted(source, times, step)
    series = Series(source, tuple(parts), window, begin, end)
    hourly_files = dated.span(source.urlpath) == "h"
    names = list(derive.inputs_of(source.terms))
    held = series.arrays(names, template, days.steps_of(step), together=hourly_files)
    made: dict[str, Any] = {}
    for name, term in source.terms.items():
        arrays = [held[n] for n, _ in term.inputs]
        if term.since_00:
            arrays = [days.increments(a, times[begin:end], step) for a in arrays]
        made[name] = term.make(arrays)
    coords: dict[str, Any] = dict(window.coords)
    attrs: dict[str, Any] = {"crs": window.crs} if window.crs else {}
    if any(timed.values()):
        attrs |= _on_days(source, made, timed, times[begin:end], step)
        coords["time"] = ("time", attrs.pop("days").astype("datetime64[ns]"))
    variables = {}
    for name, term in source.terms.items():
        dims = (("time",) if timed[name] else ()) + window.axes
        told = {"units": term.to, "source": ", ".join(native for native, _ in term.inputs)}
        variables[name] = (dims, derive.linear(made[name], term.units, term.to), told)
    return xr.Dataset(variables, coords, attrs)


def _wanted(source: GridSource, times: days.Times, step: np.timedelta64) -> tuple[int, int]:
    """First wanted step, and one after the last: a day more on both sides of a period."""
    wanted = source.wanted_days()
    if wanted is None or not len(times):
        return 0, len(times)
    margin = days.DAY if step < days.DAY else np.timedelta64(0, "D")
    labels = times.astype("datetime64[D]")
    begin = int(np.searchsorted(labels, wanted[0] - margin))
    end = int(np.searchsorted(labels, wanted[1] + margin, side="right"))
    if begin == end:
        held = f"{labels[0]} to {labels[-1]}"
        found = f"holds {held}, and nothing of {wanted[0]} to {wanted[1]}"
        raise DataError(
            remote.shown(source.urlpath), found, remedy="name another period, or another source"
        )
    return begin, end


def _on_days(
    source: GridSource,
    made: dict[str, Any],
    timed: dict[str, bool],
    times: days.Times,
    step: np.timedelta64,
) -> dict[str, Any]:
    """Bring variables to days, in place; returns the days, and attributes that tell of them."""
    names = [name for name, has_time in timed.items() if has_time]
    hourly = step < days.DAY
    undecided = [name for name in names if hourly and source.terms[name].how is None]
    if undecided:
        found = f"{days.steps_of(step)} steps a day, and no `daily` for {', '.join(undecided)}"
        raise DataError(
            remote.shown(source.urlpath), found, remedy="say mean, sum, max or min in the mapping"
        )
    stamps = {name: (source.terms[name].stamp or source.day.stamp) for name in names}
    labels = {
        stamp: source.day.labels(times, step, stamp) if hourly else times.astype("datetime64[D]")
        for stamp in set(stamps.values())
    }
    least = source.day.least(step) if hourly else 1
    wanted = source.wanted_days()
    if not (hourly or source.strict or dated.span(source.urlpath)):
        return {"days": labels[next(iter(labels))]}
    cover = days.coverage(list(labels.values()), least, wanted)
    lacking = source.may_not_lack(cover.missing)
    if lacking.size:
        found = f"missing: {dated.shown(lacking)}"
        raise DataError(remote.shown(source.urlpath), found, remedy=source.remedy_of_gaps())
    for name in names:
        own = labels[stamps[name]]
        if hourly:
            how = str(source.terms[name].how)
            made[name] = days.daily(made[name], own, how, least, days.steps_of(step))
        made[name] = _reindexed(made[name], np.unique(own), cover.days)
    told: dict[str, Any] = {"days": cover.days}
    if hourly:
        told["time_convention"] = source.day.convention
    for key, lacks in (("missing_days", cover.missing), ("partial_days", cover.partial)):
        if lacks.size:
            told[key] = dated.shown(lacks)
    return told


def _reindexed(values: Any, held: days.Times, wanted: days.Times) -> Any:
    """Values of the held days on the wanted ones, NaN on those that are not held."""
    import dask.array

    da: Any = dask.array
    place = np.searchsorted(held, wanted)
    there = (place < len(held)) & (held[np.minimum(place, len(held) - 1)] == wanted)
    if there.all() and np.array_equal(place, np.arange(place[0], place[0] + len(place))):
        return values[place[0] : place[0] + len(place)]
    runs, pieces = np.flatnonzero(np.diff(there)) + 1, []
    for run in np.split(np.arange(len(wanted)), runs):
        if there[run[0]]:
            pieces.append(values[place[run[0]] : place[run[-1]] + 1])
        else:
            shape = (len(run), *values.shape[1:])
            pieces.append(da.full(shape, np.nan, dtype="float32", chunks=(-1, *values.chunks[1:])))
    return da.concatenate(pieces)
