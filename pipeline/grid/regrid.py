"""Conservative regridding between rectilinear grids of latitude and longitude.

EASE-Grid 2.0 is cylindrical: every row has one latitude and every column one longitude, so what
two cells share is what their rows share times what their columns share, and W_y F W_x^T, with two
small sparse matrices, regrids a field F.

Conservative regridding from a projected grid to rows of latitude and columns of longitude.

Corners of the source's cells go through PROJ to EPSG:6933, whose areas are true and in which the
target's cells are rectangles. A source cell inside one target cell gives it all of its area;
others are cut along the target's edges. Neighbours share their corners, so nothing is lost or
counted twice. A side is taken as straight there: of a cell 1 km wide it leaves the true line by a
few centimetres, of one 36 km wide by a few tens of metres.
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


LEAST_COVERED = 0.5  # of a cell's area: the rule of footprints, fewer than half valid is none
_ROUNDING = 1e-9


def edges_between(centres: npt.ArrayLike) -> FloatArray:
    """Return the (n + 1,) edges halfway between two or more (n,) centres, in order."""
    centre = np.asarray(centres, float)
    half = np.diff(centre) / 2
    inner = centre[:-1] + half
    return np.concatenate([[centre[0] - half[0]], inner, [centre[-1] + half[-1]]])


def check_edges(named: Mapping[str, FloatArray]) -> None:
    """Check edges of cells, (n + 1,) each, by name; those with `lon` in it are longitudes.

    Raises:
      ValueError: some are not in order, or go round the Earth more than once.
    """
    for name, edges in named.items():
        step = np.diff(edges)
        if len(edges) < 2 or not (np.all(step > 0) or np.all(step < 0)):
            raise ValueError(f"{name}: expected two or more, all increasing or all decreasing")
        if "lon" in name and abs(edges[-1] - edges[0]) > 360 + 1e-3:
            raise ValueError(f"{name}: {edges[0]} to {edges[-1]}: expected 360 degrees at most")


@dataclass(frozen=True, eq=False)
class Regridder:
    """Area-weighted means over the cells of another rectilinear grid, which conserve the total.

    The four are edges (n + 1,) in degrees, increasing or decreasing; longitudes wrap. A cell's
    area is its width in longitude times its width in sin(latitude).
    """

    source_lat_edges: FloatArray
    source_lon_edges: FloatArray
    target_lat_edges: FloatArray
    target_lon_edges: FloatArray

    def __post_init__(self) -> None:
        """Refuse edges that are not in order, or go round the Earth more than once."""
        check_edges(vars(self))

    @functools.cached_property
    def _rows(self) -> Shares:
        edges = (self.source_lat_edges, self.target_lat_edges)
        source, target = (np.sin(np.radians(np.clip(e, -90, 90))) for e in edges)
        return _shares(source, target, 0.0)

    @functools.cached_property
    def _cols(self) -> Shares:
        return _shares(self.source_lon_edges, self.target_lon_edges, 360.0)

    def __call__(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the (..., target lat, target lon) means of (..., source lat, source lon) values.

        Source cells that are NaN are left out; NaN where less than half of a target cell's area
        is covered by source cells with values.
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
    """Return the (..., *shape) means over target cells of (..., row, column) values; see Regridder.

    `summed` gives of a (row, column) field the (*shape) sum of value times share of the target
    cell's area.
    """
    fields = values.reshape(-1, *values.shape[-2:])
    means = np.empty((len(fields), *shape), np.result_type(values.dtype, np.float32))
    last: npt.NDArray[np.bool_] | None = None
    for field, mean in zip(fields, means, strict=True):
        valid = np.isfinite(field)
        if last is None or not np.array_equal(valid, last):  # mostly the same day after day
            covered = summed(valid.astype(float))
            enough = covered >= LEAST_COVERED - _ROUNDING
            scale = np.divide(1, covered, out=np.full(shape, np.nan), where=enough)
            last = valid
        mean[:] = summed(np.where(valid, field, 0.0)) * scale
    return means.reshape(*values.shape[:-2], *shape)


def _shares(source: FloatArray, target: FloatArray, period: float) -> Shares:
    """(target, source) share of each target interval that lies in each source interval."""
    turns = [0]
    if period:
        first = np.floor((target.min() - source.max()) / period)
        turns = list(range(int(first), int(np.ceil((target.max() - source.min()) / period)) + 1))
    shares = scipy.sparse.csr_array((len(target) - 1, len(source) - 1))
    for turn in turns:
        moved = source + turn * period
        points = np.union1d(moved, target)
        middle = (points[1:] + points[:-1]) / 2
        row, col = _interval_of(middle, target), _interval_of(middle, moved)
        both = (row >= 0) & (col >= 0)
        row, col, length = row[both], col[both], np.diff(points)[both]
        share = length / np.abs(np.diff(target))[row]
        shares = shares + scipy.sparse.csr_array((share, (row, col)), shape=shares.shape)
    return shares


def _interval_of(places: FloatArray, edges: FloatArray) -> IntArray:
    """(place,) index of the interval between two edges that holds each place; -1 for none."""
    n = len(edges) - 1
    index = np.searchsorted(np.sort(edges), places, side="right") - 1
    outside = (index < 0) | (index >= n)
    return np.where(outside, -1, index if edges[0] < edges[-1] else n - 1 - index)


TRUE_AREA = "EPSG:6933"
_CELLS_AT_ONCE = 500_000  # about 200 MB
_ALONG_EDGE, _INSIDE = 2001, 201  # points of a box that `reach` looks at


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
        """Refuse edges that are not in order, or go round the Earth more than once."""
        check_edges({name: edges for name, edges in vars(self).items() if name != "crs"})

    def __call__(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return the (..., target lat, target lon) means of (..., y, x) values.

        Source cells that are NaN are left out; NaN where less than half of a target cell's area
        is covered by source cells with values.
        """
        return covered_means(values, self._shape, self._summed)

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.target_lat_edges) - 1, len(self.target_lon_edges) - 1

    def _summed(self, field: FloatArray) -> FloatArray:
        return np.asarray(self._shares @ field.ravel()).reshape(self._shape)

    @functools.cached_property
    def _shares(self) -> scipy.sparse.csr_array[np.float64]:
        """(target cell, source cell) share of a target cell's area that lies in a source cell."""
        ny, nx = len(self.y_edges) - 1, len(self.x_edges) - 1
        target = _Rectangles(self.target_lat_edges, self.target_lon_edges)
        to_metres = pyproj.Transformer.from_crs(self.crs, TRUE_AREA, always_xy=True)
        none = np.empty(0, np.int64)
        parts: list[Part] = [(none, none, np.empty(0))]
        step = max(1, _CELLS_AT_ONCE // nx)
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


def reach(
    crs: str, lat_edges: npt.ArrayLike, lon_edges: npt.ArrayLike
) -> tuple[float, float, float, float]:
    """Return x_min, y_min, x_max, y_max, in units of crs, of a box in degrees.

    Its sides are followed where they are curved, to a metre or so for a continent: take source
    cells that touch this, and the box is covered.

    Raises:
      ValueError: no part of the box has a place in crs.
    """
    (south, north), (west, east) = ((np.min(e), np.max(e)) for e in (lat_edges, lon_edges))
    transformer = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    found = []
    for n_lat, n_lon in ((_ALONG_EDGE, 2), (2, _ALONG_EDGE), (_INSIDE, _INSIDE)):
        lon, lat = np.meshgrid(np.linspace(west, east, n_lon), np.linspace(south, north, n_lat))
        xy = np.stack(transformer.transform(lon, lat), -1).reshape(-1, 2)
        found.append(xy[np.isfinite(xy).all(1)])
    places = np.concatenate(found)
    if not len(places):
        raise ValueError(f"no part of {south} to {north} N, {west} to {east} E lies in {crs[:60]}")
    (x_min, y_min), (x_max, y_max) = places.min(0).tolist(), places.max(0).tolist()
    return x_min, y_min, x_max, y_max


def _quadrilaterals(xy: FloatArray) -> FloatArray:
    """(cell, 4, 2) corners, one after the other round the cell, of (y + 1, x + 1, 2) nodes."""
    around = (xy[:-1, :-1], xy[:-1, 1:], xy[1:, 1:], xy[1:, :-1])
    return np.stack(around, 2).reshape(-1, 4, 2)


class _Rectangles:
    """The target's cells in EPSG:6933, and what they share with quadrilaterals there."""

    def __init__(self, lat_edges: FloatArray, lon_edges: FloatArray) -> None:
        self.turn = 4 * float(project(0.0, 90.0)[0])  # once round the Earth
        y = project(np.clip(lat_edges, -90, 90), 0.0)[1]
        x = np.asarray(lon_edges, float) * (self.turn / 360)
        self.backward = y[0] > y[-1], x[0] > x[-1]
        self.y, self.x = np.sort(y), np.sort(x)
        self.shape = len(y) - 1, len(x) - 1
        self.areas = np.abs(np.outer(np.diff(y), np.diff(x))).ravel()

    def parts(self, corners: FloatArray, cell: IntArray) -> Iterator[Part]:
        """What these (cell, 4, 2) quadrilaterals share with each rectangle, turn by turn."""
        if not len(corners):
            return
        x = corners[..., 0]
        x -= self.turn * np.round((x - x[:, :1]) / self.turn)  # of a cell across the map's seam
        first = np.floor((self.x[0] - x.max()) / self.turn)
        last = np.ceil((self.x[-1] - x.min()) / self.turn)
        for moved in np.arange(first, last + 1) * self.turn:
            shift = np.array([moved, 0.0])
            low, high = corners.min(1) + shift, corners.max(1) + shift
            over = (low < [self.x[-1], self.y[-1]]) & (high > [self.x[0], self.y[0]])
            here = over.all(1)
            if here.any():
                yield from self._shared(corners[here] + shift, cell[here], low[here], high[here])

    def _shared(
        self, corners: FloatArray, cell: IntArray, low: FloatArray, high: FloatArray
    ) -> Iterator[Part]:
        first: list[IntArray] = []
        last: list[IntArray] = []
        within = np.ones(len(cell), bool)
        for edges, from_, to in ((self.y, low[:, 1], high[:, 1]), (self.x, low[:, 0], high[:, 0])):
            first.append(np.searchsorted(edges, from_, side="right") - 1)
            last.append(np.searchsorted(edges, to, side="left") - 1)
            within &= (first[-1] >= 0) & (last[-1] < len(edges) - 1)
            first[-1], last[-1] = np.maximum(first[-1], 0), np.minimum(last[-1], len(edges) - 2)
        one = within & (first[0] == last[0]) & (first[1] == last[1])
        yield self._index(first[0][one], first[1][one]), cell[one], _area(corners[one])
        cut = ~one
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
        """Quadrilaterals cut along the edges; `spans` are the rows and columns they lie over."""
        import shapely

        (row_0, row_1), (col_0, col_1) = spans
        width = col_1 - col_0 + 1
        count = (row_1 - row_0 + 1) * width
        owner = np.repeat(np.arange(len(cell)), count)
        nth = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
        row, col = row_0[owner] + nth // width[owner], col_0[owner] + nth % width[owner]
        # The last of them gets what the others leave: cheaper, and the sum is the cell's area.
        last = within[owner] & (nth == count[owner] - 1)
        r, c, shape = row[~last], col[~last], shapely.polygons(corners)[owner[~last]]
        boxes = shapely.box(self.x[c], self.y[r], self.x[c + 1], self.y[r + 1])
        area = np.zeros(len(owner))
        area[~last] = shapely.area(shapely.intersection(shape, boxes))
        taken = np.bincount(owner, area, len(cell))
        area[last] = np.maximum(_area(corners) - taken, 0)[owner[last]]
        return self._index(row, col), cell[owner], area

    def _index(self, row: IntArray, col: IntArray) -> IntArray:
        """Index of a rectangle, by row and column from the south-west, in the target's order."""
        down, left = self.backward
        (ny, nx) = self.shape
        return (ny - 1 - row if down else row) * nx + (nx - 1 - col if left else col)


def _area(corners: FloatArray) -> FloatArray:
    """(cell,) area of (cell, 4, 2) quadrilaterals: half the cross product of their diagonals."""
    a, b = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    return np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
