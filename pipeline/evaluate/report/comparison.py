"""Draw the figures of `evaluate A B` and of `score --adjust`.

`forest` shows the paired differences of experiments from the first one; `curve` shows the RMSE at
sites against the number of days from which an offset is estimated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.evaluate.report import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from pipeline.files import Json


PANELS = {  # by metric: label, whether higher is better, whether it has the target's unit
    "correlation": ("R", True, False),
    "anomaly_correlation": ("anomaly R", True, False),
    "rmse": ("RMSE", False, True),
    "ubrmse": ("ubRMSE", False, True),
    "kge": ("KGE", True, False),
}

FIGURE_FORMATS = ("png", "svg")
SITE_GROUPS = ("unseen", "out_of_fold", "trained")
LINE_OFFSET = 0.11  # horizontal distance between candidates, in square roots of days
_PANEL_WIDTH, _ROW_HEIGHT = 1.75, 0.19  # width of a panel and height of an interval, inches


def draw_comparison(comparison: Json, form: str) -> bytes:
    """Draw paired differences from the first experiment, with 95 % intervals.

    There is a panel for each metric, a row for each other experiment and a marker for each arm.
    A marker is open if its interval contains zero.

    Args:
      comparison: what `pipeline.evaluate.compare.run` returned.
      form: format of the file, one of FORMS.

    Returns:
      The content of the image file.
    """
    names = [name for name in comparison["experiments"] if name != comparison["first"]]
    arms = list(comparison["arms"])
    height = 1.3 + len(names) * (_ROW_HEIGHT * len(arms) + 0.12)
    width = 0.4 + 0.075 * max(map(len, names)) + _PANEL_WIDTH * len(PANELS)
    with style.canvas(width, height) as figure:
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for axes, (metric, panel) in zip(panels, PANELS.items(), strict=True):
            label, higher_is_better, has_unit = panel
            axes.axvline(0, color=style.INK, linewidth=0.9)
            for k, arm in enumerate(arms):
                shift = ((k + 0.5) / len(arms) - 0.5) * 0.72
                _draw_arm(axes, comparison["arms"][arm]["minus_first"], names, metric, arm, shift)
            unit = style.format_units(comparison["unit"]) if has_unit else ""
            style.short_ticks(axes.xaxis, 3)
            axes.grid(axis="x")
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0)
            axes.set_xlabel(f"difference in {style.label_with_unit(label, unit)}")
            arrow, side = ("better →", "right") if higher_is_better else ("← better", "left")
            axes.set_title(arrow, loc=side, fontsize=7.5, color="#5b6472")
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        n = f"{comparison['n_sites']} sites, {comparison['n_site_days']:,} site-days"
        title = f"Each experiment {style.MINUS} {comparison['first']}, {n}: "
        title += "median paired difference, 95 % interval (open if it contains 0)"
        figure.suptitle(title, x=0.01, ha="left", fontsize=9)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=len(arms))
        return style.figure_bytes(figure, form)


def _draw_arm(
    axes: Axes, pairs: Json, names: list[str], metric: str, arm: str, shift: float
) -> None:
    """Draw the differences of one arm, shifted vertically to be clear of other arms."""
    colour, is_first = style.colour(arm), True
    for row, name in enumerate(names):
        difference = pairs.get(name, {}).get(metric)
        if difference is None or None in (difference["median_difference"], *difference["ci95"]):
            continue
        median, (low, high) = difference["median_difference"], difference["ci95"]
        axes.errorbar(
            median,
            row + shift,
            xerr=[[max(median - low, 0)], [max(high - median, 0)]],
            fmt="o",
            color=colour,
            markerfacecolor="white" if low <= 0 <= high else colour,
            markersize=5,
            linewidth=1.4,
            label=style.label(arm) if is_first else None,  # one entry in the legend
        )
        is_first = False


def draw_adjustment_curve(summary: Json, unit: str) -> bytes:
    """Draw the median RMSE with its 95 % interval against the days used, a line per candidate.

    It is of the first of GROUPS in the summary that has sites with enough days.

    Args:
      summary: what `pipeline.evaluate.probes.run` returned with `adjust`.
      unit: UDUNITS text of the target's unit.

    Returns:
      The content of a PNG file.

    Raises:
      DataError: If no group has a site with enough days.
    """
    groups = [summary[group]["adjustment"] for group in SITE_GROUPS if group in summary]
    adjustment = next((group for group in groups if group["by_days"]), None)
    if adjustment is None:
        hint = "`not_in_curve` in the file of --json lists how many days each site has"
        raise DataError("--figure", "no site has enough days for a curve", remedy=hint)
    days, by_days = adjustment["days"], list(adjustment["by_days"].values())
    names = list(by_days[0]["minus_0"])
    x = np.sqrt(days)  # spread out the first days, where RMSE falls most
    with style.canvas(5.6, 3.4) as figure:
        axes = figure.subplots()
        for i, name in enumerate(names):
            scores = [{**d["arms"], **d["baselines"]}[name] for d in by_days]
            median = np.array([s["median"]["rmse"] for s in scores], float)
            low, high = np.array([s["ci95"]["rmse"] for s in scores], float).T
            axes.errorbar(
                x + LINE_OFFSET * (i - (len(names) - 1) / 2),
                median,
                yerr=np.maximum([median - low, high - median], 0),
                fmt="o-" if name in by_days[0]["arms"] else "s--",
                color=style.colour(name),
                markersize=4.5,
                linewidth=1.3,
                elinewidth=1.0,
                label=style.label(name),
            )
        axes.set_xticks(x, [str(k) for k in days])
        axes.set_xlabel("days of the probe used for the offset")
        axes.set_ylabel(style.label_with_unit("RMSE", style.format_units(unit)))
        later = f"days after the first {adjustment['scored_after']}"
        title = f"Median over {adjustment['n_sites']} sites, {later}, 95 % intervals"
        axes.set_title(title, loc="left", fontsize=8.5)
        style.short_ticks(axes.yaxis)
        axes.grid(axis="y")
        axes.legend(loc="upper right", ncols=2)
        return style.figure_bytes(figure)
