"""Attributes as they are shown: texture, density, vegetation with errors; the rest made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.osse.fields import Area, two_scales
from pipeline.osse.land import Land, capacity_percent
from pipeline.osse.planet import Magnitudes, stream

if TYPE_CHECKING:
    from pipeline.grid import FloatArray, Window

Attributes = dict[str, "FloatArray"]


def shown(window: Window, land: Land, sizes: Magnitudes, seed: int) -> Attributes:
    """Attributes under a provider's names, (y, x) each, NaN in the ocean.

    Their errors are from stream `attribute_error`.
    """
    area = Area.of(window, window.cell_y, window.cell_x)
    rng = stream(seed, "attribute_error")
    error = two_scales(area, rng, 4, sizes.soil_lengths_km, sizes.soil_long_share)
    sand = np.clip(land.sand_percent + sizes.sand_error_percent * error[0], 1, 96)
    clay = np.clip(land.clay_percent + sizes.clay_error_percent * error[1], 1, 70)
    clay = np.minimum(clay, 99 - sand)
    density = land.bulk_density_g_cm3 + sizes.bulk_density_error_g_cm3 * error[2]
    ndvi = np.clip(land.ndvi + sizes.ndvi_error * error[3], 0.02, 0.9)
    made = {
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
    return {name: np.where(land.ocean, np.nan, values) for name, values in made.items()}


def _land_cover(ndvi: FloatArray) -> FloatArray:
    """(y, x) IGBP class by NDVI: barren, open shrubland, grassland, cropland, mixed forest."""
    classes = np.array([16, 7, 10, 12, 5], float)
    return np.asarray(classes[np.digitize(ndvi, (0.12, 0.25, 0.42, 0.62))])
