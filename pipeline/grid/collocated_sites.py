"""Find collocated sites: sites at one place under different ids or from different sources.

Two sites are twins if they are nearer than SAME_KM, or if they are in the same cell and take their
inputs from it. A place consists of all sites that are connected by such pairs. A model must not be
evaluated at a site if it was trained on a twin of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model import metrics
from pipeline.grid import ease, lookup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.files import Json
    from pipeline.grid.ease import FloatArray, IntArray


TWIN_KM = 1.0
MAX_PAIRS_NAMED = 5  # largest number of pairs in a message
TWINS_HINT = "set qc.duplicate_sites to longest or mean to make them one site"
PAIRS_PER_BATCH = 256  # number of pairs whose records are in memory at a time


class Twins(NamedTuple):
    """Pairs of collocated sites, nearest first.

    Attributes:
      pair: (pair, 2) indices of the two sites, the lower one first.
      km: (pair,) great-circle distance between them.
    """

    pair: IntArray
    km: FloatArray


def find_twins(lat: FloatArray, lon: FloatArray, cell: IntArray | None = None) -> Twins:
    """Find all pairs of sites that are nearer than SAME_KM or in the same cell.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      cell: (site,) number of the cell that contains each site, negative for none; None if sites in
        the same cell are not twins.
    """
    pair = lookup.pairs_within(TWIN_KM, lat, lon)
    if cell is not None:
        pair = np.concatenate([pair, _pairs_in_one_cell(np.asarray(cell))])
    pair = np.unique(np.sort(pair, 1), axis=0)
    a, b = pair.T
    km = lookup.great_circle_km(lat[a], lon[a], lat[b], lon[b])
    order = np.argsort(km, kind="stable")
    return Twins(pair[order], km[order])


def cell_numbers(window: ease.Window, lat: FloatArray, lon: FloatArray) -> IntArray:
    """Return the (site,) number of the cell of a window that contains each site; -1 for none."""
    y, x = window.cells_of(lat, lon)
    return np.asarray(np.where(y < 0, -1, y * window.cell_shape[1] + x))


def label_places(n_sites: int, twins: Twins) -> IntArray:
    """Label sites by place.

    Pairs are followed from site to site. A site without a twin is its own place.

    Returns:
      (site,) index of the first site at the same place.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.ones(len(twins.pair), np.int8), tuple(twins.pair.T)
    graph = coo_array(links, (n_sites, n_sites))
    _, label = connected_components(graph, directed=False)
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return np.asarray(first[number], np.int64)


def select_elsewhere(place: IntArray, fold: IntArray, k: int) -> NDArray[np.bool_]:
    """Select the sites that are neither in fold k nor at the place of a site of fold k.

    Args:
      place: (site,) label of the place of each site.
      fold: (site,) fold of each site.
      k: The fold.

    Returns:
      (site,) True for the selected sites.
    """
    in_fold = fold == k
    return np.asarray(~in_fold & ~np.isin(place, place[in_fold]))


def describe_twins(
    twins: Twins, ids: Sequence[str], values: NDArray[np.float32], days: NDArray[np.datetime64]
) -> list[Json]:
    """Describe each pair, as stored in the manifest.

    Args:
      twins: The pairs.
      ids: (site,) ids.
      values: (time, site) the target.
      days: (time,) its days.

    Returns:
      For each pair: the ids of its `sites`; the distance in `km`; the number of `days` on which
      both have values; and their `correlation`, None if it is not defined.
    """
    descriptions: list[Json] = []
    for start in range(0, len(twins.pair), PAIRS_PER_BATCH):
        part = slice(start, start + PAIRS_PER_BATCH)
        first, second = (values[:, side].T for side in twins.pair[part].T)
        scored = metrics.scores(first, second, days)
        r = [float(value) if np.isfinite(value) else None for value in scored["correlation"]]
        columns = twins.pair[part].tolist(), twins.km[part].tolist(), scored["n"].tolist(), r
        descriptions += [
            {"sites": [ids[a], ids[b]], "km": round(km, 3), "days": n, "correlation": value}
            for (a, b), km, n, value in zip(*columns, strict=True)
        ]
    return descriptions


def format_pair(pair: Json) -> str:
    """Format one pair of `described` for a message."""
    first, second = pair["sites"]
    r = pair["correlation"]
    if not pair["days"]:
        agreement = "no common days"
    else:
        agreement = "r undefined" if r is None else f"r {r:.2f}"
    return f"{first} and {second}: {pair['km']:.2f} km, {agreement}"


def format_pairs(pairs: Sequence[Json]) -> str:
    """Format pairs of `described` in one line: the nearest ones, and how many more there are."""
    more = f"; and {len(pairs) - MAX_PAIRS_NAMED} more" if len(pairs) > MAX_PAIRS_NAMED else ""
    return "; ".join(map(format_pair, pairs[:MAX_PAIRS_NAMED])) + more


def _pairs_in_one_cell(cell: IntArray) -> IntArray:
    """Return the (pair, 2) indices of all pairs of sites in the same cell.

    Args:
      cell: (site,) number of the cell of each site, negative for none.
    """
    order = np.argsort(cell, kind="stable")
    order = order[cell[order] >= 0]
    _, start = np.unique(cell[order], return_index=True)
    groups = (group for group in np.split(order, start[1:]) if len(group) > 1)
    pairs = [group[np.stack(np.triu_indices(len(group), 1), 1)] for group in groups]
    return np.concatenate([np.zeros((0, 2), np.int64), *pairs])
