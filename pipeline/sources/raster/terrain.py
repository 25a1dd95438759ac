"""Compute the slope of the ground from elevations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EQUATOR_M, ECCENTRICITY2 = 6_378_137.0, 0.00669437999014  # WGS 84


def metres_per_degree(
    lat: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lengths of a degree of latitude and of longitude on the WGS 84 ellipsoid.

    Args:
      lat: (...) latitudes, degrees.

    Returns:
      (...) metres per degree northward, and (...) metres per degree eastward.
    """
    phi = np.radians(lat)
    bulge = 1 - ECCENTRICITY2 * np.sin(phi) ** 2
    north = EQUATOR_M * (1 - ECCENTRICITY2) / bulge**1.5
    east = EQUATOR_M * np.cos(phi) / np.sqrt(bulge)
    return np.radians(north), np.radians(east)


def slope(
    elevation: NDArray[np.floating], north_m: NDArray[np.float64], east_m: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the slope by central differences, one-sided at the outer rows and columns.

    Args:
      elevation: (y, x) elevation, m.
      north_m: (y,) distance between neighbours in a column, m.
      east_m: (y,) distance between neighbours in a row, m.

    Returns:
      (y, x) the slope in degrees, NaN where a neighbour is NaN.
    """
    along_y = np.gradient(elevation, axis=0) / north_m[:, None]
    along_x = np.gradient(elevation, axis=1) / east_m[:, None]
    radians = np.arctan(np.hypot(along_y, along_x))
    degrees: NDArray[np.float32] = np.degrees(radians).astype("float32")
    return degrees
