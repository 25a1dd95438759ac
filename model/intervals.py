"""How sure scores of one place are: analytic intervals, and what autocorrelation leaves of n days.

The intervals equal pytesmo's (pearson_r_ci, bias_ci, ubrmsd_ci; it has none of RMSE). Where pytesmo
warns or raises, of fewer pairs than said here, ours are NaN. They take days to be independent;
days of soil moisture are not, so `analytic` gives them the effective number of days instead.
"""

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model import metrics
from model.metrics import Bools, Floats, Scores

Bounds: TypeAlias = tuple[Floats, Floats]
LEAST_PAIRS = 10  # of days, that tell how alike two days are


class Interval(NamedTuple):
    """Of a score, (place,) each: the effective number of days and the bounds that it gives."""

    n_eff: Floats
    low: Floats
    high: Floats


def pearson_interval(r: ArrayLike, n: ArrayLike, level: float = 0.95) -> Bounds:
    """Low and high of a correlation of n pairs: Fisher's z of sd 1 / sqrt(n - 3), any one shape.

    As pytesmo's pearson_r_ci (Bonett and Wright 2000). NaN below three pairs. Three pairs have an
    infinite sd and give (-1, 1), also where r is -1 or 1 and pytesmo's difference of infinities is
    NaN.
    """
    from scipy import stats

    r, n = np.asarray(r, np.float64), np.asarray(n, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # r = 1 gives (1, 1)
        centre = np.where(n == 3, 0 * r, np.arctanh(r))
        margin = stats.norm.ppf((1 + level) / 2) / np.sqrt(n - 3)
        return np.tanh(centre - margin), np.tanh(centre + margin)


def bias_interval(bias: ArrayLike, ubrmse: ArrayLike, n: ArrayLike, level: float = 0.95) -> Bounds:
    """Low and high of the mean of n differences, Student's t with error ubrmse / sqrt(n - 1).

    As pytesmo's bias_ci, any one shape, in the unit given. NaN below two pairs.
    """
    from scipy import stats

    freedom = np.where(np.greater(n, 1), np.subtract(n, 1), np.nan)
    margin = np.asarray(ubrmse) / np.sqrt(freedom) * stats.t.ppf((1 + level) / 2, freedom)
    return np.subtract(bias, margin), np.add(bias, margin)


def ubrmse_interval(ubrmse: ArrayLike, n: ArrayLike, level: float = 0.95) -> Bounds:
    """Low and high of ubrmse from n ubrmse^2 / sigma^2 being chi-squared with n - 1.

    As pytesmo's ubrmsd_ci, any one shape, in the unit given. NaN below two pairs.
    """
    from scipy import stats

    total, freedom = np.multiply(n, np.square(ubrmse)), np.subtract(n, 1)
    low, high = (stats.chi2.ppf(q, freedom) for q in ((1 + level) / 2, (1 - level) / 2))
    return np.sqrt(total / low), np.sqrt(total / high)


def analytic(
    prediction: ArrayLike,
    observation: ArrayLike,
    times: ArrayLike,
    scored: Scores,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Intervals of correlation, bias and ubrmse of every place, from effective numbers of days.

    By Bretherton et al. (1999): of two series whose days are alike with r1 and r2 the correlation
    rests on effective_n(r1 r2); the mean of errors on effective_n(r1), their variance on that of
    r1^2, r1 being the errors'. `scored` is what metrics.scores makes of the other arguments. n_eff
    is NaN where an autocorrelation is, and the bounds where too few days are left.
    """
    p, o = np.asarray(prediction), np.asarray(observation)
    made = [_effective(p[part], o[part], times) for part in metrics.parts(len(p))]
    of_r, of_mean, of_spread = (np.concatenate(found) for found in zip(*made, strict=True))
    r, bias, ubrmse = (scored[name] for name in ("correlation", "bias", "ubrmse"))
    return {
        "correlation": Interval(of_r, *pearson_interval(r, of_r, level)),
        "bias": Interval(of_mean, *bias_interval(bias, ubrmse, of_mean, level)),
        "ubrmse": Interval(of_spread, *ubrmse_interval(ubrmse, of_spread, level)),
    }


def _effective(
    prediction: NDArray[Any], observation: NDArray[Any], times: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """(place,) effective numbers of days of the correlation, the mean of errors, their variance."""
    p, o, valid, day = metrics.pairs(prediction, observation, times)
    r1 = {name: autocorrelation(v, valid, day) for name, v in (("p", p), ("o", o), ("e", p - o))}
    of_r, of_mean, of_spread = (
        effective_n(alike, valid, day) for alike in (r1["p"] * r1["o"], r1["e"], r1["e"] ** 2)
    )
    return of_r, of_mean, of_spread


def autocorrelation(values: Floats, valid: Bools, day: NDArray[np.int64]) -> Floats:
    """(place,) correlation r1 of (place, time) values with those of the day after.

    Of pairs of days both valid (place, time), `day` (time,) counting days. Where less than a tenth
    of the days, or LEAST_PAIRS, have the next one, as with a satellite: r1^k is the correlation
    over the shortest step of k days that more have, a week at most. NaN where none has, and for a
    constant series; a negative correlation over more than a day is zero.
    """
    wanted = np.maximum(LEAST_PAIRS, valid.sum(axis=1) / 10)
    least = metrics.ROUNDING * np.abs(np.where(valid, values, 0.0)).max(axis=1, initial=0.0)
    r1, todo = np.full(len(values), np.nan), np.ones(len(values), bool)
    for step in range(1, 8):
        later = np.searchsorted(day, day + step)
        here = np.flatnonzero(np.isin(day + step, day))
        both = valid[:, here] & valid[:, later[here]]
        now = todo & (both.sum(axis=1) >= wanted)
        x, y = values[now][:, here], values[now][:, later[here]]
        r = metrics.correlation(x, y, both[now], least[now], least[now])
        r1[now] = r if step == 1 else np.maximum(r, 0.0) ** (1 / step)
        todo &= ~now
        if not todo.any():
            break
    return r1


def effective_n(alike: Floats, valid: Bools, day: NDArray[np.int64]) -> Floats:
    """(place,) number of independent days that say as much: n^2 / (sum over i, j of alike^|i - j|).

    `alike` (place,) is what a day shares with the next, less than zero taken as zero; the sum goes
    over the days that are valid (place, time), `day` (time,) apart. Of n days without gaps it
    tends to n (1 - alike) / (1 + alike). NaN without a day, or where `alike` is NaN.
    """
    base = np.clip(alike, 0.0, 1.0)
    before, shared = np.zeros(len(base)), np.zeros(len(base))
    steps = np.diff(day, prepend=day[:1])
    for here, step in zip(valid.T, steps, strict=True):
        before *= base**step
        shared += np.where(here, before, 0.0)
        before += here
    n = valid.sum(axis=1)
    return np.where(n > 0, n**2 / np.maximum(n + 2 * shared, 1.0), np.nan)
