"""Scaling of inputs and target, fitted once on training places and days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE = 4_000_000  # values a percentile is taken over; of more, a fixed random draw


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of one variable, in its own units."""

    mean: float
    std: float

    def to(self, values: Any) -> Any:
        """Physical -> scaled; arrays and tensors alike."""
        return (values - self.mean) / self.std

    def back(self, values: Any) -> Any:
        """Scaled -> physical."""
        return values * self.std + self.mean


@dataclass(frozen=True)
class Scaler:
    """A `Scale` for every input feature, by name."""

    scales: dict[str, Scale]

    def arrays(self, names: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Means and standard deviations of `names`, each (feature,)."""
        chosen = [self.scales[name] for name in names]
        mean = np.array([scale.mean for scale in chosen], np.float32)
        return mean, np.array([scale.std for scale in chosen], np.float32)

    def as_dict(self) -> dict[str, list[float]]:
        """{name: [mean, std]}, for JSON."""
        return {name: [scale.mean, scale.std] for name, scale in self.scales.items()}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> Scaler:
        """Inverse of `as_dict`."""
        return cls({name: Scale(*pair) for name, pair in values.items()})


def trimmed_scale(values: NDArray[Any]) -> Scale:
    """Mean and standard deviation of the values between their 10th and 90th percentile.

    Falls back to all values where the trimmed ones are constant, and to a deviation of one where
    all are. NaN is left out; without any value the scale is (0, 1).
    """
    kept = np.asarray(values).ravel()
    return scale_of(kept[sample(kept.size)])


def sample(size: int) -> NDArray[np.int64] | slice:
    """Which of so many values a scale is fitted to, for whoever reads them in parts."""
    if size <= SAMPLE:
        return slice(None)
    return np.random.default_rng(0).integers(0, size, SAMPLE)


def scale_of(sampled: NDArray[Any]) -> Scale:
    """The scale that `trimmed_scale` fits to the values of its `sample`."""
    kept = np.asarray(sampled, np.float64)
    kept = kept[np.isfinite(kept)]
    if not kept.size:
        return Scale(0.0, 1.0)
    low, high = np.percentile(kept, [10, 90])
    trimmed = kept[(kept >= low) & (kept <= high)]
    chosen = kept if _constant(trimmed) else trimmed
    return Scale(float(chosen.mean()), 1.0 if _constant(chosen) else float(chosen.std()))


def plain_scale(values: NDArray[Any]) -> Scale:
    """Mean and standard deviation of all values present: the scale of the target."""
    known = np.asarray(values)
    kept = np.asarray(known[np.isfinite(known)], np.float64)
    if not kept.size:
        return Scale(0.0, 1.0)
    return Scale(float(kept.mean()), 1.0 if _constant(kept) else float(kept.std()))


def _constant(values: NDArray[np.float64]) -> bool:
    return bool(values.std() <= 1e-9 * (1e-30 + np.abs(values).max()))
