"""EASE-Grid 2.0 global (EPSG:6933): windows of it, and the cell or footprint at a place.

A footprint is a cell of the 36 km grid (M36). Footprint (fy, fx) of a window consists of the cells
(refinement * fy + i, refinement * fx + j), with 0 <= i, j < refinement, so cells and footprints
are found without a search. Brodzik et al. 2012, doi:10.3390/ijgi1010032.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyproj

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# The global M36 grid: number of footprints, their side, and its upper left corner.
FOOTPRINT_ROWS, FOOTPRINT_COLS = 406, 964
FOOTPRINT_SIZE_M = 36032.220840584
LEFT_M, TOP_M = -FOOTPRINT_COLS * FOOTPRINT_SIZE_M / 2, FOOTPRINT_ROWS * FOOTPRINT_SIZE_M / 2
REFINEMENTS = (1, 2, 4, 8)

# Positions are rounded to 4 cm. PROJ's inverse is accurate to 2 mm, so a place on an edge is still
# on the edge after conversion to degrees and back.
_POSITION_DECIMALS = 6


@functools.cache
def _to_metres() -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)


def project(lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Project degrees to EPSG:6933.

    Args:
      lat: (...) degrees north.
      lon: (...) degrees east.

    Returns:
      x and y, each (...) in metres; NaN where a place has no projection.
    """
    lat_deg, lon_deg = np.broadcast_arrays(np.asarray(lat, float), np.asarray(lon, float))
    x, y = (np.asarray(v) for v in _to_metres().transform(lon_deg, lat_deg))
    return np.where(np.isfinite(x), x, np.nan), np.where(np.isfinite(y), y, np.nan)


