"""Files with parts of a series: which steps each has, and its values, checked when it is read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import cadence, http_errors, missing
from pipeline.sources.grids import days

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.derive import Term
    from pipeline.sources.places import Region


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

    def absent(self, place: str, found: str) -> DataError:
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
                made.append(missing.floats(ordered).values)
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
    bounds = days.decoded(raw[name].values)
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
        return replace(part, lengths=cadence.steps(part.times, stamp))
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
    lengths = cadence.steps(times, stamp) if lengths is None else lengths
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
        lengths = cadence.steps(times) if len(times) > 1 else np.zeros(1, "timedelta64[ns]")
    inside = bool((times >= part.span[0]).all() and (times <= part.span[1]).all())
    return inside and cadence.is_regular(lengths.sum(), part.span[1] - part.span[0])


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
