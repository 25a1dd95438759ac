"""Input features: forcing, slow features derived from the forcing, and static attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import BaseModel, Field
from torch import Tensor

if TYPE_CHECKING:
    from model.scaling import Scaler


Transform = Literal["none", "log1p"]
TrailingDays = Annotated[int, Field(ge=1, le=3_660)]


class SlowFeature(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Trailing means of one forcing variable, a memory that an LSTM is slow to learn."""

    variable: str = Field(description="name of the forcing variable")
    days: tuple[TrailingDays, ...] = Field(
        min_length=1, description="lengths of the trailing means, days"
    )
    transform: Transform = Field(
        "none", description="transform applied to each day before averaging"
    )


@dataclass(frozen=True)
class Features:
    """The input features of a network, in order: forcing, slow features, static attributes.

    Attributes:
      forcing: names of the forcing variables.
      static: names of the static attributes.
      slow: trailing means derived from the forcing.
    """

    forcing: tuple[str, ...]
    static: tuple[str, ...]
    slow: tuple[SlowFeature, ...] = ()

    @property
    def slow_names(self) -> tuple[str, ...]:
        """Return the names of the slow features, such as `precipitation_mean_30d`."""
        return tuple(f"{s.variable}_mean_{days}d" for s in self.slow for days in s.days)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of all features, in the order of the network's input."""
        return self.forcing + self.slow_names + self.static

    @property
    def lead_days(self) -> int:
        """Return the days of forcing needed before the first day of a window."""
        return max((days for s in self.slow for days in s.days), default=1) - 1


def trailing_means(values: Tensor, days: tuple[int, ...], n_days: int) -> Tensor:
    """Return the means of the last `days` days up to each of the last `n_days` days.

    Missing days are left out of a mean.

    Args:
      values: (place, lead + n_days) values, NaN where missing.
      days: lengths of the means in days, each at most lead + 1.
      n_days: number of days to return, counted from the end.

    Returns:
      (place, n_days, len(days)) means; NaN where all days of a mean are missing.
    """
    return torch.stack(_trailing_means(values, days, n_days), 2)


def _trailing_means(values: Tensor, days: tuple[int, ...], n_days: int) -> list[Tensor]:
    if values.is_cpu and bool(values.sum().isfinite()):  # the check would stall a GPU
        return _complete_trailing_means(values, days, n_days)
    present = torch.isfinite(values)
    total = torch.nn.functional.pad(torch.where(present, values, 0.0).cumsum(1), (1, 0))
    count = torch.nn.functional.pad(present.float().cumsum(1), (1, 0))
    means = []
    for length in days:
        end = total.shape[1]
        last, first = slice(end - n_days, end), slice(end - n_days - length, end - length)
        n = count[:, last] - count[:, first]
        means.append((total[:, last] - total[:, first]) / torch.where(n > 0, n, torch.nan))
    return means


def _complete_trailing_means(values: Tensor, days: tuple[int, ...], n_days: int) -> list[Tensor]:
    """Return the means where no day is missing: the same numbers, in half the time."""
    total = torch.nn.functional.pad(values.cumsum(1), (1, 0))
    end = total.shape[1]
    last = total[:, end - n_days :]
    return [(last - total[:, end - n_days - length : end - length]) / length for length in days]


def slow_features(forcing: Tensor, features: Features, scaler: Scaler, n_days: int) -> list[Tensor]:
    """Return the slow features of a window in physical units.

    Args:
      forcing: (place, lead_days + n_days, forcing) scaled forcing, NaN where missing.
      features: names of the forcing variables, and the slow features to derive.
      scaler: scales that turn scaled forcing back into physical units.
      n_days: length of the window in days.

    Returns:
      One (place, n_days) tensor per slow feature, unscaled.
    """
    columns: list[Tensor] = []
    for slow in features.slow:
        index = features.forcing.index(slow.variable)
        values = scaler.scales[slow.variable].invert(forcing[..., index])
        if slow.transform == "log1p":
            values = torch.log1p(values.clamp(min=0.0))
        columns += _trailing_means(values, slow.days, n_days)
    return columns


def assemble_input(
    forcing: Tensor, static: Tensor, features: Features, scaler: Scaler, n_days: int
) -> Tensor:
    """Return the network's input for a window: scaled, with missing and infinite values set to 0.

    Args:
      forcing: (place, lead_days + n_days, forcing) scaled forcing, NaN where missing.
      static: (place, static) scaled static attributes, NaN where missing.
      features: the features, in order.
      scaler: scales of the slow features, and of the forcing that they are derived from.
      n_days: length of the window in days.

    Returns:
      (place, n_days, feature) input.
    """
    parts = [forcing[:, features.lead_days :]]
    slow = slow_features(forcing, features, scaler, n_days)
    for name, values in zip(features.slow_names, slow, strict=True):
        parts.append(scaler.scales[name].apply(values)[..., None])
    parts.append(static[:, None].expand(-1, n_days, -1))
    return torch.nan_to_num(torch.cat(parts, 2), nan=0.0, posinf=0.0, neginf=0.0)
