"""Folds whose held-out sites are as far from the training sites as the map's cells are from sites.

This is k-fold nearest neighbour distance matching (kNNDM; Linnenbrink et al. 2024, Geosci. Model
Dev. 17, 5897-5912). Scores at held-out sites then stand for the error of the map, whatever the
pattern of the sites: with clustered sites, random folds would be too easy, and large blocks might
be too hard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.grid import lookup, spatial_blocks

if TYPE_CHECKING:
    from pipeline.grid.lookup import FloatArray, IntArray, Places
    from pipeline.grid.spatial_blocks import BoolArray


MAX_CELLS = 2000  # cells whose distances to the sites are matched, evenly spread
SIGNIFICANCE = 0.05  # of the test of whether sites are clustered
CANDIDATES = 100  # numbers of clusters that are tried, at most


def sample_cells(mask: BoolArray, lat: FloatArray, lon: FloatArray) -> Places:
    """Return latitude and longitude (cell,) of an even sample of the cells to be mapped.

    Args:
      mask: (y, x) whether a cell is mapped.
      lat: (y,) degrees north.
      lon: (x,) degrees east.
    """
    row, col = np.nonzero(mask)
    some = np.linspace(0, len(row) - 1, min(MAX_CELLS, len(row))).astype(np.int64)
    return lat[row[some]], lon[col[some]]


def distances_to_others(lat: FloatArray, lon: FloatArray, fold: IntArray) -> FloatArray:
    """Return the (site,) great-circle distance in km to the nearest site of another fold.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      fold: (site,) fold; at least two of them.
    """
    distance = np.empty(len(lat))
    for k in np.unique(fold):
        inside = fold == k
        where = lat[inside], lon[inside], lat[~inside], lon[~inside]
        distance[inside] = lookup.find_nearest(*where)[1]
    return distance


def match_distances(
    sites: Places, cells: Places, n_folds: int, seed: int, place: IntArray
) -> IntArray:
    """Assign sites to folds so that their distances match those from the map's cells to the sites.

    If sites are not clustered (a one-sided Kolmogorov-Smirnov test of both kinds of distances),
    folds are random. Otherwise sites are clustered by Ward's method, into many or into few
    clusters, which are dealt to the folds along their first principal axis. Of all numbers of
    clusters, the one is used whose distances between held-out and training sites have the smallest
    Wasserstein distance from those between cells and sites.

    Args:
      sites: Latitude and longitude (site,) in degrees.
      cells: Latitude and longitude (cell,) of the cells to be mapped.
      n_folds: Number of folds, at most the number of places.
      seed: Seed of random folds.
      place: (site,) label of the place of each site, whose sites are in the same fold.

    Returns:
      (site,) fold in [0, n_folds).

    Raises:
      ValueError: If there are fewer places than folds, or if no clusters fit into the folds.
    """
    from scipy import stats

    random = spatial_blocks.assign_random_folds(len(place), n_folds, seed, place)
    _, first, place_of_site = np.unique(place, return_index=True, return_inverse=True)
    lat, lon = sites[0][first], sites[1][first]
    wanted = lookup.find_nearest(*cells, lat, lon)[1]
    between_sites = distances_to_others(lat, lon, np.arange(len(lat)))
    # The alternative is that distances between sites are smaller.
    test = stats.ks_2samp(between_sites, wanted, alternative="greater")
    if test.pvalue >= SIGNIFICANCE:
        return random
    candidates = _clustered_folds(lookup.unit_vectors(lat, lon), n_folds)
    differences = [
        stats.wasserstein_distance(distances_to_others(lat, lon, fold), wanted)
        for fold in candidates
    ]
    if not candidates:
        msg = (
            f"n_folds {n_folds}: no clusters of {len(lat)} places can be dealt so that no fold has "
            f"more than {_largest_share(n_folds):.0%} of them; choose more folds, or another kind"
        )
        raise ValueError(msg)
    return candidates[int(np.argmin(differences))][place_of_site]


def _largest_share(n_folds: int) -> float:
    """Return the largest share of the places that may be in one fold."""
    return max(0.5, 1.5 / n_folds)


def _clustered_folds(vectors: FloatArray, n_folds: int) -> list[IntArray]:
    """Return folds (place,) of clusters, for each number of clusters that fits into the folds.

    Args:
      vectors: (place, 3) unit vectors of the places.
      n_folds: Number of folds.
    """
    from scipy.cluster.hierarchy import fcluster, linkage

    tree, found = linkage(vectors, "ward"), []
    for n_clusters in _numbers_of_clusters(n_folds, len(vectors)):
        cluster = fcluster(tree, n_clusters, "maxclust").astype(np.int64)
        fold = _deal_clusters(vectors, cluster, n_folds)
        sizes = np.bincount(fold, minlength=n_folds)
        if sizes.min() > 0 and sizes.max() <= _largest_share(n_folds) * len(vectors):
            found.append(fold)
    return found


def _numbers_of_clusters(n_folds: int, n_places: int) -> list[int]:
    """Return the numbers of clusters to try, from one for each fold to one for each place."""
    numbers = np.geomspace(n_folds, n_places, CANDIDATES).round().astype(int)
    return sorted(set(numbers.tolist()))


def _deal_clusters(vectors: FloatArray, cluster: IntArray, n_folds: int) -> IntArray:
    """Deal clusters to folds in turn, in their order along the first principal axis.

    Args:
      vectors: (place, 3) unit vectors of the places.
      cluster: (place,) number of the cluster.
      n_folds: Number of folds.

    Returns:
      (place,) fold.
    """
    _, number = np.unique(cluster, return_inverse=True)
    n = np.bincount(number)
    centres = np.stack([np.bincount(number, axis) / n for axis in vectors.T], axis=1)
    centred = centres - centres.mean(0)
    axis = np.linalg.svd(centred, full_matrices=False)[2][0]
    axis = axis * np.sign(axis[np.abs(axis).argmax()])  # the sign of an axis is arbitrary
    rank = np.argsort(np.argsort(centred @ axis, kind="stable"))
    return np.asarray(rank[number] % n_folds, np.int64)