def unproject(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return lat and lon, each (...) in degrees, of EPSG:6933 x and y, each (...) in metres."""
    x_m, y_m = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    lon, lat = _to_metres().transform(x_m, y_m, direction="INVERSE")
    return np.asarray(lat), np.asarray(lon)


def _position(lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return row and column in the M36 grid as floats; 180 E is in column 964."""
    x, y = project(lat, lon)
    row, col = (TOP_M - y) / FOOTPRINT_SIZE_M, (x - LEFT_M) / FOOTPRINT_SIZE_M
    return np.round(row, _POSITION_DECIMALS), np.round(col, _POSITION_DECIMALS)


def footprint_position(lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return the position of places in the global M36 grid.

    Args:
      lat: (...) degrees north.
      lon: (...) degrees east; 180 E equals 180 W.

    Returns:
      Row and column, each (...), as floats whose floors are the indices of the footprint. Rows
      poleward of 85.04 degrees are outside of [0, 406). NaN where a place has no projection.
    """
    row, col = _position(lat, lon)
    return row, col % FOOTPRINT_COLS


@dataclass(frozen=True)
class Window:
    """A rectangle of footprints of the global M36 grid, and the cells in them.

    Attributes:
      row: Row of the upper left footprint.
      col: Column of the upper left footprint.
      height: Number of rows of footprints.
      width: Number of columns of footprints.
      refinement: Number of cells along a footprint's side.
    """

    row: int
    col: int
    height: int
    width: int
    refinement: int

    def __post_init__(self) -> None:
        """Check that the window is on the grid.

        Raises:
          ValueError: If it is empty, extends beyond the grid, or has another refinement than
            REFINEMENTS.
        """
        numbers = (self.row, self.col, self.height, self.width)
        fits = self.row <= FOOTPRINT_ROWS - self.height and self.col <= FOOTPRINT_COLS - self.width
        if not fits or min(numbers) < 0 or 0 in numbers[2:] or self.refinement not in REFINEMENTS:
            raise ValueError(
                f"{self}: expected at least one of the grid's {FOOTPRINT_ROWS} x "
                f"{FOOTPRINT_COLS} footprints, and a refinement in {REFINEMENTS}"
            )

    @classmethod
    def from_bbox(
        cls, west: float, south: float, east: float, north: float, refinement: int
    ) -> Self:
        """Extend a box in degrees to whole footprints, and clip it to the grid.

        Raises:
          ValueError: If the box is empty, out of range, or outside of the grid.
        """
        (bottom, top), (left, right) = _position((south, north), (west, east))
        first = np.maximum(np.floor([top, left]), 0)
        last = np.minimum(np.ceil([bottom, right]), (FOOTPRINT_ROWS, FOOTPRINT_COLS))
        in_range = -180 <= west < east <= 180 and -90 <= south < north <= 90
        if not in_range or (first >= last).any():
            raise ValueError(
                f"bbox (west, south, east, north) = ({west}, {south}, {east}, {north}) contains no "
                "footprint: expected -180 <= west < east <= 180 and -90 <= south < north <= 90, "
                "and a part equatorward of 85.04; a box must not cross the antimeridian"
            )
        (row, col), (height, width) = map(int, first), map(int, last - first)
        return cls(row, col, height, width, refinement)

    @property
    def footprint_shape(self) -> tuple[int, int]:
        """Number of footprints (fy, fx)."""
        return self.height, self.width

    @property
    def cell_shape(self) -> tuple[int, int]:
        """Number of cells (y, x)."""
        return self.height * self.refinement, self.width * self.refinement

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right and top edge in metres of EPSG:6933."""
        left, top = LEFT_M + self.col * FOOTPRINT_SIZE_M, TOP_M - self.row * FOOTPRINT_SIZE_M
        right, bottom = left + self.width * FOOTPRINT_SIZE_M, top - self.height * FOOTPRINT_SIZE_M
        return left, bottom, right, top

    @property
    def cell_y(self) -> FloatArray:
        """(y,) y of cell centres in metres of EPSG:6933, decreasing."""
        return TOP_M - FOOTPRINT_SIZE_M * _cell_centres(self.row, self.height, self.refinement)

    @property
    def cell_x(self) -> FloatArray:
        """(x,) x of cell centres in metres of EPSG:6933, increasing."""
        return LEFT_M + FOOTPRINT_SIZE_M * _cell_centres(self.col, self.width, self.refinement)

    @property
    def cell_lat(self) -> FloatArray:
        """(y,) latitude of cell centres in degrees north, decreasing."""
        return unproject(0.0, self.cell_y)[0]

    @property
    def cell_lon(self) -> FloatArray:
        """(x,) longitude of cell centres in degrees east, increasing."""
        return unproject(self.cell_x, 0.0)[1]

    @property
    def cell_edges(self) -> tuple[FloatArray, FloatArray]:
        """(y + 1,) latitudes, decreasing, and (x + 1,) longitudes of cell edges in degrees."""
        (left, bottom, right, top), (ny, nx) = self.bounds, self.cell_shape
        lat, _ = unproject(0.0, np.linspace(top, bottom, ny + 1))
        _, lon = unproject(np.linspace(left, right, nx + 1), 0.0)
        return lat, lon

    @property
    def of_footprints(self) -> Self:
        """The same window with one cell per footprint."""
        return replace(self, refinement=1)

    @property
    def footprint_lat(self) -> FloatArray:
        """(fy,) latitude of footprint centres in degrees north, decreasing."""
        return self.of_footprints.cell_lat

    @property
    def footprint_lon(self) -> FloatArray:
        """(fx,) longitude of footprint centres in degrees east, increasing."""
        return self.of_footprints.cell_lon

    def cells_of(self, lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[IntArray, IntArray]:
        """Find the cell that contains each place.

        Args:
          lat: (...) degrees north.
          lon: (...) degrees east.

        Returns:
          y and x, each (...), indices of the cell; -1 outside of the window. A place on an edge is
          in the cell south and east of the edge.
        """
        row, col = footprint_position(lat, lon)
        inside = (row >= self.row) & (row < self.row + self.height)
        inside &= (col >= self.col) & (col < self.col + self.width)
        y = np.floor((row - self.row) * self.refinement)
        x = np.floor((col - self.col) * self.refinement)
        return np.where(inside, y, -1).astype(np.int64), np.where(inside, x, -1).astype(np.int64)

    def cell_at(self, lat: float, lon: float) -> tuple[int, int]:
        """Find the cell that contains a place, which may lie on any edge of the window.

        Args:
          lat: Degrees north.
          lon: Degrees east.

        Returns:
          y and x of the cell, as `cells_of`, but a place on the southern or eastern edge of the
          window is in its last row or column.
        """
        row, col = footprint_position(lat, lon)
        down, right = float(row) - self.row, (float(col) - self.col) % FOOTPRINT_COLS
        if not (0 <= down <= self.height and 0 <= right <= self.width):
            return -1, -1
        ny, nx = self.cell_shape
        return min(int(down * self.refinement), ny - 1), min(int(right * self.refinement), nx - 1)

    def footprints_of(self, lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[IntArray, IntArray]:
        """Find the footprint that contains each place: fy and fx, each (...), as `cells_of`."""
        y, x = self.cells_of(lat, lon)
        return y // self.refinement, x // self.refinement


def _cell_centres(first: int, count: int, refinement: int) -> FloatArray:
    """Return the centres of the cells in `count` footprints, in units of footprints."""
    return first + (np.arange(count * refinement) + 0.5) / refinement
