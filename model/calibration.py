"""Level weight and width scale, chosen on predictions at sites a model has not seen.

The error at such a site is its own lasting offset and what varies from day to day about it: over
sites and days together it has heavier tails than a normal distribution and lighter ones than that
of Laplace that each day is trained with. The intervals are those of a logistic distribution of the
product's standard deviation: 50 % within 0.61, 90 % within 1.62 of them, nearly what a reader who
thinks of a normal distribution takes for 90 % (1.64).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from model.metrics import FEWEST
from model.predict import product

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model.predict import Prediction

log = logging.getLogger(__name__)

LEVEL_WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
LEVEL = 0.9  # the coverage that the width is scaled to


class Calibration(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What turns the outputs of an ensemble into the product."""

    level_weight: float = Field(
        ge=0, le=1, description="1: level of the site head; 0: of the satellite head"
    )
    width_scale: float = Field(ge=0, description="factor on the standard deviation")
    calibrated: bool = Field(description="false where no unseen site was there to choose on")


UNCALIBRATED = Calibration(level_weight=0.0, width_scale=1.0, calibrated=False)


def site_errors(
    prediction: NDArray[np.float32], observed: NDArray[np.float32]
) -> NDArray[np.float64]:
    """(site,) RMSE of each site; NaN where it has fewer than `FEWEST` values."""
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
    """Choose on some sites, each counting once.

    `level_weight` has the least mean over sites of the RMSE; then `width_scale` makes the central
    90 % interval cover 90 %. Sites without a finite RMSE under every weight are left out, which
    the log counts.

    Args:
      members: out-of-fold predictions of every site.
      heads: the heads they were trained with.
      observed: (site, day), NaN where missing or not to be looked at.
      sites: (site,) which to choose on.

    Raises:
      ValueError: sites have observations enough, but none of them has a finite RMSE.
    """
    usable = sites & (np.isfinite(observed).sum(1) >= FEWEST)
    if "site" not in heads or not usable.any():
        return UNCALIBRATED
    weights = LEVEL_WEIGHTS if "satellite" in heads else (1.0,)
    errors = np.stack([site_errors(product(members, heads, w)[0], observed) for w in weights])
    known = usable & np.isfinite(errors).all(0)
    if not known.any():
        msg = f"none of {usable.sum()} sites has {FEWEST} days with a finite prediction"
        raise ValueError(msg)
    if lacking := int((usable & ~known).sum()):
        log.warning("calibrated without %d of %d sites: no finite error", lacking, usable.sum())
    mean_error = dict(zip(weights, errors[:, known].mean(1).tolist(), strict=True))
    best = min(mean_error, key=lambda weight: (mean_error[weight], -weight))
    mean, std = product(members, heads, best)
    scale = width_scale(mean[known] - observed[known], std[known])
    return Calibration(level_weight=best, width_scale=scale, calibrated=True)


def width_scale(error: NDArray[np.float32], std: NDArray[np.float32]) -> float:
    """Factor on `std` (site, day) that makes 90 % intervals cover 90 %; 1 without any std."""
    valid = np.isfinite(error) & np.isfinite(std)
    if not valid.any():
        return 1.0
    ratio = np.abs(error[valid]) / std[valid]
    weight = (1.0 / np.maximum(valid.sum(1, keepdims=True), 1) * valid)[valid]
    order = np.argsort(ratio)
    share = np.cumsum(weight[order]) / weight.sum()
    reached = ratio[order][np.minimum(np.searchsorted(share, LEVEL - 1e-9), len(order) - 1)]
    return float(reached / half_width(LEVEL))


def half_width(level: float) -> float:
    """Half of a central interval, in standard deviations: ln((1 + level)/(1 - level)) sqrt(3)/pi.

    Of a logistic distribution; `level` in (0, 1).
    """
    return float(np.log((1 + level) / (1 - level)) * np.sqrt(3) / np.pi)


def coverage(error: NDArray[Any], std: NDArray[Any], level: float) -> NDArray[np.float64]:
    """Share (place,) of (place, time) errors within the central interval of their std.

    Not finite means missing; NaN where nothing is left.
    """
    valid = np.isfinite(error) & np.isfinite(std)
    inside = valid & (np.abs(error) <= std * half_width(level))
    n = valid.sum(1)
    return np.where(n > 0, inside.sum(1) / np.maximum(n, 1), np.nan)
