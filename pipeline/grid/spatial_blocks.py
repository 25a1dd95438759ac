"""Assign sites to folds of spatial cross-validation: blocks that are never split, and buffers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.grid import ease, lookup

BoolArray = npt.NDArray[np.bool_]


def block_labels(
    lat: npt.ArrayLike,
    lon: npt.ArrayLike,
    block_km: float,
    offset: tuple[int, int] = (0, 0),
) -> ease.IntArray:
    """Label each site with the block of footprints that contains it.

    Blocks are squares in the plane of EASE-Grid 2.0 and end at the antimeridian. They start at the
    corner of the global M36 grid, so a site keeps its block when the domain changes.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      block_km: Side of a block in km, rounded to a whole number of footprints, at least one.
      offset: Number of footprints (down, right) by which the blocks are shifted.

    Returns:
      (site,) label of the block.

    Raises:
      ValueError: If block_km is not positive, or a position is not finite.
    """
    if not 0 < block_km < np.inf:
        raise ValueError(f"block_km {block_km}, expected a positive number of km")
    row, col = ease.footprint_position(lat, lon)
    invalid = np.flatnonzero(~np.isfinite(row))
    if invalid.size:
        raise ValueError(
            f"{invalid.size} sites have no valid latitude and longitude, "
            f"among them those with index {invalid[:10].tolist()}"
        )
    side = max(1, round(block_km * 1000 / ease.FOOTPRINT_SIZE_M))
    down, right = offset[0] % side, offset[1] % side
    # One side is added so that labels are not negative, even poleward of the grid.
    block_row = (np.floor(row).astype(np.int64) - down + side) // side
    block_col = (np.floor(col).astype(np.int64) - right + side) // side
    return np.asarray(block_row * (ease.FOOTPRINT_COLS + 2) + block_col)


def assign_blocks(labels: npt.ArrayLike, n_folds: int, seed: int) -> ease.IntArray:
    """Assign whole blocks to folds of about equal numbers of sites.

    Blocks are shuffled and sorted by size. Beginning with the largest one, each goes to the fold
    that is smallest so far. Fold sizes differ by at most the largest block, and no fold is empty.

    Args:
      labels: (site,) block of each site.
      n_folds: Number of folds, at most the number of blocks.
      seed: Seed of the shuffle.

    Returns:
      (site,) fold in [0, n_folds).

    Raises:
      ValueError: If there are fewer blocks than folds.
    """
    blocks, block_of_site, sizes = np.unique(
        np.asarray(labels), return_inverse=True, return_counts=True
    )
    if not 1 <= n_folds <= len(blocks):
        several = f"{len(blocks)} blocks that contain sites"
        found = "all sites in one block" if len(blocks) == 1 else several
        raise ValueError(
            f"n_folds {n_folds} with {found}, expected "
            f"1 <= n_folds <= {len(blocks)}: choose a smaller block_km or a smaller n_folds, as "
            "with --set folds.block_km=36, or single places: --set folds.kind=random"
        )
    shuffled = np.random.default_rng(seed).permutation(len(blocks))
    return _assign_evenly(shuffled, sizes, n_folds)[block_of_site]


def assign_random_folds(
    n_sites: int, n_folds: int, seed: int, place: npt.ArrayLike | None = None
) -> ease.IntArray:
    """Assign sites to folds of about equal size at random, those of one place together.

    Args:
      n_sites: Number of sites.
      n_folds: Number of folds, at most the number of places.
      seed: Seed of the shuffle.
      place: (site,) label of the place of each site; None if every site is its own place.

    Returns:
      (site,) fold in [0, n_folds); sizes differ by at most the number of sites of one place.

    Raises:
      ValueError: If there are fewer places than folds.
    """
    labels = np.arange(n_sites) if place is None else np.asarray(place)
    _, place_of_site, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not 1 <= n_folds <= len(sizes):
        sites = "sites" if len(sizes) == n_sites else f"sites at {len(sizes)} places"
        raise ValueError(
            f"n_folds {n_folds} with {n_sites} {sites}, expected 1 <= n_folds <= {len(sizes)}"
        )
    shuffled = np.argsort(np.random.default_rng(seed).permutation(len(sizes)))
    return _assign_evenly(shuffled, sizes, n_folds)[place_of_site]


def _assign_evenly(shuffled: ease.IntArray, sizes: ease.IntArray, n_folds: int) -> ease.IntArray:
    """Assign groups of sites to folds: the largest group first, each to the smallest fold so far.

    Args:
      shuffled: (group,) order of groups of the same size.
      sizes: (group,) number of sites.
      n_folds: Number of folds.

    Returns:
      (group,) fold.
    """
    fold = np.empty(len(sizes), np.int64)
    n_sites = np.zeros(n_folds, np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        smallest = n_sites.argmin()
        fold[group] = smallest
        n_sites[smallest] += sizes[group]
    return fold


def merge_blocks(labels: npt.ArrayLike, place: npt.ArrayLike) -> ease.IntArray:
    """Merge blocks that have a place in common.

    Args:
      labels: (site,) block of each site.
      place: (site,) label of the place of each site.

    Returns:
      (site,) the lowest label of the merged blocks. The labels do not change if no place is in two
      blocks.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, block = np.unique(np.asarray(labels), return_inverse=True)
    _, place_index = np.unique(np.asarray(place), return_inverse=True)
    # The nodes of the graph are the blocks, followed by the places.
    n, links = len(names), np.ones(len(block), np.int8)
    n_nodes = n + len(place_index)
    graph = coo_array((links, (block, n + place_index)), (n_nodes, n_nodes))
    _, component = connected_components(graph, directed=False)
    _, first, merged = np.unique(component[:n], return_index=True, return_inverse=True)
    return np.asarray(names[first[merged]][block], np.int64)


