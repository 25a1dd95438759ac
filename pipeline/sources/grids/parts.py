"""Files with parts of a series: which steps each has, and its values, checked when it is read.

What files of a grid there are: those looked at one by one, and those told from a template.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.grids import days, variables
from pipeline.sources.shared import access, dates, http_errors, missing_values, time_steps
from pipeline.sources.shared.driver import REMEDY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.variables import Term
    from pipeline.sources.shared.sites import Region

    Wanted = list[tuple[str, days.Times, bool]]


_UNLIKE = "fetch it again; if its steps are meant to differ, name it in an entry of its own"


class Opener(Protocol):
    """What opens a file of a source, and checks it."""

    login: str | None

    def opened_part(self, url: str) -> xr.Dataset:
        """One file, its time called `time`, nothing read yet."""

    def part_problems(self, raw: xr.Dataset, grid: Grid) -> list[str]:
        """What is wrong with a file that has not been looked at before."""


class Files(Opener, Protocol):
    """The files of an entry: what is wanted of them, and which of them may be absent.

    `GridSource` is one; `survey` and `assembly`, which it is made of, know no more of it.
    """

    urlpath: str
    storage_options: dict[str, Any]
    terms: dict[str, Term]
    day: days.Day
    region: Region | None
    strict: bool

    def checked(self, raw: xr.Dataset) -> tuple[Grid | None, list[str]]:
        """The grid of one file, and what is wrong with the file."""

    def wanted_days(self) -> tuple[np.datetime64, np.datetime64] | None:
        """First and last day that are wanted; None for all there are."""

    def may_not_lack(self, missing: days.Times) -> days.Times:
        """Those of the missing days that may not be missing."""

    def remedy_of_gaps(self) -> str:
        """What to do about missing days."""

    def absence_error(self, place: str, found: str) -> DataError:
        """The error where files are absent."""


@dataclass(frozen=True, eq=False)
class Part:
    """A file, and the steps in it.

    Attributes:
      url: of the file.
      times: (time,) datetime64[ns] of its steps; empty for constants.
      lengths: (time,) timedelta64[ns] of the intervals they stand for, where it has their bounds.
      known: whether it has been opened and checked.
      optional: whether it gives NaN where it is absent.
      span: when what it holds begins and ends, by its name.
    """

    url: str
    times: NDArray[np.datetime64]
    lengths: NDArray[np.timedelta64] | None = None
    known: bool = True
    optional: bool = False
    span: NDArray[np.datetime64] | None = None


class OtherSteps(DataError):
    """A file has other steps than the one that was opened first, and they fill its span."""


def steps_in(
    parts: Sequence[Part],
) -> tuple[NDArray[np.datetime64], NDArray[np.timedelta64] | None]:
    """(time,) of all steps of several files; and their lengths, NaT where a file has no bounds."""
    times = np.concatenate([part.times for part in parts])
    if all(part.lengths is None for part in parts):
        return times, None
    unknown = np.timedelta64("NaT", "ns")
    lengths = [
        np.full(len(part.times), unknown) if part.lengths is None else part.lengths
        for part in parts
    ]
    return times, np.concatenate(lengths)


def values_of(
    source: Opener, grid: Grid, part: Part, names: tuple[str, ...], where: dict[str, slice]
) -> Any:
    """(variable, ...) values in one file; NaN where it is absent, and may be.

    Args:
      source: opens the file.
      grid: what it must have, where it was not opened before.
      part: the file.
      names: of its variables.
      where: what to take of each dimension; what is taken has their order.

    Raises:
      OtherSteps: it has other steps than expected, to be had from `as_held`.
      DataError: it is absent, damaged or unlike the first.
    """
    try:
        raw = source.opened_part(part.url)
    except DataError as error:
        if is_optional(part, error):
            return np.float32(np.nan)
        raise
    try:
        if not part.known:
            check(source, grid, raw, part)
        made = []
        for name in names:
            held = raw[name].isel({k: v for k, v in where.items() if k in raw[name].dims})
            ordered = held.transpose(*(dim for dim in where if dim in held.dims))
            with http_errors.answering(part.url, source.login), _readable(part.url, name):
                made.append(missing_values.floats(ordered).values)
        return np.stack(made)
    finally:
        raw.close()


def is_optional(part: Part, error: DataError) -> bool:
    """Whether a file that cannot be opened is absent, and may be."""
    return part.optional and any("not found" in problem for problem in error.problems)


def lengths_of(raw: xr.Dataset) -> NDArray[np.timedelta64] | None:
    """(time,) how long the steps of a file last, by the bounds of its times, if it has them."""
    name = raw["time"].attrs.get("bounds") if "time" in raw else None
    if name not in raw or raw[name].shape != (raw.sizes.get("time"), 2):
        return None
    bounds = dates.decode_times(raw[name].values)
    if bounds.dtype.kind != "M":
        return None
    lengths = np.diff(bounds.astype("datetime64[ns]"), axis=1)[:, 0]
    return lengths if (lengths > np.timedelta64(0, "ns")).all() else None


def as_held(source: Opener, grid: Grid, part: Part, stamp: str) -> Part:
    """A file with the steps that it has, however many, if they fill its span.

    Args:
      source: opens the file.
      grid: what it must have.
      part: the file, with the steps that were expected.
      stamp: where in its interval the time of a step lies.

    Raises:
      DataError: it is absent, damaged or unlike the first.
    """
    if part.known:
        return replace(part, lengths=time_steps.steps(part.times, stamp))
    try:
        raw = source.opened_part(part.url)
    except DataError as error:
        if is_optional(part, error):
            return part
        raise
    with raw:
        with contextlib.suppress(OtherSteps):
            check(source, grid, raw, part)
        times = raw["time"].values.astype("datetime64[ns]")
        lengths = lengths_of(raw)
    lengths = time_steps.steps(times, stamp) if lengths is None else lengths
    return replace(part, times=times, lengths=lengths, known=True)


def check(source: Opener, grid: Grid, raw: xr.Dataset, part: Part) -> None:
    """Whether a file is like the first, and has the steps that were expected.

    Raises:
      OtherSteps: it has others, which fill its span.
      DataError: it is not like the first.
    """
    problems = source.part_problems(raw, grid)
    if not problems and _fills(raw, part):
        found = f"{len(raw['time'])} steps, expected {len(part.times)}"
        raise OtherSteps(http_errors.shown(part.url), f"time: {found}", remedy=_UNLIKE)
    if not problems and len(raw["time"]) != len(part.times):
        problems = [f"time: {len(raw['time'])} steps, expected {len(part.times)}"]
    if not problems:
        off = np.flatnonzero(raw["time"].values != part.times)
        if off.size:
            found, wanted = raw["time"].values[off[0]], part.times[off[0]]
            problems = [
                f"time: {found.astype('datetime64[m]')}, expected "
                f"{wanted.astype('datetime64[m]')}, as its name says"
            ]
    if problems:
        raise DataError(http_errors.shown(part.url), *problems, remedy=_UNLIKE)


def _fills(raw: xr.Dataset, part: Part) -> bool:
    """Whether a file has other steps than expected, and they fill its span."""
    times = raw["time"].values.astype("datetime64[ns]")
    if part.span is None or len(times) == len(part.times) or not len(times):
        return False
    lengths = lengths_of(raw)
    if lengths is None:
        lengths = time_steps.steps(times) if len(times) > 1 else np.zeros(1, "timedelta64[ns]")
    inside = bool((times >= part.span[0]).all() and (times <= part.span[1]).all())
    return inside and time_steps.is_regular(lengths.sum(), part.span[1] - part.span[0])


@contextlib.contextmanager
def _readable(url: str, name: str) -> Iterator[None]:
    """Say which file and variable cannot be read, where it is not its server that fails."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        local = "://" not in url or url.startswith("file://")
        if isinstance(error, OSError) and not local and not str(error).startswith("Can't"):
            raise
        found = f"{name}: cannot be read, damaged: {' '.join(str(error).split())}"
        raise DataError(http_errors.shown(url), found, remedy="fetch it again") from error


