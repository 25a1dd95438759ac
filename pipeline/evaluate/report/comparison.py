"""Experiments against the first of them: paired differences with intervals, a forest plot.

The worth of a probe's first days: RMSE against the number of days an offset is learned on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.evaluate.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.files import Json


# Each with whether more of it is better, and whether it has the target's unit.
PANELS = {
    "correlation": ("R", True, False),
    "anomaly_correlation": ("anomaly R", True, False),
    "rmse": ("RMSE", False, True),
    "ubrmse": ("ubRMSE", False, True),
    "kge": ("KGE", True, False),
}

FORMS = ("png", "svg")
_INCH, _ROW = 1.75, 0.19  # width of a panel, height of an interval


def forest(made: Json, form: str) -> bytes:
    """A panel for each metric, a row for each experiment but the first, a mark for each arm.

    Open marks: the 95 % interval holds zero.
    """
    names = [name for name in made["experiments"] if name != made["first"]]
    arms = list(made["arms"])
    tall = 1.3 + len(names) * (_ROW * len(arms) + 0.12)
    wide = 0.4 + 0.075 * max(map(len, names)) + _INCH * len(PANELS)
    with style.canvas(wide, tall) as figure:
        every = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (metric, (label, more, has_unit)) in zip(every, PANELS.items(), strict=True):
            axes.axvline(0, color=style.INK, linewidth=0.9)
            for k, arm in enumerate(arms):
                shift = ((k + 0.5) / len(arms) - 0.5) * 0.72
                _arm(axes, made["arms"][arm]["minus_first"], names, metric, arm, shift)
            what = style.quantity(label, style.units(made["unit"]) if has_unit else "")
            style.short_ticks(axes.xaxis, 3)
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.set_xlabel(f"difference in {what}")
            arrow, side = ("better →", "right") if more else ("← better", "left")
            axes.set_title(arrow, loc=side, fontsize=7.5, color="#5b6472")
        every[0].set_yticks(range(len(names)), names)
        every[0].set_ylim(len(names) - 0.5, -0.5)
        n = f"{made['n_sites']} sites, {made['n_site_days']:,} site-days"
        title = f"Each experiment {style.MINUS} {made['first']}, on {n}: median paired difference"
        title += ", 95 % interval (open: it holds 0)"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        handles, labels = every[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=len(arms))
        return style.as_bytes(figure, form)


def _arm(axes: Axes, pairs: Json, names: list[str], metric: str, arm: str, shift: float) -> None:
    """One arm's marks, a little apart from those of other arms."""
    colour, first = style.colour(arm), True
    for row, name in enumerate(names):
        found = pairs.get(name, {}).get(metric)
        if found is None or None in (found["median_difference"], *found["ci95"]):
            continue
        median, (low, high) = found["median_difference"], found["ci95"]
        axes.errorbar(
            median,
            row + shift,
            xerr=[[max(median - low, 0)], [max(high - median, 0)]],
            fmt="o",
            color=colour,
            markerfacecolor="white" if low <= 0 <= high else colour,
            markersize=5,
            linewidth=1.4,
            label=style.label(arm) if first else None,
        )
        first = False


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
