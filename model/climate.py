"""How wet a climate is, from forcing alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.humidity import saturation_slope

# Precipitation over potential evaporation (UNEP 1997, hyper-arid in arid; wet is more than one).
EDGES = (0.2, 0.5, 0.65, 1.0)
CLASSES = ("arid", "semi-arid", "subhumid", "humid", "wet")

_LATENT_HEAT = 2.45e6  # J kg-1
_PSYCHROMETRIC_KPA = 0.066  # kPa K-1, at about 1000 hPa
_DAY_S = 86_400


def potential_evaporation(kelvin: NDArray[Any], shortwave: NDArray[Any]) -> NDArray[np.float64]:
    """Makkink's potential evaporation, kg m-2 day-1: 0.65 s / (s + gamma) shortwave / lambda.

    As of de Bruin (1987), with the slope s of saturation vapour pressure of FAO 56. Zero at and
    below 0 degC, where water does not evaporate at that rate.

    Args:
      kelvin: air temperature of days, K.
      shortwave: downward shortwave radiation of the same days, W m-2.
    """
    celsius = np.asarray(kelvin, np.float64) - 273.15
    warm = np.maximum(celsius, 0.0)
    slope = saturation_slope(warm)
    energy = np.asarray(shortwave, np.float64) * _DAY_S / _LATENT_HEAT
    evaporation = 0.65 * slope / (slope + _PSYCHROMETRIC_KPA) * energy
    known = np.where(celsius > 0, evaporation, 0.0)
    return np.where(np.isfinite(celsius), known, np.nan)


def wetness(
    precipitation: NDArray[Any], kelvin: NDArray[Any], shortwave: NDArray[Any]
) -> NDArray[np.float64]:
    """(place,) mean precipitation over mean potential evaporation, of days that have all three.

    Args are (place, day), kg m-2 day-1, K and W m-2; NaN is missing. NaN without such a day, and
    where nothing evaporates. Whole years give the climate; parts of years what those were like.
    """
    rain = np.asarray(precipitation, np.float64)
    lost = potential_evaporation(kelvin, shortwave)
    both = np.isfinite(rain) & np.isfinite(lost)
    total, out = (np.where(both, v, 0.0).sum(axis=1) for v in (rain, lost))
    return np.where(out > 0, total / np.where(out > 0, out, 1.0), np.nan)
