"""Seeds of random numbers, made from what a draw is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


def hash_seed(key: Iterable[int]) -> int:
    """One 63-bit seed of several non-negative numbers (seed, fold, step, stream)."""
    return int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0] >> np.uint64(1))