def looked_at(source: Files, wanted: list[tuple[str, bool]]) -> list[Part]:
    """Files that are all opened: there are few.

    Args:
      source: opens and checks them.
      wanted: (URL, whether it may be absent) of each.

    Returns:
      Those that are there, in order of time.

    Raises:
      DataError: listing what is wrong with all of them.
    """
    parts: dict[str, Part] = {}
    grids: dict[str, Grid] = {}
    problems, remedies = [], []
    for url, optional in wanted:
        prefix = f"{http_errors.file_name(url)}: " if len(wanted) > 1 else ""
        try:
            raw = source.opened_part(url)
        except DataError as error:
            if not (optional and is_absence(error)):
                problems += [prefix + problem for problem in error.problems]
                remedies.append(error.remedy)
            continue
        with raw:
            grid, wrong = source.checked(raw)
            problems += [prefix + problem for problem in wrong]
            if grid is not None and not wrong:
                parts[url] = Part(url, _times_of(raw, source), lengths_of(raw))
                grids[url] = grid
    problems += _disagreements(parts, grids)
    if not problems and not parts:
        problems = ["not found"]
    if problems:
        remedy = remedies[0] if len(problems) == len(remedies) == 1 else REMEDY
        raise DataError(http_errors.shown(source.urlpath), *problems, remedy=remedy)
    return sorted(parts.values(), key=lambda p: p.times[0].astype(int) if len(p.times) else 0)


