"""Values of AWDB made into those of a day, and humidity into specific humidity."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.humidity import specific_humidity
from pipeline.sources import cadence

if TYPE_CHECKING:
    from numpy.typing import NDArray


def daily(
    day: NDArray[np.int64],
    values: NDArray[np.float64],
    codes: NDArray[np.int64],
    good: NDArray[np.bool_],
    time: NDArray[np.float64],
    least: int,
    days: int,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """(days,) mean of a day's values by the time of each, and the least sure of their flags.

    Of the good values, where their time in a day is at least `least`; else of all of them, and
    the flag tells; NaN where they have less.
    """
    mean, flag = np.full(days, np.nan), np.zeros(days, "int8")
    for chosen in (np.ones_like(good), good):
        held = np.bincount(day[chosen], time[chosen], minlength=days)
        total = np.bincount(day[chosen], values[chosen] * time[chosen], minlength=days)
        worst = np.zeros(days, "int8")
        np.maximum.at(worst, day[chosen], codes[chosen].astype("int8"))
        enough = held >= least - cadence.TINY
        mean[enough], flag[enough] = total[enough] / held[enough], worst[enough]
    return mean, flag


def humidity_in_standard_atmosphere(
    relative: NDArray[np.float64],
    temperature: NDArray[np.float64],
    elevation: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Specific humidity in kg kg-1, at the pressure of the standard atmosphere.

    The saturation vapour pressure is equation 10 of Bolton (1980, doi:10.1175/1520-0493(1980)108
    <1046:TCOEPT>2.0.CO;2).

    Args:
      relative: relative humidity, percent.
      temperature: air temperature, K.
      elevation: m above the sea.
    """
    degrees = temperature - 273.15
    vapour = relative / 100 * 611.2 * np.exp(17.67 * degrees / (degrees + 243.5))
    pressure = 101325.0 * (1 - 2.25577e-5 * elevation) ** 5.25588
    return np.asarray(specific_humidity(vapour, pressure))
