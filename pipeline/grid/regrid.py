"""Conservative regridding to rows of latitude and columns of longitude, such as EASE-Grid 2.0.

`Regridder`: from a grid of latitude and longitude. The area that two cells share is the product of
what their rows and their columns share, so W_y F W_x^T, with two small sparse matrices, regrids a
field F.

`ProjectedRegridder`: from a grid in a map projection. The corners of the source's cells are
transformed to EPSG:6933, which preserves areas and in which the target's cells are rectangles. A
source cell inside one target cell contributes all of its area; other cells are cut along the edges
of the target. Neighbouring cells share their corners, so no area is lost or counted twice. The
sides of cells are treated as straight lines in EPSG:6933. The error is a few centimetres for cells
1 km wide, and a few tens of metres for cells 36 km wide.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyproj
import scipy.sparse

from pipeline.grid.ease import project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]
    Shares = scipy.sparse.csr_array[np.float64]
    Part = tuple[IntArray, IntArray, FloatArray]  # target cell, source cell, area they share


# A target cell needs source values on this share of its area, as a footprint needs valid cells.
MIN_COVERED_SHARE = 0.5
_ROUNDING = 1e-9  # tolerance of LEAST_COVERED
EQUAL_AREA_CRS = "EPSG:6933"
_CELLS_PER_BATCH = 500_000  # source cells that are cut at a time, about 200 MB

# Number of points that `reach` transforms along each edge of a box, and along each axis inside it.
_POINTS_ALONG_EDGE, _POINTS_INSIDE = 2001, 201


def edges_between(centres: npt.ArrayLike) -> FloatArray:
    """Return the (n + 1,) edges halfway between (n,) sorted centres, of which n >= 2."""
    centre = np.asarray(centres, float)
    half = np.diff(centre) / 2
    inner = centre[:-1] + half
    return np.concatenate([[centre[0] - half[0]], inner, [centre[-1] + half[-1]]])


def check_edges(named: Mapping[str, FloatArray]) -> None:
    """Check the edges of cells.

    Args:
      named: (n + 1,) edges by name; names that contain `lon` are longitudes in degrees.

    Raises:
      ValueError: If edges are not sorted, or longitudes span more than 360 degrees.
    """
    for name, edges in named.items():
        step = np.diff(edges)
        if len(edges) < 2 or not (np.all(step > 0) or np.all(step < 0)):
            raise ValueError(f"{name}: expected two or more, all increasing or all decreasing")
        if "lon" in name and abs(edges[-1] - edges[0]) > 360 + 1e-3:
            raise ValueError(f"{name}: {edges[0]} to {edges[-1]}: expected 360 degrees at most")


@dataclass(frozen=True, eq=False)
class Regridder:
    """Area-weighted means over the cells of another grid of latitude and longitude.

    The total over the target's cells is conserved. The area of a cell is its width in longitude
    times its width in sin(latitude). Longitudes are periodic.

    Attributes:
      source_lat_edges: (n + 1,) degrees north, increasing or decreasing.
      source_lon_edges: (n + 1,) degrees east, increasing or decreasing.
      target_lat_edges: (n + 1,) degrees north, increasing or decreasing.
      target_lon_edges: (n + 1,) degrees east, increasing or decreasing.
    """

    source_lat_edges: FloatArray
    source_lon_edges: FloatArray
    target_lat_edges: FloatArray
    target_lon_edges: FloatArray

    def __post_init__(self) -> None:
        """Check the edges, as `check_edges`."""
        check_edges(vars(self))

    @functools.cached_property
    def _rows(self) -> Shares:
        edges = (self.source_lat_edges, self.target_lat_edges)
        source, target = (np.sin(np.radians(np.clip(e, -90, 90))) for e in edges)
        return _interval_shares(source, target, 0.0)

    @functools.cached_property
    def _cols(self) -> Shares:
        return _interval_shares(self.source_lon_edges, self.target_lon_edges, 360.0)

    def __call__(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the means over the target's cells.

        Args:
          values: (..., source lat, source lon), NaN where missing.

        Returns:
          (..., target lat, target lon) means over source cells with values; NaN where these cover
          less than half of the target cell's area.
        """
        shape = (self._rows.shape[0], self._cols.shape[0])
        return covered_means(values, shape, self._summed)

    def _summed(self, field: FloatArray) -> FloatArray:
        return np.asarray((self._cols @ (self._rows @ field).T).T)


