"""Blocks of a grid's variable, read from the files that hold them when dask asks for them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.sources import cadence
from pipeline.sources.grids import days, derive
from pipeline.sources.grids.calendars import Calendar, daily, intervals_of
from pipeline.sources.grids.parts import Opener, OtherSteps, Part, as_held, steps_in, values_of

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.grids.axes import Grid

    Values = NDArray[np.float32]

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
        self, terms: dict[str, derive.Term], template: xr.Dataset, *, together: bool
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
            for dim, taken, n in zip(self.grid.dims, self.grid.taken, self.grid.shape, strict=True)
        ]
        if "time" not in stored.dims:
            return edges
        area = 4 * int(np.diff(edges[0]).max()) * int(np.diff(edges[1]).max())
        begin, end = (
            np.array([self.calendar.edges[stamp][side] for stamp in stamps]) for side in (0, 1)
        )
        full = max(self.calendar.full, int((end - begin).max()))
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

    def made(self, terms: dict[str, derive.Term], where: tuple[slice, ...]) -> Values:
        """(variable, ...) our variables in a block.

        Raises:
          DataError: a file is absent, damaged or unlike the first.
        """
        each = list(terms.values())
        names = tuple(dict.fromkeys(name for term in each for name, _ in term.inputs))
        if len(where) == 2:
            held = values_of(self.source, self.grid, self.parts[0], names, self._at(where))
            arrays = dict(zip(names, held, strict=True))
            return np.stack([term.ours([arrays[name] for name, _ in term.inputs]) for term in each])
        begin, end = self._reach(where[0], {self.stamp_of(term) for term in each})
        try:
            held = self._steps(names, begin, end, where[1:])
        except OtherSteps:
            if any(term.how is None for term in each):
                raise
            series = self._as_held(begin, end, where[0], {self.stamp_of(term) for term in each})
            n_days = len(series.calendar.days)
            return series.made(terms, (slice(0, n_days), *where[1:]))
        arrays = dict(zip(names, held, strict=True))
        return np.stack([self._daily(term, arrays, begin, end, where[0]) for term in each])

    def stamp_of(self, term: derive.Term) -> str:
        """Where in its interval the time of a step of a variable lies."""
        return term.stamp_over(self.day.stamp)

    def _as_held(self, begin: int, end: int, block: slice, stamps: set[str]) -> Series:
        """A block of days with the steps that its files have, rather than those expected."""
        first, last = np.searchsorted(self.firsts, [begin, end - 1], side="right")
        parts = tuple(
            as_held(self.source, self.grid, part, self.day.stamp)
            for part in self.parts[first - 1 : last]
        )
        times, lengths = steps_in(parts)
        calendar, usual = self.calendar, cadence.step_of(self.times)
        intervals, labels = intervals_of(times, stamps, self.day, usual, lengths)
        least = min(calendar.least, calendar.full)
        some = calendar.days[block]
        calendar = Calendar.of(some, labels, least, calendar.full, intervals)
        return Series(self.source, parts, self.grid, calendar, self.day)

    def _reach(self, block: slice, stamps: set[str]) -> tuple[int, int]:
        """First step of a block of days, and one after its last; of amounts since 00 UTC more."""
        begin, end = self.calendar.reach(block, stamps)
        if days.SINCE_00 not in stamps:
            return begin, end
        first, last = self.calendar.reach(block, {days.SINCE_00})
        since = days.midnight_before(self.times)
        first = int(np.searchsorted(since, since[min(first, len(since) - 1)]))
        last = int(np.searchsorted(since, since[max(last - 1, 0)], side="right"))
        return min(begin, first), max(end, last)

    def _daily(
        self, term: derive.Term, held: dict[str, Values], begin: int, end: int, block: slice
    ) -> Values:
        """(day, row, column) a variable in a block of days, from its inputs' steps."""
        arrays = [held[name] for name, _ in term.inputs]
        if term.since_00:
            arrays = [days.increments(array, self.times[begin:end]) for array in arrays]
        made: Values = term.ours(
            arrays,
            functools.partial(
                daily,
                calendar=self.calendar.since(begin),
                stamp=self.stamp_of(term),
                how=term.how or "mean",
                block=block,
            ),
        )
        return made

    def _at(self, where: tuple[slice, ...]) -> dict[str, slice]:
        """Rows and columns of a block, as they are counted in the files."""
        return {
            dim: slice((taken.start or 0) + part.start, (taken.start or 0) + part.stop)
            for dim, taken, part in zip(self.grid.dims, self.grid.taken, where, strict=True)
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
    terms: dict[str, derive.Term],
    edges: list[list[int]],
    block_id: tuple[int, ...] = (),
) -> Values:
    where = tuple(slice(edge[i], edge[i + 1]) for edge, i in zip(edges, block_id[1:], strict=True))
    return series.made(terms, where)
