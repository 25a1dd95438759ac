"""Calibration: choose the level weight and the width scale on out-of-fold predictions.

The error at an unseen site consists of a constant offset of that site and of day-to-day variations.
Over sites and days together, its tails are heavier than those of a normal distribution and lighter
than those of the Laplace distribution that is used in training. The prediction intervals are
therefore those of a logistic distribution with the product's standard deviation: 50 % of its values
lie within 0.61 standard deviations and 90 % within 1.62, close to the 1.64 of a normal
distribution.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from model.ensemble import combine_members
from model.metrics import FEWEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model.ensemble import Prediction


log = logging.getLogger(__name__)
LEVEL_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
SCALED_LEVEL = 0.9  # nominal coverage of the interval that the width is scaled for


class Calibration(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Settings that turn the outputs of an ensemble into the product."""

    level_weight: float = Field(
        ge=0, le=1, description="weight of the site head's level; 0 takes the satellite head's"
    )
    width_scale: float = Field(ge=0, description="factor on the standard deviation")
    calibrated: bool = Field(description="false if there was no unseen site to choose them on")


UNCALIBRATED = Calibration(level_weight=0.0, width_scale=1.0, calibrated=False)


def site_rmse(
    prediction: NDArray[np.float32], observed: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the (site,) RMSE of each site; NaN if it has fewer than 30 values."""
    valid = np.isfinite(observed) & np.isfinite(prediction)
    error = np.where(valid, prediction - observed, 0.0)
    n = valid.sum(1)
    mean = np.square(error, dtype=np.float64).sum(1) / np.maximum(n, 1)
    return np.where(n >= FEWEST, np.sqrt(mean), np.nan)


def calibrate(
    members: Sequence[Prediction],
    heads: tuple[str, ...],
    observed: NDArray[np.float32],
    sites: NDArray[np.bool_],
) -> Calibration:
    """Choose the level weight and the width scale on a set of sites, each counting once.

    `level_weight` is the candidate with the smallest RMSE, averaged over sites. `width_scale` is
    then chosen so that the central 90 % interval covers 90 % of the observations. Sites whose RMSE
    is not finite for some weight are left out, and a warning states how many.

    Args:
      members: out-of-fold predictions of all sites, one per ensemble member.
      heads: names of the heads that the members were trained with.
      observed: (site, day) observations, NaN where missing or not to be used.
      sites: (site,) which sites to choose on.

    Returns:
      The calibration; `UNCALIBRATED` if there is no site head or no site with enough observations.

    Raises:
      ValueError: If sites have enough observations but none of them has a finite RMSE.
    """
    usable = sites & (np.isfinite(observed).sum(1) >= FEWEST)
    if "site" not in heads or not usable.any():
        return UNCALIBRATED
    weights = LEVEL_WEIGHTS if "satellite" in heads else (1.0,)
    errors = np.stack([site_rmse(combine_members(members, heads, w)[0], observed) for w in weights])
    known = usable & np.isfinite(errors).all(0)
    if not known.any():
        msg = (
            f"cannot calibrate: none of {usable.sum()} sites has {FEWEST} observed days with a "
            "finite prediction"
        )
        raise ValueError(msg)
    if n_left_out := int((usable & ~known).sum()):
        log.warning(
            "calibration leaves out %d of %d sites, which have no finite error",
            n_left_out,
            usable.sum(),
        )
    mean_error = dict(zip(weights, errors[:, known].mean(1).tolist(), strict=True))
    best = min(mean_error, key=lambda weight: (mean_error[weight], -weight))
    mean, std = combine_members(members, heads, best)
    scale = fit_width_scale(mean[known] - observed[known], std[known])
    return Calibration(level_weight=best, width_scale=scale, calibrated=True)


def fit_width_scale(error: NDArray[np.float32], std: NDArray[np.float32]) -> float:
    """Return the factor on the standard deviation that makes 90 % intervals cover 90 %.

    Args:
      error: (site, day) prediction minus observation, NaN where missing.
      std: (site, day) standard deviation of the prediction, NaN where it has none.

    Returns:
      The factor, with every site counting once; 1 if there is no standard deviation.
    """
    valid = np.isfinite(error) & np.isfinite(std)
    if not valid.any():
        return 1.0
    ratio = np.abs(error[valid]) / std[valid]
    weight = (1.0 / np.maximum(valid.sum(1, keepdims=True), 1) * valid)[valid]
    order = np.argsort(ratio)
    share = np.cumsum(weight[order]) / weight.sum()
    quantile = ratio[order][np.minimum(np.searchsorted(share, SCALED_LEVEL - 1e-9), len(order) - 1)]
    return float(quantile / interval_half_width(SCALED_LEVEL))


def interval_half_width(level: float) -> float:
    """Return the half-width of a central interval in standard deviations.

    For a logistic distribution this is ln((1 + level) / (1 - level)) sqrt(3) / pi.

    Args:
      level: nominal coverage of the interval, in (0, 1).
    """
    return float(np.log((1 + level) / (1 - level)) * np.sqrt(3) / np.pi)


def interval_coverage(error: NDArray[Any], std: NDArray[Any], level: float) -> NDArray[np.float64]:
    """Return the share of errors within the central interval of their standard deviation.

    Args:
      error: (place, time) errors; values that are not finite count as missing.
      std: (place, time) standard deviations; values that are not finite count as missing.
      level: nominal coverage of the interval, in (0, 1).

    Returns:
      (place,) shares; NaN where a place has no value.
    """
    valid = np.isfinite(error) & np.isfinite(std)
    inside = valid & (np.abs(error) <= std * interval_half_width(level))
    n = valid.sum(1)
    return np.where(n > 0, inside.sum(1) / np.maximum(n, 1), np.nan)
