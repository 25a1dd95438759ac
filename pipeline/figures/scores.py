"""Scores: boxes over places, paired differences, coverage of intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.figures.style import Picture

_WIDTH = 3.5
_JUDGES = {"sites": ("s", "white", 0.14), "truth": ("o", None, -0.14)}


@dataclass(frozen=True)
class Difference:
    """A median of paired differences with its interval, against `other`, by `judge`."""

    other: str
    judge: str  # sites or truth
    median: float
    low: float
    high: float


def boxes(values: dict[str, NDArray[Any]], metric: str, unit: str, where: str) -> Picture:
    """One metric over places, a box for each arm or baseline, its median in figures."""
    names = list(values)
    name = style.METRICS[metric]
    with style.canvas(_WIDTH, 0.62 + 0.3 * len(names)) as figure:
        axes = figure.subplots()
        drawn = axes.boxplot(
            list(values.values()),
            orientation="horizontal",
            positions=range(len(names)),
            widths=0.56,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "white", "linewidth": 1.6},
        )
        for arm, box in zip(names, drawn["boxes"], strict=True):
            box.set(facecolor=style.colour(arm), edgecolor=style.colour(arm))
        for part in ("whiskers", "caps"):
            for k, line in enumerate(drawn[part]):
                line.set_color(style.colour(names[k // 2]))
        axes.set_yticks(range(len(names)), [style.label(arm) for arm in names])
        axes.invert_yaxis()
        style.finish(axes, style.quantity(name, "" if metric == "correlation" else unit))
        return style.picture(figure, f"Box plot of {name} by arm and baseline, {where}.")


def forest(differences: list[Difference], metric: str, unit: str, first: str) -> Picture:
    """Paired differences with intervals, a row for each other arm or baseline."""
    others = list(dict.fromkeys(d.other for d in differences))
    name = style.METRICS[metric]
    with style.canvas(_WIDTH, 0.66 + 0.42 * len(others)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=style.INK, linewidth=0.9)
        for d in differences:
            marker, face, shift = _JUDGES[d.judge]
            colour = style.colour(d.other)
            axes.errorbar(
                d.median,
                others.index(d.other) - shift,
                xerr=[[d.median - d.low], [d.high - d.median]],
                fmt=marker,
                color=colour,
                markerfacecolor=face or colour,
                markersize=5.5,
                linewidth=1.5,
            )
        axes.set_yticks(
            range(len(others)), [f"{style.MINUS} {style.label(other)}" for other in others]
        )
        axes.set_ylim(len(others) - 0.5, -0.5)
        better = "right" if metric == "correlation" else "left"
        what = style.quantity(f"difference in {name}", "" if metric == "correlation" else unit)
        style.finish(axes, what)
        arrow = "better →" if better == "right" else "← better"
        axes.set_title(arrow, loc=better, fontsize=7.5, color="#5b6472")  # type: ignore[arg-type]
        return style.picture(figure, f"{first} minus each other: paired differences in {name}.")


def coverage(shares: dict[str, dict[str, tuple[float, float]]], where: str) -> Picture:
    """Share of values inside the intervals, before (open) and after (filled) calibration.

    Args:
      shares: by arm and nominal level in per cent, as text, the two shares.
      where: at which places, for the words.
    """
    with style.canvas(_WIDTH, 0.66 + 0.42 * len(shares)) as figure:
        axes = figure.subplots()
        for level in (50, 90):
            axes.axvline(level, color=style.INK, linewidth=0.9, linestyle=(0, (4, 3)))
        for row, (arm, levels) in enumerate(shares.items()):
            for shift, pair in zip((-0.13, 0.13), levels.values(), strict=True):
                before, after = (100 * share for share in pair)
                y, colour = row + shift, style.colour(arm)
                axes.plot([before, after], [y, y], color=colour, linewidth=1.3)
                axes.plot(before, y, "o", color=colour, markerfacecolor="white", markersize=5)
                axes.plot(after, y, "o", color=colour, markersize=5.5)
        axes.set_yticks(range(len(shares)), [style.label(arm) for arm in shares])
        axes.set_ylim(len(shares) - 0.5, -0.5)
        axes.set_xlim(0, 102)
        style.finish(axes, "share inside the 50 and the 90 % interval [%]")
        axes.set_xticks([0, 25, 50, 75, 90])
        return style.picture(
            figure, f"Coverage of intervals before and after calibration, {where}."
        )


def known(values: Any) -> NDArray[np.float64]:
    """The values that are numbers."""
    array = np.asarray(values, float)
    return np.asarray(array[np.isfinite(array)])
