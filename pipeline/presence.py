"""Where the sources have values, as each block was read; from all blocks, the mask of cells.

The task of a block notes where each variable has a value. Which cells are valid is known when all
blocks have been read, and only then can missing values be told from sea.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline import files, missing, schema
from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date

    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.grid import Window

    Period = tuple[date, date]
    Bits = NDArray[np.uint8]  # (days / 8, ...): a bit per day, the first day the highest
    Mask = NDArray[np.bool_]

_FORCING, _STATIC, _SATELLITE = "forcing", "static", "satellite"


class Land(NamedTuple):
    """The mask of cells, and for each variable the cells in which it has to have values.

    `without` has the number of cells that are not valid though they have some of it: `forcing`,
    which have a static, and `static`, which have all forcing.
    """

    mask: Mask
    expected: dict[str, Mask]
    without: dict[str, int]


def bits_of(values: NDArray[np.float32]) -> Bits:
    """Which values are there, a bit per day.

    Args:
      values: (day, ...), NaN where missing.
    """
    return np.packbits(~np.isnan(values), axis=0)


def save(url: str, block: int, found: dict[str, Bits | Mask]) -> None:
    """Keep what a block's sources have beside its receipt.

    Args:
      url: the store of the block.
      block: its number.
      found: `forcing/NAME` and `satellite/NAME`: as of `bits_of`; `static/NAME`: a mask.
    """
    held = io.BytesIO()
    np.savez_compressed(held, **found)  # type: ignore[arg-type]
    files.write_bytes(_url(url, block), held.getvalue())


def settled(
    url: str,
    experiment: Experiment,
    window: Window,
    entries: dict[str, str],
    infinite: dict[str, int],
) -> tuple[Mask, Json]:
    """The mask of cells, once all blocks are read, and what the sources lack.

    Args:
      url: the cube.
      experiment: its period, and the limits.
      window: the cells.
      entries: of every variable of forcing and every static, the entry that it comes from.
      infinite: infinite values by variable.

    Returns:
      (y, x) the mask; {"cells": ..., "footprints": ...}, by variable as of `missing.Counts`, and
      {"no_cells": ...} as `Land.without`.

    Raises:
      DataError: no cell is valid, or a variable lacks more than is accepted; the blocks in which
        it does are forgotten, to be read again by the next run.
    """
    period, blocks = experiment.period, schema.block_range(experiment.period)
    try:
        made = land(url, blocks, entries)
    except DataError:
        missing.forget(url, blocks)
        raise
    found = of_cells(url, period, blocks, made.expected)
    refinement, (fy, fx) = window.refinement, window.footprint_shape
    valid = made.mask.reshape(fy, refinement, fx, refinement).sum((1, 3))
    footprints = of_footprints(url, period, blocks, valid * 2 >= refinement**2)
    for records in (found, footprints):
        for name, record in records.items():
            record["infinite"] = infinite.get(name, 0)
    missing.check(experiment, entries, found, url)
    return made.mask, {"cells": found, "footprints": footprints, "no_cells": made.without}


def land(url: str, blocks: Iterable[int], entries: dict[str, str]) -> Land:
    """The mask of cells, from all blocks: every forcing on some day, and any static.

    A variable has to have values in these cells, and in those that lack nothing but this variable
    while another of its entry has values there: a source has its variables in the same cells, so
    that what one of them lacks there is no sea.

    Args:
      url: the store of the blocks.
      blocks: their numbers.
      entries: of every variable, the entry that it comes from.

    Raises:
      DataError: there is no such cell; naming the variables that have no value at all.
    """
    forcing, statics = _seen(url, blocks)
    seen = forcing | statics
    shape = next(iter(forcing.values())).shape
    described = np.any([*statics.values()], axis=0) if statics else np.ones(shape, bool)
    driven = np.all([*forcing.values()], axis=0)
    mask = driven & described
    of_entry = {
        entry: np.any([seen[name] for name in seen if entries[name] == entry], axis=0)
        for entry in set(entries.values())
    }
    expected = {}
    for name in forcing:
        others = [found for other, found in forcing.items() if other != name]
        expected[name] = np.all([of_entry[entries[name]] & described, *others], axis=0)
    for name in statics:
        expected[name] = mask | (driven & of_entry[entries[name]])
    if not mask.any():
        raise missing.stop(_empty(seen, entries))
    without = {"forcing": int((described & ~driven).sum()) if statics else 0}
    return Land(mask, expected, without | {"static": int((driven & ~described).sum())})


def _seen(url: str, blocks: Iterable[int]) -> tuple[dict[str, Mask], dict[str, Mask]]:
    """(y, x) cells in which each variable of forcing has a value on any day; and each static."""
    forcing: dict[str, Mask] = {}
    statics: dict[str, Mask] = {}
    for block in blocks:
        for key, found in _load(url, block):
            kind, _, name = key.partition("/")
            if kind == _FORCING:
                there: Mask = np.any(found, axis=0)
                forcing[name] = forcing[name] | there if name in forcing else there
            elif kind == _STATIC:
                statics[name] = found.astype(bool)
    return forcing, statics


def _empty(seen: dict[str, Mask], entries: dict[str, str]) -> list[str]:
    """Why no cell is valid: variables without a value, else the cells that each one has."""
    lacking = [name for name, found in seen.items() if not found.any()]
    if lacking:
        return [f"{n} of {entries[n]} has no value in the domain and period" for n in lacking]
    each = ", ".join(f"{n} of {entries[n]} in {int(seen[n].sum())}" for n in seen)
    return [f"no cell has values of all forcing and of a static; cells with values: {each}"]


def of_cells(
    url: str, period: Period, blocks: Iterable[int], cells: dict[str, Mask]
) -> dict[str, Json]:
    """What each variable of forcing and each static lacks; records as of `missing.Counts`.

    Args:
      url: the store of the blocks.
      period: whose days are counted.
      blocks: their numbers.
      cells: of each variable, where it has to have values.
    """
    counts = {name: missing.Counts(int(where.sum())) for name, where in cells.items()}
    for block in blocks:
        for key, found in _load(url, block):
            kind, _, name = key.partition("/")
            if kind == _FORCING:
                days = missing.days_of(period, block)
                counts[name].add(days.values(), _lacking(found, cells[name], [*days]))
            elif kind == _STATIC:
                counts[name].add_constant(int((cells[name] & ~found.astype(bool)).sum()))
    return {name: counted.record() for name, counted in counts.items()}


def of_footprints(url: str, period: Period, blocks: Iterable[int], usable: Mask) -> dict[str, Json]:
    """What the satellite lacks on usable footprints, before quality control."""
    counts: dict[str, missing.Counts] = {}
    for block in blocks:
        for key, found in _load(url, block):
            kind, _, name = key.partition("/")
            if kind == _SATELLITE:
                counted = counts.setdefault(name, missing.Counts(int(usable.sum())))
                days = missing.days_of(period, block)
                counted.add(days.values(), _lacking(found, usable, [*days]))
    return {name: counted.record() for name, counted in counts.items()}


def _lacking(found: Bits, cells: Mask, places: Sequence[int]) -> NDArray[np.int64]:
    """(day,) cells without a value on some of the days of a block."""
    n = int(cells.sum())
    there = [((found[day // 8] >> (7 - day % 8)) & 1)[cells].sum() for day in places]
    return n - np.array(there, np.int64)


def _load(url: str, block: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    with np.load(io.BytesIO(files.read_bytes(_url(url, block)))) as held:
        for key in held.files:
            yield key, held[key]


def _url(url: str, block: int) -> str:
    return files.join(url, "receipts", f"{block}.npz")
