"""Lines: a site through time with its intervals, losses through training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model.calibration import half_width
from pipeline.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from pipeline.figures.style import Picture

LEVELS = (0.9, 0.5)


@dataclass(frozen=True)
class Series:
    """A site through time, (day,) each, NaN where missing; `satellite` None where none is near."""

    days: NDArray[np.datetime64]
    observed: NDArray[np.float32]
    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    satellite: NDArray[np.float32] | None


def at_site(series: Series, arm: str, what: str, bounds: tuple[float, float], alt: str) -> Picture:
    """Observation, prediction with its 50 and 90 % interval, and the satellite."""
    colour = style.colour(arm)
    with style.canvas(10.4, 2.5) as figure:
        axes = figure.subplots()
        for level, strength in zip(LEVELS, (0.16, 0.3), strict=True):
            half = series.std * half_width(level)
            low, high = (np.clip(series.mean + side * half, *bounds) for side in (-1, 1))
            shade: dict[str, Any] = {"color": colour, "alpha": strength, "linewidth": 0}
            axes.fill_between(series.days, low, high, label=f"{level:.0%} interval", **shade)
        axes.plot(series.days, series.mean, color=colour, linewidth=1.2, label=style.label(arm))
        if series.satellite is not None:
            axes.plot(
                series.days,
                series.satellite,
                "o",
                color=style.colour("footprint"),
                markersize=2.2,
                alpha=0.7,
                label=style.label("footprint"),
            )
        axes.plot(series.days, series.observed, color="black", linewidth=0.9, label="observed")
        axes.set_xlim(series.days[0], series.days[-1])
        axes.set_ylabel(what)
        style.short_ticks(axes.yaxis)
        months(axes)
        axes.grid(axis="y")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=5, columnspacing=1.4)
        return style.picture(figure, alt)


def losses(curves: dict[str, tuple[NDArray[Any], NDArray[Any]]], which: str) -> Picture:
    """Loss by update, as running means, a line for each arm."""
    with style.canvas(3.5, 2.2) as figure:
        axes = figure.subplots()
        for arm, (step, loss) in curves.items():
            axes.plot(step, loss, color=style.colour(arm), linewidth=0.5, alpha=0.25)
            smooth = _running(loss, max(3, len(loss) // 20))
            axes.plot(step, smooth, color=style.colour(arm), linewidth=1.5, label=style.label(arm))
        axes.set_xlabel("update")
        axes.set_ylabel("loss")
        lows, highs = zip(
            *(np.nanquantile(loss, (0.0, 1.0)) for _, loss in curves.values()), strict=True
        )
        room = 0.05 * (max(highs) - min(lows) + 1e-9)
        axes.set_ylim(min(lows) - room, max(highs) + room)
        style.short_ticks(axes.yaxis)
        style.short_ticks(axes.xaxis)
        axes.grid(axis="y")
        axes.legend(loc="upper right")
        return style.picture(figure, f"Training loss on {which} by update, for each arm.")


def months(axes: Axes) -> None:
    """A time axis with few ticks, written short."""
    from matplotlib import dates

    locator = dates.AutoDateLocator(minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = dates.ConciseDateFormatter(locator, show_offset=False)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)


def _running(values: NDArray[Any], width: int) -> NDArray[Any]:
    """Mean of the last `width` values that are numbers."""
    known = np.isfinite(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    before = np.maximum(np.arange(len(values)) - width, -1)
    total = sums - np.where(before >= 0, sums[before], 0.0)
    number = counts - np.where(before >= 0, counts[before], 0)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))
