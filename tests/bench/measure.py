"""Things that are compared run in turn, A B A B ..., so that a busy machine slows all alike."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Spread:
    """Median and quartiles."""

    median: float
    low: float
    high: float


def spread(samples):
    """Median and quartiles of samples."""
    low, median, high = np.percentile(np.asarray(samples, float), [25, 50, 75])
    return Spread(float(median), float(low), float(high))


def ratio(samples, beside):
    """Spread of the ratio, pair by pair where they ran in turn; else of the medians."""
    if len(samples) == len(beside):
        return spread(np.divide(samples, beside))
    return spread([np.median(samples) / np.median(beside)])


def in_turn(
    actions: Mapping[str, Callable[[], object]],
    rounds: int,
    warm: int = 1,
    told: Callable[[str], None] = lambda text: None,
) -> dict[str, list[float]]:
    """Seconds of every action, each once a round, after rounds that are not counted.

    An action that gives a float is timed by itself, and that is what it took.
    """
    taken = {name: [] for name in actions}
    gc.collect()
    for n in range(warm + rounds):
        told(f"warming up {n + 1}/{warm}" if n < warm else f"round {n + 1 - warm}/{rounds}")
        # Every other round runs backwards: who comes after whom should not matter.
        for name in [*actions] if n % 2 == 0 else [*actions][::-1]:
            begun = time.perf_counter()
            own = actions[name]()
            seconds = own if isinstance(own, float) else time.perf_counter() - begun
            if n >= warm:
                taken[name].append(seconds)
    return taken


def fastest(actions, warm=1, rounds=3, told=lambda text: None):
    """Name of the action that is fastest in a few rounds."""
    taken = in_turn(actions, rounds, warm, told)
    return min(taken, key=lambda name: np.median(taken[name]))


def per_second(seconds, work):
    """Rates: work a second, sample by sample."""
    return [work / s for s in seconds]
