"""Humidity of the air."""

from __future__ import annotations

from typing import Any

import numpy as np

GAS_RATIO = 0.622  # of the gas constant of dry air to that of water vapour


def specific_humidity(vapour: Any, pressure: Any, gas_ratio: float = GAS_RATIO) -> Any:
    """Specific humidity in kg kg-1: q = r e / (p - (1 - r) e).

    IFS documentation (cycle 48r1), part IV, section 7.4, where r is R_dry / R_vapour.

    Args:
      vapour: vapour pressure e in Pa, an array of any kind and shape.
      pressure: air pressure p in Pa, of the same shape.
      gas_ratio: r, the gas constant of dry air over that of water vapour.
    """
    return gas_ratio * vapour / (pressure - (1 - gas_ratio) * vapour)


def saturation_slope(celsius: Any) -> Any:
    """Slope of the saturation vapour pressure in kPa K-1: FAO 56, equations 11 and 13.

    Args:
      celsius: air temperature in degC, an array of float32 or float64 of any shape.
    """
    vapour = 0.6108 * np.exp(17.27 * celsius / (celsius + 237.3))
    return 4098 * vapour / (celsius + 237.3) ** 2
