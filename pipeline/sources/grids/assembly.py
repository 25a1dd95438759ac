"""Assemble the files of a gridded source to a lazy dataset of daily values.

Blocks of the dataset are read from the files that hold them when dask computes them.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.grids import days
from pipeline.sources.grids.days import (
    DayCalendar,
    StepIntervals,
    aggregate_days,
    find_coverage,
    find_intervals,
)
from pipeline.sources.grids.parts import (
    FilePart,
    PartOpener,
    UnexpectedSteps,
    join_steps,
    read_values,
    with_actual_steps,
)
from pipeline.sources.grids.variables import estimate_daily_bytes
from pipeline.sources.shared import dates, http_errors, time_steps

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.parts import GridFiles
    from pipeline.sources.grids.variables import MappedVariable

    Values = NDArray[np.float32]


MIN_BLOCK_CELLS = 256  # smallest number of rows and columns of a block, extended to whole chunks
BLOCK_DAYS = 32  # days of a block, fewer if it had too many bytes, more to end with a chunk
_MAX_BLOCK_BYTES = 64 * 2**20  # limit for the bytes of a block, unless a day has more


def assemble(
    source: GridFiles, template: xr.Dataset, grid: Grid, parts: list[FilePart]
) -> xr.Dataset:
    """Return the data of files in soilweave's names, units and days, as lazy arrays.

    Where files are many and small, a file is opened once for all variables that are loaded at once;
    `encoding["together"]` says so.

    Args:
      source: The request, and how to open the files.
      template: One of the files, open.
      grid: Rows and columns of the template.
      parts: All files in order of time.

    Raises:
      DataError: If days are missing, or steps are shorter than a day and the mapping has no
        `daily` for a variable.
    """
    import xarray as xr

    window = grid.clip(source.region)
    timed = {
        name: any("time" in template[native].dims for native, _ in term.inputs)
        for name, term in source.terms.items()
    }
    parts = _select_parts(source, parts)
    calendar, attributes = _build_calendar(
        source, parts, [name for name, has in timed.items() if has]
    )
    series = FileSeries(source, tuple(parts), window, calendar, source.day)
    steps = len(series.times) / max(len(calendar.days), 1)
    daily_bytes = estimate_daily_bytes(source.terms, template, window, steps)
    unit = dates.pattern_unit(source.urlpath)
    is_small = sum(daily_bytes.values()) * BLOCK_DAYS <= _MAX_BLOCK_BYTES
    together = all(timed.values()) and (unit == "h" or (unit == "D" and is_small))
    arrays = series.variables(source.terms, template, together=together)
    coords: dict[str, Any] = dict(window.coords)
    if any(timed.values()):
        coords["time"] = ("time", calendar.days.astype("datetime64[ns]"))
    variables = {}
    for name, term in source.terms.items():
        attrs = {"units": term.to, "source": ", ".join(native for native, _ in term.inputs)}
        variables[name] = ((("time",) if timed[name] else ()) + window.axes, arrays[name], attrs)
    attributes |= {"crs": window.crs} if window.crs else {}
    dataset = xr.Dataset(variables, coords, attributes)
    dataset.encoding["files"] = len(parts)
    dataset.encoding["bytes_a_day"] = daily_bytes
    dataset.encoding["together"] = together
    return dataset


def _select_parts(source: GridFiles, parts: list[FilePart]) -> list[FilePart]:
    """Return the files with steps in the requested period, extended by a day on both sides.

    Raises:
      DataError: If no step is in the requested period.
    """
    requested = source.requested_days()
    times = np.concatenate([part.times for part in parts])
    if requested is None or not len(times):
        return parts
    first, last = requested
    kept = [
        part
        for part in parts
        if len(part.times)
        and part.times[-1].astype("datetime64[D]") >= first - days.DAY
        and part.times[0].astype("datetime64[D]") <= last + days.DAY
    ]
    step_days = times.astype("datetime64[D]")
    is_requested = (step_days >= first) & (step_days <= last)
    if not kept or not is_requested.any():
        problem = f"has {step_days[0]} to {step_days[-1]}, but nothing of {first} to {last}"
        hint = "request another period, or use another source"
        raise DataError(http_errors.format_url(source.urlpath), problem, remedy=hint)
    return kept


def _build_calendar(
    source: GridFiles, parts: list[FilePart], names: list[str]
) -> tuple[DayCalendar, dict[str, Any]]:
    """Return the steps that belong to each day, and attributes that describe the series.

    Args:
      source: The request.
      parts: The files.
      names: Names of the variables with a time.

    Raises:
      DataError: If days are missing that may not be, or steps are shorter than a day and a
        variable has no `daily`.
    """
    times, lengths = join_steps(parts)
    step_days = times.astype("datetime64[D]")
    if not names:
        return DayCalendar(step_days, {}, 1, 1), {}
    usual = time_steps.median_step(times)
    hourly = usual < days.DAY or len(np.unique(step_days)) < len(times)
    undecided = [name for name in names if hourly and source.terms[name].daily is None]
    if undecided:
        largest_count = np.unique(step_days, return_counts=True)[1].max()
        n_steps = max(days.count_day_steps(usual), largest_count)
        problem = f"{n_steps} steps a day, but no `daily` for {', '.join(undecided)}"
        hint = "set `daily` to mean, sum, max or min in the mapping"
        raise DataError(http_errors.format_url(source.urlpath), problem, remedy=hint)
    stamps = {source.terms[name].stamp_or(source.day.stamp) for name in names}
    if not hourly:
        labels = dict.fromkeys(stamps, step_days)
        if not (source.limits_to_period or dates.pattern_unit(source.urlpath)):
            return DayCalendar.from_labels(step_days, labels, 1, 1), {}
        return _requested_calendar(source, labels, {}, usual)
    intervals, labels = find_intervals(times, stamps, source.day, usual, lengths)
    calendar, attributes = _requested_calendar(source, labels, intervals, usual)
    step_lengths = time_steps.interval_lengths(times, source.day.stamp)
    begin = time_steps.interval_starts(times, step_lengths, source.day.stamp)
    attributes["cadence"] = time_steps.describe_cadences(begin, step_lengths)
    return calendar, attributes | {"time_convention": source.day.convention}


def _requested_calendar(
    source: GridFiles,
    labels: dict[str, days.Times],
    intervals: dict[str, StepIntervals],
    usual: np.timedelta64,
) -> tuple[DayCalendar, dict[str, Any]]:
    """Return the calendar of the requested days, and attributes with missing and partial days.

    Days at the end that are missing may come later; the attribute `last_day` is the day before.

    Args:
      source: The request.
      labels: {stamp: (step,) day of each step}.
      intervals: {stamp: intervals}, for stamps where steps differ in length.
      usual: Usual length of a step.

    Raises:
      DataError: If days are missing that may not be.
    """
    steps_per_day = days.count_day_steps(usual)
    min_steps = source.day.required_steps(usual) if usual < days.DAY else 1
    min_steps = min(min_steps, steps_per_day) if intervals else min_steps
    cover = find_coverage(
        list(labels.values()), min_steps, source.requested_days(), list(intervals.values())
    )
    disallowed = source.disallowed_gaps(cover.missing)
    if disallowed.size:
        problem = f"missing: {dates.format_days(disallowed)}"
        raise DataError(http_errors.format_url(source.urlpath), problem, remedy=source.gaps_hint())
    attributes = {
        key: dates.format_days(some_days)
        for key, some_days in (("missing_days", cover.missing), ("partial_days", cover.partial))
        if some_days.size
    }
    present = np.setdiff1d(cover.days, cover.missing)
    if present.size and present[-1] < cover.days[-1]:
        attributes["last_day"] = str(present[-1])
    calendar = DayCalendar.from_labels(cover.days, labels, min_steps, steps_per_day, intervals)
    return calendar, attributes


@dataclass(frozen=True, eq=False)
class FileSeries:
    """A series of files with one grid, and the steps and days to read from them.

    Attributes:
      source: Opens the files.
      parts: The files in order of time.
      grid: Rows and columns to read.
      calendar: The steps that belong to each day.
      day: Definition of a day. Its stamp is the default for variables without an own one.
    """

    source: PartOpener
    parts: tuple[FilePart, ...]
    grid: Grid
    calendar: DayCalendar
    day: days.DayDefinition

    @functools.cached_property
    def times(self) -> NDArray[np.datetime64]:
        """Return (time,) the times of all steps."""
        return join_steps(self.parts)[0]

    @functools.cached_property
    def first_steps(self) -> NDArray[np.int64]:
        """Return (part + 1,) the index of the first step of each file, and the number of steps."""
        return np.cumsum([0, *(len(part.times) for part in self.parts)])

    def variables(
        self, terms: dict[str, MappedVariable], template: xr.Dataset, *, together: bool
    ) -> dict[str, Any]:
        """Return soilweave's variables in its units as lazy float32 arrays.

        Args:
          terms: {soilweave's name: variable of the mapping}.
          template: One of the files, from which dims and chunks are taken.
          together: Whether a file is opened once for all variables, which is faster if files are
            many and small.

        Returns:
          {soilweave's name: (day, row, column) or, for constants, (row, column)}.
        """
        import dask.array

        map_blocks: Any = dask.array.map_blocks
        result: dict[str, Any] = {}
        for group in [terms] if together else [{name: term} for name, term in terms.items()]:
            stored = template[next(iter(group.values())).inputs[0][0]]
            edges = self._edges(stored, {self.stamp_of(term) for term in group.values()})
            content = [[p.url for p in self.parts], list(group), repr(group), str(self.times[:1])]
            key = files.sha256_of_json([content, edges, self.calendar.days.astype(str).tolist()])
            stack = map_blocks(
                # dask does not search a partial for arrays, as it would the arguments.
                functools.partial(_read_dask_block, self, group, edges),
                chunks=((len(group),), *(tuple(np.diff(edge).tolist()) for edge in edges)),
                dtype="float32",
                meta=np.empty((0,) * (len(edges) + 1), "float32"),
                name=f"grid-{next(iter(group))}-{key[:24]}",
            )
            result |= {name: stack[i] for i, name in enumerate(group)}
        return result

    def _edges(self, stored: xr.DataArray, stamps: set[str]) -> list[list[int]]:
        """Return the edges of blocks of days, rows and columns; blocks are whole chunks of files.

        Args:
          stored: A variable of a file.
          stamps: Where the time of a step is in its interval, for the variables of the block.
        """
        native: dict[Any, int] = stored.encoding.get("preferred_chunks") or {}
        edges = [
            _chunk_edges(0, n, taken.start or 0, int(native.get(dim, 1)), MIN_BLOCK_CELLS)
            for dim, taken, n in zip(self.grid.dims, self.grid.slices, self.grid.shape, strict=True)
        ]
        if "time" not in stored.dims:
            return edges
        area = 4 * int(np.diff(edges[0]).max()) * int(np.diff(edges[1]).max())
        begin, end = (
            np.array([self.calendar.edges[stamp][side] for stamp in stamps]) for side in (0, 1)
        )
        steps_per_day = max(self.calendar.steps_per_day, int((end - begin).max()))
        affordable = max(_MAX_BLOCK_BYTES // area // steps_per_day * steps_per_day, steps_per_day)
        limit = min(BLOCK_DAYS * steps_per_day, affordable)
        chunk_ends: list[int] = []
        for part, first in zip(self.parts, self.first_steps, strict=False):
            chunk, n = int(native.get("time", 1)), len(part.times)
            chunk_ends += [int(first) + edge for edge in _chunk_edges(0, n, 0, chunk, limit)]
        begin = begin.min(0)
        day_edges = np.unique(np.searchsorted(begin, np.unique(chunk_ends)))
        kept = [0]  # an edge is left out if the blocks on both sides fit into one
        for edge, next_edge in zip(day_edges, [*day_edges[1:], len(begin) + limit], strict=True):
            if edge > kept[-1] and (next_edge - kept[-1]) * steps_per_day > limit:
                kept.append(int(edge))
        return [[*(edge for edge in kept if edge < len(begin)), len(begin)], *edges]

    def read_block(self, terms: dict[str, MappedVariable], where: tuple[slice, ...]) -> Values:
        """Read soilweave's variables in a block.

        Args:
          terms: {soilweave's name: variable of the mapping}.
          where: Slices of days, rows and columns; for constants, of rows and columns.

        Returns:
          (variable, day, row, column) or, for constants, (variable, row, column).

        Raises:
          DataError: If a file does not exist, is damaged, or differs from the first file.
        """
        variables = list(terms.values())
        names = tuple(dict.fromkeys(name for term in variables for name, _ in term.inputs))
        if len(where) == 2:
            values = read_values(
                self.source, self.grid, self.parts[0], names, self._file_slices(where)
            )
            arrays = dict(zip(names, values, strict=True))
            return np.stack(
                [term.compute([arrays[name] for name, _ in term.inputs]) for term in variables]
            )
        stamps = {self.stamp_of(term) for term in variables}
        begin, end = self._step_range(where[0], stamps)
        try:
            values = self._read_steps(names, begin, end, where[1:])
        except UnexpectedSteps:
            if any(term.daily is None for term in variables):
                raise
            series = self._with_actual_steps(begin, end, where[0], stamps)
            n_days = len(series.calendar.days)
            return series.read_block(terms, (slice(0, n_days), *where[1:]))
        arrays = dict(zip(names, values, strict=True))
        return np.stack([self._daily(term, arrays, begin, end, where[0]) for term in variables])

    def stamp_of(self, term: MappedVariable) -> str:
        """Return where the time of a step of a variable is in its interval."""
        return term.stamp_or(self.day.stamp)

    def _with_actual_steps(
        self, begin: int, end: int, block: slice, stamps: set[str]
    ) -> FileSeries:
        """Return the series of a block of days, with the actual instead of the expected steps.

        Args:
          begin: First step of the block.
          end: One after its last step.
          block: The days of the calendar.
          stamps: Where the time of a step is in its interval, for the variables of the block.
        """
        first, last = np.searchsorted(self.first_steps, [begin, end - 1], side="right")
        parts = tuple(
            with_actual_steps(self.source, self.grid, part, self.day.stamp)
            for part in self.parts[first - 1 : last]
        )
        times, lengths = join_steps(parts)
        calendar, usual = self.calendar, time_steps.median_step(self.times)
        intervals, labels = find_intervals(times, stamps, self.day, usual, lengths)
        min_steps = min(calendar.min_steps, calendar.steps_per_day)
        block_days = calendar.days[block]
        calendar = DayCalendar.from_labels(
            block_days, labels, min_steps, calendar.steps_per_day, intervals
        )
        return FileSeries(self.source, parts, self.grid, calendar, self.day)

    def _step_range(self, block: slice, stamps: set[str]) -> tuple[int, int]:
        """Return the first step to read for a block of days, and one after the last.

        Amounts since 00 UTC need all steps since 00 UTC.
        """
        begin, end = self.calendar.step_range(block, stamps)
        if days.SINCE_00 not in stamps:
            return begin, end
        first, last = self.calendar.step_range(block, {days.SINCE_00})
        midnight = days.previous_midnight(self.times)
        first = int(np.searchsorted(midnight, midnight[min(first, len(midnight) - 1)]))
        last = int(np.searchsorted(midnight, midnight[max(last - 1, 0)], side="right"))
        return min(begin, first), max(end, last)

    def _daily(
        self,
        term: MappedVariable,
        values: dict[str, Values],
        begin: int,
        end: int,
        block: slice,
    ) -> Values:
        """Return (day, row, column) a variable in a block of days.

        Args:
          term: The variable of the mapping.
          values: {name of an input: (time, row, column) steps}.
          begin: First step in `values`.
          end: One after the last step.
          block: The days of the calendar.
        """
        arrays = [values[name] for name, _ in term.inputs]
        if term.since_00:
            arrays = [days.accumulated_increments(array, self.times[begin:end]) for array in arrays]
        result: Values = term.compute(
            arrays,
            functools.partial(
                aggregate_days,
                calendar=self.calendar.from_step(begin),
                stamp=self.stamp_of(term),
                how=term.daily or "mean",
                block=block,
            ),
        )
        return result

    def _file_slices(self, where: tuple[slice, ...]) -> dict[str, slice]:
        """Return {dimension: slice} of a block's rows and columns in the files."""
        return {
            dim: slice((taken.start or 0) + part.start, (taken.start or 0) + part.stop)
            for dim, taken, part in zip(self.grid.dims, self.grid.slices, where, strict=True)
        }

    def _read_steps(
        self, names: tuple[str, ...], begin: int, end: int, where: tuple[slice, ...]
    ) -> Values:
        """Read steps from all files that hold them.

        Args:
          names: Names of variables in the files.
          begin: First step.
          end: One after the last step.
          where: Slices of rows and columns.

        Returns:
          (variable, time, row, column).
        """
        shape = (part.stop - part.start for part in where)
        values = np.full((len(names), end - begin, *shape), np.nan, np.float32)
        first_part = int(np.searchsorted(self.first_steps, begin, side="right")) - 1
        first_steps = self.first_steps[first_part:]
        for part, first in zip(self.parts[first_part:], first_steps, strict=False):
            low, high = max(begin, int(first)), min(end, int(first) + len(part.times))
            if low >= high:
                break
            steps = slice(low - int(first), high - int(first))
            slices = {"time": steps, **self._file_slices(where)}
            values[:, low - begin : high - begin] = read_values(
                self.source, self.grid, part, names, slices
            )
        return values


def _chunk_edges(start: int, stop: int, offset: int, native: int, at_least: int) -> list[int]:
    """Return the edges of blocks that end where chunks of a file end.

    Args:
      start: First index.
      stop: One after the last index.
      offset: Index in the file of index 0.
      native: Length of a chunk.
      at_least: Smallest length of a block, apart from the first and the last.
    """
    step = -(-at_least // native) * native
    first = (start + offset) // step * step + step - offset
    return [start, *range(first, stop, step), stop]


def _read_dask_block(
    series: FileSeries,
    terms: dict[str, MappedVariable],
    edges: list[list[int]],
    block_id: tuple[int, ...] = (),
) -> Values:
    """Read a block that dask identifies by its number along each dimension."""
    where = tuple(slice(edge[i], edge[i + 1]) for edge, i in zip(edges, block_id[1:], strict=True))
    return series.read_block(terms, where)
