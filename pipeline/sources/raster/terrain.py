"""Slope of the ground from elevations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EQUATOR_M, ECCENTRICITY2 = 6_378_137.0, 0.00669437999014  # WGS 84


def metres_per_degree(
    lat: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(...) metres of a degree northward and of one eastward, at latitudes (...) in degrees."""
    phi = np.radians(lat)
    bulge = 1 - ECCENTRICITY2 * np.sin(phi) ** 2
    north = EQUATOR_M * (1 - ECCENTRICITY2) / bulge**1.5
    east = EQUATOR_M * np.cos(phi) / np.sqrt(bulge)
    return np.radians(north), np.radians(east)


def slope(
    elevation: NDArray[np.floating], north_m: NDArray[np.float64], east_m: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(y, x) slope in degrees, of elevations (y, x) in m, by central differences.

    north_m and east_m: (y,) distance in m between neighbours of a column, and of a row. At the
    outer rows and columns the difference is one-sided; NaN where a neighbour is.
    """
    down = np.gradient(elevation, axis=0) / north_m[:, None]
    across = np.gradient(elevation, axis=1) / east_m[:, None]
    steep: NDArray[np.float32] = np.degrees(np.arctan(np.hypot(down, across))).astype("float32")
    return steep
