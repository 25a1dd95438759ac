"""Find ensemble members that disagree with the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FEWEST = 3  # members; of two that differ, neither can be called the outlier
TIMES = 5.0  # an outlier's difference, as a multiple of the others' median difference


def unlike_others(series: Sequence[NDArray[np.floating]]) -> list[int]:
    """Return the members whose difference from the ensemble stands out from that of the others.

    A member is an outlier if its median absolute difference from the mean of the other members
    exceeds five times the median of the others' median absolute differences. Each of the others is
    compared with the mean of the members other than itself and the candidate. If the candidate were
    part of that mean, an extreme member would shift it so far that, with six members or fewer, it
    could never stand out. If a member were part of its own mean, its difference would be too small.

    Args:
      series: predictions of each member at the same places and days, all in one shape. Entries that
        are not finite for every member are left out.

    Returns:
      Indexes of the outliers, ascending; none if there are fewer than three members or no common
        value.
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
    difference = np.median(np.abs(values[member] - others.mean(0)))
    others_means = (others.sum(0) - others) / (len(others) - 1)
    return bool(difference > TIMES * np.median(np.median(np.abs(others - others_means), axis=1)))
