"""Footprint means: average the cells of satellite footprints.

Training loss: masked errors over a mini-batch, for satellite and in-situ observations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def footprint_mean(cells: Tensor, members: NDArray[np.int64]) -> Tensor:
    """Average the cells of each footprint.

    Args:
      cells: (valid cell, ...) values, in the order of the entries of `members` that are not -1.
      members: (footprint, cells at most) any value >= 0 for a valid cell, -1 for an absent one.

    Returns:
      (footprint, ...) means; NaN where a footprint has no valid cell.
    """
    valid = members >= 0
    index = torch.from_numpy(valid.reshape(-1).nonzero()[0]).to(cells.device)
    padded = cells.new_zeros((valid.size, *cells.shape[1:])).index_copy(0, index, cells)
    count = torch.from_numpy(valid.sum(1)).to(cells.device, cells.dtype)
    count = torch.where(count > 0, count, torch.nan)
    total = padded.reshape(*members.shape, *cells.shape[1:]).sum(1)
    return total / count.reshape(-1, *[1] * (cells.ndim - 1))


RMSE_EPSILON = 1e-12  # keeps the gradient of the square root finite at zero error


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
    root = (squares / valid.sum().clamp(min=1) + RMSE_EPSILON).sqrt()
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


def window_anomaly(error: Tensor, valid: Tensor) -> Tensor:
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
    return (judge(error) + judge(window_anomaly(error, valid))) / 2
