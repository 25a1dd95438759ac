"""Aridity of a climate, computed from the forcing alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model.humidity import saturation_slope

if TYPE_CHECKING:
    from numpy.typing import NDArray


# Upper limits of the aridity index, precipitation over potential evaporation (UNEP 1997). The
# hyper-arid class is merged into arid, and wet is an index above one.
CLASS_EDGES = (0.2, 0.5, 0.65, 1.0)
CLIMATE_CLASSES = ("arid", "semi-arid", "subhumid", "humid", "wet")
_LATENT_HEAT = 2.45e6  # J kg-1
_PSYCHROMETRIC_KPA = 0.066  # kPa K-1, at about 1000 hPa
_DAY_S = 86_400


def potential_evaporation(kelvin: NDArray[Any], shortwave: NDArray[Any]) -> NDArray[np.float64]:
    """Return daily potential evaporation by Makkink's method, kg m-2 day-1.

    It is 0.65 s / (s + gamma) times shortwave radiation / lambda (de Bruin 1987), with the slope s
    of the saturation vapour pressure curve of FAO 56 (Allen et al. 1998). It is zero at and below 0
    degC, where water does not evaporate at that rate.

    Args:
      kelvin: daily mean air temperature, K.
      shortwave: downward shortwave radiation of the same days, W m-2.

    Returns:
      Potential evaporation in the shape of the inputs; NaN where an input is NaN.
    """
    celsius = np.asarray(kelvin, np.float64) - 273.15
    warm = np.maximum(celsius, 0.0)
    slope = saturation_slope(warm)
    energy = np.asarray(shortwave, np.float64) * _DAY_S / _LATENT_HEAT
    evaporation = 0.65 * slope / (slope + _PSYCHROMETRIC_KPA) * energy
    known = np.where(celsius > 0, evaporation, 0.0)
    return np.where(np.isfinite(celsius), known, np.nan)


def aridity_index(
    precipitation: NDArray[Any], kelvin: NDArray[Any], shortwave: NDArray[Any]
) -> NDArray[np.float64]:
    """Return the aridity index: mean precipitation over mean potential evaporation (UNEP 1997).

    Only days on which all three inputs are present count. Whole years describe the climate; parts
    of years describe those parts only.

    Args:
      precipitation: (place, day) kg m-2 day-1, NaN where missing.
      kelvin: (place, day) air temperature, K, NaN where missing.
      shortwave: (place, day) downward shortwave radiation, W m-2, NaN where missing.

    Returns:
      (place,) index; NaN for a place without such a day or without evaporation.
    """
    rain = np.asarray(precipitation, np.float64)
    evaporation = potential_evaporation(kelvin, shortwave)
    valid = np.isfinite(rain) & np.isfinite(evaporation)
    total_rain, total_evaporation = (
        np.where(valid, v, 0.0).sum(axis=1) for v in (rain, evaporation)
    )
    return np.where(
        total_evaporation > 0,
        total_rain / np.where(total_evaporation > 0, total_evaporation, 1.0),
        np.nan,
    )