def select_buffer(
    lat: npt.ArrayLike,
    lon: npt.ArrayLike,
    fold: npt.ArrayLike,
    k: int,
    buffer_km: float,
    place: npt.ArrayLike | None = None,
) -> BoolArray:
    """Select the training sites of fold k that are too near to one of its held-out sites.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      fold: (site,) fold of each site; the training sites of fold k are those of all other folds.
      k: The fold.
      buffer_km: Sites at a smaller great-circle distance than this are dropped; 0 drops none.
      place: (site,) label of the place of each site; a site at the place of a held-out site is
        always dropped. None if every site is its own place.

    Returns:
      (site,) True for training sites to drop; False for the held-out sites themselves.

    Raises:
      ValueError: If no site is in fold k.
    """
    held_out = np.asarray(fold) == k
    if not held_out.any():
        raise ValueError(f"fold {k} has no sites, expected one of {np.unique(fold).tolist()}")
    lat_deg, lon_deg = np.asarray(lat, float), np.asarray(lon, float)
    _, distance_km = lookup.find_nearest(lat_deg, lon_deg, lat_deg[held_out], lon_deg[held_out])
    near = distance_km < buffer_km
    if place is not None:
        label = np.asarray(place)
        near |= np.isin(label, label[held_out])
    return np.asarray(~held_out & near)


def draw_by_block(labels: npt.ArrayLike, n: int, seed: int = 0) -> ease.IntArray:
    """Draw n places at random, from each block in proportion to its number of places.

    Args:
      labels: (place,) block of each place.
      n: Number of places to draw, at most all.
      seed: Seed of the draw.

    Returns:
      (n,) sorted indices of places; a block with share s of all places has s n of them, rounded.
    """
    _, block = np.unique(np.asarray(labels), return_inverse=True)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(block))
    by_block = shuffled[np.argsort(block[shuffled], kind="stable")]
    # Systematic sampling: equal steps along the places, which are sorted by block and otherwise in
    # random order.
    step = (np.arange(n) + rng.random()) * len(block) / n
    return np.sort(by_block[step.astype(np.int64)])
