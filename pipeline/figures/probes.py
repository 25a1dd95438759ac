"""A probe through time: what quality control keeps, and what it drops by which rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style
from pipeline.figures.series import months

if TYPE_CHECKING:
    from numpy.typing import NDArray

DROPPED = ("#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#009E73", "#767676")


@dataclass(frozen=True)
class Record:
    """Values of a probe, (day,) each: as read, NaN where missing, and by rule which are dropped."""

    days: NDArray[np.datetime64]
    values: NDArray[np.float32]
    dropped: dict[str, NDArray[np.bool_]]


def record(found: Record, title: str, what: str, bounds: tuple[float, float]) -> bytes:
    """The probe as PNG; `bounds` is the range that values may have, shown as grey lines.

    Values far outside the range stand at the edge of the figure, as triangles.
    """
    gone = np.any([*found.dropped.values(), np.zeros(found.values.shape, bool)], axis=0)
    kept = np.where(gone, np.nan, found.values)
    low, high = _limits(found.values, bounds)
    with style.canvas(10.4, 2.9) as figure:
        axes = figure.subplots()
        for bound in bounds:
            axes.axhline(bound, color=style.FAINT, linewidth=0.8)
        line: dict[str, Any] = {"color": "black", "linewidth": 0.9, "markersize": 1.8}
        axes.plot(found.days, kept, "o-", label=f"kept: {np.isfinite(kept).sum()}", **line)
        rules = [(rule, bad) for rule, bad in found.dropped.items() if bad.any()]
        for i, (rule, bad) in enumerate(rules):
            days, values = found.days[bad], found.values[bad]
            mark: dict[str, Any] = {"s": 14, "linewidths": 0.9, "color": DROPPED[i % len(DROPPED)]}
            axes.scatter([], [], marker="x", label=f"{rule}: {bad.sum()}", **mark)
            sides = {"x": (values >= low) & (values <= high), "^": values > high, "v": values < low}
            for marker, chosen in sides.items():
                shown = np.clip(values[chosen], low, high)
                axes.scatter(days[chosen], shown, marker=marker, **mark)
        room = 0.04 * (high - low)
        axes.set_ylim(low - room, high + room)
        first, last = found.days[0], found.days[-1]
        axes.set_xlim(first - np.timedelta64(1, "D"), last + np.timedelta64(1, "D"))
        axes.set_ylabel(what)
        axes.set_title(title, loc="left", fontsize=8.5)
        style.short_ticks(axes.yaxis)
        months(axes)
        axes.grid(axis="y")
        figure.legend(loc="outside lower left", ncols=6, columnspacing=1.4)
        return style.as_bytes(figure)


def _limits(values: NDArray[np.float32], bounds: tuple[float, float]) -> tuple[float, float]:
    """The values' own limits, but little more than the range."""
    known = values[np.isfinite(values)]
    width = bounds[1] - bounds[0]
    low, high = (float(known.min()), float(known.max())) if known.size else bounds
    low, high = (
        max(min(low, bounds[1]), bounds[0] - 0.1 * width),
        min(high, bounds[1] + 0.1 * width),
    )
    return (low, high) if high > low else (low - 0.05 * width, low + 0.05 * width)
