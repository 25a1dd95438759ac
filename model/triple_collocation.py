"""Triple collocation: error statistics of three records of one variable without a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from model.metrics import ROUNDING_TOLERANCE, Bools, Floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


RECORDS = ("site", "satellite", "model")


class CollocationErrors(NamedTuple):
    """Error statistics of three records at every place.

    Apart from `n` and `reason`, each is (len(SERIES), place), NaN where `reason` says why.

    Attributes:
      n: (place,) number of common days.
      error_std: standard deviation of each record's errors, in the site's unit and on its scale.
      correlation: correlation of each record with the unknown truth.
      snr_db: ratio of signal to noise variance, decibels.
      reason: (place,) why values are missing, for one record or for all; "" if none is.
    """

    n: NDArray[np.int64]
    error_std: Floats
    correlation: Floats
    snr_db: Floats
    reason: NDArray[np.object_]


def collocate(
    site: ArrayLike, satellite: ArrayLike, model: ArrayLike, fewest: int = 3
) -> CollocationErrors:
    """Estimate the errors of three records from their covariances.

    Each record is the truth times a factor, plus errors of its own, as in McColl et al. (2014);
    results equal pytesmo's `tcol_metrics` with the site as reference. The method assumes errors
    that are independent of the truth and of the other records. A model trained on one of the other
    two shares some errors with it, and both then look better than they are.

    A place whose covariances are not all positive has no values. A record with a negative error
    variance has no values of its own; pytesmo computes an SNR from the absolute value in both
    cases.

    Args:
      site: (place, time); values that are not finite count as missing.
      satellite: the same shape.
      model: the same shape.
      fewest: number of common days that a place needs; at least three are required.
    """
    values = np.stack([np.asarray(v, np.float64) for v in (site, satellite, model)])
    common = np.asarray(np.isfinite(values).all(axis=0))
    n = np.asarray(common.sum(axis=1))
    cov, constant = _covariances(values, common)
    variance = np.diagonal(cov, axis1=0, axis2=1).T  # (3, place)
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = [1, 0, 0], [2, 2, 1]  # indexes of the other two records of each record
        across = cov[a, b]
        signal = cov[[0, 1, 2], a] * cov[[0, 1, 2], b] / across
        noise = variance - signal
        signal_share = signal / variance
        scale_to_site = np.stack([np.ones(len(n)), cov[0, 2] / cov[1, 2], cov[0, 1] / cov[2, 1]])
        error_std, correlation = np.sqrt(noise) * scale_to_site, np.sqrt(signal_share)
        snr_db = 10 * np.log10(signal / noise)
    unusable = {
        f"fewer than {fewest} common days": n < max(fewest, 3),
        "a constant series": constant,
        "covariances not all positive": (across <= 0).any(axis=0),
    }
    unusable_place = np.any([*unusable.values()], axis=0)
    negative = {f"negative error variance, {s}": noise[i] <= 0 for i, s in enumerate(RECORDS)}
    reasons = unusable | negative
    reason = np.select([*reasons.values()], [*reasons], "").astype(object)
    defined = ~unusable_place & (noise > 0)
    error_std, correlation, snr_db = (
        np.where(defined, v, np.nan) for v in (error_std, correlation, snr_db)
    )
    return CollocationErrors(n, error_std, correlation, snr_db, reason)


def _covariances(values: Floats, common: Bools) -> tuple[Floats, Bools]:
    """Return the covariances of three records, and which places have a constant record.

    Args:
      values: (3, place, time) records.
      common: (place, time) whether all three are present.

    Returns:
      (3, 3, place) covariances with n - 1 degrees of freedom, and (place,) whether a record is
        constant up to rounding.
    """
    n = common.sum(axis=1)
    filled = np.where(common, values, 0.0)
    mean = filled.sum(axis=2) / np.maximum(n, 1)
    dev = np.where(common, filled - mean[:, :, None], 0.0)
    cov = np.einsum("ipt,jpt->ijp", dev, dev) / np.maximum(n - 1, 1)
    threshold = ROUNDING_TOLERANCE * np.abs(filled).max(axis=2, initial=0.0)
    return cov, np.asarray((np.sqrt(np.diagonal(cov, axis1=0, axis2=1).T) <= threshold).any(axis=0))
