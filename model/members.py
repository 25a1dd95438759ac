"""Members of an ensemble that predict something else than the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEWEST = 3  # members; of two, neither can be told from the other
TIMES = 5.0


def unlike_others(series: Sequence[NDArray[np.floating]]) -> list[int]:
    """Members whose median absolute difference from the ensemble mean is unlike that of the others.

    It has to exceed `TIMES` the median of the others' median absolute differences. Each member is
    compared with the mean of the members other than itself and the one in question. A member that
    is far away would otherwise move the mean of all so much that, of six members or fewer, it could
    never stand out; and a mean that they are part of would lie too near the others.

    Args:
      series: of each member, the same places and days in any one shape; those without a finite
        value of every member are left out.

    Returns:
      Indexes of such members; none where there are fewer than `FEWEST`, or no common value.
    """
    if len(series) < FEWEST:
        return []
    values = np.stack([np.ravel(one) for one in series]).astype(np.float64)
    values = values[:, np.isfinite(values).all(0)]
    if not values.size:
        return []
    return [i for i in range(len(values)) if _stands_out(values, i)]


def _stands_out(values: NDArray[np.float64], member: int) -> bool:
    others = np.delete(values, member, 0)
    own = np.median(np.abs(values[member] - others.mean(0)))
    rest = (others.sum(0) - others) / (len(others) - 1)
    return bool(own > TIMES * np.median(np.median(np.abs(others - rest), axis=1)))
