"""The true weather of cells, day by day: rain, and other variables that are consistent with it.

It rains where a correlated Gaussian field g exceeds the quantile of the place's probability p of a
wet day. The excess determines the amount, which has a Weibull distribution. g is the sum of storms,
which persist from day to day, and of rain cells, which are nearly independent between days.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gamma, ndtr

from model.humidity import specific_humidity
from pipeline.osse.fields import Area, Field, Persistent, Waves
from pipeline.osse.land import Land, season
from pipeline.osse.planet import Magnitudes, stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid import FloatArray, Window

STEFAN_BOLTZMANN = 5.67e-8  # W m-2 K-4
FREEZING_K = 273.15
_FRONT_KM, _FRONT_PERSISTENCE = 500.0, 0.75  # fronts of temperature and pressure (free)


@dataclass(frozen=True)
class Weather:
    """The weather of some days, (day, y, x) float32 each."""

    precipitation: Field  # mm a day
    air_temperature: Field  # K
    specific_humidity: Field  # kg kg-1
    surface_pressure: Field  # Pa
    longwave: Field  # W m-2, downward
    shortwave: Field  # W m-2, downward


class Sky:
    """Generator of weather, which returns the next days at each call."""

    def __init__(self, window: Window, land: Land, parameters: Magnitudes, seed: int) -> None:
        """Start the random streams `storms`, `rain cells`, `warmth` and `pressure`."""
        area = Area.from_positions(window, window.cell_y, window.cell_x)
        self.land, self.parameters = land, parameters
        cells, storms = Waves(area, parameters.rain_cell_km), Waves(area, parameters.storm_km)
        fronts = Waves(area, _FRONT_KM)
        self.cells = Persistent(cells, stream(seed, "rain cells"), parameters.rain_cell_persistence)
        self.storms = Persistent(storms, stream(seed, "storms"), parameters.rain_persistence)
        self.warmth = Persistent(fronts, stream(seed, "warmth"), _FRONT_PERSISTENCE)
        self.pressure = Persistent(fronts, stream(seed, "pressure"), _FRONT_PERSISTENCE)

    def days(self, days: NDArray[np.datetime64]) -> Weather:
        """Return the weather of days (day,), which follow those of the last call."""
        n, share = len(days), self.parameters.rain_cell_share
        g = self.storms.days(n)
        g *= np.float32(np.sqrt(1 - share))
        g += np.float32(np.sqrt(share)) * self.cells.days(n)
        exceedance = ndtr(-g)
        rain = self._rain(exceedance, days)
        cloud = (1 - exceedance) ** 2
        temperature = self._temperature(cloud, days)
        pressure = self._pressure(n)
        vapour = self._vapour_pressure(temperature, cloud)
        return Weather(
            precipitation=rain,
            air_temperature=temperature,
            specific_humidity=np.asarray(specific_humidity(vapour, pressure), np.float32),
            surface_pressure=pressure,
            longwave=_longwave(temperature, vapour, cloud),
            shortwave=self._shortwave(cloud, days),
        )

    def _rain(self, exceedance: Field, days: NDArray[np.datetime64]) -> Field:
        """Return (day, y, x) rain in mm a day."""
        parameters, land = self.parameters, self.land
        # Interpolation by square root and by logarithm reproduces the medians of NLDAS.
        probability = _between(parameters.wet_probability, land.probability_index, np.sqrt) ** 2
        mean = np.exp(_between(parameters.wet_day_mean_mm, land.amount_index, np.log))
        wetter = 1 + parameters.rain_seasonal_amplitude * season(days, land.lat)
        probability_on = (probability * wetter).astype(np.float32)
        shape = parameters.rain_weibull_shape
        scale = (mean * wetter / gamma(1 + 1 / shape)).astype(np.float32)
        depth = np.log(np.maximum(probability_on / exceedance, np.float32(1)))
        return np.asarray(scale * depth ** np.float32(1 / shape))

    def _temperature(self, cloud: Field, days: NDArray[np.datetime64]) -> Field:
        """Return (day, y, x) air temperature in K.

        It depends on latitude outside of the tropics, elevation, season and fronts, and is lower
        under clouds.
        """
        lat = np.abs(self.land.lat)
        yearly = 304.5 - 0.75 * np.maximum(lat - 20, 0) - 0.0065 * self.land.elevation_m
        wave = season(days, self.land.lat)
        spread = (3.5 - 1.2 * wave).astype(np.float32)  # fronts are stronger in winter
        seasonal = (0.35 * lat * wave).astype(np.float32)
        weather = spread * self.warmth.days(len(days)) - np.float32(3) * (cloud - np.float32(1 / 3))
        return np.asarray(yearly.astype(np.float32) + seasonal + weather)

    def _pressure(self, n: int) -> Field:
        """Return (day, y, x) pressure in Pa: the standard atmosphere at an elevation and fronts."""
        standard = 101_325 * (1 - 2.25577e-5 * self.land.elevation_m) ** 5.2559
        fronts = np.float32(0.006) * self.pressure.days(n)
        return np.asarray(standard.astype(np.float32) * (1 + fronts))

    def _vapour_pressure(self, temperature: Field, cloud: Field) -> Field:
        """Return (day, y, x) vapour pressure in Pa.

        Relative humidity is higher in a wet climate and under clouds.
        """
        climate = (0.40 + 0.25 * self.land.probability_index).astype(np.float32)
        relative = climate + np.float32(0.3) * cloud
        return np.asarray(relative * saturation_pa(temperature))

    def _shortwave(self, cloud: Field, days: NDArray[np.datetime64]) -> Field:
        """Return (day, y, x) shortwave in W m-2: FAO 56, equation 37, reduced by clouds."""
        passes = (0.75 + 2e-5 * self.land.elevation_m).astype(np.float32)
        above = extraterrestrial(days, self.land.lat).astype(np.float32)
        return np.asarray(above * passes * (1 - np.float32(0.65) * cloud))


def saturation_pa(temperature: Field) -> Field:
    """Return the saturation vapour pressure in Pa at a temperature in K (Bolton 1980)."""
    celsius = temperature - np.float32(FREEZING_K)
    return np.asarray(
        np.float32(611.2) * np.exp(np.float32(17.67) * celsius / (celsius + np.float32(243.5)))
    )


def extraterrestrial(days: NDArray[np.datetime64], lat: FloatArray) -> FloatArray:
    """Return daily mean extraterrestrial radiation (FAO 56, equation 21; Allen et al. 1998).

    Args:
      days: (day,) days.
      lat: (y, 1) latitudes in degrees.

    Returns:
      (day, y, 1) radiation in W m-2.
    """
    day_of_year = (days - days.astype("datetime64[Y]")).astype("timedelta64[D]").astype(float) + 1
    angle = (2 * np.pi * day_of_year / 365)[:, None, None]
    declination, phi = 0.409 * np.sin(angle - 1.39), np.radians(lat)
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(declination), -1, 1))
    geometry = sunset * np.sin(phi) * np.sin(declination)
    geometry = geometry + np.cos(phi) * np.cos(declination) * np.sin(sunset)
    return np.asarray(1367 / np.pi * (1 + 0.033 * np.cos(angle)) * geometry)


def _longwave(temperature: Field, vapour: Field, cloud: Field) -> Field:
    """Return (day, y, x) downward longwave radiation in W m-2 (Brutsaert 1975, with clouds)."""
    clear = np.float32(1.24) * (vapour / 100 / temperature) ** np.float32(1 / 7)
    black = np.float32(STEFAN_BOLTZMANN) * temperature**4
    return np.asarray(np.minimum(clear * (1 + np.float32(0.2) * cloud), 1) * black)


def _between(dry_wet: tuple[float, float], index: FloatArray, scale: np.ufunc) -> FloatArray:
    dry, wet = scale(dry_wet)
    return np.asarray(dry + (wet - dry) * index)
