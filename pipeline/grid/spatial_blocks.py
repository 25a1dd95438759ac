"""Dealing sites into folds: spatial blocks that are never split, balance, and buffers."""

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
    """Label each site with the square of whole footprints that holds it.

    Blocks are anchored to the global M36 grid, not to the window: a site keeps its block when the
    domain grows. They are squares on the grid's equal-area plane and end at the antimeridian.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      block_km: side of a block, rounded to a whole number of footprints, at least one.
      offset: footprints (down, right) by which the blocks are shifted, for another layout.

    Returns:
      (site,) label; sites share it exactly where they share a block.
    """
    if not 0 < block_km < np.inf:
        raise ValueError(f"block_km {block_km}, expected a positive number of km")
    row, col = ease.footprint_position(lat, lon)
    lost = np.flatnonzero(~np.isfinite(row))
    if lost.size:
        raise ValueError(f"sites {lost[:10].tolist()} ({lost.size} in all) have no place on Earth")
    side = max(1, round(block_km * 1000 / ease.FOOTPRINT_SIZE_M))
    down, right = offset[0] % side, offset[1] % side
    # One side is added so that no label is negative, poleward of the grid's end either.
    block_row = (np.floor(row).astype(np.int64) - down + side) // side
    block_col = (np.floor(col).astype(np.int64) - right + side) // side
    return np.asarray(block_row * (ease.FOOTPRINT_COLS + 2) + block_col)


def deal(labels: npt.ArrayLike, n_folds: int, seed: int) -> ease.IntArray:
    """Deal whole blocks into folds of about equally many sites.

    Shuffled blocks are dealt largest first, each to the fold that is smallest so far, so fold
    sizes differ by at most the largest block and no fold is empty.

    Args:
      labels: (site,) block of each site.
      n_folds: number of folds, at most the number of blocks.
      seed: of the shuffle.

    Returns:
      (site,) fold in [0, n_folds).
    """
    blocks, block_of_site, sizes = np.unique(
        np.asarray(labels), return_inverse=True, return_counts=True
    )
    if not 1 <= n_folds <= len(blocks):
        raise ValueError(
            f"n_folds {n_folds} with {len(blocks)} blocks that hold a site, expected "
            f"1 <= n_folds <= {len(blocks)}: choose a smaller block_km or fewer n_folds"
        )
    shuffled = np.random.default_rng(seed).permutation(len(blocks))
    return _evenly(shuffled, sizes, n_folds)[block_of_site]


def random_folds(
    n_sites: int, n_folds: int, seed: int, place: npt.ArrayLike | None = None
) -> ease.IntArray:
    """Deal sites into folds of about equally many, those of one place together.

    Args:
      n_sites: number of sites.
      n_folds: number of folds, at most the number of places.
      seed: of the shuffle.
      place: (site,) label of the place of each site; None where all are apart.

    Returns:
      (site,) fold in [0, n_folds); sizes differ by at most the number of sites of one place.
    """
    labels = np.arange(n_sites) if place is None else np.asarray(place)
    _, place_of_site, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not 1 <= n_folds <= len(sizes):
        apart = "sites" if len(sizes) == n_sites else f"sites at {len(sizes)} places"
        raise ValueError(
            f"n_folds {n_folds} with {n_sites} {apart}, expected 1 <= n_folds <= {len(sizes)}"
        )
    shuffled = np.argsort(np.random.default_rng(seed).permutation(len(sizes)))
    return _evenly(shuffled, sizes, n_folds)[place_of_site]


def _evenly(shuffled: ease.IntArray, sizes: ease.IntArray, n_folds: int) -> ease.IntArray:
    """(group,) fold of groups of sites: the largest first, each to the smallest fold so far."""
    fold = np.empty(len(sizes), np.int64)
    n_sites = np.zeros(n_folds, np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        smallest = n_sites.argmin()
        fold[group] = smallest
        n_sites[smallest] += sizes[group]
    return fold


def joined(labels: npt.ArrayLike, place: npt.ArrayLike) -> ease.IntArray:
    """Join blocks that share a place, so that no place lies in two of them.

    Args:
      labels: (site,) block of each site.
      place: (site,) label of the place of each site.

    Returns:
      (site,) the lowest label of the blocks that are joined; where no place lies in two blocks,
      the labels as they are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, block = np.unique(np.asarray(labels), return_inverse=True)
    _, at = np.unique(np.asarray(place), return_inverse=True)
    n, links = len(names), np.ones(len(block), np.int8)
    graph = coo_array((links, (block, n + at)), (n + len(at), n + len(at)))
    _, component = connected_components(graph, directed=False)
    _, first, which = np.unique(component[:n], return_index=True, return_inverse=True)
    return np.asarray(names[first[which]][block], np.int64)


def buffer_mask(
    lat: npt.ArrayLike,
    lon: npt.ArrayLike,
    fold: npt.ArrayLike,
    k: int,
    buffer_km: float,
    place: npt.ArrayLike | None = None,
) -> BoolArray:
    """Find the training sites of fold k that lie too near to one of its held-out sites.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      fold: (site,) fold of each site; training sites of fold k are those of all other folds.
      k: the held-out fold.
      buffer_km: sites nearer than this by great circle are dropped; 0 drops none.
      place: (site,) label of the place of each site; a site at the place of a held-out one is
        dropped whatever the buffer. None where all are apart.

    Returns:
      (site,) True where a training site must be dropped; False at the held-out sites themselves.
    """
    held_out = np.asarray(fold) == k
    if not held_out.any():
        raise ValueError(f"fold {k} holds no site, expected one of {np.unique(fold).tolist()}")
    lat_deg, lon_deg = np.asarray(lat, float), np.asarray(lon, float)
    _, distance_km = lookup.find_nearest(lat_deg, lon_deg, lat_deg[held_out], lon_deg[held_out])
    near = distance_km < buffer_km
    if place is not None:
        at = np.asarray(place)
        near |= np.isin(at, at[held_out])
    return np.asarray(~held_out & near)


def spread(labels: npt.ArrayLike, n: int, seed: int = 0) -> ease.IntArray:
    """Draw n places so that every block has its share of them.

    Args:
      labels: (place,) block of each place.
      n: places wanted, at most all.
      seed: of the draw.

    Returns:
      (n,) places in order; a block of share s of all places has s n of them, rounded.
    """
    _, block = np.unique(np.asarray(labels), return_inverse=True)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(block))
    by_block = shuffled[np.argsort(block[shuffled], kind="stable")]
    # An even step along the places block by block, each block's in random order.
    step = (np.arange(n) + rng.random()) * len(block) / n
    return np.sort(by_block[step.astype(np.int64)])
