"""Triple collocation: the errors of three records of one truth, none of them taken for it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.metrics import ROUNDING, Bools, Floats

SERIES = ("site", "satellite", "model")


class Collocation(NamedTuple):
    """Of three records at every place, SERIES x (place,) each; NaN where there is a reason.

    `n` (place,) common days; `error_std` of each, in the site's unit and on the site's scale;
    `correlation` of each with the truth; `snr_db` signal over noise variance, decibels; `reason`
    (place,) why there is no value, of one of them or of any, "" where there are all.
    """

    n: NDArray[np.int64]
    error_std: Floats
    correlation: Floats
    snr_db: Floats
    reason: NDArray[np.object_]


def triple(site: ArrayLike, satellite: ArrayLike, model: ArrayLike, fewest: int = 3) -> Collocation:
    """Errors by covariances, each record a truth times a factor plus errors of its own.

    As McColl et al. (2014), and as pytesmo's tcol_metrics with the site for reference. It rests on
    errors that neither the truth nor the other records share: a model trained on one of the other
    two shares some, and both then look better than they are. Covariances that are not all positive
    leave a place without values, a negative error variance leaves that one record without (for
    both pytesmo makes an SNR of the absolute value).

    Args:
      site: (place, time); not finite means missing.
      satellite: the same shape.
      model: the same shape.
      fewest: common days that a place needs, three at least.
    """
    values = np.stack([np.asarray(v, np.float64) for v in (site, satellite, model)])
    common = np.asarray(np.isfinite(values).all(axis=0))
    n = np.asarray(common.sum(axis=1))
    cov, constant = _covariances(values, common)
    own = np.diagonal(cov, axis1=0, axis2=1).T  # (3, place)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = [1, 0, 0], [2, 2, 1]  # the other two of each
        across = cov[a, b]
        signal = cov[[0, 1, 2], a] * cov[[0, 1, 2], b] / across
        noise = own - signal
        share = signal / own
        onto_site = np.stack([np.ones(len(n)), cov[0, 2] / cov[1, 2], cov[0, 1] / cov[2, 1]])
        error_std, correlation = np.sqrt(noise) * onto_site, np.sqrt(share)
        snr_db = 10 * np.log10(signal / noise)
    unusable = {
        f"fewer than {fewest} common days": n < max(fewest, 3),
        "a constant series": constant,
        "covariances not all positive": (across <= 0).any(axis=0),
    }
    lacking = np.any([*unusable.values()], axis=0)
    negative = {f"negative error variance, {s}": noise[i] <= 0 for i, s in enumerate(SERIES)}
    reasons = unusable | negative
    reason = np.select([*reasons.values()], [*reasons], "").astype(object)
    defined = ~lacking & (noise > 0)
    error_std, correlation, snr_db = (
        np.where(defined, v, np.nan) for v in (error_std, correlation, snr_db)
    )
    return Collocation(n, error_std, correlation, snr_db, reason)


def _covariances(values: Floats, common: Bools) -> tuple[Floats, Bools]:
    """(3, place, time) -> (3, 3, place) covariances of n - 1; and (place,) whether one is flat."""
    n = common.sum(axis=1)
    held = np.where(common, values, 0.0)
    mean = held.sum(axis=2) / np.maximum(n, 1)
    dev = np.where(common, held - mean[:, :, None], 0.0)
    cov = np.einsum("ipt,jpt->ijp", dev, dev) / np.maximum(n - 1, 1)
    least = ROUNDING * np.abs(held).max(axis=2, initial=0.0)
    return cov, np.asarray((np.sqrt(np.diagonal(cov, axis1=0, axis2=1).T) <= least).any(axis=0))