def covered_means(
    values: npt.NDArray[np.floating],
    shape: tuple[int, int],
    summed: Callable[[FloatArray], FloatArray],
) -> npt.NDArray[np.floating]:
    """Return means over target cells, of source cells with values.

    Args:
      values: (..., row, column) values of the source, NaN where missing.
      shape: Shape of the target.
      summed: Function from a (row, column) field to the (*shape) sum over source cells of the
        value times the share of the target cell's area.

    Returns:
      (..., *shape) means; NaN where source cells with values cover less than half of the target
      cell's area.
    """
    fields = values.reshape(-1, *values.shape[-2:])
    means = np.empty((len(fields), *shape), np.result_type(values.dtype, np.float32))
    last: npt.NDArray[np.bool_] | None = None
    for field, mean in zip(fields, means, strict=True):
        valid = np.isfinite(field)
        # Missing cells are often the same on consecutive days.
        if last is None or not np.array_equal(valid, last):
            covered = summed(valid.astype(float))
            enough = covered >= MIN_COVERED_SHARE - _ROUNDING
            scale = np.divide(1, covered, out=np.full(shape, np.nan), where=enough)
            last = valid
        mean[:] = summed(np.where(valid, field, 0.0)) * scale
    return means.reshape(*values.shape[:-2], *shape)


def _interval_shares(source: FloatArray, target: FloatArray, period: float) -> Shares:
    """Return the (target, source) share of each target interval that is in each source interval.

    Args:
      source: (n + 1,) edges of the source's intervals.
      target: (m + 1,) edges of the target's intervals.
      period: Period of the coordinate; 0 for none.
    """
    turns = [0]
    if period:
        first = np.floor((target.min() - source.max()) / period)
        turns = list(range(int(first), int(np.ceil((target.max() - source.min()) / period)) + 1))
    shares = scipy.sparse.csr_array((len(target) - 1, len(source) - 1))
    for turn in turns:
        shifted = source + turn * period
        points = np.union1d(shifted, target)
        middle = (points[1:] + points[:-1]) / 2
        row, col = _find_interval(middle, target), _find_interval(middle, shifted)
        both = (row >= 0) & (col >= 0)
        row, col, length = row[both], col[both], np.diff(points)[both]
        share = length / np.abs(np.diff(target))[row]
        shares = shares + scipy.sparse.csr_array((share, (row, col)), shape=shares.shape)
    return shares


def _find_interval(places: FloatArray, edges: FloatArray) -> IntArray:
    """Return the (place,) index of the interval that contains each place; -1 for none."""
    n = len(edges) - 1
    index = np.searchsorted(np.sort(edges), places, side="right") - 1
    outside = (index < 0) | (index >= n)
    return np.where(outside, -1, index if edges[0] < edges[-1] else n - 1 - index)


