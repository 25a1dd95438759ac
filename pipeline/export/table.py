"""A table of values at points and in polygons, as CSV: a row for each day and place.

Columns: `date`; `id` of the place; the variable and its standard deviation; `quality_flag`;
`cells`, the number of cells of the place that have a value that day; `coverage`, the share of the
area of the place that these cells cover.

At a point these are the values of the cell that it lies in. In a polygon the variable is the mean
over its cells, weighted by the area in which they overlap; the standard deviation is the same mean
of theirs, an upper bound of that of the polygon's mean; the flags are all bits that are set in any
of its cells.
"""

from __future__ import annotations

import csv
import posixpath
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.export import places
from pipeline.export.maps import FLAG
from pipeline.export.pieces import Piece, record_of
from pipeline.storage.maps_schema import VALUE_FILL
from pipeline.storage.schema import BLOCK_DAYS, SHARD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.export.maps import Maps
    from pipeline.export.pieces import Advance
    from pipeline.export.places import Places
    from pipeline.files import Json


@dataclass
class _Sums:
    """Sums over the cells of each place, (day, place); the keys are the names of layers."""

    value: dict[str, NDArray[np.float64]]
    weight: NDArray[np.float64]
    cells: NDArray[np.int64]
    flags: NDArray[np.uint8]


def plan(maps: Maps, days: range, url: str) -> Iterator[Piece]:
    """Yield the only piece of a table: all days at the places of a file.

    Args:
      maps: The maps.
      days: The days.
      url: The file of the places; see `places.read_places`.
    """
    n_rows, n_cols = maps.root[maps.target].shape[1:]
    where, digest = places.read_places(files.make_absolute(url), maps.transform, (n_rows, n_cols))
    stem = posixpath.splitext(url.rstrip("/").rpartition("/")[2])[0]
    name = f"{maps.stem}_{stem}.csv"
    made_from = {"format": "csv", "places": digest}
    yield Piece((name,), days, made_from, partial(_write, maps, days, where, name))


def _write(
    maps: Maps, days: range, where: Places, name: str, url: str, advance: Advance
) -> dict[str, Json]:
    """Write the table; see `Piece.write`."""
    scale, offset = (maps.root[maps.target].attrs[key] for key in ("scale_factor", "add_offset"))
    digits = max(0, -int(np.floor(np.log10(scale)))) + 1  # a polygon's mean is finer than a cell's
    columns = ["date", "id", maps.target, f"{maps.target}_std", FLAG, "cells", "coverage"]
    length = maps.series[maps.target].encoding["chunks"][0]
    with files.written_whole(files.join(url, name)) as path:
        with open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(columns)
            for block in range(days.start // length, (days.stop - 1) // length + 1):
                part = slice(max(days.start, block * length), min(days.stop, (block + 1) * length))
                sums = _sum(maps, part, where)
                table.writerows(_rows(maps, part, where, sums, (scale, offset, digits)))
                advance(part.stop - part.start)
        return record_of(name, path)


def _sum(maps: Maps, part: slice, where: Places) -> _Sums:
    """Sum over the cells of all places on some days, one tile of shards after the other."""
    shape, names = (part.stop - part.start, len(where.ids)), (maps.target, f"{maps.target}_std")
    sums = _Sums(
        {name: np.zeros(shape) for name in names},
        np.zeros(shape),
        np.zeros(shape, np.int64),
        np.zeros(shape, np.uint8),
    )
    tiles = np.stack([where.row // SHARD, where.col // SHARD])
    for tile in np.unique(tiles, axis=1).T:
        entries = np.flatnonzero((tiles == tile[:, None]).all(0))
        _add_tile(sums, maps, part, where, entries)
    return sums


def _add_tile(
    sums: _Sums, maps: Maps, part: slice, where: Places, entries: NDArray[np.int64]
) -> None:
    """Add the cells of one tile to the sums.

    Args:
      sums: The sums.
      maps: The maps.
      part: The days.
      where: The places.
      entries: The positions in `where` of the cells in the tile.
    """
    row, col, weight = where.row[entries], where.col[entries], where.weight[entries]
    y, x = (slice(int(each.min()), int(each.max()) + 1) for each in (row, col))
    names = (*sums.value, FLAG)
    packed = {name: maps.read(name, part, y, x, "series") for name in names}
    owners, starts = np.unique(where.place[entries], return_index=True)
    for start in range(0, part.stop - part.start, BLOCK_DAYS):
        days = slice(start, start + BLOCK_DAYS)
        cells = {n: values[days][:, row - y.start, col - x.start] for n, values in packed.items()}
        valid = cells[maps.target] != VALUE_FILL
        weights = np.where(valid, weight, 0.0)
        target = (days, owners)
        sums.weight[target] += np.add.reduceat(weights, starts, axis=1)
        sums.cells[target] += np.add.reduceat(valid.astype(np.int64), starts, axis=1)
        for name, total in sums.value.items():
            total[target] += np.add.reduceat(weights * cells[name], starts, axis=1)
        sums.flags[target] |= np.bitwise_or.reduceat(cells[FLAG], starts, axis=1)


def _rows(
    maps: Maps, part: slice, where: Places, sums: _Sums, form: tuple[float, float, int]
) -> Iterator[list[Any]]:
    """Yield the rows of some days."""
    scale, offset, digits = form
    has_value = sums.weight > 0
    weight = np.where(has_value, sums.weight, 1.0)
    means = [total / weight * scale + offset for total in sums.value.values()]
    coverage = sums.weight / where.area
    for day, position in enumerate(range(part.start, part.stop)):
        date = str(maps.days[position])
        for place, name in enumerate(where.ids):
            values = [f"{m[day, place]:.{digits}f}" if has_value[day, place] else "" for m in means]
            counted = [int(sums.flags[day, place]), int(sums.cells[day, place])]
            yield [date, name, *values, *counted, f"{coverage[day, place]:.4f}"]
