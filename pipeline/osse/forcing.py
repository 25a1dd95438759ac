"""Observed forcing: true weather with errors, on a grid of degrees and in the provider's units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr, ndtri

from pipeline import grid
from pipeline.osse.fields import Area, Field, Waves
from pipeline.osse.planet import Magnitudes, stream

if TYPE_CHECKING:
    from pipeline.grid import FloatArray, Window
    from pipeline.osse.weather import Weather

_FALSE_MEAN_MM = 3.0  # mean of false rain on a day (free)


class ShownForcing:
    """Observed forcing on the latitude-longitude grid that covers a window.

    Errors are drawn from the random stream `forcing_error`.

    Attributes:
      lat_edges: (lat + 1) edges of the rows in degrees, increasing.
      lon_edges: (lon + 1) edges of the columns in degrees, increasing.
    """

    def __init__(
        self, window: Window, parameters: Magnitudes, seed: int, degrees: float = 0.125
    ) -> None:
        """Build the grid, with cells of `degrees`."""
        cell_lat, cell_lon = window.cell_edges
        self.lat_edges, self.lon_edges = (
            _covering(edges, degrees) for edges in (cell_lat, cell_lon)
        )
        self._rows = _weights(np.sin(np.radians(cell_lat)), np.sin(np.radians(self.lat_edges)))
        self._cols = np.ascontiguousarray(_weights(cell_lon, self.lon_edges).T)
        y_m = grid.project(_middle(self.lat_edges), 0.0)[1]
        x_m = grid.project(0.0, _middle(self.lon_edges))[0]
        self._waves = Waves(Area.from_positions(window, y_m, x_m), parameters.forcing_error_km)
        self._parameters, self._rng = parameters, stream(seed, "forcing_error")

    @property
    def lat(self) -> FloatArray:
        """Return the (lat,) latitudes of the centres."""
        return _middle(self.lat_edges)

    @property
    def lon(self) -> FloatArray:
        """Return the (lon,) longitudes of the centres."""
        return _middle(self.lon_edges)

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
        observed[false_event] += np.float32(-_FALSE_MEAN_MM) * np.log(rank)
        return np.asarray(observed)


def _covering(edges: FloatArray, degrees: float) -> FloatArray:
    """Return the multiples of the step that cover a range, up to a small tolerance."""
    per_degree = round(1 / degrees)
    low, high = edges.min() * per_degree, edges.max() * per_degree
    first, last = np.floor(low + 1e-6), np.ceil(high - 1e-6)
    return np.arange(int(first), int(last) + 1) / per_degree


def _middle(edges: FloatArray) -> FloatArray:
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def _weights(source: FloatArray, target: FloatArray) -> Field:
    """Return the (target, source) shares of overlap between two sets of intervals.

    Each row sums to one; it is NaN if there is no overlap.
    """
    low, high = np.minimum(source[1:], source[:-1]), np.maximum(source[1:], source[:-1])
    overlap = np.minimum(target[1:, None], high) - np.maximum(target[:-1, None], low)
    overlap = np.maximum(overlap, 0.0)
    total = overlap.sum(1, keepdims=True)
    shares = np.divide(overlap, total, out=np.full_like(overlap, np.nan), where=total > 0)
    return np.asarray(shares, np.float32)
