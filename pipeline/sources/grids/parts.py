"""The files of a gridded series: find them, check them, and read their values.

Few files are all opened at once. Of many files named by date only one is opened, as a template;
the others are expected to be like it, which is checked when they are read.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline import failures
from pipeline.errors import DataError
from pipeline.sources.grids import days, variables
from pipeline.sources.shared import access, dates, http_errors, missing_values, time_steps
from pipeline.sources.shared.driver import CORRECT_FILE_HINT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.variables import MappedVariable
    from pipeline.sources.shared.sites import Region

    RequestedFiles = list[tuple[str, days.Times, bool]]


_UNLIKE_HINT = "fetch it again; if its steps are meant to differ, put it in an entry of its own"


class PartOpener(Protocol):
    """An object that opens and checks single files."""

    login: str | None

    def open_part(self, url: str) -> xr.Dataset:
        """Open one file and rename its coordinates; read only what that needs."""

    def part_problems(self, raw: xr.Dataset, grid: Grid) -> list[str]:
        """Return messages about a file that was not opened before and differs from the first."""


class GridFiles(PartOpener, Protocol):
    """The files of a catalog entry: what is requested of them, and which of them may be absent.

    Drivers of grids implement it. The modules `parts` and `assembly` use no more of a driver.
    """

    urlpath: str
    storage_options: dict[str, Any]
    terms: dict[str, MappedVariable]
    day: days.DayDefinition
    region: Region | None
    limits_to_period: bool

    def read_grid(self, raw: xr.Dataset) -> tuple[Grid | None, list[str]]:
        """Return the grid of one file, and messages about what is wrong with the file."""

    def requested_days(self) -> tuple[np.datetime64, np.datetime64] | None:
        """Return the first and last requested day; None for all days."""

    def disallowed_gaps(self, missing: days.Times) -> days.Times:
        """Return the missing days that the catalog entry does not allow."""

    def gaps_hint(self) -> str:
        """Return what a user can do about missing days."""

    def absence_error(self, url: str, problem: str) -> DataError:
        """Return the error for files that do not exist."""


@dataclass(frozen=True, eq=False)
class FilePart:
    """A file and its steps.

    Attributes:
      url: URL of the file.
      times: (time,) datetime64[ns] times of its steps; empty for constants.
      lengths: (time,) timedelta64[ns] lengths of the steps' intervals; None if the file has no
        bounds of its times.
      checked: Whether the file has been opened and checked.
      optional: Whether the file may be absent. Its values are NaN then.
      span: (2,) begin and end of the time that the file covers by its name.
    """

    url: str
    times: NDArray[np.datetime64]
    lengths: NDArray[np.timedelta64] | None = None
    checked: bool = True
    optional: bool = False
    span: NDArray[np.datetime64] | None = None


class UnexpectedSteps(DataError):
    """A file has other steps than the template, and they fill the time that it covers."""


def join_steps(
    parts: Sequence[FilePart],
) -> tuple[NDArray[np.datetime64], NDArray[np.timedelta64] | None]:
    """Join the steps of several files.

    Returns:
      (time,) datetime64[ns] times, and (time,) timedelta64[ns] lengths of the intervals, NaT where
      a file has no bounds; None instead of the lengths if no file has bounds.
    """
    times = np.concatenate([part.times for part in parts])
    if all(part.lengths is None for part in parts):
        return times, None
    unknown = np.timedelta64("NaT", "ns")
    lengths = [
        np.full(len(part.times), unknown) if part.lengths is None else part.lengths
        for part in parts
    ]
    return times, np.concatenate(lengths)


def read_values(
    source: PartOpener, grid: Grid, part: FilePart, names: tuple[str, ...], where: dict[str, slice]
) -> Any:
    """Read values of one file.

    Args:
      source: Opens the file.
      grid: The grid that the file must have if it was not opened before.
      part: The file.
      names: Names of its variables.
      where: {dimension: slice}, in the order that the result's dimensions have.

    Returns:
      (variable, ...) float32; a single NaN if the file does not exist and may be absent.

    Raises:
      OtherSteps: If the file has other steps than expected, and they fill the time it covers.
      DataError: If the file does not exist, is damaged, or differs from the first file.
    """
    try:
        raw = source.open_part(part.url)
    except DataError as error:
        if is_allowed_absence(part, error):
            return np.float32(np.nan)
        raise
    try:
        if not part.checked:
            check_part(source, grid, raw, part)
        arrays = []
        for name in names:
            selected = raw[name].isel({k: v for k, v in where.items() if k in raw[name].dims})
            ordered = selected.transpose(*(dim for dim in where if dim in selected.dims))
            with (
                http_errors.plain_http_errors(part.url, source.login),
                _reading_variable(part.url, name),
            ):
                arrays.append(missing_values.to_float32(ordered).values)
        return np.stack(arrays)
    finally:
        raw.close()


def is_allowed_absence(part: FilePart, error: DataError) -> bool:
    """Return whether a file that cannot be opened does not exist and may be absent."""
    return part.optional and any("not found" in problem for problem in error.problems)


def bounds_lengths(raw: xr.Dataset) -> NDArray[np.timedelta64] | None:
    """Return (time,) lengths of a file's steps by the bounds of its times; None without bounds."""
    name = raw["time"].attrs.get("bounds") if "time" in raw else None
    if name not in raw or raw[name].shape != (raw.sizes.get("time"), 2):
        return None
    bounds = dates.decode_times(raw[name].values)
    if bounds.dtype.kind != "M":
        return None
    lengths = np.diff(bounds.astype("datetime64[ns]"), axis=1)[:, 0]
    return lengths if (lengths > np.timedelta64(0, "ns")).all() else None