@dataclass(frozen=True, eq=False)
class ProjectedRegridder:
    """Area-weighted means over rectilinear cells of a projected grid, which conserve the total.

    crs: of the source, anything PROJ knows. The source's edges are (n + 1,) in units of crs, the
    target's (n + 1,) in degrees, all increasing or decreasing; the target's longitudes span 360
    degrees at most. Source cells with a corner that is nowhere on Earth are left out.
    """

    crs: str
    y_edges: FloatArray
    x_edges: FloatArray
    target_lat_edges: FloatArray
    target_lon_edges: FloatArray

    def __post_init__(self) -> None:
        """Check the edges, as `check_edges`."""
        check_edges({name: edges for name, edges in vars(self).items() if name != "crs"})

    def __call__(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the means over the target's cells.

        Args:
          values: (..., y, x), NaN where missing.

        Returns:
          (..., target lat, target lon) means over source cells with values; NaN where these cover
          less than half of the target cell's area.
        """
        return covered_means(values, self._shape, self._summed)

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.target_lat_edges) - 1, len(self.target_lon_edges) - 1

    def _summed(self, field: FloatArray) -> FloatArray:
        return np.asarray(self._shares @ field.ravel()).reshape(self._shape)

    @functools.cached_property
    def _shares(self) -> scipy.sparse.csr_array[np.float64]:
        """(target cell, source cell) share of a target cell's area that is in a source cell."""
        ny, nx = len(self.y_edges) - 1, len(self.x_edges) - 1
        target = _Rectangles(self.target_lat_edges, self.target_lon_edges)
        to_metres = pyproj.Transformer.from_crs(self.crs, EQUAL_AREA_CRS, always_xy=True)
        none = np.empty(0, np.int64)
        parts: list[Part] = [(none, none, np.empty(0))]
        step = max(1, _CELLS_PER_BATCH // nx)
        for first in range(0, ny, step):
            grid = np.meshgrid(self.x_edges, self.y_edges[first : first + step + 1])
            corners = _quadrilaterals(np.stack(to_metres.transform(*grid), -1))
            on_earth = np.isfinite(corners).all((1, 2))
            cell = np.flatnonzero(on_earth) + first * nx
            parts += target.parts(corners[on_earth], cell)
        row, col, area = (np.concatenate(p) for p in zip(*parts, strict=True))
        share = area / target.areas[row]
        shares = scipy.sparse.csr_array((share, (row, col)), (len(target.areas), ny * nx))
        shares.eliminate_zeros()
        return shares


def projected_extent(
    crs: str, lat_edges: npt.ArrayLike, lon_edges: npt.ArrayLike
) -> tuple[float, float, float, float]:
    """Return the extent of a box of latitude and longitude in a map projection.

    The sides of the box are curves in the projection, so many points along them are transformed.
    For a continent the result is accurate to about a metre. The source cells that touch it cover
    the box.

    Args:
      crs: Coordinate reference system, in any form that PROJ accepts.
      lat_edges: (...) degrees north, at least the edges of the box.
      lon_edges: (...) degrees east, at least the edges of the box.

    Returns:
      x_min, y_min, x_max, y_max in units of crs.

    Raises:
      ValueError: If no part of the box can be transformed to crs.
    """
    (south, north), (west, east) = ((np.min(e), np.max(e)) for e in (lat_edges, lon_edges))
    transformer = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    parts = []
    for n_lat, n_lon in (
        (_POINTS_ALONG_EDGE, 2),
        (2, _POINTS_ALONG_EDGE),
        (_POINTS_INSIDE, _POINTS_INSIDE),
    ):
        lon, lat = np.meshgrid(np.linspace(west, east, n_lon), np.linspace(south, north, n_lat))
        xy = np.stack(transformer.transform(lon, lat), -1).reshape(-1, 2)
        parts.append(xy[np.isfinite(xy).all(1)])
    points = np.concatenate(parts)
    if not len(points):
        raise ValueError(f"no part of {south} to {north} N, {west} to {east} E is in {crs[:60]}")
    (x_min, y_min), (x_max, y_max) = points.min(0).tolist(), points.max(0).tolist()
    return x_min, y_min, x_max, y_max


def _quadrilaterals(xy: FloatArray) -> FloatArray:
    """Return the (cell, 4, 2) corners of cells, in cyclic order, from (y + 1, x + 1, 2) nodes."""
    corners = (xy[:-1, :-1], xy[:-1, 1:], xy[1:, 1:], xy[1:, :-1])
    return np.stack(corners, 2).reshape(-1, 4, 2)


class _Rectangles:
    """The target's cells in EPSG:6933, and the areas that they share with quadrilaterals.

    Attributes:
      turn: Width of the whole Earth in metres.
      x, y: Edges in metres, increasing.
      backward: Whether the target's rows and columns are in decreasing order of y and x.
      shape: Number of rows and columns.
      areas: (cell,) area in m2.
    """

    def __init__(self, lat_edges: FloatArray, lon_edges: FloatArray) -> None:
        self.turn = 4 * float(project(0.0, 90.0)[0])
        y = project(np.clip(lat_edges, -90, 90), 0.0)[1]
        x = np.asarray(lon_edges, float) * (self.turn / 360)
        self.backward = y[0] > y[-1], x[0] > x[-1]
        self.y, self.x = np.sort(y), np.sort(x)
        self.shape = len(y) - 1, len(x) - 1
        self.areas = np.abs(np.outer(np.diff(y), np.diff(x))).ravel()

    def parts(self, corners: FloatArray, cell: IntArray) -> Iterator[Part]:
        """Yield the areas that quadrilaterals share with rectangles.

        Longitudes are periodic, so the quadrilaterals are shifted by whole turns of the Earth.

        Args:
          corners: (cell, 4, 2) x and y in metres; x is changed in place.
          cell: (cell,) index of the source cell.
        """
        if not len(corners):
            return
        x = corners[..., 0]
        # The corners of a cell across the antimeridian are brought to the same side of it.
        x -= self.turn * np.round((x - x[:, :1]) / self.turn)
        first = np.floor((self.x[0] - x.max()) / self.turn)
        last = np.ceil((self.x[-1] - x.min()) / self.turn)
        for distance in np.arange(first, last + 1) * self.turn:
            shift = np.array([distance, 0.0])
            low, high = corners.min(1) + shift, corners.max(1) + shift
            overlaps = (low < [self.x[-1], self.y[-1]]) & (high > [self.x[0], self.y[0]])
            some = overlaps.all(1)
            if some.any():
                yield from self._shared(corners[some] + shift, cell[some], low[some], high[some])

    def _shared(
        self, corners: FloatArray, cell: IntArray, low: FloatArray, high: FloatArray
    ) -> Iterator[Part]:
        """Yield the areas of quadrilaterals inside one rectangle, then those of all others.

        Args:
          corners: (cell, 4, 2) x and y in metres.
          cell: (cell,) index of the source cell.
          low: (cell, 2) smallest x and y.
          high: (cell, 2) largest x and y.
        """
        first: list[IntArray] = []  # row and column of the first rectangle, from the south-west
        last: list[IntArray] = []
        within = np.ones(len(cell), bool)
        for edges, start, end in ((self.y, low[:, 1], high[:, 1]), (self.x, low[:, 0], high[:, 0])):
            first.append(np.searchsorted(edges, start, side="right") - 1)
            last.append(np.searchsorted(edges, end, side="left") - 1)
            within &= (first[-1] >= 0) & (last[-1] < len(edges) - 1)
            first[-1], last[-1] = np.maximum(first[-1], 0), np.minimum(last[-1], len(edges) - 2)
        in_one = within & (first[0] == last[0]) & (first[1] == last[1])
        yield self._index(first[0][in_one], first[1][in_one]), cell[in_one], _area(corners[in_one])
        cut = ~in_one
        if cut.any():
            spans = [(a[cut], b[cut]) for a, b in zip(first, last, strict=True)]
            yield self._cut(corners[cut], cell[cut], spans, within[cut])

    def _cut(
        self,
        corners: FloatArray,
        cell: IntArray,
        spans: list[tuple[IntArray, IntArray]],
        within: npt.NDArray[np.bool_],
    ) -> Part:
        """Return the areas of quadrilaterals that are cut along the edges of rectangles.

        Args:
          corners: (cell, 4, 2) x and y in metres.
          cell: (cell,) index of the source cell.
          spans: First and last row, and first and last column, that each quadrilateral is over.
          within: (cell,) whether the rectangles cover the whole quadrilateral.
        """
        import shapely

        (row_0, row_1), (col_0, col_1) = spans
        width = col_1 - col_0 + 1
        count = (row_1 - row_0 + 1) * width
        # Each quadrilateral is repeated once for every rectangle that it may overlap.
        owner = np.repeat(np.arange(len(cell)), count)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        row, col = row_0[owner] + nth // width[owner], col_0[owner] + nth % width[owner]
        # The last rectangle gets the remaining area: this is faster, and the sum is exact.
        last = within[owner] & (nth == count[owner] - 1)
        r, c, shape = row[~last], col[~last], shapely.polygons(corners)[owner[~last]]
        boxes = shapely.box(self.x[c], self.y[r], self.x[c + 1], self.y[r + 1])
        area = np.zeros(len(owner))
        area[~last] = shapely.area(shapely.intersection(shape, boxes))
        assigned = np.bincount(owner, area, len(cell))
        area[last] = np.maximum(_area(corners) - assigned, 0)[owner[last]]
        return self._index(row, col), cell[owner], area

    def _index(self, row: IntArray, col: IntArray) -> IntArray:
        """Return the target's index of rectangles, from row and column from the south-west."""
        rows_backward, cols_backward = self.backward
        (ny, nx) = self.shape
        target_row = ny - 1 - row if rows_backward else row
        target_col = nx - 1 - col if cols_backward else col
        return target_row * nx + target_col


def _area(corners: FloatArray) -> FloatArray:
    """Return the (cell,) area of (cell, 4, 2) quadrilaterals.

    It is half the cross product of the diagonals.
    """
    a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    return np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
