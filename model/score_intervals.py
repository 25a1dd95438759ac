"""Confidence intervals of the scores of one place, which account for autocorrelation.

The interval formulas equal pytesmo's (pearson_r_ci, bias_ci, ubrmsd_ci; pytesmo has none for RMSE).
With fewer pairs than stated for each function, results are NaN where pytesmo warns or raises. The
formulas assume independent days, which days of soil moisture are not; they are therefore applied
to the effective number of days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from model import metrics
from model.metrics import Bools, Floats, Scores

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


Bounds: TypeAlias = tuple[Floats, Floats]
MIN_LAG_PAIRS = 10  # pairs of days needed to estimate an autocorrelation


class Interval(NamedTuple):
    """Interval of a score, (place,) each.

    Attributes:
      n_eff: effective number of days.
      low: lower bound, in the unit of the score.
      high: upper bound, in the unit of the score.
    """

    n_eff: Floats
    low: Floats
    high: Floats


def pearson_interval(r: ArrayLike, n: ArrayLike, level: float = 0.95) -> Bounds:
    """Return the bounds of a correlation of n pairs by Fisher's z with sd 1 / sqrt(n - 3).

    As pytesmo's pearson_r_ci (Bonett and Wright 2000). NaN below three pairs. Three pairs have an
    infinite sd and give (-1, 1); this also holds for r = -1 or 1, where pytesmo returns NaN.

    Args:
      r: correlations, in any shape.
      n: numbers of pairs, in the same shape.
      level: nominal coverage of the interval.

    Returns:
      The lower and the upper bounds.
    """
    from scipy import stats

    r, n = np.asarray(r, np.float64), np.asarray(n, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # r = 1 gives (1, 1)
        centre = np.where(n == 3, 0 * r, np.arctanh(r))
        margin = stats.norm.ppf((1 + level) / 2) / np.sqrt(n - 3)
        return np.tanh(centre - margin), np.tanh(centre + margin)


def bias_interval(bias: ArrayLike, ubrmse: ArrayLike, n: ArrayLike, level: float = 0.95) -> Bounds:
    """Return the bounds of the mean of n differences by Student's t.

    The standard error is ubrmse / sqrt(n - 1), as in pytesmo's bias_ci. NaN below two pairs.

    Args:
      bias: mean differences, in any shape and unit.
      ubrmse: unbiased RMSE, in the same shape and unit.
      n: numbers of pairs, in the same shape.
      level: nominal coverage of the interval.

    Returns:
      The lower and the upper bounds, in that unit.
    """
    from scipy import stats

    freedom = np.where(np.greater(n, 1), np.subtract(n, 1), np.nan)
    margin = np.asarray(ubrmse) / np.sqrt(freedom) * stats.t.ppf((1 + level) / 2, freedom)
    return np.subtract(bias, margin), np.add(bias, margin)


def ubrmse_interval(ubrmse: ArrayLike, n: ArrayLike, level: float = 0.95) -> Bounds:
    """Return the bounds of an unbiased RMSE of n pairs.

    n ubrmse^2 / sigma^2 follows a chi-squared distribution with n - 1 degrees of freedom, as in
    pytesmo's ubrmsd_ci. NaN below two pairs.

    Args:
      ubrmse: unbiased RMSE, in any shape and unit.
      n: numbers of pairs, in the same shape.
      level: nominal coverage of the interval.

    Returns:
      The lower and the upper bounds, in that unit.
    """
    from scipy import stats

    total, freedom = np.multiply(n, np.square(ubrmse)), np.subtract(n, 1)
    low, high = (stats.chi2.ppf(q, freedom) for q in ((1 + level) / 2, (1 - level) / 2))
    return np.sqrt(total / low), np.sqrt(total / high)


def analytic_intervals(
    prediction: ArrayLike,
    observation: ArrayLike,
    times: ArrayLike,
    scored: Scores,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return intervals of correlation, bias and ubrmse at every place from effective sample sizes.

    By Bretherton et al. (1999), with lag-one autocorrelations r1 and r2 of the two series, the
    correlation has effective_n(r1 r2) independent days. With r1 that of the errors, their mean has
    effective_n(r1) days and their variance has effective_n(r1^2) days.

    Args:
      prediction: (place, time) in any unit; values that are not finite count as missing.
      observation: (place, time) in the same unit; values that are not finite count as missing.
      times: (time,) days, strictly increasing; gaps are allowed.
      scored: result of `metrics.scores` for these three arguments.
      level: nominal coverage of the intervals.

    Returns:
      One interval per score name. n_eff is NaN where an autocorrelation is; the bounds are NaN also
        where the effective number of days is too small.
    """
    p, o = np.asarray(prediction), np.asarray(observation)
    chunks = [_effective_days(p[chunk], o[chunk], times) for chunk in metrics.place_chunks(len(p))]
    n_correlation, n_bias, n_ubrmse = (
        np.concatenate(values) for values in zip(*chunks, strict=True)
    )
    r, bias, ubrmse = (scored[name] for name in ("correlation", "bias", "ubrmse"))
    return {
        "correlation": Interval(n_correlation, *pearson_interval(r, n_correlation, level)),
        "bias": Interval(n_bias, *bias_interval(bias, ubrmse, n_bias, level)),
        "ubrmse": Interval(n_ubrmse, *ubrmse_interval(ubrmse, n_ubrmse, level)),
    }


