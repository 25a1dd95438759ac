"""The satellite at a site: the baseline that costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import distances

if TYPE_CHECKING:
    from numpy.typing import NDArray


def at_sites(
    satellite: NDArray[np.float32],
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    sites: tuple[NDArray[np.float64], NDArray[np.float64]],
    holding: NDArray[np.int64],
    max_km: float,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The footprint that holds each site, else the nearest with data within `max_km`.

    Args:
      satellite: (footprint, day) values, NaN where missing.
      where: latitude and longitude (footprint,), degrees.
      sites: latitude and longitude (site,), degrees.
      holding: (site,) index of the footprint that holds the site, -1 for none.
      max_km: farthest centre that may stand for a site.

    Returns:
      (site, day) values, NaN where there is none; (site,) distance to the footprint's centre, km.
    """
    seen = np.asarray(np.isfinite(satellite).any(axis=1))
    series = np.full((len(sites[0]), satellite.shape[1]), np.nan, np.float32)
    chosen, distance = standing_for(seen, where, sites, holding, max_km)
    usable = chosen >= 0
    series[usable] = satellite[chosen[usable], :]
    return series, distance


def standing_for(
    seen: NDArray[np.bool_],
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    sites: tuple[NDArray[np.float64], NDArray[np.float64]],
    holding: NDArray[np.int64],
    max_km: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The footprint of each site, -1 for none, and how far its centre is away, km, NaN for none.

    As of `at_sites`; `seen` (footprint,) says which have data.
    """
    n = len(sites[0])
    if not seen.any() or not n:
        return np.full(n, -1), np.full(n, np.nan)
    nearest, _ = distances.nearest(*sites, where[0][seen], where[1][seen])
    inside = (holding >= 0) & seen[holding]
    chosen = np.asarray(np.where(inside, holding, np.flatnonzero(seen)[nearest]))
    distance = distances.great_circle_km(*sites, where[0][chosen], where[1][chosen])
    usable = inside | (distance <= max_km)
    return np.where(usable, chosen, -1), np.where(usable, distance, np.nan)
