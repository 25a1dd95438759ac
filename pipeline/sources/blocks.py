"""Blocks of a grid's variable, read from the files that hold them when dask asks for them."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.axes import Grid

READ_AT_ONCE = {"time": 32, "row": 256, "column": 256}  # or more: whole chunks of the file
_BLOCK_BYTES = 64 * 2**20


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


@dataclass(frozen=True, eq=False)
class Series:
    """Files that follow one another, of one grid, and the steps of them that are wanted.

    Attributes:
      source: opens them.
      parts: in order of time.
      grid: rows and columns that are wanted.
      begin: first wanted step, counted over all parts.
      end: one after the last.
    """

    source: Opener
    parts: tuple[Part, ...]
    grid: Grid
    begin: int
    end: int

    @functools.cached_property
    def firsts(self) -> NDArray[np.int64]:
        """(part + 1,) number of the first step of each part."""
        return np.cumsum([0, *(len(part.times) for part in self.parts)])

    def arrays(
        self, names: list[str], template: xr.Dataset, steps_a_day: int, *, together: bool
    ) -> dict[str, da.Array]:
        """Variables, (time, row, column) or (row, column), float32, NaN where missing, lazily.

        Args:
          names: theirs in the files.
          template: one of the files, which tells their dims and chunks.
          steps_a_day: how many steps belong together.
          together: whether a file is opened once for all of them, which many small files need.
        """
        timed = all("time" in template[name].dims for name in names)
        groups = [names] if together and timed else [[name] for name in names]
        made: dict[str, da.Array] = {}
        for group in groups:
            stack = self._stack(tuple(group), template[group[0]], steps_a_day)
            made |= {name: stack[i] for i, name in enumerate(group)}
        return made

    def _stack(self, names: tuple[str, ...], stored: xr.DataArray, steps_a_day: int) -> Any:
        """(variable, time, row, column) or (variable, row, column), lazily."""
        import dask.array

        make: Any = dask.array.map_blocks
        native = {str(dim): int(n) for dim, n in _native(stored).items()}
        chunks = [
            _sizes(taken.start or 0, (taken.start or 0) + n, native.get(dim, 1), READ_AT_ONCE[kind])
            for dim, taken, n, kind in zip(
                self.grid.dims, self.grid.taken, self.grid.shape, ("row", "column"), strict=True
            )
        ]
        if "time" in stored.dims:
            area = 4 * max(chunks[0]) * max(chunks[1])
            many = max(_BLOCK_BYTES // area // steps_a_day * steps_a_day, steps_a_day)
            at_once = min(steps_a_day if steps_a_day > 1 else READ_AT_ONCE["time"], many)
            chunks.insert(0, self._steps(native.get("time", 1), at_once))
        taken_as = [[s.start, s.stop] for s in self.grid.taken]
        identity = [names, [p.url for p in self.parts], self.begin, self.end, chunks, taken_as]
        return make(
            functools.partial(_read, self, names),  # dask looks into arguments, not into this
            chunks=((len(names),), *chunks),
            dtype="float32",
            meta=np.empty((0,) * (len(chunks) + 1), "float32"),
            name=f"grid-{names[0]}-{files.sha256_of(identity)[:24]}",
        )

    def _steps(self, native: int, at_once: int) -> tuple[int, ...]:
        """Sizes of blocks along time: whole chunks of long files, several short files at once."""
        sizes: list[int] = []
        for part, first in zip(self.parts, self.firsts, strict=False):
            begin = max(self.begin - first, 0)
            end = min(self.end - first, len(part.times))
            if end <= begin:
                continue
            new = _sizes(int(begin), int(end), native, at_once)
            if sizes and len(part.times) < at_once and sizes[-1] + new[0] <= at_once:
                sizes[-1] += new[0]
                new = new[1:]
            sizes += new
        return tuple(sizes)

    def read(self, names: tuple[str, ...], block: tuple[slice, ...]) -> NDArray[np.float32]:
        """(variable, ...) values of a block, counted in what is wanted.

        Raises:
          DataError: a file is absent, damaged or unlike the first.
        """
        rows, columns = (
            slice((taken.start or 0) + part.start, (taken.start or 0) + part.stop)
            for taken, part in zip(self.grid.taken, block[-2:], strict=True)
        )
        where = dict(zip(self.grid.dims, (rows, columns), strict=True))
        if len(block) == 2:
            return np.asarray(self._values(self.parts[0], names, where))
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        begin, end = block[0].start + self.begin, block[0].stop + self.begin
        made = np.full((len(names), end - begin, *shape), np.nan, np.float32)
        for part, first in zip(self.parts, self.firsts, strict=False):
            low, high = max(begin, int(first)), min(end, int(first) + len(part.times))
            if low < high:
                steps = slice(low - int(first), high - int(first))
                made[:, low - begin : high - begin] = self._values(
                    part, names, {"time": steps, **where}
                )
        return made

    def _values(
        self, part: Part, names: tuple[str, ...], where: dict[str, slice]
    ) -> NDArray[np.float32] | np.float32:
        """Values of variables in one file; NaN where it is absent, and may be."""
        try:
            raw = self.source.opened_part(part.url)
        except DataError as error:
            if part.optional and any("not found" in problem for problem in error.problems):
                return np.float32(np.nan)
            raise
        try:
            if not part.known:
                self._check(raw, part)
            made = []
            for name in names:
                held = raw[name].isel({k: v for k, v in where.items() if k in raw[name].dims})
                ordered = held.transpose(*(dim for dim in where if dim in held.dims))
                with remote.answering(part.url, self.source.login), _readable(part.url, name):
                    made.append(np.asarray(ordered.values, dtype=np.float32))
            return np.stack(made)
        finally:
            raw.close()

    def _check(self, raw: xr.Dataset, part: Part) -> None:
        problems = self.source.part_problems(raw, self.grid)
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


def _native(stored: xr.DataArray) -> dict[Any, int]:
    """Chunks of a variable in its file."""
    preferred: dict[Any, int] = stored.encoding.get("preferred_chunks") or {}
    return preferred


def _sizes(start: int, stop: int, native: int, at_least: int) -> tuple[int, ...]:
    """Sizes of blocks from start to stop that end with chunks of the file."""
    step = -(-at_least // native) * native
    edges = [start, *range((start // step + 1) * step, stop, step), stop]
    return tuple(np.diff(edges).tolist())


def _read(series: Series, names: tuple[str, ...], block_info: Any = None) -> NDArray[np.float32]:
    where = tuple(slice(*each) for each in block_info[None]["array-location"])
    return series.read(names, where[1:])
