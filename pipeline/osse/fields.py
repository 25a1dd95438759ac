"""Random fields of unit variance with correlation exp(-(d / length)^2), as sums of Fourier waves.

That covariance is a product of one in y and one in x, so a field is Y Z X^T with Y (y, wave) and
X (x, wave) fixed and Z (wave, wave) standard normal: far less work than a two-dimensional FFT of
a padded grid, and any rectilinear grid will do. The waves are those of a period three lengths
longer than the window, so that opposite edges are uncorrelated (1e-4). Positions are in km from the
window's upper left corner: a finer grid samples the same field.
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
_LEAST_SHARE = 1e-4  # of the longest wave's variance


@dataclass(frozen=True)
class Area:
    """A rectilinear grid over a window: positions (y,) and (x,), and the window's sides, in km."""

    y_km: FloatArray
    x_km: FloatArray
    height_km: float
    width_km: float

    @classmethod
    def of(cls, window: Window, y_m: FloatArray, x_m: FloatArray) -> Area:
        """The grid at projected rows (y,) and columns (x,), in metres, of a window."""
        left, bottom, right, top = window.bounds
        height, width = (top - bottom) / 1000, (right - left) / 1000
        return cls((top - y_m) / 1000, (x_m - left) / 1000, height, width)


class Waves:
    """Fields of one correlation length on one area."""

    def __init__(self, area: Area, length_km: float) -> None:
        """Make the waves of both directions."""
        self.rows = _waves(area.y_km, area.height_km, length_km)
        self.cols = np.ascontiguousarray(_waves(area.x_km, area.width_km, length_km).T)

    def draw(self, rng: np.random.Generator, n: int) -> Field:
        """The next n independent fields of a stream: (n, y, x)."""
        made = np.empty((n, len(self.rows), self.cols.shape[1]), np.float32)
        for field in made:  # one by one: the waves of a large window outnumber its cells
            size = (self.rows.shape[1], self.cols.shape[0])
            field[:] = self.rows @ rng.standard_normal(size, dtype=np.float32) @ self.cols
        return made


class Persistent:
    """A field that changes from day to day: first-order autoregression with unit variance."""

    def __init__(self, waves: Waves, rng: np.random.Generator, persistence: float) -> None:
        """Keep the parts; `persistence` is the correlation of one day with the next."""
        self.waves, self.rng, self.persistence = waves, rng, np.float32(persistence)
        self.last: Field | None = None

    def days(self, n: int) -> Field:
        """The next n days: (n, y, x)."""
        field = self.waves.draw(self.rng, n)
        fresh = np.sqrt(1 - self.persistence**2)
        for day in range(n):
            if self.last is not None:
                field[day] = self.persistence * self.last + fresh * field[day]
            self.last = field[day].copy()
        return field


def two_scales(
    area: Area,
    rng: np.random.Generator,
    n: int,
    lengths_km: tuple[float, float],
    long_share: float,
) -> FloatArray:
    """Fields (n, y, x) of unit variance whose variance is shared by a long and a short length."""
    long, short = (Waves(area, length).draw(rng, n).astype(float) for length in lengths_km)
    return np.asarray(np.sqrt(long_share) * long + np.sqrt(1 - long_share) * short)


def _waves(position_km: FloatArray, extent_km: float, length_km: float) -> Field:
    """(position, wave): constant, cosines, sines; squares of a row sum to one."""
    period = extent_km + _PADDING_LENGTHS * length_km
    n_waves = int(np.ceil(np.sqrt(-np.log(_LEAST_SHARE)) * period / (np.pi * length_km)))
    number = np.arange(n_waves + 1)
    power = np.exp(-((np.pi * number * length_km / period) ** 2))
    power[1:] *= 2
    amplitude = np.sqrt(power / power.sum())
    angle = 2 * np.pi * position_km[:, None] * number / period
    both = np.hstack([amplitude * np.cos(angle), amplitude[1:] * np.sin(angle[:, 1:])])
    return both.astype(np.float32)
