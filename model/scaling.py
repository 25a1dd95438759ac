"""Scale inputs and target by statistics of the training places and days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


MAX_SAMPLE = 4_000_000  # values used to fit a scale; of more, a fixed random sample is taken


@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of one variable, in its own unit."""

    mean: float
    std: float

    def apply(self, values: Any) -> Any:
        """Return physical values as scaled values; works on arrays and tensors."""
        return (values - self.mean) / self.std

    def invert(self, values: Any) -> Any:
        """Return scaled values as physical values."""
        return values * self.std + self.mean


@dataclass(frozen=True)
class Scaler:
    """Scales of all input features, by name."""

    scales: dict[str, Scale]

    def arrays(self, names: tuple[str, ...]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the means and the standard deviations of some features, (feature,) each."""
        chosen = [self.scales[name] for name in names]
        mean = np.array([scale.mean for scale in chosen], np.float32)
        return mean, np.array([scale.std for scale in chosen], np.float32)

    def as_dict(self) -> dict[str, list[float]]:
        """Return {name: [mean, std]}, for JSON."""
        return {name: [scale.mean, scale.std] for name, scale in self.scales.items()}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> Scaler:
        """Build the scaler from the output of `as_dict`."""
        return cls({name: Scale(*pair) for name, pair in values.items()})


def fit_trimmed_scale(values: NDArray[Any]) -> Scale:
    """Fit a scale to the values between their 10th and 90th percentile.

    If these are constant, all values are used; if all are constant, the standard deviation is 1.
    NaN and infinite values are ignored; without any value the scale is (0, 1).

    Args:
      values: values in any shape.
    """
    kept = np.asarray(values).ravel()
    return fit_sampled_scale(kept[sample_index(kept.size)])


def sample_index(size: int) -> NDArray[np.int64] | slice:
    """Return the index of the values that a trimmed scale is fitted to, given their number.

    It lets a caller read only these values.
    """
    if size <= MAX_SAMPLE:
        return slice(None)
    return np.random.default_rng(0).integers(0, size, MAX_SAMPLE)


def fit_sampled_scale(sampled: NDArray[Any]) -> Scale:
    """Fit a trimmed scale to the values that were selected beforehand."""
    finite = np.asarray(sampled, np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return Scale(0.0, 1.0)
    low, high = np.percentile(finite, [10, 90])
    trimmed = finite[(finite >= low) & (finite <= high)]
    chosen = finite if _is_constant(trimmed) else trimmed
    return Scale(float(chosen.mean()), 1.0 if _is_constant(chosen) else float(chosen.std()))


def fit_plain_scale(values: NDArray[Any]) -> Scale:
    """Fit a scale to all finite values, for the target; without any value it is (0, 1)."""
    array = np.asarray(values)
    finite = np.asarray(array[np.isfinite(array)], np.float64)
    if not finite.size:
        return Scale(0.0, 1.0)
    return Scale(float(finite.mean()), 1.0 if _is_constant(finite) else float(finite.std()))


def _is_constant(values: NDArray[np.float64]) -> bool:
    return bool(values.std() <= 1e-9 * (1e-30 + np.abs(values).max()))
