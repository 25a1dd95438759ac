"""Scores by stratum: dots with intervals, a row for each part of the sites or days."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.figures import style

if TYPE_CHECKING:
    from pipeline.figures.style import Picture

_WIDTH, _ROW, _HEADING = 3.5, 0.33, 0.27  # inches


@dataclass(frozen=True)
class Row:
    """A part of a stratum: its name, how many sites it has, and each arm's median and interval."""

    stratum: str
    name: str
    n_sites: int
    points: dict[str, tuple[float, float, float]]  # median, low, high


def dots(rows: list[Row], metric: str, unit: str) -> Picture:
    """One metric in every stratum, a dot with its interval for each arm and the satellite."""
    headings = list(dict.fromkeys(row.stratum for row in rows))
    high = _ROW * len(rows) + _HEADING * len(headings)
    name = style.METRICS[metric]
    with style.canvas(_WIDTH, 0.5 + high) as figure:
        axes = figure.subplots()
        y, ticks = 0.0, {}
        for heading in headings:
            axes.annotate(
                heading,
                (0, y + _HEADING / 2),
                (-4, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                ha="right",
                va="center",
                weight="bold",
            )
            axes.axhline(y, color=style.FAINT, linewidth=0.8)
            y += _HEADING
            for row in (r for r in rows if r.stratum == heading):
                ticks[y + _ROW / 2] = f"{row.name} ({row.n_sites})"
                shifts = np.linspace(-0.09, 0.09, max(len(row.points), 2))
                for shift, (arm, (middle, *ends)) in zip(shifts, row.points.items(), strict=False):
                    at, colour = y + _ROW / 2 + shift, style.colour(arm)
                    axes.plot(ends, [at, at], color=colour, linewidth=1.3, solid_capstyle="butt")
                    axes.plot(middle, at, "o", color=colour, markersize=4)
                y += _ROW
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.set_ylim(y, 0)
        style.finish(axes, style.quantity(name, "" if metric == "correlation" else unit))
        return style.picture(figure, f"{name} of each arm and the satellite by stratum.")
