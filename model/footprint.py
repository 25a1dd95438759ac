"""Footprint means: average the cells of satellite footprints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


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
