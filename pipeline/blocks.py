"""Dealing sites into folds: spatial blocks that are never split, balance, and buffers."""

import numpy as np
import numpy.typing as npt

from pipeline import grid

BoolArray = npt.NDArray[np.bool_]


def block_labels(
    lat: npt.ArrayLike,
    lon: npt.ArrayLike,
    block_km: float,
    offset: tuple[int, int] = (0, 0),
) -> grid.IntArray:
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
    row, col = grid.footprint_position(lat, lon)
    lost = np.flatnonzero(~np.isfinite(row))
    if lost.size:
        raise ValueError(f"sites {lost[:10].tolist()} ({lost.size} in all) have no place on Earth")
    side = max(1, round(block_km * 1000 / grid.FOOTPRINT_SIZE_M))
    down, right = offset[0] % side, offset[1] % side
    # One side is added so that no label is negative, poleward of the grid's end either.
    block_row = (np.floor(row).astype(np.int64) - down + side) // side
    block_col = (np.floor(col).astype(np.int64) - right + side) // side
    return np.asarray(block_row * (grid.FOOTPRINT_COLS + 2) + block_col)


def deal(labels: npt.ArrayLike, n_folds: int, seed: int) -> grid.IntArray:
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
    fold_of_block = np.empty(len(blocks), np.int64)
    n_sites = np.zeros(n_folds, np.int64)
    for block in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        smallest = n_sites.argmin()
        fold_of_block[block] = smallest
        n_sites[smallest] += sizes[block]
    return fold_of_block[block_of_site]


def random_folds(n_sites: int, n_folds: int, seed: int) -> grid.IntArray:
    """Return a shuffled (site,) fold in [0, n_folds); fold sizes differ by at most one."""
    if not 1 <= n_folds <= n_sites:
        raise ValueError(
            f"n_folds {n_folds} with {n_sites} sites, expected 1 <= n_folds <= {n_sites}"
        )
    dealt = np.arange(n_sites, dtype=np.int64) % n_folds
    return np.random.default_rng(seed).permutation(dealt)


def buffer_mask(
    lat: npt.ArrayLike, lon: npt.ArrayLike, fold: npt.ArrayLike, k: int, buffer_km: float
) -> BoolArray:
    """Find the training sites of fold k that lie too near to one of its held-out sites.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      fold: (site,) fold of each site; training sites of fold k are those of all other folds.
      k: the held-out fold.
      buffer_km: sites nearer than this by great circle are dropped; 0 drops none.

    Returns:
      (site,) True where a training site must be dropped; False at the held-out sites themselves.
    """
    held_out = np.asarray(fold) == k
    if not held_out.any():
        raise ValueError(f"fold {k} holds no site, expected one of {np.unique(fold).tolist()}")
    lat_deg, lon_deg = np.asarray(lat, float), np.asarray(lon, float)
    _, distance_km = grid.nearest(lat_deg, lon_deg, lat_deg[held_out], lon_deg[held_out])
    return np.asarray(~held_out & (distance_km < buffer_km))


def spread(labels: npt.ArrayLike, n: int, seed: int = 0) -> grid.IntArray:
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
