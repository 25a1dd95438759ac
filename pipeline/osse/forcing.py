"""Forcing as it is shown: on a grid of degrees, with errors, in a provider's units."""

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

_FALSE_MEAN_MM = 3.0  # free


class ShownForcing:
    """Forcing on the grid that covers a window; errors from the stream `forcing_error`."""

    def __init__(
        self, window: Window, sizes: Magnitudes, seed: int, degrees: float = 0.125
    ) -> None:
        """Lay the grid: `lat_edges` (lat + 1) and `lon_edges` (lon + 1), degrees, increasing."""
        cell_lat, cell_lon = window.cell_edges
        self.lat_edges, self.lon_edges = (
            _covering(edges, degrees) for edges in (cell_lat, cell_lon)
        )
        self._rows = _weights(np.sin(np.radians(cell_lat)), np.sin(np.radians(self.lat_edges)))
        self._cols = np.ascontiguousarray(_weights(cell_lon, self.lon_edges).T)
        y_m = grid.project(_middle(self.lat_edges), 0.0)[1]
        x_m = grid.project(0.0, _middle(self.lon_edges))[0]
        self._waves = Waves(Area.of(window, y_m, x_m), sizes.forcing_error_km)
        self._sizes, self._rng = sizes, stream(seed, "forcing_error")

    @property
    def lat(self) -> FloatArray:
        """(lat,) latitude of the centres."""
        return _middle(self.lat_edges)

    @property
    def lon(self) -> FloatArray:
        """(lon,) longitude of the centres."""
        return _middle(self.lon_edges)

    def to_latlon(self, values: Field) -> Field:
        """Means over the part of each grid cell that the window covers: (..., lat, lon).

        values is (..., y, x) on the window's cells; NaN where a grid cell has no part in it. Areas
        are products of a difference in sin(lat) and one in lon, so rows and columns separate.
        """
        return np.asarray(self._rows @ values @ self._cols)

    def days(self, weather: Weather) -> dict[str, Field]:
        """The next days under NLDAS's names, (day, lat, lon) each, from their true weather."""
        sizes, n = self._sizes, len(weather.precipitation)
        fields = self._waves.draw(self._rng, 6 * n)
        error = fields.reshape(n, 6, *fields.shape[1:]).swapaxes(0, 1)
        rain = self._rain(self.to_latlon(weather.precipitation), error[0], error[1])
        return {
            "APCP": rain / np.float32(24),
            "TMP": self.to_latlon(weather.air_temperature)
            + np.float32(sizes.temperature_error_k) * error[2],
            "SPFH": self.to_latlon(weather.specific_humidity)
            * np.exp(np.float32(sizes.humidity_error) * error[3]),
            "PRES": self.to_latlon(weather.surface_pressure),
            "DLWRF": self.to_latlon(weather.longwave)
            + np.float32(sizes.longwave_error_w_m2) * error[4],
            "DSWRF": self.to_latlon(weather.shortwave)
            * np.exp(np.float32(sizes.shortwave_error) * error[5]),
        }

    def _rain(self, rain: Field, error: Field, event: Field) -> Field:
        """Rain in mm a day, with a log-error (mean 1), events missed and events that were none."""
        sizes = self._sizes
        spread = np.float32(sizes.rain_log_error)
        shown = rain * np.exp(spread * error - spread**2 / 2)
        shown[event < ndtri(sizes.rain_missed)] = 0
        made_up = (event > -ndtri(sizes.rain_false)) & (rain < 1)
        rank = ndtr(-event[made_up]) / sizes.rain_false if made_up.any() else np.ones(0)
        shown[made_up] += np.float32(-_FALSE_MEAN_MM) * np.log(rank)
        return np.asarray(shown)


def _covering(edges: FloatArray, degrees: float) -> FloatArray:
    """Multiples of the step that cover a range; a hair beyond one is no cell more."""
    per_degree = round(1 / degrees)
    low, high = edges.min() * per_degree, edges.max() * per_degree
    first, last = np.floor(low + 1e-6), np.ceil(high - 1e-6)
    return np.arange(int(first), int(last) + 1) / per_degree


def _middle(edges: FloatArray) -> FloatArray:
    return np.asarray((edges[1:] + edges[:-1]) / 2)


def _weights(source: FloatArray, wanted: FloatArray) -> Field:
    """(wanted, source) shares of overlap, each row summing to one; NaN where there is none."""
    low, high = np.minimum(source[1:], source[:-1]), np.maximum(source[1:], source[:-1])
    overlap = np.minimum(wanted[1:, None], high) - np.maximum(wanted[:-1, None], low)
    overlap = np.maximum(overlap, 0.0)
    total = overlap.sum(1, keepdims=True)
    shares = np.divide(overlap, total, out=np.full_like(overlap, np.nan), where=total > 0)
    return np.asarray(shares, np.float32)