def from_template(source: Files, wanted: Wanted) -> list[Part]:
    """Files of which one is opened: the times of the others are as those in it.

    Args:
      source: opens and checks it.
      wanted: (URL, when what it holds begins and ends, whether it may be absent) of each.

    Raises:
      DataError: a file is known to be absent, or the template is not as the catalog says.
    """
    options = access.options(source.urlpath, source.storage_options, source.login)
    gone = dates.absent([url for url, _, _ in wanted], options)
    lacking = [held[0] for url, held, optional in wanted if url in gone and not optional]
    if lacking:
        found = f"missing: {dates.shown(np.array(lacking))}"
        raise DataError(http_errors.shown(source.urlpath), found, remedy=source.remedy_of_gaps())
    there = [each for each in wanted if each[0] not in gone]
    for url, held, optional in there:
        try:
            with source.opened_part(url) as raw:
                _, problems = source.checked(raw)
                if problems:
                    raise DataError(http_errors.shown(url), *problems, remedy=REMEDY)
                offsets = _times_of(raw, source) - held[0]
        except DataError as error:
            if optional and is_absence(error):
                continue
            raise
        return [
            Part(
                each,
                _expected(span, held, offsets),
                known=each == url,
                optional=may_lack,
                span=span,
            )
            for each, span, may_lack in there
        ]
    raise source.absence_error(http_errors.shown(source.urlpath), "not found: none of its files")


def is_absence(error: DataError) -> bool:
    """Whether a file is not there, rather than refused or damaged."""
    return error.problems[0].startswith("not found")


def _times_of(raw: xr.Dataset, source: Files) -> days.Times:
    names = variables.inputs_of(source.terms)
    if not any("time" in raw[name].dims for name in names):
        return np.array([], "datetime64[ns]")
    times: days.Times = raw["time"].values.astype("datetime64[ns]")
    return times


def _expected(held: days.Times, of_template: days.Times, offsets: Any) -> days.Times:
    """Times in a file that holds a span; those of months have more or fewer than the template."""
    count, span, length = len(offsets), held[1] - held[0], of_template[1] - of_template[0]
    if span != length and count > 1:
        step = offsets[1] - offsets[0]
        even = bool((np.diff(offsets) == step).all())
        count = round(count * (span / length) if even else span / step)
        offsets = offsets[0] + np.arange(count) * step
    made: days.Times = (held[0] + offsets).astype("datetime64[ns]")
    return made


def _disagreements(parts: dict[str, Part], grids: dict[str, Grid]) -> list[str]:
    """Files that are not of one grid, or whose days do not follow one another."""
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
            f"{http_errors.file_name(url)}: no times, and not the only file" for url in timeless
        ]
    hourly = any(time_steps.step_of(part.times) < days.DAY for part in parts.values())
    ends = {
        url: part.times[[0, -1]].astype("datetime64[m]" if hourly else "datetime64[D]")
        for url, part in parts.items()
    }
    for before, after in itertools.pairwise(sorted(parts, key=lambda url: ends[url][0])):
        if ends[after][0] <= ends[before][1]:
            earlier = http_errors.file_name(before)
            found = f"begins {ends[after][0]}, but {earlier} ends {ends[before][1]}"
            kind = "times" if hourly else "days"
            problems.append(
                f"{http_errors.file_name(after)}: {found}; {kind} must increase from file to file"
            )
    return problems