def _effective_days(
    prediction: NDArray[Any], observation: NDArray[Any], times: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Return the effective numbers of days of the correlation, the mean and the variance of errors.

    All are (place,).
    """
    p, o, valid, day = metrics.paired_series(prediction, observation, times)
    r1 = {name: autocorrelation(v, valid, day) for name, v in (("p", p), ("o", o), ("e", p - o))}
    n_correlation, n_bias, n_ubrmse = (
        effective_sample_size(autocorrelations, valid, day)
        for autocorrelations in (r1["p"] * r1["o"], r1["e"], r1["e"] ** 2)
    )
    return n_correlation, n_bias, n_ubrmse


def autocorrelation(values: Floats, valid: Bools, day: NDArray[np.int64]) -> Floats:
    """Return the lag-one autocorrelation r1 of daily series.

    It is the correlation of pairs of consecutive days. If fewer than ten days, or less
    than a tenth of them, are followed by a valid day, as with a satellite, the shortest lag of k
    days (up to a week) that has enough pairs is used, with r1^k as the correlation at that lag. A
    negative correlation at a lag of more than one day counts as zero.

    Args:
      values: (place, time) values.
      valid: (place, time) whether a value is present.
      day: (time,) number of the day, strictly increasing.

    Returns:
      (place,) autocorrelations; NaN where no lag has enough pairs, and for a constant series.
    """
    min_pairs = np.maximum(MIN_LAG_PAIRS, valid.sum(axis=1) / 10)
    threshold = metrics.ROUNDING_TOLERANCE * np.abs(np.where(valid, values, 0.0)).max(
        axis=1, initial=0.0
    )
    r1, todo = np.full(len(values), np.nan), np.ones(len(values), bool)
    for step in range(1, 8):
        later = np.searchsorted(day, day + step)
        here = np.flatnonzero(np.isin(day + step, day))
        both = valid[:, here] & valid[:, later[here]]
        enough = todo & (both.sum(axis=1) >= min_pairs)
        x, y = values[enough][:, here], values[enough][:, later[here]]
        r = metrics.pearson(x, y, both[enough], threshold[enough], threshold[enough])
        r1[enough] = r if step == 1 else np.maximum(r, 0.0) ** (1 / step)
        todo &= ~enough
        if not todo.any():
            break
    return r1


def effective_sample_size(lag_one: Floats, valid: Bools, day: NDArray[np.int64]) -> Floats:
    """Return the effective sample size n^2 / (sum over i, j of r^|i - j|) (Bretherton et al. 1999).

    The sum is over pairs of valid days, which are |i - j| days apart. For n days without gaps it
    tends to n (1 - r) / (1 + r).

    Args:
      lag_one: (place,) lag-one autocorrelation r; a negative value counts as zero.
      valid: (place, time) whether a day is present.
      day: (time,) number of the day, strictly increasing.

    Returns:
      (place,) effective sample sizes; NaN for a place without a valid day or with NaN as `lag_one`.
    """
    base = np.clip(lag_one, 0.0, 1.0)
    weight, shared = np.zeros(len(base)), np.zeros(len(base))
    steps = np.diff(day, prepend=day[:1])
    for present, step in zip(valid.T, steps, strict=True):
        weight *= base**step
        shared += np.where(present, weight, 0.0)
        weight += present
    n = valid.sum(axis=1)
    return np.where(n > 0, n**2 / np.maximum(n + 2 * shared, 1.0), np.nan)
