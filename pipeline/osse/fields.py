"""Gaussian random fields with unit variance and correlation exp(-(d / length)^2).

The covariance is the product of one in y and one in x, so a field is Y Z X^T with fixed Fourier
waves Y (y, wave) and X (x, wave), and standard normal Z (wave, wave). This takes far less work than
a two-dimensional FFT of a padded grid, and works on any rectilinear grid. The waves have a period
three correlation lengths longer than the window, so that opposite edges are uncorrelated (1e-4).
Positions are in km from the window's upper left corner: a finer grid samples the same field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipeline.grid import FloatArray, Window

Field = NDArray[np.float32]

_PADDING_LENGTHS = 3.0
_LEAST_SHARE = 1e-4  # smallest variance of a wave, as a share of that of the longest wave


@dataclass(frozen=True)
class Area:
    """A rectilinear grid over a window.

    Attributes:
      y_km: (y,) distances of rows from the upper edge of the window, km.
      x_km: (x,) distances of columns from its left edge, km.
      height_km: height of the window, km.
      width_km: width of the window, km.
    """

    y_km: FloatArray
    x_km: FloatArray
    height_km: float
    width_km: float

    @classmethod
    def from_positions(cls, window: Window, y_m: FloatArray, x_m: FloatArray) -> Area:
        """Build the grid of projected rows (y,) and columns (x,), in metres, over a window."""
        left, bottom, right, top = window.bounds
        height, width = (top - bottom) / 1000, (right - left) / 1000
        return cls((top - y_m) / 1000, (x_m - left) / 1000, height, width)


class Waves:
    """Random fields with one correlation length on one grid."""

    def __init__(self, area: Area, length_km: float) -> None:
        """Compute the waves of both directions."""
        self.rows = _waves(area.y_km, area.height_km, length_km)
        self.cols = np.ascontiguousarray(_waves(area.x_km, area.width_km, length_km).T)

    def draw(self, rng: np.random.Generator, n: int) -> Field:
        """Draw the next n independent fields, (n, y, x)."""
        fields = np.empty((n, len(self.rows), self.cols.shape[1]), np.float32)
        for field in fields:  # one by one, as the waves of a large window outnumber its cells
            size = (self.rows.shape[1], self.cols.shape[0])
            field[:] = self.rows @ rng.standard_normal(size, dtype=np.float32) @ self.cols
        return fields


class Persistent:
    """A field that changes from day to day as a first-order autoregression with unit variance."""

    def __init__(self, waves: Waves, rng: np.random.Generator, persistence: float) -> None:
        """Set up the field; `persistence` is the correlation of consecutive days."""
        self.waves, self.rng, self.persistence = waves, rng, np.float32(persistence)
        self.last: Field | None = None

    def days(self, n: int) -> Field:
        """Draw the next n days, (n, y, x)."""
        field = self.waves.draw(self.rng, n)
        innovation = np.sqrt(1 - self.persistence**2)
        for day in range(n):
            if self.last is not None:
                field[day] = self.persistence * self.last + innovation * field[day]
            self.last = field[day].copy()
        return field


def two_scales(
    area: Area,
    rng: np.random.Generator,
    n: int,
    lengths_km: tuple[float, float],
    long_share: float,
) -> FloatArray:
    """Draw fields of unit variance with a long and a short correlation length.

    Args:
      area: the grid.
      rng: random generator.
      n: number of fields.
      lengths_km: the long and the short correlation length, km.
      long_share: share of the long length in the variance.

    Returns:
      (n, y, x) fields.
    """
    long, short = (Waves(area, length).draw(rng, n).astype(float) for length in lengths_km)
    return np.asarray(np.sqrt(long_share) * long + np.sqrt(1 - long_share) * short)


def _waves(position_km: FloatArray, extent_km: float, length_km: float) -> Field:
    """Return the (position, wave) values of a constant, cosines and sines.

    The squares of each row sum to one.
    """
    period = extent_km + _PADDING_LENGTHS * length_km
    n_waves = int(np.ceil(np.sqrt(-np.log(_LEAST_SHARE)) * period / (np.pi * length_km)))
    number = np.arange(n_waves + 1)
    power = np.exp(-((np.pi * number * length_km / period) ** 2))
    power[1:] *= 2
    amplitude = np.sqrt(power / power.sum())
    angle = 2 * np.pi * position_km[:, None] * number / period
    waves = np.hstack([amplitude * np.cos(angle), amplitude[1:] * np.sin(angle[:, 1:])])
    return waves.astype(np.float32)
