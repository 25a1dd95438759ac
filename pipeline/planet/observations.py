"""Satellite observations: footprint means of the truth with errors, at the days of an overpass.

  retrieval = s                                        footprint mean of the truth
    + .6 (s - its mean over 6 days up to this one)     fast drying
    + .1 a (s - its mean over the period)              amplitude error, a a smooth field
    + .02 v (NDVI - its mean over the year) / .5       seasonal vegetation error, v a smooth field
    + bias + noise

a and v have unit variance and one value per footprint, constant in time: the amplitude is too large
in some footprints and too small in others.

Sites: simulate probes in cells, with errors, gaps and a few faults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.grid import ease
from pipeline.planet.land import Land, daily_ndvi
from pipeline.planet.random_fields import (
    Field,
    FieldGrid,
    PlanetParameters,
    RandomFields,
    random_stream,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.grid.ease import FloatArray, IntArray, Window


_ERROR_LENGTH_KM = 200.0  # correlation length of bias, amplitude and vegetation error (free)
_REPEAT_DAYS = 8
_CEILING_M3_M3 = 0.65


@dataclass(frozen=True)
class FootprintTruth:
    """The truth of footprints, as the satellite could observe it.

    Attributes:
      days: (day,) days.
      moisture: (day, fy, fx) mean moisture of the cells, m3 m-3.
      soil_celsius: (day, fy, fx) mean soil temperature of the cells, degC.
    """

    days: NDArray[np.datetime64]
    moisture: FloatArray
    soil_celsius: FloatArray


def footprint_means(values: NDArray[np.floating], refinement: int) -> FloatArray:
    """Return the (..., fy, fx) means of the cells of each footprint, of values (..., y, x)."""
    *first, height, width = values.shape
    shape = (*first, height // refinement, refinement, width // refinement, refinement)
    return np.asarray(values.reshape(shape).mean((-3, -1), dtype=np.float64))


def observe_footprints(
    window: Window,
    land: Land,
    parameters: PlanetParameters,
    seed: int,
    footprints: FootprintTruth,
    period: slice,
) -> Field:
    """Return the satellite's retrievals on the days of a period.

    Random streams: `satellite_bias`, `satellite_noise`, `seasonal_error`, `satellite_gaps`.

    Args:
      window: window of the grid.
      land: the true land.
      parameters: parameters of the planet.
      seed: seed of the planet.
      footprints: the truth of footprints; days before the period count in trailing means.
      period: the days to observe, as a slice of the days of `footprints`.

    Returns:
      (day, fy, fx) retrievals in m3 m-3, NaN where there is none.
    """
    days, truth = footprints.days[period], footprints.moisture[period]
    rows = window.footprint_lat[:, None]
    mean_ndvi, mean_truth = footprint_means(land.ndvi, window.refinement), truth.mean(0)
    amplitude, vegetation = _smooth_fields(window, seed, "seasonal_error", 2)
    per_half = parameters.seasonal_m3_m3_per_half_ndvi * vegetation / 0.5
    bias = _satellite_bias(window, land, parameters, seed)
    passes = _swath_passes(window, parameters, seed, days)
    noise_stream = random_stream(seed, "satellite_noise")
    retrievals = np.empty(truth.shape, np.float32)
    trailing = _trailing_means(footprints.moisture, parameters.fast_drying_days)
    for day, recent in enumerate(trailing, -len(footprints.days[: period.start])):
        if day < 0:
            continue
        ndvi = daily_ndvi(days[day : day + 1], rows, mean_ndvi)[0]
        value = truth[day] + parameters.fast_drying * (truth[day] - recent)
        value += parameters.amplitude_error * amplitude * (truth[day] - mean_truth)
        value += per_half * (ndvi - mean_ndvi)
        value += bias
        value += _satellite_noise(parameters, noise_stream, ndvi)
        value = np.clip(value, parameters.retrieval_floor_m3_m3, _CEILING_M3_M3)
        observed = passes[day] & (ndvi < parameters.dense_ndvi)
        observed &= footprints.soil_celsius[period][day] >= parameters.frozen_below_degc
        retrievals[day] = np.where(observed, value, np.nan)
    return retrievals


def _trailing_means(values: FloatArray, n_days: int) -> Iterator[FloatArray]:
    """Yield the (fy, fx) mean of each day and the n_days - 1 days before it.

    Days before the first one are left out of the mean.
    """
    totals: list[FloatArray] = []
    for day, field in enumerate(values):
        totals.append(totals[-1] + field if totals else field)
        earlier = totals.pop(0) if day >= n_days else 0.0
        yield (totals[-1] - earlier) / min(day + 1, n_days)


def _smooth_fields(window: Window, seed: int, name: str, n: int) -> FloatArray:
    """Draw n smooth fields (n, fy, fx) of unit variance from a random stream."""
    y_m = window.cell_y.reshape(-1, window.refinement).mean(1)
    x_m = window.cell_x.reshape(-1, window.refinement).mean(1)
    return (
        RandomFields(FieldGrid.from_positions(window, y_m, x_m), _ERROR_LENGTH_KM)
        .draw(random_stream(seed, name), n)
        .astype(float)
    )


def _satellite_bias(
    window: Window, land: Land, parameters: PlanetParameters, seed: int
) -> FloatArray:
    """Return the (fy, fx) bias in m3 m-3.

    One part is linear in the footprint means of the attributes; the other is independent of them.
    """
    rng = random_stream(seed, "satellite_bias")
    weights = rng.standard_normal(4)
    independent = _smooth_fields(window, seed, "satellite_bias/rest", 1)[0]
    attributes = (land.sand_percent, land.clay_percent, land.bulk_density_g_cm3, land.ndvi)
    means = [_standardise(footprint_means(a, window.refinement)) for a in attributes]
    predictable = _standardise(
        sum((w * m for w, m in zip(weights, means, strict=True)), np.zeros_like(independent))
    )
    independent = _unexplained_part(independent, means)
    share = parameters.bias_predictable_share
    shape = _standardise(np.sqrt(share) * predictable + np.sqrt(1 - share) * independent)
    return np.asarray(parameters.bias_mean_m3_m3 + parameters.bias_sd_m3_m3 * shape)


def _standardise(values: FloatArray) -> FloatArray:
    """Return values standardised to mean 0 and standard deviation 1; 0 if all are equal."""
    spread = values.std()
    centred = values - values.mean()
    return np.asarray(centred / spread if spread > 1e-9 else np.zeros_like(values))


def _unexplained_part(values: FloatArray, means: list[FloatArray]) -> FloatArray:
    """Return the part of values that is not a linear function of some means.

    It is all of the values if there are too few footprints for a regression.
    """
    if values.size <= 2 * len(means):
        return _standardise(values)
    design = np.stack([m.ravel() for m in means] + [np.ones(values.size)], axis=1)
    fit = design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    return _standardise(values - fit.reshape(values.shape))


def _satellite_noise(
    parameters: PlanetParameters, rng: np.random.Generator, ndvi: FloatArray
) -> FloatArray:
    """Return the (fy, fx) noise of the next day in m3 m-3, which grows from NDVI 0.1 to 0.8."""
    bare, dense = parameters.noise_factor_bare_dense
    factor = bare + (dense - bare) * np.clip((ndvi - 0.1) / 0.7, 0, 1)
    return np.asarray(parameters.noise_m3_m3 * factor * rng.standard_normal(ndvi.shape))


def _swath_passes(
    window: Window, parameters: PlanetParameters, seed: int, days: NDArray[np.datetime64]
) -> NDArray[np.bool_]:
    """Return whether a swath passes and is not lost, (day, 1, fx).

    The repeat cycle has eight days. Because 5 is coprime to 8, the days on which one swath passes
    are spread over the cycle (0, 2, 5, 7).
    """
    rng = random_stream(seed, "satellite_gaps")
    phase = int(rng.integers(_REPEAT_DAYS))
    swath = (window.col + np.arange(window.width)) // parameters.swath_footprints
    number = days.astype("datetime64[D]").astype(int)[:, None]
    step = (5 * number + 3 * swath + phase) % _REPEAT_DAYS
    unique, which = np.unique(swath, return_inverse=True)
    lost = rng.random((len(days), len(unique)))[:, which] < parameters.lost_share
    return np.asarray(((step < parameters.observed_days_of_8) & ~lost)[:, None, :])


GOOD_FLAG, MISSING_FLAG, FROZEN_FLAG = 0, 1, 3
_LOWER_LIMIT_M3_M3, _THRESHOLD_M3_M3 = 0.01, 0.03


@dataclass(frozen=True)
class PlanetSites:
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


def place_sites(
    window: Window, n_sites: int, seed: int, land: NDArray[np.bool_] | None = None
) -> PlanetSites:
    """Place sites in footprints, from the random stream `sites`.

    Every footprint gets one site before any gets a second. A site lies in the middle half of a
    random cell of its footprint.

    Args:
      window: window of the grid.
      n_sites: number of sites.
      seed: seed of the planet.
      land: (fy, fx) mask of the footprints that may get a site; None for all.
    """
    rng = random_stream(seed, "sites")
    side = window.refinement
    footprints = np.arange(window.height * window.width) if land is None else np.flatnonzero(land)
    rounds = -(-n_sites // len(footprints))
    footprint = np.concatenate([rng.permutation(footprints) for _ in range(rounds)])[:n_sites]
    y = footprint // window.width * side + rng.integers(side, size=n_sites)
    x = footprint % window.width * side + rng.integers(side, size=n_sites)
    cell_size_m = ease.FOOTPRINT_SIZE_M / side
    shift_y, shift_x = rng.uniform(-cell_size_m / 4, cell_size_m / 4, (2, n_sites))
    lat, lon = ease.unproject(window.cell_x[x] + shift_x, window.cell_y[y] + shift_y)
    return PlanetSites(y, x, lat, lon)


def observe_sites(
    truth: FloatArray, soil_celsius: FloatArray, parameters: PlanetParameters, seed: int
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
    values = _add_probe_errors(truth, parameters, seed)
    missing = _draw_gaps(truth.shape, parameters, seed)
    values[missing] = np.nan
    faulty = _add_faults(values, parameters, seed)
    flags = np.where(soil_celsius <= 0, FROZEN_FLAG, GOOD_FLAG)
    flags[missing & ~faulty] = MISSING_FLAG
    return values.astype(np.float32), flags.astype(np.int8)


def _add_probe_errors(truth: FloatArray, parameters: PlanetParameters, seed: int) -> FloatArray:
    """Return (day, site) values with offset, scale error and noise.

    Below a threshold, values approach a lower limit without reaching it. If they were clipped, a
    probe in dry soil would look stuck.
    """
    if not any((parameters.site_offset_m3_m3, parameters.site_scale, parameters.site_noise_m3_m3)):
        return truth.copy()
    rng, (n_days, n_sites) = random_stream(seed, "site_error"), truth.shape
    offset, scale = rng.standard_normal((2, n_sites))
    offset -= offset.mean()  # centred: probes as a whole are unbiased
    values = truth + parameters.site_offset_m3_m3 * offset
    values += parameters.site_scale * scale * (truth - truth.mean(0))
    values += parameters.site_noise_m3_m3 * rng.standard_normal((n_days, n_sites))
    room = _THRESHOLD_M3_M3 - _LOWER_LIMIT_M3_M3
    below = np.minimum(values - _THRESHOLD_M3_M3, 0.0) / room
    return np.asarray(np.where(below < 0, _LOWER_LIMIT_M3_M3 + room * np.exp(below), values))


def _draw_gaps(
    shape: tuple[int, ...], parameters: PlanetParameters, seed: int
) -> NDArray[np.bool_]:
    """Return the (day, site) mask of gaps.

    Gaps start and end at random, at rates that give the missing share and the mean length of a gap.
    """
    chance = random_stream(seed, "site_gaps").random(shape)
    share = parameters.site_missing_share
    ends = 1 / parameters.site_gap_days
    begins = ends * share / (1 - share)
    missing = np.zeros(shape, bool)
    in_gap = np.zeros(shape[1:], bool)
    for day, draw in enumerate(chance):
        threshold = np.where(in_gap, 1 - ends, begins) if day else np.full(shape[1:], share)
        in_gap = missing[day] = draw < threshold
    return missing


def _add_faults(values: FloatArray, parameters: PlanetParameters, seed: int) -> NDArray[np.bool_]:
    """Add faults to some sites in place, alternately stuck values and spikes.

    Returns:
      (day, site) mask of the faults.
    """
    rng, (n_days, n_sites) = random_stream(seed, "site_faults"), values.shape
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
