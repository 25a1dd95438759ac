"""The satellite: footprint means of the truth, with its errors, where and when it observes.

  retrieval = s                                        footprint mean of the truth
    + .6 (s - its mean over 6 days up to this one)     fast drying
    + .1 a (s - its mean over the period)              amplitude error, a a smooth field
    + .02 v (NDVI - its mean over the year) / .5       seasonal vegetation error, v a smooth field
    + bias + noise

a and v have unit variance and one value per footprint, constant in time: some footprints swing too
much and some too little.
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

_SMOOTH_KM = 200.0  # of bias, amplitude and vegetation error (free)
_REPEAT_DAYS = 8
_CEILING_M3_M3 = 0.65


@dataclass(frozen=True)
class Passed:
    """What passed under the satellite: days (day,), and means over footprints (day, fy, fx)."""

    days: NDArray[np.datetime64]
    moisture: FloatArray  # m3 m-3
    soil_celsius: FloatArray


def footprint_mean(values: NDArray[np.floating], refinement: int) -> FloatArray:
    """(..., fy, fx) means of the cells of each footprint, of values (..., y, x)."""
    *first, height, width = values.shape
    shape = (*first, height // refinement, refinement, width // refinement, refinement)
    return np.asarray(values.reshape(shape).mean((-3, -1), dtype=np.float64))


def observe(
    window: Window,
    land: Land,
    sizes: Magnitudes,
    seed: int,
    passed: Passed,
    period: slice,
) -> Field:
    """Retrievals (day, fy, fx) in m3 m-3 of the days of `period`; NaN where there is none.

    Days of `passed` before the period count in trailing means. Streams: `satellite_bias`,
    `satellite_noise`, `seasonal_error`, `satellite_gaps`.
    """
    days, truth = passed.days[period], passed.moisture[period]
    rows = window.footprint_lat[:, None]
    mean_ndvi, mean_truth = footprint_mean(land.ndvi, window.refinement), truth.mean(0)
    amplitude, vegetation = _smooth(window, seed, "seasonal_error", 2)
    per_half = sizes.seasonal_m3_m3_per_half_ndvi * vegetation / 0.5
    bias, passes = _bias(window, land, sizes, seed), _swaths(window, sizes, seed, days)
    noises, made = stream(seed, "satellite_noise"), np.empty(truth.shape, np.float32)
    trailing = _trailing_means(passed.moisture, sizes.fast_drying_days)
    for day, recent in enumerate(trailing, -len(passed.days[: period.start])):
        if day < 0:
            continue
        ndvi = greenness(days[day : day + 1], rows, mean_ndvi)[0]
        value = truth[day] + sizes.fast_drying * (truth[day] - recent)
        value += sizes.amplitude_error * amplitude * (truth[day] - mean_truth)
        value += per_half * (ndvi - mean_ndvi)
        value += bias
        value += _noise(sizes, noises, ndvi)
        value = np.clip(value, sizes.retrieval_floor_m3_m3, _CEILING_M3_M3)
        seen = passes[day] & (ndvi < sizes.dense_ndvi)
        seen &= passed.soil_celsius[period][day] >= sizes.frozen_below_degc
        made[day] = np.where(seen, value, np.nan)
    return made


def _trailing_means(values: FloatArray, n_days: int) -> Iterator[FloatArray]:
    """(fy, fx) mean of each day (day, fy, fx) and the n_days - 1 before it, or what there are."""
    totals: list[FloatArray] = []
    for day, field in enumerate(values):
        totals.append(totals[-1] + field if totals else field)
        earlier = totals.pop(0) if day >= n_days else 0.0
        yield (totals[-1] - earlier) / min(day + 1, n_days)


def _smooth(window: Window, seed: int, name: str, n: int) -> FloatArray:
    """Smooth fields (n, fy, fx) of unit variance, from a stream."""
    y_m = window.cell_y.reshape(-1, window.refinement).mean(1)
    x_m = window.cell_x.reshape(-1, window.refinement).mean(1)
    return Waves(Area.of(window, y_m, x_m), _SMOOTH_KM).draw(stream(seed, name), n).astype(float)


def _bias(window: Window, land: Land, sizes: Magnitudes, seed: int) -> FloatArray:
    """(fy, fx) m3 m-3: one part linear in the attributes' footprint means, one that is not."""
    rng = stream(seed, "satellite_bias")
    weights = rng.standard_normal(4)
    rest = _smooth(window, seed, "satellite_bias/rest", 1)[0]
    attributes = (land.sand_percent, land.clay_percent, land.bulk_density_g_cm3, land.ndvi)
    means = [_standard(footprint_mean(a, window.refinement)) for a in attributes]
    told = _standard(sum((w * m for w, m in zip(weights, means, strict=True)), np.zeros_like(rest)))
    rest = _unexplained(rest, means)
    share = sizes.bias_predictable_share
    shape = _standard(np.sqrt(share) * told + np.sqrt(1 - share) * rest)
    return np.asarray(sizes.bias_mean_m3_m3 + sizes.bias_sd_m3_m3 * shape)


def _standard(values: FloatArray) -> FloatArray:
    """Values with mean 0 and standard deviation 1; 0 where they are all alike."""
    spread = values.std()
    centred = values - values.mean()
    return np.asarray(centred / spread if spread > 1e-9 else np.zeros_like(values))


def _unexplained(values: FloatArray, means: list[FloatArray]) -> FloatArray:
    """What no linear function of the means tells; all of it where footprints are too few."""
    if values.size <= 2 * len(means):
        return _standard(values)
    design = np.stack([m.ravel() for m in means] + [np.ones(values.size)], axis=1)
    fit = design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    return _standard(values - fit.reshape(values.shape))


def _noise(sizes: Magnitudes, rng: np.random.Generator, ndvi: FloatArray) -> FloatArray:
    """(fy, fx) m3 m-3 of the next day, white, growing with vegetation from NDVI .1 to .8."""
    bare, dense = sizes.noise_factor_bare_dense
    factor = bare + (dense - bare) * np.clip((ndvi - 0.1) / 0.7, 0, 1)
    return np.asarray(sizes.noise_m3_m3 * factor * rng.standard_normal(ndvi.shape))


def _swaths(
    window: Window, sizes: Magnitudes, seed: int, days: NDArray[np.datetime64]
) -> NDArray[np.bool_]:
    """(day, 1, fx) True where a swath passes and is not lost.

    Five is prime to eight: the days of one swath in a cycle are spread (0, 2, 5, 7).
    """
    rng = stream(seed, "satellite_gaps")
    phase = int(rng.integers(_REPEAT_DAYS))
    swath = (window.col + np.arange(window.width)) // sizes.swath_footprints
    number = days.astype("datetime64[D]").astype(int)[:, None]
    step = (5 * number + 3 * swath + phase) % _REPEAT_DAYS
    unique, which = np.unique(swath, return_inverse=True)
    lost = rng.random((len(days), len(unique)))[:, which] < sizes.lost_share
    return np.asarray(((step < sizes.observed_days_of_8) & ~lost)[:, None, :])
