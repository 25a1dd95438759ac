"""Mean of the cells of a footprint."""

from __future__ import annotations

import torch
from torch import Tensor


def footprint_mean(cells: Tensor, members: Tensor) -> Tensor:
    """Average the cells of each footprint.

    Args:
      cells: (valid cell, ...) values, in the order of the entries of `members` that are not -1.
      members: (footprint, cells at most) any value >= 0 for a valid cell, -1 for none.

    Returns:
      (footprint, ...) means; NaN where a footprint has no valid cell.
    """
    valid = members.reshape(-1) >= 0
    padded = cells.new_zeros((valid.numel(), *cells.shape[1:]))
    padded[valid] = cells
    count = (members >= 0).sum(1).to(cells.dtype)
    count = torch.where(count > 0, count, torch.nan)
    total = padded.reshape(*members.shape, *cells.shape[1:]).sum(1)
    return total / count.reshape(-1, *[1] * (cells.ndim - 1))
