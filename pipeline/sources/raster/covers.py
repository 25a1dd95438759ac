"""What many small cells say of a large one: the mean, or the fraction that is of some class."""

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
    """(*shape) means over equal blocks of values (y, x).

    Blocks need not hold whole values: 240 along 100 are 2.4 each, and the shared ones are split.
    Values that are not valid are left out; NaN where less than half of a block is valid.
    """
    counted, total = _summed(valid, shape), _summed(np.where(valid, values, 0), shape)
    size = values.size / (shape[0] * shape[1])
    enough = counted >= LEAST_COVERED * size * (1 - 1e-9)
    mean = np.full(shape, np.nan, np.float32)
    return np.divide(total, counted, out=mean, where=enough, casting="same_kind")


def fractions(
    classes: NDArray[np.integer],
    valid: NDArray[np.bool_],
    wanted: Sequence[int],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """(*shape) fractions of blocks of classes (y, x) that are one of those wanted; 0 to 1."""
    return block_means(np.isin(classes, wanted), valid, shape)


def _summed(values: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.float64]:
    """(*shape) sums over blocks."""
    weight = 1.0
    for axis, (have, want) in enumerate(zip(values.shape, shape, strict=True)):
        times = lcm(have, want) // have
        values, weight = np.repeat(values, times, axis) if times > 1 else values, weight / times
    (ny, nx), (rows, cols) = values.shape, shape
    blocks = values.reshape(rows, ny // rows, cols, nx // cols)
    summed: NDArray[np.float64] = blocks.sum((1, 3), dtype="float64") * weight
    return summed