def with_actual_steps(source: PartOpener, grid: Grid, part: FilePart, stamp: str) -> FilePart:
    """Replace the expected steps of a file by its actual steps, if they fill the time it covers.

    Args:
      source: Opens the file.
      grid: The grid that the file must have.
      part: The file with the expected steps.
      stamp: Where the time of a step is in its interval.

    Raises:
      DataError: If the file does not exist, is damaged, or differs from the first file.
    """
    if part.checked:
        return replace(part, lengths=time_steps.interval_lengths(part.times, stamp))
    try:
        raw = source.open_part(part.url)
    except DataError as error:
        if is_allowed_absence(part, error):
            return part
        raise
    with raw:
        with contextlib.suppress(UnexpectedSteps):
            check_part(source, grid, raw, part)
        times = raw["time"].values.astype("datetime64[ns]")
        lengths = bounds_lengths(raw)
    lengths = time_steps.interval_lengths(times, stamp) if lengths is None else lengths
    return replace(part, times=times, lengths=lengths, checked=True)


def check_part(source: PartOpener, grid: Grid, raw: xr.Dataset, part: FilePart) -> None:
    """Check that a file is like the first file and has the expected steps.

    Args:
      source: Checks the file.
      grid: The grid that the file must have.
      raw: The open file.
      part: The file with the expected steps.

    Raises:
      OtherSteps: If the file has other steps, and they fill the time it covers.
      DataError: If the file differs from the first file.
    """
    problems = source.part_problems(raw, grid)
    if not problems and _fills_span_otherwise(raw, part):
        problem = f"time: {len(raw['time'])} steps, expected {len(part.times)}"
        raise UnexpectedSteps(http_errors.format_url(part.url), problem, remedy=_UNLIKE_HINT)
    if not problems and len(raw["time"]) != len(part.times):
        problems = [f"time: {len(raw['time'])} steps, expected {len(part.times)}"]
    if not problems:
        wrong = np.flatnonzero(raw["time"].values != part.times)
        if wrong.size:
            actual, expected = raw["time"].values[wrong[0]], part.times[wrong[0]]
            problems = [
                f"time: {actual.astype('datetime64[m]')}, expected "
                f"{expected.astype('datetime64[m]')} from the file's name"
            ]
    if problems:
        raise DataError(http_errors.format_url(part.url), *problems, remedy=_UNLIKE_HINT)


def _fills_span_otherwise(raw: xr.Dataset, part: FilePart) -> bool:
    """Return whether a file has other steps than expected that fill the time it covers."""
    times = raw["time"].values.astype("datetime64[ns]")
    if part.span is None or len(times) == len(part.times) or not len(times):
        return False
    lengths = bounds_lengths(raw)
    if lengths is None:
        lengths = (
            time_steps.interval_lengths(times) if len(times) > 1 else np.zeros(1, "timedelta64[ns]")
        )
    inside = bool((times >= part.span[0]).all() and (times <= part.span[1]).all())
    return inside and time_steps.is_regular(lengths.sum(), part.span[1] - part.span[0])


