"""Scores of predicted against observed series at each place, and their uncertainty.

A pair counts only if both values are finite; all computations are in float64. Scores equal
pytesmo's (pearson_r, bias, rmsd, ubrmsd, calc_anomaly). Where pytesmo raises, as without any pair,
or returns a correlation of a series that is constant up to rounding, results are NaN, without a
warning.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]
Scores: TypeAlias = dict[str, NDArray[Any]]
METRICS = ("bias", "rmse", "ubrmse", "correlation", "anomaly_correlation", "kge")
LABELS = {  # in figures, tables and sentences
    "correlation": "R",
    "rmse": "RMSE",
    "ubrmse": "ubRMSE",
    "bias": "bias",
    "anomaly_correlation": "anomaly R",
    "kge": "KGE",
}
ANOMALY_WINDOW = 35  # days, centred: 17 on either side; one value is enough, as in pytesmo
SCORED_PLACES = 1024  # places scored at once, which bounds the memory
FEWEST = 30  # values that a site needs for calibration and for local adjustment

ROUNDING_TOLERANCE = (
    1e-13  # a spread below this fraction of the largest value is noise of the arithmetic
)


def scores(prediction: ArrayLike, observation: ArrayLike, times: ArrayLike) -> Scores:
    """Score every place over the days that have both a prediction and an observation.

    The scores are bias (prediction minus observation), RMSE, unbiased RMSE (the RMSE after removal
    of the bias; Entekhabi et al. 2010), the Pearson correlation r, the correlation of anomalies
    from a moving mean of 35 days, and the Kling-Gupta efficiency. The KGE is 1 - sqrt((r - 1)^2 +
    (alpha - 1)^2 + (beta - 1)^2), where alpha is the ratio of standard deviations and beta the
    ratio of means, prediction over observation (Gupta et al. 2009).

    Args:
      prediction: (place, time) in any unit; values that are not finite count as missing.
      observation: (place, time) in the same unit; values that are not finite count as missing.
      times: (time,) days, strictly increasing; gaps are allowed.

    Returns:
      (place,) arrays: the number of pairs `n` and one per name in METRICS; bias, rmse and ubrmse
        are in the unit of the inputs. All scores are NaN without a pair, r and KGE for a constant
        series, KGE for an observed mean of zero.

    Raises:
      ValueError: If shapes do not match or times do not increase.
    """
    p, o = np.asarray(prediction), np.asarray(observation)
    chunks = [_scores(p[chunk], o[chunk], times) for chunk in place_chunks(len(p))]
    return {name: np.concatenate([scored[name] for scored in chunks]) for name in chunks[0]}


def place_chunks(n_places: int) -> list[slice]:
    """Return slices of places to score at once, which bounds the memory; at least one slice."""
    return [
        slice(start, start + SCORED_PLACES) for start in range(0, max(n_places, 1), SCORED_PLACES)
    ]


def _scores(prediction: NDArray[Any], observation: NDArray[Any], times: ArrayLike) -> Scores:
    p, o, valid, day = paired_series(prediction, observation, times)
    p_threshold, o_threshold = (
        ROUNDING_TOLERANCE * np.abs(v).max(axis=1, initial=0.0) for v in (p, o)
    )
    p_dev, o_dev, error_dev = (_deviation(v, valid) for v in (p, o, p - o))
    p_anomaly, o_anomaly = (_anomaly(v, valid, day) for v in (p_dev, o_dev))
    r = pearson(p_dev, o_dev, valid, p_threshold, o_threshold)
    o_mean = _mean(o, valid)
    defined = np.isfinite(r) & (np.abs(o_mean) > o_threshold)
    alpha = _rms(p_dev, valid) / np.where(defined, _rms(o_dev, valid), np.nan)
    beta = _mean(p, valid) / np.where(defined, o_mean, np.nan)
    return {
        "n": valid.sum(axis=1),
        "bias": _mean(p - o, valid),
        "rmse": _rms(p - o, valid),
        "ubrmse": _rms(error_dev, valid),
        "correlation": r,
        "anomaly_correlation": pearson(p_anomaly, o_anomaly, valid, p_threshold, o_threshold),
        "kge": 1.0 - np.sqrt((r - 1.0) ** 2 + (alpha - 1.0) ** 2 + (beta - 1.0) ** 2),
    }


def paired_series(
    prediction: ArrayLike, observation: ArrayLike, times: ArrayLike
) -> tuple[Floats, Floats, Bools, NDArray[np.int64]]:
    """Return both series with their missing values set to zero, the mask of pairs and the days.

    Returns:
      prediction and observation, (place, time) float64, zero where either is missing; whether both
        are present, (place, time); days since 1970-01-01, (time,).

    Raises:
      ValueError: If shapes do not match or times do not increase.
    """
    p, o = np.asarray(prediction, np.float64), np.asarray(observation, np.float64)
    day = np.asarray(times, "datetime64[D]").astype(np.int64)
    if p.ndim != 2 or p.shape != o.shape or day.shape != p.shape[1:]:
        shapes = f"prediction {p.shape}, observation {o.shape}, times {day.shape}"
        raise ValueError(f"shapes are {shapes}; expected (place, time), (place, time), (time,)")
    if (np.diff(day) <= 0).any():
        raise ValueError("times are not strictly increasing days")
    valid = np.isfinite(p) & np.isfinite(o)
    return np.where(valid, p, 0.0), np.where(valid, o, 0.0), valid, day


def _mean(values: Floats, valid: Bools) -> Floats:
    """Return the (place,) mean of (place, time) values over valid times; NaN if there is none."""
    n = valid.sum(axis=1)
    total = np.where(valid, values, 0.0).sum(axis=1)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _deviation(values: Floats, valid: Bools) -> Floats:
    """Return (place, time) values minus their mean over valid times; zero elsewhere."""
    return np.where(valid, values - _mean(values, valid)[:, None], 0.0)


def _rms(values: Floats, valid: Bools) -> Floats:
    """Return the (place,) root mean square of values over valid times; NaN if there is none."""
    root: Floats = np.sqrt(_mean(values**2, valid))
    return root


def pearson(x: Floats, y: Floats, valid: Bools, x_threshold: Floats, y_threshold: Floats) -> Floats:
    """Return the (place,) Pearson correlation of (place, time) pairs.

    Args:
      x: (place, time) values.
      y: (place, time) values.
      valid: (place, time) whether a pair counts.
      x_threshold: (place,) standard deviation of x up to which x counts as constant.
      y_threshold: (place,) standard deviation of y up to which y counts as constant.

    Returns:
      (place,) correlations; NaN where a series counts as constant.
    """
    x, y = _deviation(x, valid), _deviation(y, valid)
    x_spread, y_spread = _rms(x, valid), _rms(y, valid)
    defined = (x_spread > x_threshold) & (y_spread > y_threshold)
    x = x / np.where(defined, x_spread, np.nan)[:, None]
    y = y / np.where(defined, y_spread, np.nan)[:, None]
    return np.clip(_mean(x * y, valid), -1.0, 1.0)


def _anomaly(values: Floats, valid: Bools, day: NDArray[np.int64]) -> Floats:
    """Return values minus their mean over valid times in ANOMALY_WINDOW; zero elsewhere."""
    margin, offset = ANOMALY_WINDOW // 2, day - day[:1]
    n_days = offset.max(initial=0) + 1 + 2 * margin
    daily, present = np.zeros((len(values), n_days)), np.zeros((len(values), n_days + 1), np.int32)
    daily[:, offset + margin] = np.where(valid, values, 0.0)
    present[:, offset + margin + 1] = valid
    total = sliding_window_view(daily, ANOMALY_WINDOW, axis=-1).sum(axis=-1)[:, offset]
    cumulative = present.cumsum(axis=1)  # exact for counts; for sums of values it would round
    n = cumulative[:, offset + ANOMALY_WINDOW] - cumulative[:, offset]
    return np.where(valid, values - total / np.maximum(n, 1), 0.0)


def block_bootstrap(
    values: ArrayLike,
    blocks: ArrayLike,
    statistic: Literal["median", "mean"] = "median",
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of a statistic over places by a block bootstrap.

    Each draw takes as many whole blocks as there are, with replacement. The same seed gives the
    same interval.

    Args:
      values: (place,) values; those that are not finite are left out.
      blocks: (place,) integer labels of the blocks.
      statistic: the statistic over places.
      n_draws: number of bootstrap draws.
      seed: seed of the draws.
      level: nominal coverage of the interval.

    Returns:
      The lower and the upper bound, in the unit of `values`; NaN with fewer than two blocks.
    """
    v, labels = np.asarray(values, np.float64), np.asarray(blocks)
    order = np.argsort(v, kind="stable")
    order = order[np.isfinite(v[order])]
    v, (names, block) = v[order], np.unique(labels[order], return_inverse=True)
    if (k := len(names)) < 2:
        return np.nan, np.nan
    drawn = np.random.default_rng(seed).multinomial(k, [1 / k] * k, size=n_draws)
    # (draw, place): how often each draw takes each place.
    weight = drawn.astype(np.int32)[:, block]
    cumulative = weight.cumsum(axis=1, dtype=np.int32)
    n = cumulative[:, -1:]
    middle = [v[(cumulative > i).argmax(axis=1)] for i in ((n - 1) // 2, n // 2)]
    draws = {"median": np.mean(middle, axis=0), "mean": weight @ v / n[:, 0]}[statistic]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    a: ArrayLike, b: ArrayLike, blocks: ArrayLike, n_draws: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Return the median of a - b and its interval by `block_bootstrap`.

    Args:
      a: (place,) values; only places where both are finite count.
      b: (place,) values in the same unit.
      blocks: (place,) integer labels of the blocks.
      n_draws: number of bootstrap draws.
      seed: seed of the draws.

    Returns:
      `median_difference`, `ci95` as [low, high] and `n_sites`; the first two are NaN without a
        place.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    difference = x[both] - y[both]
    interval = block_bootstrap(difference, np.asarray(blocks)[both], "median", n_draws, seed)
    median = float(np.median(difference)) if len(difference) else np.nan
    return {"median_difference": median, "ci95": list(interval), "n_sites": len(difference)}


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Return Spearman's rank correlation of two arrays of one shape; ties share their mean rank.

    Only entries that are finite in both count. It is zero if either is constant, as it then ranks
    nothing, and NaN with fewer than two pairs.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < 2:
        return np.nan
    if np.ptp(x[both]) == 0.0 or np.ptp(y[both]) == 0.0:
        return 0.0
    return float(np.corrcoef(_ranks(x[both]), _ranks(y[both]))[0, 1])


def spearman_interval(
    a: ArrayLike,
    b: ArrayLike,
    blocks: ArrayLike,
    n_draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of Spearman's rank correlation by a block bootstrap.

    Whole blocks are drawn as in `block_bootstrap`; ranks are those among all places.

    Args:
      a: (place,) values; only places where both are finite count.
      b: (place,) values.
      blocks: (place,) integer labels of the blocks.
      n_draws: number of bootstrap draws.
      seed: seed of the draws.
      level: nominal coverage of the interval.

    Returns:
      The lower and the upper bound; NaN with fewer than two blocks, or if either is constant.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    names, block = np.unique(np.asarray(blocks)[both], return_inverse=True)
    if (k := len(names)) < 2 or np.ptp(x[both]) == 0.0 or np.ptp(y[both]) == 0.0:
        return np.nan, np.nan
    x, y = (r - r.mean() for r in (_ranks(x[both]), _ranks(y[both])))
    weight = np.random.default_rng(seed).multinomial(k, [1 / k] * k, size=n_draws)[:, block]
    n = weight.sum(axis=1)
    mx, my, xx, yy, xy = (weight @ v / n for v in (x, y, x * x, y * y, x * y))
    spread = (xx - mx**2) * (yy - my**2)
    r = (xy - mx * my)[spread > 0] / np.sqrt(spread[spread > 0])
    low, high = np.quantile(r, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ranks(values: Floats) -> Floats:
    """Return the rank, from 1, of each of (n,) values; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[inverse])
