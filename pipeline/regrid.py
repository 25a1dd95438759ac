"""Conservative regridding between rectilinear grids of latitude and longitude.

EASE-Grid 2.0 is cylindrical: every row has one latitude and every column one longitude, so what
two cells share is what their rows share times what their columns share, and W_y F W_x^T, with two
small sparse matrices, regrids a field F.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]
    Shares = scipy.sparse.csr_array[np.float64]

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
