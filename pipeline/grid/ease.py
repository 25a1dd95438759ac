"""EASE-Grid 2.0 global (EPSG:6933): windows, and which cell or footprint holds a place.

Footprint (fy, fx) of a window holds its cells (refinement * fy + i, refinement * fx + j), with i
and j below refinement: nothing is searched. Brodzik et al. 2012, doi:10.3390/ijgi1010032.
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
FOOTPRINT_ROWS, FOOTPRINT_COLS = 406, 964
FOOTPRINT_SIZE_M = 36032.220840584
LEFT_M, TOP_M = -FOOTPRINT_COLS * FOOTPRINT_SIZE_M / 2, FOOTPRINT_ROWS * FOOTPRINT_SIZE_M / 2
REFINEMENTS = (1, 2, 4, 8)

# 4 cm of a footprint; PROJ's inverse is good to 2 mm, so an edge that went through it stays one.
_POSITION_DECIMALS = 6


@functools.cache
def _to_metres() -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4326", "EPSG:6933", always_xy=True)


def project(lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return x and y, each (...) in metres, of lat and lon, each (...) in degrees; NaN if none."""
    lat_deg, lon_deg = np.broadcast_arrays(np.asarray(lat, float), np.asarray(lon, float))
    x, y = (np.asarray(v) for v in _to_metres().transform(lon_deg, lat_deg))
    return np.where(np.isfinite(x), x, np.nan), np.where(np.isfinite(y), y, np.nan)


def unproject(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return lat and lon, each (...) in degrees, of x and y, each (...) in metres."""
    x_m, y_m = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    lon, lat = _to_metres().transform(x_m, y_m, direction="INVERSE")
    return np.asarray(lat), np.asarray(lon)


def _position(lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x, y = project(lat, lon)
    row, col = (TOP_M - y) / FOOTPRINT_SIZE_M, (x - LEFT_M) / FOOTPRINT_SIZE_M
    return np.round(row, _POSITION_DECIMALS), np.round(col, _POSITION_DECIMALS)


def footprint_position(lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return row and col, each (...), in the global M36 grid; their floors are its indices.

    lat and lon are (...) in degrees; 180 E is 180 W, in the first column. Rows poleward of 85.04
    degrees lie outside [0, 406). NaN where there is no such place.
    """
    row, col = _position(lat, lon)
    return row, col % FOOTPRINT_COLS


@dataclass(frozen=True)
class Window:
    """A rectangle of whole footprints of the global M36 grid, and the cells inside them.

    `row` and `col` are those of its upper left footprint, `height` and `width` count footprints;
    `refinement` is the number of cells along a footprint's side.
    """

    row: int
    col: int
    height: int
    width: int
    refinement: int

    def __post_init__(self) -> None:
        """Refuse a window that is not on the grid."""
        found = (self.row, self.col, self.height, self.width)
        fits = self.row <= FOOTPRINT_ROWS - self.height and self.col <= FOOTPRINT_COLS - self.width
        if not fits or min(found) < 0 or 0 in found[2:] or self.refinement not in REFINEMENTS:
            raise ValueError(
                f"{self}: expected one or more footprints of the grid's {FOOTPRINT_ROWS} x "
                f"{FOOTPRINT_COLS}, and a refinement of {REFINEMENTS}"
            )

    @classmethod
    def from_bbox(
        cls, west: float, south: float, east: float, north: float, refinement: int
    ) -> Self:
        """Snap a box in degrees outward to whole footprints, clipped to the grid."""
        (bottom, top), (left, right) = _position((south, north), (west, east))
        first = np.maximum(np.floor([top, left]), 0)
        last = np.minimum(np.ceil([bottom, right]), (FOOTPRINT_ROWS, FOOTPRINT_COLS))
        in_range = -180 <= west < east <= 180 and -90 <= south < north <= 90
        if not in_range or (first >= last).any():
            raise ValueError(
                f"bbox (west, south, east, north) = ({west}, {south}, {east}, {north}) holds no "
                "footprint: expected -180 <= west < east <= 180 and -90 <= south < north <= 90, "
                "not all poleward of 85.04; a box may not cross the antimeridian"
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
        """Left, bottom, right and top edge, projected, in metres."""
        left, top = LEFT_M + self.col * FOOTPRINT_SIZE_M, TOP_M - self.row * FOOTPRINT_SIZE_M
        right, bottom = left + self.width * FOOTPRINT_SIZE_M, top - self.height * FOOTPRINT_SIZE_M
        return left, bottom, right, top

    @property
    def cell_y(self) -> FloatArray:
        """(y,) projected y of cell centres in metres, from north to south."""
        return TOP_M - FOOTPRINT_SIZE_M * _centres(self.row, self.height, self.refinement)

    @property
    def cell_x(self) -> FloatArray:
        """(x,) projected x of cell centres in metres, from west to east."""
        return LEFT_M + FOOTPRINT_SIZE_M * _centres(self.col, self.width, self.refinement)

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
        """(y + 1,) latitudes, decreasing, and (x + 1,) longitudes of the cells' edges, degrees."""
        (left, bottom, right, top), (ny, nx) = self.bounds, self.cell_shape
        lat, _ = unproject(0.0, np.linspace(top, bottom, ny + 1))
        _, lon = unproject(np.linspace(left, right, nx + 1), 0.0)
        return lat, lon

    @property
    def of_footprints(self) -> Self:
        """The same rectangle with one cell for every footprint."""
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
        """Return y and x, each (...), of the cell that holds each place; -1 outside the window.

        lat and lon are (...) in degrees. A place on an edge is in the cell south and east of it.
        """
        row, col = footprint_position(lat, lon)
        inside = (row >= self.row) & (row < self.row + self.height)
        inside &= (col >= self.col) & (col < self.col + self.width)
        y = np.floor((row - self.row) * self.refinement)
        x = np.floor((col - self.col) * self.refinement)
        return np.where(inside, y, -1).astype(np.int64), np.where(inside, x, -1).astype(np.int64)

    def footprints_of(self, lat: npt.ArrayLike, lon: npt.ArrayLike) -> tuple[IntArray, IntArray]:
        """Return fy and fx, each (...), of the footprint that holds each place, as `cells_of`."""
        y, x = self.cells_of(lat, lon)
        return y // self.refinement, x // self.refinement


def _centres(first: int, count: int, refinement: int) -> FloatArray:
    return first + (np.arange(count * refinement) + 0.5) / refinement