@contextlib.contextmanager
def _reading_variable(url: str, name: str) -> Iterator[None]:
    """Turn errors of a damaged file into a `DataError` that names the file and the variable.

    Errors of a server are not changed.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        is_local = "://" not in url or url.startswith("file://")
        # HDF5 starts its own errors, which are of the type OSError, with "Can't".
        if isinstance(error, OSError) and not is_local and not str(error).startswith("Can't"):
            raise
        found = failures.explain(error)
        reason = f"cannot be read, damaged: {' '.join(str(error).split())}"
        if isinstance(error, OSError) and found.known:
            reason = f"cannot be read: {found.reason}"
        problem = f"{name}: {reason}"
        raise DataError(http_errors.format_url(url), problem, remedy="fetch it again") from error


def open_all_parts(source: GridFiles, requested: list[tuple[str, bool]]) -> list[FilePart]:
    """Open and check all of a few files.

    Args:
      source: Opens and checks the files.
      requested: For each file (URL, whether it may be absent).

    Returns:
      The files that exist, in order of time.

    Raises:
      DataError: If any file cannot be used; the error lists the problems of all files.
    """
    parts: dict[str, FilePart] = {}
    grids: dict[str, Grid] = {}
    problems, hints = [], []
    for url, optional in requested:
        prefix = f"{http_errors.file_name(url)}: " if len(requested) > 1 else ""
        try:
            raw = source.open_part(url)
        except DataError as error:
            if not (optional and is_absence(error)):
                problems += [prefix + problem for problem in error.problems]
                hints.append(error.remedy)
            continue
        with raw:
            grid, file_problems = source.read_grid(raw)
            problems += [prefix + problem for problem in file_problems]
            if grid is not None and not file_problems:
                parts[url] = FilePart(url, _read_times(raw, source), bounds_lengths(raw))
                grids[url] = grid
    problems += _consistency_problems(parts, grids)
    if not problems and not parts:
        problems = ["not found"]
    if problems:
        hint = hints[0] if len(problems) == len(hints) == 1 else CORRECT_FILE_HINT
        raise DataError(http_errors.format_url(source.urlpath), *problems, remedy=hint)
    return sorted(parts.values(), key=lambda p: p.times[0].astype(int) if len(p.times) else 0)


def parts_from_template(source: GridFiles, requested: RequestedFiles) -> list[FilePart]:
    """Open one of many files, and derive the expected times of the others from it.

    Args:
      source: Opens and checks the template, the first file that exists.
      requested: For each file (URL, (2,) begin and end of the time that it covers, whether it may
        be absent).

    Returns:
      The files, in order of time, without those that are known to be absent.

    Raises:
      DataError: If a file is known to be absent, or the template is not as the catalog says.
    """
    options = access.fsspec_options(source.urlpath, source.storage_options, source.login)
    absent = dates.find_absent_files([url for url, _, _ in requested], options)
    missing = [span[0] for url, span, optional in requested if url in absent and not optional]
    if missing:
        problem = f"missing: {dates.format_days(np.array(missing))}"
        raise DataError(http_errors.format_url(source.urlpath), problem, remedy=source.gaps_hint())
    candidates = [file for file in requested if file[0] not in absent]
    for url, template_span, optional in candidates:
        try:
            with source.open_part(url) as raw:
                _, problems = source.read_grid(raw)
                if problems:
                    raise DataError(
                        http_errors.format_url(url), *problems, remedy=CORRECT_FILE_HINT
                    )
                offsets = _read_times(raw, source) - template_span[0]
        except DataError as error:
            if optional and is_absence(error):
                continue
            raise
        return [
            FilePart(
                other_url,
                _expected_times(span, template_span, offsets),
                checked=other_url == url,
                optional=other_optional,
                span=span,
            )
            for other_url, span, other_optional in candidates
        ]
    raise source.absence_error(
        http_errors.format_url(source.urlpath), "not found: none of its files"
    )


def is_absence(error: DataError) -> bool:
    """Return whether an error says that a file does not exist, not that it is damaged."""
    return error.problems[0].startswith("not found")


def _read_times(raw: xr.Dataset, source: GridFiles) -> days.Times:
    """Return (time,) datetime64[ns] times of a file; empty if its variables are constants."""
    names = variables.provider_units(source.terms)
    if not any("time" in raw[name].dims for name in names):
        return np.array([], "datetime64[ns]")
    times: days.Times = raw["time"].values.astype("datetime64[ns]")
    return times


def _expected_times(span: days.Times, template_span: days.Times, offsets: Any) -> days.Times:
    """Return the expected times of a file, given those of the template.

    Files of months or years have more or fewer steps than the template if they cover more or fewer
    days.

    Args:
      span: (2,) begin and end of the time that the file covers.
      template_span: (2,) the same for the template.
      offsets: (time,) times of the template since the begin of its span.
    """
    count, length = len(offsets), span[1] - span[0]
    template_length = template_span[1] - template_span[0]
    if length != template_length and count > 1:
        step = offsets[1] - offsets[0]
        is_even = bool((np.diff(offsets) == step).all())
        count = round(count * (length / template_length) if is_even else length / step)
        offsets = offsets[0] + np.arange(count) * step
    times: days.Times = (span[0] + offsets).astype("datetime64[ns]")
    return times


def _consistency_problems(parts: dict[str, FilePart], grids: dict[str, Grid]) -> list[str]:
    """Return messages about files with different grids, and files that overlap in time.

    Args:
      parts: {URL: file}.
      grids: {URL: grid of the file}.
    """
    if len(parts) < 2:
        return []
    first, *others = parts
    problems = [
        f"{http_errors.file_name(url)}: another {axis} than {http_errors.file_name(first)}"
        for url in others
        for axis in grids[url].differing_axes(grids[first])
    ]
    timeless = [url for url in parts if not len(parts[url].times)]
    if timeless:
        return problems + [
            f"{http_errors.file_name(url)}: no times; expected times, as there are several files"
            for url in timeless
        ]
    hourly = any(time_steps.median_step(part.times) < days.DAY for part in parts.values())
    ends = {
        url: part.times[[0, -1]].astype("datetime64[m]" if hourly else "datetime64[D]")
        for url, part in parts.items()
    }
    for before, after in itertools.pairwise(sorted(parts, key=lambda url: ends[url][0])):
        if ends[after][0] <= ends[before][1]:
            earlier = http_errors.file_name(before)
            order = f"begins {ends[after][0]}, but {earlier} ends {ends[before][1]}"
            kind = "times" if hourly else "days"
            problems.append(
                f"{http_errors.file_name(after)}: {order}; {kind} must increase from file to file"
            )
    return problems
