"""Training loss: masked errors over a mini-batch, for satellite and in-situ observations."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

TINY = 1e-12  # keeps the gradient of the square root finite at zero error


class LossConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The loss that training minimises, in scaled units."""

    insitu_weight: float = Field(
        ge=0, le=1, description="share of the in-situ loss in the total loss"
    )
    anomaly: bool = Field(description="take half of each loss on anomalies from the window's mean")
    likelihood: Literal["none", "laplace"] = Field(
        description="likelihood of the site head; its width is learned too"
    )


def rmse(error: Tensor, valid: Tensor) -> Tensor:
    """Return the root mean squared error over all valid entries; 0 if there is none."""
    squares = torch.where(valid, error, 0.0).square().sum()
    root = (squares / valid.sum().clamp(min=1) + TINY).sqrt()
    return torch.where(valid.any(), root, 0.0)


def laplace_nll(error: Tensor, width: Tensor, valid: Tensor) -> Tensor:
    """Return the negative log-likelihood of a Laplace distribution: the mean of |e| / b + ln 2b.

    The mean is over all valid entries; it is 0 if there is none.

    Args:
      error: errors e, in any shape.
      width: scales b > 0 of the distribution, in the same shape.
      valid: whether an entry counts, in the same shape.
    """
    nll = torch.where(valid, error, 0.0).abs() / width + (2 * width).log()
    return torch.where(valid, nll, 0.0).sum() / valid.sum().clamp(min=1)


def anomaly(error: Tensor, valid: Tensor) -> Tensor:
    """Return (place, time) errors minus their mean over the valid days of the window."""
    total = torch.where(valid, error, 0.0).sum(1, keepdim=True)
    return error - total / valid.sum(1, keepdim=True).clamp(min=1)


def source_loss(
    prediction: Tensor, observed: Tensor, width: Tensor | None, config: LossConfig
) -> Tensor:
    """Return the loss of one source over a mini-batch.

    Args:
      prediction: (place, time) scaled predictions.
      observed: (place, time) scaled observations, NaN where missing.
      width: (place, time) Laplace scales; None to use the RMSE.
      config: says whether half of the loss is taken on anomalies.

    Returns:
      A scalar; 0 if the batch has no observation.
    """
    valid = torch.isfinite(observed)
    error = prediction - torch.where(valid, observed, 0.0)

    def judge(e: Tensor) -> Tensor:
        return rmse(e, valid) if width is None else laplace_nll(e, width, valid)

    if not config.anomaly:
        return judge(error)
    return (judge(error) + judge(anomaly(error, valid))) / 2
