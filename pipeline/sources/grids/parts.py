"""Files with parts of a series: which steps each has, and its values, checked when it is read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import missing, remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.grids.axes import Grid


class Opener(Protocol):
    """What opens a file of a source, and checks it."""

    login: str | None

    def opened_part(self, url: str) -> xr.Dataset:
        """One file, its time called `time`, nothing read yet."""

    def part_problems(self, raw: xr.Dataset, grid: Grid) -> list[str]:
        """What is wrong with a file that has not been looked at before."""


@dataclass(frozen=True, eq=False)
class Part:
    """A file, and the steps in it.

    Attributes:
      url: of the file.
      times: (time,) datetime64[ns] of its steps; empty for constants.
      known: whether it has been opened and checked.
      optional: whether it gives NaN where it is absent.
    """

    url: str
    times: NDArray[np.datetime64]
    known: bool = True
    optional: bool = False


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
      DataError: it is absent, damaged or unlike the first.
    """
    try:
        raw = source.opened_part(part.url)
    except DataError as error:
        if part.optional and any("not found" in problem for problem in error.problems):
            return np.float32(np.nan)
        raise
    try:
        if not part.known:
            _check(source, grid, raw, part)
        made = []
        for name in names:
            held = raw[name].isel({k: v for k, v in where.items() if k in raw[name].dims})
            ordered = held.transpose(*(dim for dim in where if dim in held.dims))
            with remote.answering(part.url, source.login), _readable(part.url, name):
                made.append(missing.floats(ordered).values)
        return np.stack(made)
    finally:
        raw.close()


def _check(source: Opener, grid: Grid, raw: xr.Dataset, part: Part) -> None:
    problems = source.part_problems(raw, grid)
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
        raise DataError(remote.shown(part.url), *problems, remedy="fetch it again")


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
        raise DataError(remote.shown(url), found, remedy="fetch it again") from error
