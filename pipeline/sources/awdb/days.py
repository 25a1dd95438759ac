"""Values of AWDB made into those of a day, and humidity into specific humidity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def daily(
    day: NDArray[np.int64],
    values: NDArray[np.float64],
    codes: NDArray[np.int64],
    good: NDArray[np.bool_],
    least: int,
    days: int,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """(days,) mean of a day's values, and the least sure of their flags.

    Of the good values, where a day has `least` of them; else of all of them, and the flag tells;
    NaN where there are fewer.
    """
    mean, flag = np.full(days, np.nan), np.zeros(days, "int8")
    for chosen in (np.ones_like(good), good):
        count = np.bincount(day[chosen], minlength=days)
        total = np.bincount(day[chosen], values[chosen], minlength=days)
        worst = np.zeros(days, "int8")
        np.maximum.at(worst, day[chosen], codes[chosen].astype("int8"))
        enough = count >= least
        mean[enough], flag[enough] = total[enough] / count[enough], worst[enough]
    return mean, flag


def specific_humidity(
    relative: NDArray[np.float64],
    temperature: NDArray[np.float64],
    elevation: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Specific humidity, kg kg-1, by Bolton's vapour pressure in the standard atmosphere.

    Args:
      relative: relative humidity, percent.
      temperature: air temperature, K.
      elevation: m above the sea.
    """
    degrees = temperature - 273.15
    vapour = relative / 100 * 611.2 * np.exp(17.67 * degrees / (degrees + 243.5))
    pressure = 101325.0 * (1 - 2.25577e-5 * elevation) ** 5.25588
    return np.asarray(0.622 * vapour / (pressure - 0.378 * vapour))
