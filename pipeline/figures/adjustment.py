"""The worth of a probe's first days: RMSE against the number of days an offset is learned on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.figures import style

if TYPE_CHECKING:
    from pipeline.files import Json

GROUPS = ("unseen", "out_of_fold", "trained")
APART = 0.11  # between candidates, in square roots of days


def curve(summary: Json, unit: str) -> bytes:
    """Median RMSE with its 95 % interval, a line for each arm or baseline, as PNG.

    Of the first group of sites in a summary of `score` that has enough days.

    Raises:
      DataError: none has.
    """
    groups = [summary[group]["adjustment"] for group in GROUPS if group in summary]
    adjustment = next((made for made in groups if made["by_days"]), None)
    if adjustment is None:
        remedy = "`not_in_curve` of --json tells how many they have"
        raise DataError("--figure", "no site has days enough for a curve", remedy=remedy)
    days, by_days = adjustment["days"], list(adjustment["by_days"].values())
    names = list(by_days[0]["minus_0"])
    at = np.sqrt(days)  # the first days are worth most
    with style.canvas(5.6, 3.4) as figure:
        axes = figure.subplots()
        for i, name in enumerate(names):
            judged = [{**by["arms"], **by["baselines"]}[name] for by in by_days]
            median = np.array([j["median"]["rmse"] for j in judged], float)
            low, high = np.array([j["ci95"]["rmse"] for j in judged], float).T
            axes.errorbar(
                at + APART * (i - (len(names) - 1) / 2),
                median,
                yerr=np.maximum([median - low, high - median], 0),
                fmt="o-" if name in by_days[0]["arms"] else "s--",
                color=style.colour(name),
                markersize=4.5,
                linewidth=1.3,
                elinewidth=1.0,
                label=style.label(name),
            )
        axes.set_xticks(at, [str(k) for k in days])
        axes.set_xlabel("days of the probe learned on")
        axes.set_ylabel(style.quantity("RMSE", style.units(unit)))
        later = f"days after the first {adjustment['scored_after']}"
        title = f"Median over {adjustment['n_sites']} sites, {later}, 95 % intervals"
        axes.set_title(title, loc="left", fontsize=8.5)
        style.short_ticks(axes.yaxis)
        axes.grid(axis="y")
        axes.legend(loc="upper right", ncols=2)
        return style.as_bytes(figure)
