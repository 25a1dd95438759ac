"""Local bias adjustment: estimate a site's constant offset from some of its own days.

The error of a prediction at a site (observation minus prediction) is modelled as e_t = b + x_t,
where b is a constant offset and x_t varies in time. Over sites, b is distributed as N(0, tau^2); x
has variance sigma^2 and an autocorrelation of exp(-d / L) at a lag of d days. The mean m of n
errors then varies about b with variance v = sigma^2 / n_eff, where the effective sample size is
n_eff = n^2 / (sum over i, j of exp(-|t_i - t_j| / L)) (Bayley and Hammersley 1946). The posterior
of b given m is N(B m, B v) with B = tau^2 / (tau^2 + v): the fewer the days, the more the offset is
shrunk towards zero (James and Stein 1961). tau, sigma and L are estimated from other sites:
empirical Bayes (Efron and Morris 1975).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.metrics import FEWEST
from model.score_intervals import effective_sample_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.metrics import Bools, Floats


MIN_PRIOR_SITES = 5  # sites needed to estimate the prior


class OffsetPrior(NamedTuple):
    """Prior distribution of the errors at a new site, estimated from other sites.

    Attributes:
      tau: standard deviation of the constant offsets over sites, in the target's unit.
      sigma: standard deviation of the errors in time about a site's offset, in the target's unit.
      efolding_days: e-folding time L of the autocorrelation of the errors, days.
      n_sites: number of sites that the prior was estimated from.
    """

    tau: float
    sigma: float
    efolding_days: float
    n_sites: int


def estimate_prior(error: NDArray[np.floating]) -> OffsetPrior | None:
    """Estimate the between-site and within-site variance of errors by the method of moments.

    The e-folding time L is the lag at which the autocorrelation, with covariances averaged over
    sites, falls to 1/e. The lag-one autocorrelation alone would miss the slow part of the errors,
    which matters most for short records. Because L is computed from deviations from each record's
    own mean, it is too short where records are not many times longer than L.

    Args:
      error: (site, day) observation minus out-of-fold prediction on consecutive days, NaN where
        missing. Sites with fewer than 30 values are ignored.

    Returns:
      The prior, or None if fewer than five sites have enough values.
    """
    e = np.asarray(error, np.float64)
    e = e[np.isfinite(e).sum(1) >= FEWEST]
    if len(e) < MIN_PRIOR_SITES:
        return None
    valid = np.isfinite(e)
    mean, _, _ = _record_means(e, valid, 0.0)
    deviation = np.where(valid, e - mean[:, None], 0.0)
    within = float(((deviation**2).sum(1) / valid.sum(1)).mean())
    efolding_days = _efolding_days(deviation, valid, within)
    # Share of sigma^2 that remains in the mean of a record.
    share = (1 / _record_means(e, valid, efolding_days)[2]).mean()
    sigma2 = within / (1 - share) if share < 1 else 0.0
    tau2 = max(float((mean**2).mean() - sigma2 * share), 0.0)
    return OffsetPrior(float(np.sqrt(tau2)), float(np.sqrt(sigma2)), efolding_days, len(e))


def posterior_offset(error: NDArray[np.floating], prior: OffsetPrior) -> tuple[Floats, Floats]:
    """Return the posterior mean and standard deviation of the offset to add to a prediction.

    Args:
      error: (site, day) observation minus prediction on consecutive days, NaN on days that are not
        used. A site without any value gets an offset of 0 with standard deviation tau.
      prior: prior estimated from other sites.

    Returns:
      The posterior mean and the posterior standard deviation, (site,) each, in the target's unit.
    """
    e = np.asarray(error, np.float64)
    mean, n, n_eff = _record_means(e, np.isfinite(e), prior.efolding_days)
    total = prior.tau**2 + prior.sigma**2 / n_eff
    shrinkage = np.where(
        (n > 0) & (total > 0), prior.tau**2 / np.maximum(total, np.finfo(float).tiny), 0
    )
    return shrinkage * mean, prior.tau * np.sqrt(1 - shrinkage)


def _record_means(
    e: Floats, valid: Bools, efolding_days: float
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Return the mean, the number of values and the effective number of values of each record.

    All are (site,). The mean is 0 without any value; the effective number is at least 1.
    """
    n = valid.sum(1)
    lag_one = np.full(len(e), np.exp(-1 / efolding_days) if efolding_days > 0 else 0.0)
    n_eff = np.maximum(
        np.nan_to_num(effective_sample_size(lag_one, valid, np.arange(e.shape[1]))), 1.0
    )
    return np.where(valid, e, 0.0).sum(1) / np.maximum(n, 1), n, n_eff


def _efolding_days(deviation: Floats, valid: Bools, within: float) -> float:
    """Return the lag in days at which the autocorrelation averaged over sites falls to 1/e.

    It is interpolated linearly between two lags. It is 0 for errors without any spread, and the
    length of the record if the autocorrelation never falls that far.
    """
    n_days, previous, threshold = deviation.shape[1], within, within * np.exp(-1)
    if not within:
        return 0.0
    for lag in range(1, n_days):
        pairs = (valid[:, lag:] & valid[:, :-lag]).sum(1)
        products = (deviation[:, lag:] * deviation[:, :-lag]).sum(1)
        if not pairs.any():
            continue
        covariance = float((products[pairs > 0] / pairs[pairs > 0]).mean())
        if covariance <= threshold:
            return lag - 1 + float((previous - threshold) / (previous - covariance))
        previous = covariance
    return float(n_days)
