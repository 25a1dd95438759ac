"""Sites: simulate probes in cells, with errors, gaps and a few faults."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import grid
from pipeline.osse.planet import Magnitudes, stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid import FloatArray, IntArray, Window

GOOD, MISSING, FROZEN = 0, 1, 3
_LOWEST_M3_M3, _KNEE_M3_M3 = 0.01, 0.03


@dataclass(frozen=True)
class Sites:
    """Locations of sites, (site,) each.

    Attributes:
      y: row of the cell that holds the site.
      x: column of that cell.
      lat: latitude in degrees.
      lon: longitude in degrees.
    """

    y: IntArray
    x: IntArray
    lat: FloatArray
    lon: FloatArray

    @property
    def ids(self) -> list[str]:
        """Return the names of the sites, in order."""
        return [f"site-{i:02d}" for i in range(len(self.y))]


def place(window: Window, n_sites: int, seed: int, land: NDArray[np.bool_] | None = None) -> Sites:
    """Place sites in footprints, from the random stream `sites`.

    Every footprint gets one site before any gets a second. A site lies in the middle half of a
    random cell of its footprint.

    Args:
      window: window of the grid.
      n_sites: number of sites.
      seed: seed of the planet.
      land: (fy, fx) mask of the footprints that may get a site; None for all.
    """
    rng = stream(seed, "sites")
    side = window.refinement
    footprints = np.arange(window.height * window.width) if land is None else np.flatnonzero(land)
    rounds = -(-n_sites // len(footprints))
    footprint = np.concatenate([rng.permutation(footprints) for _ in range(rounds)])[:n_sites]
    y = footprint // window.width * side + rng.integers(side, size=n_sites)
    x = footprint % window.width * side + rng.integers(side, size=n_sites)
    cell_size_m = grid.FOOTPRINT_SIZE_M / side
    shift_y, shift_x = rng.uniform(-cell_size_m / 4, cell_size_m / 4, (2, n_sites))
    lat, lon = grid.unproject(window.cell_x[x] + shift_x, window.cell_y[y] + shift_y)
    return Sites(y, x, lat, lon)


def observe(
    truth: FloatArray, soil_celsius: FloatArray, parameters: Magnitudes, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return what probes report of the truth in their cells.

    A fault overrides a gap, so that switching gaps off does not move any fault. Random streams:
    `site_error`, `site_gaps`, `site_faults`.

    Args:
      truth: (day, site) moisture, m3 m-3.
      soil_celsius: (day, site) soil temperature, degC.
      parameters: parameters of the planet.
      seed: seed of the planet.

    Returns:
      (day, site) values in m3 m-3, NaN where missing, and (day, site) flags: 0 good, 1 missing, 3
        frozen soil.
    """
    values = _erroneous(truth, parameters, seed)
    missing = _gaps(truth.shape, parameters, seed)
    values[missing] = np.nan
    faulty = _break(values, parameters, seed)
    flags = np.where(soil_celsius <= 0, FROZEN, GOOD)
    flags[missing & ~faulty] = MISSING
    return values.astype(np.float32), flags.astype(np.int8)


def _erroneous(truth: FloatArray, parameters: Magnitudes, seed: int) -> FloatArray:
    """Return (day, site) values with offset, scale error and noise.

    Below a threshold, values approach a lower limit without reaching it. If they were clipped, a
    probe in dry soil would look stuck.
    """
    if not any((parameters.site_offset_m3_m3, parameters.site_scale, parameters.site_noise_m3_m3)):
        return truth.copy()
    rng, (n_days, n_sites) = stream(seed, "site_error"), truth.shape
    offset, scale = rng.standard_normal((2, n_sites))
    offset -= offset.mean()  # centred: probes as a whole are unbiased
    values = truth + parameters.site_offset_m3_m3 * offset
    values += parameters.site_scale * scale * (truth - truth.mean(0))
    values += parameters.site_noise_m3_m3 * rng.standard_normal((n_days, n_sites))
    room = _KNEE_M3_M3 - _LOWEST_M3_M3
    below = np.minimum(values - _KNEE_M3_M3, 0.0) / room
    return np.asarray(np.where(below < 0, _LOWEST_M3_M3 + room * np.exp(below), values))


def _gaps(shape: tuple[int, ...], parameters: Magnitudes, seed: int) -> NDArray[np.bool_]:
    """Return the (day, site) mask of gaps.

    Gaps start and end at random, at rates that give the missing share and the mean length of a gap.
    """
    chance = stream(seed, "site_gaps").random(shape)
    share = parameters.site_missing_share
    ends = 1 / parameters.site_gap_days
    begins = ends * share / (1 - share)
    missing = np.zeros(shape, bool)
    in_gap = np.zeros(shape[1:], bool)
    for day, draw in enumerate(chance):
        threshold = np.where(in_gap, 1 - ends, begins) if day else np.full(shape[1:], share)
        in_gap = missing[day] = draw < threshold
    return missing


def _break(values: FloatArray, parameters: Magnitudes, seed: int) -> NDArray[np.bool_]:
    """Add faults to some sites in place, alternately stuck values and spikes.

    Returns:
      (day, site) mask of the faults.
    """
    rng, (n_days, n_sites) = stream(seed, "site_faults"), values.shape
    n_faulty = math.ceil(parameters.site_faulty_share * n_sites)
    faulty = np.zeros(values.shape, bool)
    for number, site in enumerate(rng.permutation(n_sites)[:n_faulty]):
        first = int(rng.integers(max(n_days - parameters.site_stuck_days, 0) + 1))
        spiked = rng.random(n_days) < parameters.site_spike_share
        heights = rng.uniform(0.7, 0.99, size=len(values))
        if number % 2:
            faulty[spiked, site] = True
            values[spiked, site] = heights[spiked]
        else:
            faulty[first : first + parameters.site_stuck_days, site] = True
            values[faulty[:, site], site] = 0.1 + 0.2 * heights[0]
    return faulty
