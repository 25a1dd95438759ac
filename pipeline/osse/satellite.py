"""Satellite observations: footprint means of the truth with errors, at the days of an overpass.

  retrieval = s                                        footprint mean of the truth
    + .6 (s - its mean over 6 days up to this one)     fast drying
    + .1 a (s - its mean over the period)              amplitude error, a a smooth field
    + .02 v (NDVI - its mean over the year) / .5       seasonal vegetation error, v a smooth field
    + bias + noise

a and v have unit variance and one value per footprint, constant in time: the amplitude is too large
in some footprints and too small in others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.osse.fields import Area, Field, Waves
from pipeline.osse.land import Land, greenness
from pipeline.osse.planet import Magnitudes, stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.grid import FloatArray, Window

_SMOOTH_KM = 200.0  # correlation length of bias, amplitude and vegetation error (free)
_REPEAT_DAYS = 8
_CEILING_M3_M3 = 0.65


@dataclass(frozen=True)
class Passed:
    """The truth of footprints, as the satellite could observe it.

    Attributes:
      days: (day,) days.
      moisture: (day, fy, fx) mean moisture of the cells, m3 m-3.
      soil_celsius: (day, fy, fx) mean soil temperature of the cells, degC.
    """

    days: NDArray[np.datetime64]
    moisture: FloatArray
    soil_celsius: FloatArray


def footprint_mean(values: NDArray[np.floating], refinement: int) -> FloatArray:
    """Return the (..., fy, fx) means of the cells of each footprint, of values (..., y, x)."""
    *first, height, width = values.shape
    shape = (*first, height // refinement, refinement, width // refinement, refinement)
    return np.asarray(values.reshape(shape).mean((-3, -1), dtype=np.float64))


def observe(
    window: Window,
    land: Land,
    parameters: Magnitudes,
    seed: int,
    footprints: Passed,
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
    mean_ndvi, mean_truth = footprint_mean(land.ndvi, window.refinement), truth.mean(0)
    amplitude, vegetation = _smooth(window, seed, "seasonal_error", 2)
    per_half = parameters.seasonal_m3_m3_per_half_ndvi * vegetation / 0.5
    bias, passes = _bias(window, land, parameters, seed), _swaths(window, parameters, seed, days)
    noise_stream, retrievals = stream(seed, "satellite_noise"), np.empty(truth.shape, np.float32)
    trailing = _trailing_means(footprints.moisture, parameters.fast_drying_days)
    for day, recent in enumerate(trailing, -len(footprints.days[: period.start])):
        if day < 0:
            continue
        ndvi = greenness(days[day : day + 1], rows, mean_ndvi)[0]
        value = truth[day] + parameters.fast_drying * (truth[day] - recent)
        value += parameters.amplitude_error * amplitude * (truth[day] - mean_truth)
        value += per_half * (ndvi - mean_ndvi)
        value += bias
        value += _noise(parameters, noise_stream, ndvi)
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


def _smooth(window: Window, seed: int, name: str, n: int) -> FloatArray:
    """Draw n smooth fields (n, fy, fx) of unit variance from a random stream."""
    y_m = window.cell_y.reshape(-1, window.refinement).mean(1)
    x_m = window.cell_x.reshape(-1, window.refinement).mean(1)
    return (
        Waves(Area.from_positions(window, y_m, x_m), _SMOOTH_KM)
        .draw(stream(seed, name), n)
        .astype(float)
    )


def _bias(window: Window, land: Land, parameters: Magnitudes, seed: int) -> FloatArray:
    """Return the (fy, fx) bias in m3 m-3.

    One part is linear in the footprint means of the attributes; the other is independent of them.
    """
    rng = stream(seed, "satellite_bias")
    weights = rng.standard_normal(4)
    independent = _smooth(window, seed, "satellite_bias/rest", 1)[0]
    attributes = (land.sand_percent, land.clay_percent, land.bulk_density_g_cm3, land.ndvi)
    means = [_standard(footprint_mean(a, window.refinement)) for a in attributes]
    predictable = _standard(
        sum((w * m for w, m in zip(weights, means, strict=True)), np.zeros_like(independent))
    )
    independent = _unexplained(independent, means)
    share = parameters.bias_predictable_share
    shape = _standard(np.sqrt(share) * predictable + np.sqrt(1 - share) * independent)
    return np.asarray(parameters.bias_mean_m3_m3 + parameters.bias_sd_m3_m3 * shape)


def _standard(values: FloatArray) -> FloatArray:
    """Return values standardised to mean 0 and standard deviation 1; 0 if all are equal."""
    spread = values.std()
    centred = values - values.mean()
    return np.asarray(centred / spread if spread > 1e-9 else np.zeros_like(values))


def _unexplained(values: FloatArray, means: list[FloatArray]) -> FloatArray:
    """Return the part of values that is not a linear function of some means.

    It is all of the values if there are too few footprints for a regression.
    """
    if values.size <= 2 * len(means):
        return _standard(values)
    design = np.stack([m.ravel() for m in means] + [np.ones(values.size)], axis=1)
    fit = design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    return _standard(values - fit.reshape(values.shape))


def _noise(parameters: Magnitudes, rng: np.random.Generator, ndvi: FloatArray) -> FloatArray:
    """Return the (fy, fx) noise of the next day in m3 m-3, which grows from NDVI 0.1 to 0.8."""
    bare, dense = parameters.noise_factor_bare_dense
    factor = bare + (dense - bare) * np.clip((ndvi - 0.1) / 0.7, 0, 1)
    return np.asarray(parameters.noise_m3_m3 * factor * rng.standard_normal(ndvi.shape))


def _swaths(
    window: Window, parameters: Magnitudes, seed: int, days: NDArray[np.datetime64]
) -> NDArray[np.bool_]:
    """Return whether a swath passes and is not lost, (day, 1, fx).

    The repeat cycle has eight days. Because 5 is coprime to 8, the days on which one swath passes
    are spread over the cycle (0, 2, 5, 7).
    """
    rng = stream(seed, "satellite_gaps")
    phase = int(rng.integers(_REPEAT_DAYS))
    swath = (window.col + np.arange(window.width)) // parameters.swath_footprints
    number = days.astype("datetime64[D]").astype(int)[:, None]
    step = (5 * number + 3 * swath + phase) % _REPEAT_DAYS
    unique, which = np.unique(swath, return_inverse=True)
    lost = rng.random((len(days), len(unique)))[:, which] < parameters.lost_share
    return np.asarray(((step < parameters.observed_days_of_8) & ~lost)[:, None, :])
