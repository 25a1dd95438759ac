"""Observed attributes of the planet: true ones with errors, and quantities derived from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.osse.fields import Area, two_scales
from pipeline.osse.land import Land, capacity_percent
from pipeline.osse.planet import Magnitudes, stream

if TYPE_CHECKING:
    from pipeline.grid import FloatArray, Window

Attributes = dict[str, "FloatArray"]


def shown(window: Window, land: Land, parameters: Magnitudes, seed: int) -> Attributes:
    """Return the observed attributes under the provider's names.

    Errors are drawn from the random stream `attribute_error`.

    Args:
      window: window of the grid.
      land: the true land.
      parameters: parameters of the planet.
      seed: seed of the planet.

    Returns:
      (y, x) values per attribute, NaN in the ocean.
    """
    area = Area.from_positions(window, window.cell_y, window.cell_x)
    rng = stream(seed, "attribute_error")
    error = two_scales(area, rng, 4, parameters.soil_lengths_km, parameters.soil_long_share)
    sand = np.clip(land.sand_percent + parameters.sand_error_percent * error[0], 1, 96)
    clay = np.clip(land.clay_percent + parameters.clay_error_percent * error[1], 1, 70)
    clay = np.minimum(clay, 99 - sand)
    density = land.bulk_density_g_cm3 + parameters.bulk_density_error_g_cm3 * error[2]
    ndvi = np.clip(land.ndvi + parameters.ndvi_error * error[3], 0.02, 0.9)
    attributes = {
        "SAND": sand,
        "SILT": 100 - sand - clay,
        "CLAY": clay,
        "BULK": np.clip(density, 0.8, 2.0),
        "AWC": capacity_percent(sand, clay),
        "NDVI": ndvi,
        "ELEV": land.elevation_m,
        "ALBEDO": land.albedo,
        "LANDCOVER": _land_cover(ndvi),
    }
    return {name: np.where(land.ocean, np.nan, values) for name, values in attributes.items()}


def _land_cover(ndvi: FloatArray) -> FloatArray:
    """Return the (y, x) land cover class of the IGBP for NDVI.

    From low to high NDVI: barren, open shrubland, grassland, cropland, mixed forest.
    """
    classes = np.array([16, 7, 10, 12, 5], float)
    return np.asarray(classes[np.digitize(ndvi, (0.12, 0.25, 0.42, 0.62))])
