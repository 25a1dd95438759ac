"""Local adjustment: a site's constant offset, learned from some of its own days.

An error (observation less prediction) is an offset b that stays and a part that comes and goes,
e_t = b + x_t. Over sites b is N(0, tau^2); x has variance sigma^2, and of it exp(-1 / L) is left a
day later. The mean m of n errors then varies about b by v = sigma^2 / n_eff, with the effective
sample size n_eff = n^2 / (sum over i, j of exp(-|t_i - t_j| / L)) (Bayley and Hammersley 1946), and
b given m is N(B m, B v) with B = tau^2 / (tau^2 + v): the fewer the days, the more it is shrunk
(James and Stein 1961). tau, sigma and L come from other sites: empirical Bayes (Efron and Morris
1975).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.intervals import effective_n
from model.metrics import FEWEST

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.metrics import Bools, Floats

FEWEST_SITES = 5  # with FEWEST values or more, to learn from


class Prior(NamedTuple):
    """What errors at other sites say of a new one, in the target's unit; L of above in days."""

    tau: float
    sigma: float
    efolding_days: float
    n_sites: int


def learn(error: NDArray[np.floating]) -> Prior | None:
    """Between-site and within-site variance by the method of moments, and the memory of errors.

    L is the lag at which the autocorrelation, its covariances averaged over sites, falls to 1/e:
    that of one day would miss the slow part of the errors, which is what spoils short records. It
    is of deviations from each record's mean, hence too short where records are not many L long.

    Args:
      error: (site, day) observation less out-of-fold prediction on consecutive days, NaN where
        missing; sites with fewer than `FEWEST` values are left aside.

    Returns:
      None with fewer than `FEWEST_SITES` sites.
    """
    e = np.asarray(error, np.float64)
    e = e[np.isfinite(e).sum(1) >= FEWEST]
    if len(e) < FEWEST_SITES:
        return None
    valid = np.isfinite(e)
    mean, _, _ = _mean(e, valid, 0.0)
    deviation = np.where(valid, e - mean[:, None], 0.0)
    within = float(((deviation**2).sum(1) / valid.sum(1)).mean())
    memory = _efolding(deviation, valid, within)
    share = (1 / _mean(e, valid, memory)[2]).mean()  # of sigma^2, that is in the mean of a record
    sigma2 = within / (1 - share) if share < 1 else 0.0
    tau2 = max(float((mean**2).mean() - sigma2 * share), 0.0)
    return Prior(float(np.sqrt(tau2)), float(np.sqrt(sigma2)), memory, len(e))


def offset(error: NDArray[np.floating], prior: Prior) -> tuple[Floats, Floats]:
    """Posterior mean and standard deviation (site,) of the offset to add to a prediction.

    Args:
      error: (site, day) observation less prediction on consecutive days, NaN where not to learn
        from; without any the offset is 0, its standard deviation tau.
      prior: learned at other sites.
    """
    e = np.asarray(error, np.float64)
    mean, n, n_eff = _mean(e, np.isfinite(e), prior.efolding_days)
    total = prior.tau**2 + prior.sigma**2 / n_eff
    kept = np.where(
        (n > 0) & (total > 0), prior.tau**2 / np.maximum(total, np.finfo(float).tiny), 0
    )
    return kept * mean, prior.tau * np.sqrt(1 - kept)


def _mean(e: Floats, valid: Bools, memory: float) -> tuple[Floats, NDArray[np.int64], Floats]:
    """(site,) mean, 0 without values, number of values and effective number, at least 1."""
    n = valid.sum(1)
    alike = np.full(len(e), np.exp(-1 / memory) if memory > 0 else 0.0)
    n_eff = np.maximum(np.nan_to_num(effective_n(alike, valid, np.arange(e.shape[1]))), 1.0)
    return np.where(valid, e, 0.0).sum(1) / np.maximum(n, 1), n, n_eff


def _efolding(deviation: Floats, valid: Bools, within: float) -> float:
    """Days after which the autocorrelation over sites is 1/e, between two lags by a straight line.

    0 for errors without spread, the length of the record where it never falls so far.
    """
    n_days, before, least = deviation.shape[1], within, within * np.exp(-1)
    if not within:
        return 0.0
    for lag in range(1, n_days):
        pairs = (valid[:, lag:] & valid[:, :-lag]).sum(1)
        shared = (deviation[:, lag:] * deviation[:, :-lag]).sum(1)
        if not pairs.any():
            continue
        here = float((shared[pairs > 0] / pairs[pairs > 0]).mean())
        if here <= least:
            return lag - 1 + float((before - least) / (before - here))
        before = here
    return float(n_days)
