"""Input features: forcing and static attributes, and slow features derived while gathering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

if TYPE_CHECKING:
    from model.scaling import Scaler

Transform = Literal["none", "log1p"]
Length = Annotated[int, Field(ge=1, le=3_660)]


class SlowFeature(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Trailing means of one forcing variable: the memory that an LSTM is slow to learn."""

    variable: str = Field(description="forcing variable, by our name")
    days: tuple[Length, ...] = Field(
        min_length=1, description="lengths of the trailing means, days"
    )
    transform: Transform = Field("none", description="applied to each day before the mean")


@dataclass(frozen=True)
class Features:
    """The ordered features of a network: forcing, then slow features, then static attributes."""

    forcing: tuple[str, ...]
    static: tuple[str, ...]
    slow: tuple[SlowFeature, ...] = ()

    @property
    def slow_names(self) -> tuple[str, ...]:
        """Names of the derived features, such as `precipitation_mean_30d`."""
        return tuple(f"{s.variable}_mean_{days}d" for s in self.slow for days in s.days)

    @property
    def names(self) -> tuple[str, ...]:
        """All features in the order the network sees them."""
        return self.forcing + self.slow_names + self.static

    @property
    def lead_days(self) -> int:
        """Days of forcing needed before the first day of a window."""
        return max((days for s in self.slow for days in s.days), default=1) - 1


def trailing_means(values: Tensor, days: tuple[int, ...], n_days: int) -> Tensor:
    """Mean of the last `days` days up to each of the last `n_days`, over days that are present.

    Args:
      values: (place, lead + n_days); NaN where missing.
      days: lengths, each at most lead + 1.
      n_days: number of days asked for, the last ones.

    Returns:
      (place, n_days, len(days)); NaN where no day of a window is present.
    """
    return torch.stack(_means(values, days, n_days), 2)


def _means(values: Tensor, days: tuple[int, ...], n_days: int) -> list[Tensor]:
    if values.is_cpu and bool(values.sum().isfinite()):  # a GPU would wait for the answer
        return _means_of_all(values, days, n_days)
    present = torch.isfinite(values)
    total = torch.nn.functional.pad(torch.where(present, values, 0.0).cumsum(1), (1, 0))
    count = torch.nn.functional.pad(present.float().cumsum(1), (1, 0))
    means = []
    for length in days:
        upto = total.shape[1]
        last, first = slice(upto - n_days, upto), slice(upto - n_days - length, upto - length)
        n = count[:, last] - count[:, first]
        means.append((total[:, last] - total[:, first]) / torch.where(n > 0, n, torch.nan))
    return means


def _means_of_all(values: Tensor, days: tuple[int, ...], n_days: int) -> list[Tensor]:
    """`_means` where no day is missing: the same numbers, in half the time."""
    total = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    upto = total.shape[1]
    last = total[:, upto - n_days :]
    return [(last - total[:, upto - n_days - m : upto - m]) / m for m in days]


def slow_features(forcing: Tensor, features: Features, scaler: Scaler, n_days: int) -> list[Tensor]:
    """Slow features in physical units of a window with its lead days.

    Args:
      forcing: (place, lead_days + n_days, forcing) scaled; NaN where missing.
      features: says which means are wanted.
      scaler: turns scaled forcing back to physical units.
      n_days: length of the window.

    Returns:
      (place, n_days) of each slow feature, unscaled.
    """
    columns: list[Tensor] = []
    for slow in features.slow:
        index = features.forcing.index(slow.variable)
        values = scaler.scales[slow.variable].back(forcing[..., index])
        if slow.transform == "log1p":
            values = torch.log1p(values.clamp(min=0.0))
        columns += _means(values, slow.days, n_days)
    return columns


def assemble(
    forcing: Tensor, static: Tensor, features: Features, scaler: Scaler, n_days: int
) -> Tensor:
    """The network's input of a window: scaled, values that are missing or infinite 0.

    Args:
      forcing: (place, lead_days + n_days, forcing) scaled; NaN where missing.
      static: (place, static) scaled; NaN where missing.
      features: order of the features.
      scaler: scales of the slow features.
      n_days: length of the window.

    Returns:
      (place, n_days, feature).
    """
    parts = [forcing[:, features.lead_days :]]
    slow = slow_features(forcing, features, scaler, n_days)
    for name, values in zip(features.slow_names, slow, strict=True):
        parts.append(scaler.scales[name].to(values)[..., None])
    parts.append(static[:, None].expand(-1, n_days, -1))
    return torch.nan_to_num(torch.cat(parts, 2), nan=0.0, posinf=0.0, neginf=0.0)
