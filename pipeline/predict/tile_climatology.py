"""Compare the days of a tile with its reference period: a second pass, over the group `series`.

The tile is read in pieces of few cells and all days, and compared in pieces of whole shards. So the
memory needed does not depend on the size of the maps, and hardly on the length of the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from model.climatology import Reference
from pipeline.storage import climatology, maps_schema, schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from numpy.typing import NDArray


SERIES_DAYS = maps_schema.SERIES_BLOCKS * schema.BLOCK_DAYS  # days of a shard of `series`
# Shards that are compared together, so that the reference is read less often. Both layers of them
# need no more memory than the first pass.
TOGETHER = 2

# Cells that are read at a time, in whole chunks.
ROWS, COLS = maps_schema.SERIES_CHUNK, 4 * maps_schema.SERIES_CHUNK


@dataclass(frozen=True)
class TileClimatology:
    """What the days of a tile are compared with, and where they are.

    Attributes:
      target: The name of the mapped variable.
      first_day: The first day of the maps.
      reference: First and last day of the reference period.
      maps: URL of the maps with the days to compare.
      before: URL of the maps with the reference period, and with the days that stay as they are.
      rows: Rows of the tile.
      cols: Columns of the tile.
      valid: (y, x) cells that have values.
      frozen_days: Days of the reference period whose values `frozen` has; None for none.
      frozen: (day, y, x) these values as first mapped, packed; None to take those of the maps.
    """

    target: str
    first_day: date
    reference: tuple[date, date]
    maps: str
    before: str
    rows: slice
    cols: slice
    valid: NDArray[np.bool_]
    frozen_days: slice | None
    frozen: NDArray[np.int16] | None

    def compared(self, first: int, n_days: int) -> Iterator[tuple[str, int, NDArray[np.int16]]]:
        """Compare days with their season, and yield what is to be written, as whole shards.

        Args:
          first: The first day to compare; days before it stay as they are in the maps before.
          n_days: Number of days of the maps.

        Yields:
          The path of an array of the maps, the first day, and the packed values (day, y, x).
        """
        for start in range(first // SERIES_DAYS * SERIES_DAYS, n_days, TOGETHER * SERIES_DAYS):
            fields = self._compare(start, first, min(start + TOGETHER * SERIES_DAYS, n_days))
            since = max(start, first // schema.BLOCK_DAYS * schema.BLOCK_DAYS)
            for name, values in fields.items():
                yield f"series/{name}", start, values
                yield name, since, values[since - start :]

    def values_to_freeze(self) -> NDArray[np.int16]:
        """Return the values (day, y, x) of `frozen_days`, packed."""
        assert self.frozen_days is not None
        if self.frozen is not None:
            return self.frozen
        return self._read(self.maps, self.target, self.frozen_days, self.rows, self.cols)

    def _compare(self, start: int, first: int, stop: int) -> dict[str, NDArray[np.int16]]:
        """Return the packed layers (day, y, x) of the days from `start` to before `stop`."""
        shape = (stop - start, *self.valid.shape)
        fields = {
            name: np.full(shape, maps_schema.VALUE_FILL, np.int16)
            for name in climatology.layer_names(self.target)
        }
        if start < first:
            kept = slice(start, first)
            for name, field in fields.items():
                field[: first - start] = self._read(self.before, name, kept, self.rows, self.cols)
        days = slice(max(start, first), stop)
        for rows, cols in self._pieces():
            valid = self.valid[rows, cols]
            packed = self._compare_cells(days, rows, cols, valid)
            for field, values in zip(fields.values(), packed, strict=True):
                field[days.start - start :, rows, cols][:, valid] = values
        return fields

    def _pieces(self) -> Iterator[tuple[slice, slice]]:
        """Yield the rows and columns, within the tile, of pieces with valid cells."""
        ny, nx = self.valid.shape
        for row in range(0, ny, ROWS):
            for col in range(0, nx, COLS):
                rows, cols = slice(row, min(row + ROWS, ny)), slice(col, min(col + COLS, nx))
                if self.valid[rows, cols].any():
                    yield rows, cols

    def _compare_cells(
        self, days: slice, rows: slice, cols: slice, valid: NDArray[np.bool_]
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Return percentile and anomaly (day, valid cell) of a piece of the tile, packed."""
        begin, end = ((day - self.first_day).days for day in self.reference)
        y, x = (
            slice(tile.start + part.start, tile.start + part.stop)
            for tile, part in ((self.rows, rows), (self.cols, cols))
        )
        season = self._read(self.before, self.target, slice(begin, end + 1), y, x)
        if self.frozen is not None and self.frozen_days is not None:
            where = slice(self.frozen_days.start - begin, self.frozen_days.stop - begin)
            season[where] = self.frozen[:, rows, cols]
        values = self._read(self.maps, self.target, days, y, x)[:, valid]
        reference = Reference(self.reference, season[:, valid], maps_schema.VALUE_FILL)
        percentile, anomaly = np.empty((2, *values.shape))
        for i, row in enumerate(values):
            day = self.first_day + timedelta(days.start + i)
            percentile[i], anomaly[i] = reference.compare(day, row)
        step = climatology.PERCENTILE_STEP
        return maps_schema.pack_values(percentile, step), maps_schema.pack_values(anomaly, 1.0)

    def _read(self, url: str, name: str, days: slice, y: slice, x: slice) -> NDArray[np.int16]:
        """Read a part of a layer of the group `series`, as it is stored."""
        return zarr_arrays.read_packed(url, f"series/{name}", [days, y, x])
