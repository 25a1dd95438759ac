"""The inputs of one column of 256 x 256 cells, read block after block as a model wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import maps, schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.checkpoint import Trained
    from pipeline.cube import Cube


class Column:
    """The inputs of a column's valid cells, as a model wants them, block after block."""

    def __init__(self, cube: Cube, row: int, col: int, trained: Trained) -> None:
        """The column whose upper left cell is (row, col)."""
        self.cube, self.features, self.scaler = cube, trained.features, trained.scaler
        self.lead_days = trained.lead_days
        ny, nx = cube.cells["mask"].shape
        self.rows = slice(row, min(row + schema.SHARD, ny))
        self.cols = slice(col, min(col + schema.SHARD, nx))
        self.valid = cube.cells["mask"].values[self.rows, self.cols].astype(bool)
        mean, std = self.scaler.arrays(self.features.static)
        fields = [cube.cells[n].values[self.rows, self.cols] for n in self.features.static]
        static = np.array([field[self.valid] for field in fields], np.float32)
        self.static = (static.reshape(len(fields), int(self.valid.sum())).T - mean) / std

    def forcing(self, days: slice) -> NDArray[np.float16]:
        """(cell, day, forcing) scaled, of days counted along the period."""
        mean, std = self.scaler.arrays(self.features.forcing)
        shape = (int(self.valid.sum()), days.stop - days.start, len(mean))
        made = np.empty(shape, np.float16)
        for i, name in enumerate(self.features.forcing):
            made[..., i] = (self._series(name, days) - mean[i]) / std[i]
        return made

    def frozen(self, days: slice) -> NDArray[np.bool_]:
        """(cell, day) days with a mean air temperature at or under 273.15 K."""
        if maps.TEMPERATURE not in self.features.forcing:
            return np.zeros((int(self.valid.sum()), days.stop - days.start), bool)
        return np.asarray(self._series(maps.TEMPERATURE, days) <= maps.FREEZING_K)

    def before(self, year: int, day: int = 0) -> NDArray[np.float16]:
        """The days before a day that a model looks back on.

        Days before the record are its first `year` days, repeated.
        """
        lead = self.lead_days
        days = np.arange(day - lead, day)
        days = np.where(days < 0, days % year, days)
        made = np.empty((len(self.static), lead, len(self.features.forcing)), np.float16)
        for start in range(0, lead, schema.BLOCK_DAYS):
            part = days[start : start + schema.BLOCK_DAYS]
            first = int(part.min())
            made[:, start : start + len(part)] = self.forcing(slice(first, int(part.max()) + 1))[
                :, part - first
            ]
        return made

    def _series(self, name: str, days: slice) -> NDArray[np.float32]:
        """(cell, day) values of a variable."""
        first = self.cube.axis_offset
        where = {"time": slice(days.start + first, days.stop + first)}
        field = self.cube.cells[name].isel(where | {"y": self.rows, "x": self.cols})
        values: NDArray[np.float32] = field.values[:, self.valid].T
        return values
