"""The satellite at a site: the baseline that costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import grid

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
    if not seen.any() or not len(series):
        return series, np.full(len(series), np.nan)
    candidates = np.flatnonzero(seen)
    nearest, distance = grid.nearest(*sites, where[0][seen], where[1][seen])
    chosen = candidates[nearest]
    inside = (holding >= 0) & seen[holding]
    chosen = np.asarray(np.where(inside, holding, chosen))
    distance = grid.great_circle_km(*sites, where[0][chosen], where[1][chosen])
    usable = np.asarray(inside | (distance <= max_km))
    series[usable] = satellite[chosen[usable], :]
    return series, np.where(usable, distance, np.nan)
