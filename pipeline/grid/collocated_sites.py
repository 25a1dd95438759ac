"""Twins: sites at one place, whatever they are called and whichever source they come from.

Two sites are twins where they are nearer than SAME_KM, or where they share a cell and take their
inputs from it. A place is all sites that are connected by such pairs. No model may be judged at a
site while it has learnt from a twin of it.
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


SAME_KM = 1.0
SHOWN = 5  # pairs that one line of text names
REMEDY = "qc.duplicate_sites: longest, or mean, makes them one site"
AT_ONCE = 256  # pairs whose records are held at once


class Twins(NamedTuple):
    """Pairs of sites at one place, nearest first.

    `pair` (pair, 2) has the indices of both sites, the lower first; `km` (pair,) is the
    great-circle distance between them.
    """

    pair: IntArray
    km: FloatArray


def find(lat: FloatArray, lon: FloatArray, cell: IntArray | None = None) -> Twins:
    """Find all pairs of sites that are nearer than SAME_KM, or in one cell.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      cell: (site,) number of the cell that holds each site, negative for none; None where sharing
        a cell does not make twins.
    """
    pair = lookup.pairs_within(SAME_KM, lat, lon)
    if cell is not None:
        pair = np.concatenate([pair, _in_one_cell(np.asarray(cell))])
    pair = np.unique(np.sort(pair, 1), axis=0)
    a, b = pair.T
    km = lookup.great_circle_km(lat[a], lon[a], lat[b], lon[b])
    order = np.argsort(km, kind="stable")
    return Twins(pair[order], km[order])


def numbered(window: ease.Window, lat: FloatArray, lon: FloatArray) -> IntArray:
    """(site,) number of the cell of a window that holds each site, -1 for none."""
    y, x = window.cells_of(lat, lon)
    return np.asarray(np.where(y < 0, -1, y * window.cell_shape[1] + x))


def places(n_sites: int, twins: Twins) -> IntArray:
    """(site,) the place of each site: the index of the first site there.

    Pairs are followed from site to site; a site without a twin is its own place.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = np.ones(len(twins.pair), np.int8), tuple(twins.pair.T)
    graph = coo_array(links, (n_sites, n_sites))
    _, label = connected_components(graph, directed=False)
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return np.asarray(first[number], np.int64)


def elsewhere(place: IntArray, fold: IntArray, k: int) -> NDArray[np.bool_]:
    """(site,) whether a site is in another fold than k, and at another place than any of fold k.

    Args:
      place: (site,) label of the place of each site.
      fold: (site,) fold of each site.
      k: a fold.
    """
    here = fold == k
    return np.asarray(~here & ~np.isin(place, place[here]))


def described(
    twins: Twins, ids: Sequence[str], values: NDArray[np.float32], days: NDArray[np.datetime64]
) -> list[Json]:
    """What a manifest says of each pair.

    Args:
      twins: the pairs.
      ids: (site,) ids.
      values: (time, site) the target.
      days: (time,) its days.

    Returns:
      by pair: `sites`, `km`, `days` (that both have), and `correlation`, None where it is not
      defined.
    """
    made: list[Json] = []
    for start in range(0, len(twins.pair), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        first, second = (values[:, side].T for side in twins.pair[part].T)
        scored = metrics.scores(first, second, days)
        r = [float(value) if np.isfinite(value) else None for value in scored["correlation"]]
        found = twins.pair[part].tolist(), twins.km[part].tolist(), scored["n"].tolist(), r
        made += [
            {"sites": [ids[a], ids[b]], "km": round(km, 3), "days": n, "correlation": value}
            for (a, b), km, n, value in zip(*found, strict=True)
        ]
    return made


def told(pair: Json) -> str:
    """One pair of `described` as people read it."""
    first, second = pair["sites"]
    r = pair["correlation"]
    shown = "no common days" if not pair["days"] else "r undefined" if r is None else f"r {r:.2f}"
    return f"{first} and {second}: {pair['km']:.2f} km, {shown}"


def line(pairs: Sequence[Json]) -> str:
    """All pairs of `described` in one line: the nearest ones, and how many more there are."""
    more = f"; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return "; ".join(map(told, pairs[:SHOWN])) + more


def _in_one_cell(cell: IntArray) -> IntArray:
    """(pair, 2) every two sites of one cell; a negative number is no cell."""
    order = np.argsort(cell, kind="stable")
    order = order[cell[order] >= 0]
    _, start = np.unique(cell[order], return_index=True)
    groups = (group for group in np.split(order, start[1:]) if len(group) > 1)
    made = [group[np.stack(np.triu_indices(len(group), 1), 1)] for group in groups]
    return np.concatenate([np.zeros((0, 2), np.int64), *made])
