"""The true weather of cells, day by day: rain, and other variables that are consistent with it.

It rains where a correlated Gaussian field g exceeds the quantile of the place's probability p of a
wet day. The excess determines the amount, which has a Weibull distribution. g is the sum of storms,
which persist from day to day, and of rain cells, which are nearly independent between days.

Observed forcing: true weather with errors, on a grid of degrees and in the provider's units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gamma, ndtr, ndtri

from model.humidity import specific_humidity as humidity_specific_humidity
from pipeline.grid import ease
from pipeline.planet.land import Land, seasonal_cycle
from pipeline.planet.random_fields import (
    Field,
    FieldGrid,
    PersistentField,
    PlanetParameters,
    RandomFields,
    random_stream,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid.ease import FloatArray, Window


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


class WeatherGenerator:
    """Generator of weather, which returns the next days at each call."""

    def __init__(self, window: Window, land: Land, parameters: PlanetParameters, seed: int) -> None:
        """Start the random streams `storms`, `rain cells`, `warmth` and `pressure`."""
        area = FieldGrid.from_positions(window, window.cell_y, window.cell_x)
        self.land, self.parameters = land, parameters
        cells, storms = (
            RandomFields(area, parameters.rain_cell_km),
            RandomFields(area, parameters.storm_km),
        )
        fronts = RandomFields(area, _FRONT_KM)
        self.cells = PersistentField(
            cells, random_stream(seed, "rain cells"), parameters.rain_cell_persistence
        )
        self.storms = PersistentField(
            storms, random_stream(seed, "storms"), parameters.rain_persistence
        )
        self.warmth = PersistentField(fronts, random_stream(seed, "warmth"), _FRONT_PERSISTENCE)
        self.pressure = PersistentField(fronts, random_stream(seed, "pressure"), _FRONT_PERSISTENCE)

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
            specific_humidity=np.asarray(humidity_specific_humidity(vapour, pressure), np.float32),
            surface_pressure=pressure,
            longwave=_downward_longwave(temperature, vapour, cloud),
            shortwave=self._shortwave(cloud, days),
        )

    def _rain(self, exceedance: Field, days: NDArray[np.datetime64]) -> Field:
        """Return (day, y, x) rain in mm a day."""
        parameters, land = self.parameters, self.land
        # Interpolation by square root and by logarithm reproduces the medians of NLDAS.
        probability = _interpolate(parameters.wet_probability, land.probability_index, np.sqrt) ** 2
        mean = np.exp(_interpolate(parameters.wet_day_mean_mm, land.amount_index, np.log))
        wetter = 1 + parameters.rain_seasonal_amplitude * seasonal_cycle(days, land.lat)
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
        wave = seasonal_cycle(days, self.land.lat)
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
        return np.asarray(relative * saturation_vapour_pressure_pa(temperature))

    def _shortwave(self, cloud: Field, days: NDArray[np.datetime64]) -> Field:
        """Return (day, y, x) shortwave in W m-2: FAO 56, equation 37, reduced by clouds."""
        passes = (0.75 + 2e-5 * self.land.elevation_m).astype(np.float32)
        above = extraterrestrial_radiation(days, self.land.lat).astype(np.float32)
        return np.asarray(above * passes * (1 - np.float32(0.65) * cloud))


def saturation_vapour_pressure_pa(temperature: Field) -> Field:
    """Return the saturation vapour pressure in Pa at a temperature in K (Bolton 1980)."""
    celsius = temperature - np.float32(FREEZING_K)
    return np.asarray(
        np.float32(611.2) * np.exp(np.float32(17.67) * celsius / (celsius + np.float32(243.5)))
    )


def extraterrestrial_radiation(days: NDArray[np.datetime64], lat: FloatArray) -> FloatArray:
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


def _downward_longwave(temperature: Field, vapour: Field, cloud: Field) -> Field:
    """Return (day, y, x) downward longwave radiation in W m-2 (Brutsaert 1975, with clouds)."""
    clear = np.float32(1.24) * (vapour / 100 / temperature) ** np.float32(1 / 7)
    black = np.float32(STEFAN_BOLTZMANN) * temperature**4
    return np.asarray(np.minimum(clear * (1 + np.float32(0.2) * cloud), 1) * black)


def _interpolate(dry_wet: tuple[float, float], index: FloatArray, scale: np.ufunc) -> FloatArray:
    dry, wet = scale(dry_wet)
    return np.asarray(dry + (wet - dry) * index)


_FALSE_RAIN_MEAN_MM = 3.0  # mean of false rain on a day (free)


class ObservedForcing:
    """Observed forcing on the latitude-longitude grid that covers a window.

    Errors are drawn from the random stream `forcing_error`.

    Attributes:
      lat_edges: (lat + 1) edges of the rows in degrees, increasing.
      lon_edges: (lon + 1) edges of the columns in degrees, increasing.
    """

    def __init__(
        self, window: Window, parameters: PlanetParameters, seed: int, degrees: float = 0.125
    ) -> None:
        """Build the grid, with cells of `degrees`."""
        cell_lat, cell_lon = window.cell_edges
        self.lat_edges, self.lon_edges = (
            _covering_edges(edges, degrees) for edges in (cell_lat, cell_lon)
        )
        self._rows = _overlap_shares(
            np.sin(np.radians(cell_lat)), np.sin(np.radians(self.lat_edges))
        )
        self._cols = np.ascontiguousarray(_overlap_shares(cell_lon, self.lon_edges).T)
        y_m = ease.project(_midpoints(self.lat_edges), 0.0)[1]
        x_m = ease.project(0.0, _midpoints(self.lon_edges))[0]
        self._waves = RandomFields(
            FieldGrid.from_positions(window, y_m, x_m), parameters.forcing_error_km
        )
        self._parameters, self._rng = parameters, random_stream(seed, "forcing_error")

    @property
    def lat(self) -> FloatArray:
        """Return the (lat,) latitudes of the centres."""
        return _midpoints(self.lat_edges)

    @property
    def lon(self) -> FloatArray:
        """Return the (lon,) longitudes of the centres."""
        return _midpoints(self.lon_edges)

    def to_latlon(self, values: Field) -> Field:
        """Average values over the part of each grid cell that lies in the window.

        The area of an overlap is the product of a difference in sin(lat) and one in lon, so that
        rows and columns can be averaged separately.

        Args:
          values: (..., y, x) values on the window's cells.

        Returns:
          (..., lat, lon) means; NaN for a grid cell outside of the window.
        """
        return np.asarray(self._rows @ values @ self._cols)

    def days(self, weather: Weather) -> dict[str, Field]:
        """Return the observed forcing of the next days under NLDAS-2's names.

        Args:
          weather: the true weather of these days, which follow those of the last call.

        Returns:
          (day, lat, lon) values per variable.
        """
        parameters, n = self._parameters, len(weather.precipitation)
        fields = self._waves.draw(self._rng, 6 * n)
        error = fields.reshape(n, 6, *fields.shape[1:]).swapaxes(0, 1)
        rain = self._rain(self.to_latlon(weather.precipitation), error[0], error[1])
        return {
            "APCP": rain / np.float32(24),
            "TMP": self.to_latlon(weather.air_temperature)
            + np.float32(parameters.temperature_error_k) * error[2],
            "SPFH": self.to_latlon(weather.specific_humidity)
            * np.exp(np.float32(parameters.humidity_error) * error[3]),
            "PRES": self.to_latlon(weather.surface_pressure),
            "DLWRF": self.to_latlon(weather.longwave)
            + np.float32(parameters.longwave_error_w_m2) * error[4],
            "DSWRF": self.to_latlon(weather.shortwave)
            * np.exp(np.float32(parameters.shortwave_error) * error[5]),
        }

    def _rain(self, rain: Field, error: Field, event: Field) -> Field:
        """Return rain in mm a day with log-normal errors (mean 1), missed and false events."""
        parameters = self._parameters
        spread = np.float32(parameters.rain_log_error)
        observed = rain * np.exp(spread * error - spread**2 / 2)
        observed[event < ndtri(parameters.rain_missed)] = 0
        false_event = (event > -ndtri(parameters.rain_false)) & (rain < 1)
        rank = (
            ndtr(-event[false_event]) / parameters.rain_false if false_event.any() else np.ones(0)
        )
        observed[false_event] += np.float32(-_FALSE_RAIN_MEAN_MM) * np.log(rank)
        return np.asarray(observed)


def _covering_edges(edges: FloatArray, degrees: float) -> FloatArray:
    """Return the multiples of the step that cover a range, up to a small tolerance."""
    per_degree = round(1 / degrees)
    low, high = edges.min() * per_degree, edges.max() * per_degree
    first, last = np.floor(low + 1e-6), np.ceil(high - 1e-6)
    return np.arange(int(first), int(last) + 1) / per_degree


def _midpoints(edges: FloatArray) -> FloatArray:
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def _overlap_shares(source: FloatArray, target: FloatArray) -> Field:
    """Return the (target, source) shares of overlap between two sets of intervals.

    Each row sums to one; it is NaN if there is no overlap.
    """
    low, high = np.minimum(source[1:], source[:-1]), np.maximum(source[1:], source[:-1])
    overlap = np.minimum(target[1:, None], high) - np.maximum(target[:-1, None], low)
    overlap = np.maximum(overlap, 0.0)
    total = overlap.sum(1, keepdims=True)
    shares = np.divide(overlap, total, out=np.full_like(overlap, np.nan), where=total > 0)
    return np.asarray(shares, np.float32)
