"""Compute daily means from AWDB's readings, and specific from relative humidity."""

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
    duration: NDArray[np.float64],
    min_duration: int,
    days: int,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return the mean of each day's values, weighted by duration, and its least reliable flag.

    Where the good values of a day cover at least `min_duration`, only they are averaged.
    Otherwise all values of the day are, and the flag shows that some of them are not good.

    Args:
      day: (value,) index of the day of each value, from 0.
      values: (value,) the readings.
      codes: (value,) flag codes; a higher code is a less reliable flag.
      good: (value,) whether the flag of the value is good.
      duration: (value,) time that each value stands for: hours, or 1 for a daily value.
      min_duration: Smallest sum of `duration` in a day, in the same unit.
      days: Number of days.

    Returns:
      (days,) the means, NaN where the values of a day cover less than `min_duration`, and (days,)
      the flag codes, 0 where the mean is NaN.
    """
    mean, flag = np.full(days, np.nan), np.zeros(days, "int8")
    for selected in (np.ones_like(good), good):
        covered = np.bincount(day[selected], duration[selected], minlength=days)
        total = np.bincount(day[selected], values[selected] * duration[selected], minlength=days)
        worst = np.zeros(days, "int8")
        np.maximum.at(worst, day[selected], codes[selected].astype("int8"))
        enough = covered >= min_duration - cadence.TINY
        mean[enough], flag[enough] = total[enough] / covered[enough], worst[enough]
    return mean, flag


def humidity_in_standard_atmosphere(
    relative: NDArray[np.float64],
    temperature: NDArray[np.float64],
    elevation: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return specific humidity in kg kg-1, at the pressure of the standard atmosphere.

    The saturation vapour pressure is equation 10 of Bolton (1980, doi:10.1175/1520-0493(1980)108
    <1046:TCOEPT>2.0.CO;2).

    Args:
      relative: Relative humidity, percent.
      temperature: Air temperature, K.
      elevation: Elevation above sea level, m.
    """
    degrees = temperature - 273.15
    vapour = relative / 100 * 611.2 * np.exp(17.67 * degrees / (degrees + 243.5))
    pressure = 101325.0 * (1 - 2.25577e-5 * elevation) ** 5.25588
    return np.asarray(specific_humidity(vapour, pressure))
