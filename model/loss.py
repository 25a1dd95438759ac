"""Masked errors, pooled over a mini-batch, and the loss of two sources."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

TINY = 1e-12  # keeps the gradient of the root finite at zero error


class LossConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What is minimised, in scaled units."""

    insitu_weight: float = Field(ge=0, le=1, description="share of the in-situ loss")
    anomaly: bool = Field(description="half of each loss on anomalies from the window's mean")
    likelihood: Literal["none", "laplace"] = Field(
        description="likelihood of the site head, whose width is learned with it"
    )


def rmse(error: Tensor, valid: Tensor) -> Tensor:
    """Root of the mean squared error over all valid entries; 0 where there is none."""
    squares = torch.where(valid, error, 0.0).square().sum()
    root = (squares / valid.sum().clamp(min=1) + TINY).sqrt()
    return torch.where(valid.any(), root, 0.0)


def laplace_nll(error: Tensor, width: Tensor, valid: Tensor) -> Tensor:
    """Mean of |e|/b + ln 2b over all valid entries; 0 where there is none."""
    nll = torch.where(valid, error, 0.0).abs() / width + (2 * width).log()
    return torch.where(valid, nll, 0.0).sum() / valid.sum().clamp(min=1)


def anomaly(error: Tensor, valid: Tensor) -> Tensor:
    """(place, time) error less its mean over the valid days of the window."""
    total = torch.where(valid, error, 0.0).sum(1, keepdim=True)
    return error - total / valid.sum(1, keepdim=True).clamp(min=1)


def source_loss(
    prediction: Tensor, observed: Tensor, width: Tensor | None, config: LossConfig
) -> Tensor:
    """Loss of one source over a mini-batch.

    Args:
      prediction: (place, time) scaled.
      observed: (place, time) scaled; NaN where there is no value.
      width: (place, time) Laplace scale, None to use RMSE.
      config: adds the anomaly half where asked.

    Returns:
      A scalar; 0 where the batch holds no observation.
    """
    valid = torch.isfinite(observed)
    error = prediction - torch.where(valid, observed, 0.0)

    def judge(e: Tensor) -> Tensor:
        return rmse(e, valid) if width is None else laplace_nll(e, width, valid)

    if not config.anomaly:
        return judge(error)
    return (judge(error) + judge(anomaly(error, valid))) / 2
