"""Aggregate small cells to large ones, as means or as fractions of classes."""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from pipeline.regrid import LEAST_COVERED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def block_means(
    values: NDArray[np.generic], valid: NDArray[np.bool_], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return means over equal blocks of an array.

    The number of blocks along an axis need not divide the number of values. For example, 100 blocks
    of 240 values have 2.4 values each; values on the border of two blocks count in both, by parts.

    Args:
      values: (y, x) the values.
      valid: (y, x) which values are valid; the others are left out.
      shape: Numbers of blocks along y and x.

    Returns:
      (*shape) the means, NaN where less than half of a block is valid.
    """
    n_valid, total = _summed(valid, shape), _summed(np.where(valid, values, 0), shape)
    size = values.size / (shape[0] * shape[1])
    enough = n_valid >= LEAST_COVERED * size * (1 - 1e-9)
    mean = np.full(shape, np.nan, np.float32)
    return np.divide(total, n_valid, out=mean, where=enough, casting="same_kind")


def fractions(
    classes: NDArray[np.integer],
    valid: NDArray[np.bool_],
    class_values: Sequence[int],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Return the fraction of each block whose class is one of some values.

    Args:
      classes: (y, x) the classes.
      valid: (y, x) which of them are valid; the others are left out.
      class_values: The classes to count.
      shape: Numbers of blocks along y and x.

    Returns:
      (*shape) the fractions, 0 to 1, NaN where less than half of a block is valid.
    """
    return block_means(np.isin(classes, class_values), valid, shape)


def _summed(values: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return (*shape) sums over blocks.

    Values are repeated until each block has a whole number of them, and weighted accordingly.
    """
    weight = 1.0
    for axis, (n_values, n_blocks) in enumerate(zip(values.shape, shape, strict=True)):
        repeats = lcm(n_values, n_blocks) // n_values
        if repeats > 1:
            values = np.repeat(values, repeats, axis)
        weight /= repeats
    (ny, nx), (rows, cols) = values.shape, shape
    blocks = values.reshape(rows, ny // rows, cols, nx // cols)
    summed: NDArray[np.float64] = blocks.sum((1, 3), dtype="float64") * weight
    return summed
