"""How much of the files of a grid has to be read for a day of each variable.

Blocks of a grid's variable, read from the files that hold them when dask asks for them.

From files of a grid to a dataset: the wanted steps and rows, our variables, days.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.grids import days
from pipeline.sources.grids import variables as grids_variables
from pipeline.sources.grids.days import Calendar, Intervals, coverage, daily, intervals_of
from pipeline.sources.grids.parts import Opener, OtherSteps, Part, as_held, steps_in, values_of
from pipeline.sources.shared import dates, http_errors, time_steps

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.parts import Files
    from pipeline.sources.grids.variables import Term

    Values = NDArray[np.float32]
    Names = dict[str, grids_variables.Term]


def bytes_a_day(
    terms: dict[str, Term], template: xr.Dataset, window: Grid, steps: float
) -> dict[str, float]:
    """Bytes in memory, by our names, of whole chunks of the files that lie over a window.

    Args:
      terms: what our variables are made of.
      template: one of the files.
      window: rows and columns that are wanted.
      steps: of a day.
    """
    return {
        name: steps * sum(_bytes_a_step(template[native], window) for native, _ in term.inputs)
        for name, term in terms.items()
    }


def _bytes_a_step(stored: xr.DataArray, window: Grid) -> float:
    native: dict[Any, int] = stored.encoding.get("preferred_chunks") or {}
    size = float(np.dtype(stored.encoding.get("dtype") or stored.dtype).itemsize)
    for dim, taken, n in zip(window.dims, window.slices, window.shape, strict=True):
        chunk, start = int(native.get(dim, 1)), taken.start or 0
        whole = -(-(start + n) // chunk) * chunk - start // chunk * chunk
        size *= min(whole, int(stored.sizes[dim]))
    return size


READ_AT_ONCE, DAYS_AT_ONCE = 256, 32  # rows and columns, days; or more: whole chunks of a file
_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Series:
    """Files that follow one another, of one grid, and the steps and days of them that are wanted.

    Attributes:
      source: opens them.
      parts: in order of time.
      grid: rows and columns that are wanted.
      calendar: which steps make which day.
      day: what a day is; its stamp is that of variables that have none of their own.
    """

    source: Opener
    parts: tuple[Part, ...]
    grid: Grid
    calendar: Calendar
    day: days.Day

    @functools.cached_property
    def times(self) -> NDArray[np.datetime64]:
        """(time,) of all steps."""
        return steps_in(self.parts)[0]

    @functools.cached_property
    def firsts(self) -> NDArray[np.int64]:
        """(part + 1,) number of the first step of each part."""
        return np.cumsum([0, *(len(part.times) for part in self.parts)])

    def variables(
        self, terms: dict[str, grids_variables.Term], template: xr.Dataset, *, together: bool
    ) -> dict[str, Any]:
        """Our variables, (day, row, column) or (row, column), in our units, float32, lazily.

        Args:
          terms: what they are made of.
          template: one of the files, which tells dims and chunks.
          together: whether a file is opened once for all of them, which many small files need.
        """
        import dask.array

        make: Any = dask.array.map_blocks
        made: dict[str, Any] = {}
        for group in [terms] if together else [{name: term} for name, term in terms.items()]:
            stored = template[next(iter(group.values())).inputs[0][0]]
            edges = self._edges(stored, {self.stamp_of(term) for term in group.values()})
            told = [[p.url for p in self.parts], list(group), repr(group), str(self.times[:1])]
            key = files.sha256_of([told, edges, self.calendar.days.astype(str).tolist()])
            stack = make(
                functools.partial(_block, self, group, edges),  # dask looks into no partial
                chunks=((len(group),), *(tuple(np.diff(edge).tolist()) for edge in edges)),
                dtype="float32",
                meta=np.empty((0,) * (len(edges) + 1), "float32"),
                name=f"grid-{next(iter(group))}-{key[:24]}",
            )
            made |= {name: stack[i] for i, name in enumerate(group)}
        return made

    def _edges(self, stored: xr.DataArray, stamps: set[str]) -> list[list[int]]:
        """Edges of blocks of days, rows and columns: whole chunks of the files."""
        native: dict[Any, int] = stored.encoding.get("preferred_chunks") or {}
        edges = [
            _within(0, n, taken.start or 0, int(native.get(dim, 1)), READ_AT_ONCE)
            for dim, taken, n in zip(self.grid.dims, self.grid.slices, self.grid.shape, strict=True)
        ]
        if "time" not in stored.dims:
            return edges
        area = 4 * int(np.diff(edges[0]).max()) * int(np.diff(edges[1]).max())
        begin, end = (
            np.array([self.calendar.edges[stamp][side] for stamp in stamps]) for side in (0, 1)
        )
        full = max(self.calendar.steps_per_day, int((end - begin).max()))
        room = max(_BLOCK_BYTES // area // full * full, full)
        at_once = min(DAYS_AT_ONCE * full, room)
        ends: list[int] = []
        for part, first in zip(self.parts, self.firsts, strict=False):
            n = len(part.times)
            ends += [int(first) + e for e in _within(0, n, 0, int(native.get("time", 1)), at_once)]
        begin = begin.min(0)
        each = np.unique(np.searchsorted(begin, np.unique(ends)))
        kept = [0]  # short files make blocks together
        for edge, following in zip(each, [*each[1:], len(begin) + at_once], strict=True):
            if edge > kept[-1] and (following - kept[-1]) * full > at_once:
                kept.append(int(edge))
        return [[*(e for e in kept if e < len(begin)), len(begin)], *edges]

    def made(self, terms: dict[str, grids_variables.Term], where: tuple[slice, ...]) -> Values:
        """(variable, ...) our variables in a block.

        Raises:
          DataError: a file is absent, damaged or unlike the first.
        """
        each = list(terms.values())
        names = tuple(dict.fromkeys(name for term in each for name, _ in term.inputs))
        if len(where) == 2:
            held = values_of(self.source, self.grid, self.parts[0], names, self._at(where))
            arrays = dict(zip(names, held, strict=True))
            return np.stack(
                [term.compute([arrays[name] for name, _ in term.inputs]) for term in each]
            )
        begin, end = self._reach(where[0], {self.stamp_of(term) for term in each})
        try:
            held = self._steps(names, begin, end, where[1:])
        except OtherSteps:
            if any(term.daily is None for term in each):
                raise
            series = self._as_held(begin, end, where[0], {self.stamp_of(term) for term in each})
            n_days = len(series.calendar.days)
            return series.made(terms, (slice(0, n_days), *where[1:]))
        arrays = dict(zip(names, held, strict=True))
        return np.stack([self._daily(term, arrays, begin, end, where[0]) for term in each])

    def stamp_of(self, term: grids_variables.Term) -> str:
        """Where in its interval the time of a step of a variable lies."""
        return term.stamp_or(self.day.stamp)

    def _as_held(self, begin: int, end: int, block: slice, stamps: set[str]) -> Series:
        """A block of days with the steps that its files have, rather than those expected."""
        first, last = np.searchsorted(self.firsts, [begin, end - 1], side="right")
        parts = tuple(
            as_held(self.source, self.grid, part, self.day.stamp)
            for part in self.parts[first - 1 : last]
        )
        times, lengths = steps_in(parts)
        calendar, usual = self.calendar, time_steps.step_of(self.times)
        intervals, labels = intervals_of(times, stamps, self.day, usual, lengths)
        least = min(calendar.min_steps, calendar.steps_per_day)
        some = calendar.days[block]
        calendar = Calendar.from_labels(some, labels, least, calendar.steps_per_day, intervals)
        return Series(self.source, parts, self.grid, calendar, self.day)

    def _reach(self, block: slice, stamps: set[str]) -> tuple[int, int]:
        """First step of a block of days, and one after its last; of amounts since 00 UTC more."""
        begin, end = self.calendar.step_range(block, stamps)
        if days.SINCE_00 not in stamps:
            return begin, end
        first, last = self.calendar.step_range(block, {days.SINCE_00})
        since = days.midnight_before(self.times)
        first = int(np.searchsorted(since, since[min(first, len(since) - 1)]))
        last = int(np.searchsorted(since, since[max(last - 1, 0)], side="right"))
        return min(begin, first), max(end, last)

    def _daily(
        self,
        term: grids_variables.Term,
        held: dict[str, Values],
        begin: int,
        end: int,
        block: slice,
    ) -> Values:
        """(day, row, column) a variable in a block of days, from its inputs' steps."""
        arrays = [held[name] for name, _ in term.inputs]
        if term.since_00:
            arrays = [days.increments(array, self.times[begin:end]) for array in arrays]
        made: Values = term.compute(
            arrays,
            functools.partial(
                daily,
                calendar=self.calendar.from_step(begin),
                stamp=self.stamp_of(term),
                how=term.daily or "mean",
                block=block,
            ),
        )
        return made

    def _at(self, where: tuple[slice, ...]) -> dict[str, slice]:
        """Rows and columns of a block, as they are counted in the files."""
        return {
            dim: slice((taken.start or 0) + part.start, (taken.start or 0) + part.stop)
            for dim, taken, part in zip(self.grid.dims, self.grid.slices, where, strict=True)
        }

    def _steps(
        self, names: tuple[str, ...], begin: int, end: int, where: tuple[slice, ...]
    ) -> Values:
        """(variable, time, row, column) of steps, from all files that hold them."""
        shape = (part.stop - part.start for part in where)
        made = np.full((len(names), end - begin, *shape), np.nan, np.float32)
        low_part = int(np.searchsorted(self.firsts, begin, side="right")) - 1
        for part, first in zip(self.parts[low_part:], self.firsts[low_part:], strict=False):
            low, high = max(begin, int(first)), min(end, int(first) + len(part.times))
            if low >= high:
                break
            steps = {"time": slice(low - int(first), high - int(first)), **self._at(where)}
            made[:, low - begin : high - begin] = values_of(
                self.source, self.grid, part, names, steps
            )
        return made


