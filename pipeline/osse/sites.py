"""Sites: probes in cells, with errors, gaps, and a few that are broken."""

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
    """Where sites are: the cell (y, x) that holds each, and its place in degrees; (site,) each."""

    y: IntArray
    x: IntArray
    lat: FloatArray
    lon: FloatArray

    @property
    def ids(self) -> list[str]:
        """Names, in order."""
        return [f"site-{i:02d}" for i in range(len(self.y))]


def place(window: Window, n_sites: int, seed: int, land: NDArray[np.bool_] | None = None) -> Sites:
    """Deal sites to footprints, each getting one before any gets two; stream `sites`.

    `land` (fy, fx) says which footprints may get one: all without.

    A site lies in the middle half of a random cell of its footprint.
    """
    rng = stream(seed, "sites")
    side = window.refinement
    dry = np.arange(window.height * window.width) if land is None else np.flatnonzero(land)
    rounds = -(-n_sites // len(dry))
    dealt = np.concatenate([rng.permutation(dry) for _ in range(rounds)])[:n_sites]
    y = dealt // window.width * side + rng.integers(side, size=n_sites)
    x = dealt % window.width * side + rng.integers(side, size=n_sites)
    metres = grid.FOOTPRINT_SIZE_M / side
    shift_y, shift_x = rng.uniform(-metres / 4, metres / 4, (2, n_sites))
    lat, lon = grid.unproject(window.cell_x[x] + shift_x, window.cell_y[y] + shift_y)
    return Sites(y, x, lat, lon)


def observe(
    truth: FloatArray, soil_celsius: FloatArray, sizes: Magnitudes, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """What probes report of the truth of their cells, both (day, site) in m3 m-3 and degC.

    Returns values in m3 m-3, NaN where missing, and flags: 0 good, 1 missing, 3 frozen soil. A
    fault overrides a gap, so that switching gaps off moves no fault. Streams: `site_error`,
    `site_gaps`, `site_faults`.
    """
    values = _erroneous(truth, sizes, seed)
    missing = _gaps(truth.shape, sizes, seed)
    values[missing] = np.nan
    faulty = _break(values, sizes, seed)
    flags = np.where(soil_celsius <= 0, FROZEN, GOOD)
    flags[missing & ~faulty] = MISSING
    return values.astype(np.float32), flags.astype(np.int8)


def _erroneous(truth: FloatArray, sizes: Magnitudes, seed: int) -> FloatArray:
    """Values (day, site) with offset, scale and noise.

    Under a knee they near a floor without reaching it: clipped, a dry probe would look stuck.
    """
    if not any((sizes.site_offset_m3_m3, sizes.site_scale, sizes.site_noise_m3_m3)):
        return truth.copy()
    rng, (n_days, n_sites) = stream(seed, "site_error"), truth.shape
    offset, scale = rng.standard_normal((2, n_sites))
    offset -= offset.mean()  # centred: probes as a whole are unbiased
    values = truth + sizes.site_offset_m3_m3 * offset
    values += sizes.site_scale * scale * (truth - truth.mean(0))
    values += sizes.site_noise_m3_m3 * rng.standard_normal((n_days, n_sites))
    room = _KNEE_M3_M3 - _LOWEST_M3_M3
    below = np.minimum(values - _KNEE_M3_M3, 0.0) / room
    return np.asarray(np.where(below < 0, _LOWEST_M3_M3 + room * np.exp(below), values))


def _gaps(shape: tuple[int, ...], sizes: Magnitudes, seed: int) -> NDArray[np.bool_]:
    """(day, site) True in gaps: begun and ended at random, at rates that give their share."""
    chance = stream(seed, "site_gaps").random(shape)
    share = sizes.site_missing_share
    ends = 1 / sizes.site_gap_days
    begins = ends * share / (1 - share)
    missing = np.zeros(shape, bool)
    now = np.zeros(shape[1:], bool)
    for day, draw in enumerate(chance):
        threshold = np.where(now, 1 - ends, begins) if day else np.full(shape[1:], share)
        now = missing[day] = draw < threshold
    return missing


def _break(values: FloatArray, sizes: Magnitudes, seed: int) -> NDArray[np.bool_]:
    """Break some sites in place, by turns stuck and spiky; (day, site) True where broken."""
    rng, (n_days, n_sites) = stream(seed, "site_faults"), values.shape
    n_faulty = math.ceil(sizes.site_faulty_share * n_sites)
    faulty = np.zeros(values.shape, bool)
    for number, site in enumerate(rng.permutation(n_sites)[:n_faulty]):
        first = int(rng.integers(max(n_days - sizes.site_stuck_days, 0) + 1))
        spiked = rng.random(n_days) < sizes.site_spike_share
        heights = rng.uniform(0.7, 0.99, size=len(values))
        if number % 2:
            faulty[spiked, site] = True
            values[spiked, site] = heights[spiked]
        else:
            faulty[first : first + sizes.site_stuck_days, site] = True
            values[faulty[:, site], site] = 0.1 + 0.2 * heights[0]
    return faulty