def _within(start: int, stop: int, offset: int, native: int, at_least: int) -> list[int]:
    """Edges of blocks from start to stop that end with chunks of a file, counted from an offset."""
    step = -(-at_least // native) * native
    first = (start + offset) // step * step + step - offset
    return [start, *range(first, stop, step), stop]


def _block(
    series: Series,
    terms: dict[str, grids_variables.Term],
    edges: list[list[int]],
    block_id: tuple[int, ...] = (),
) -> Values:
    where = tuple(slice(edge[i], edge[i + 1]) for edge, i in zip(edges, block_id[1:], strict=True))
    return series.made(terms, where)


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

    window = grid.clip(source.region)
    timed = {
        name: any("time" in template[native].dims for native, _ in term.inputs)
        for name, term in source.terms.items()
    }
    parts = _wanted(source, parts)
    calendar, told = _calendar(source, parts, [name for name, has in timed.items() if has])
    series = Series(source, tuple(parts), window, calendar, source.day)
    together = dates.span(source.urlpath) == "h" and all(timed.values())
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
    dataset.encoding["bytes_a_day"] = bytes_a_day(source.terms, template, window, steps)
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
    usual = time_steps.step_of(times)
    hourly = usual < days.DAY or len(np.unique(each_day)) < len(times)
    undecided = [name for name in names if hourly and source.terms[name].daily is None]
    if undecided:
        most = np.unique(each_day, return_counts=True)[1].max()
        found = f"{max(days.steps_of(usual), most)} steps a day, and no `daily` for "
        remedy = "say mean, sum, max or min in the mapping"
        raise DataError(
            http_errors.shown(source.urlpath), found + ", ".join(undecided), remedy=remedy
        )
    stamps = {source.terms[name].stamp_or(source.day.stamp) for name in names}
    if not hourly:
        labels = dict.fromkeys(stamps, each_day)
        if not (source.strict or dates.span(source.urlpath)):
            return Calendar.from_labels(each_day, labels, 1, 1), {}
        return _covering(source, labels, {}, usual)
    intervals, labels = intervals_of(times, stamps, source.day, usual, lengths)
    calendar, told = _covering(source, labels, intervals, usual)
    each = time_steps.steps(times, source.day.stamp)
    told["cadence"] = time_steps.told(time_steps.starts(times, each, source.day.stamp), each)
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
    full, least = days.steps_of(usual), source.day.required_steps(usual) if usual < days.DAY else 1
    least = min(least, full) if intervals else least
    cover = coverage(list(labels.values()), least, source.wanted_days(), list(intervals.values()))
    lacking = source.may_not_lack(cover.missing)
    if lacking.size:
        found = f"missing: {dates.shown(lacking)}"
        raise DataError(http_errors.shown(source.urlpath), found, remedy=source.remedy_of_gaps())
    told = {
        key: dates.shown(lacks)
        for key, lacks in (("missing_days", cover.missing), ("partial_days", cover.partial))
        if lacks.size
    }
    return Calendar.from_labels(cover.days, labels, least, full, intervals), told
