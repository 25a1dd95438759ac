"""Make the sections of the report with scores: tables, paired differences, box plots, coverage.

The summary of an evaluation, and for box plots the scores table, go in. Scores are shown for each
reference that they are measured against: sites, and the truth at cells if it is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluate.report import style

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.evaluate.report.style import Picture
    from pipeline.files import Json


TABLE_METRICS = ("correlation", "rmse", "ubrmse", "bias", "anomaly_correlation")
PAIRED_METRICS = ("correlation", "rmse", "ubrmse", "anomaly_correlation")
FIGURE_METRICS = ("correlation", "rmse", "ubrmse")
BEST = {"correlation": max, "rmse": min, "ubrmse": min, "anomaly_correlation": max}
_WIDTH = 3.5  # width of a figure, inches
_MARKERS = {"sites": ("s", "white", 0.14), "truth": ("o", None, -0.14)}  # marker, face, shift up


def references(summary: Json) -> Iterator[tuple[str, Json, str]]:
    """Yield key, scores and description of each reference: the sites, then the truth."""
    if summary["arms"]:
        yield "sites", summary, f"{style.format_count(summary['n_sites'])} held-out sites"
    if summary.get("truth", {}).get("arms"):
        n = style.format_count(summary["truth"]["n_cells"])
        yield "truth", summary["truth"], f"{n} cells with known truth, away from sites"


def score_tables(summary: Json) -> list[Json]:
    """Return a table of the scores of arms and baselines for each reference."""
    return [
        {"key": key, "title": where, "rows": _table_rows(judged)}
        for key, judged, where in references(summary)
    ]


def paired_section(summary: Json, unit: str) -> Json | None:
    """Return paired differences of the reference arm minus every other candidate.

    They are in figures and in tables; None if there are none.
    """
    differences = list(_differences(summary))
    if not differences:
        return None
    first = differences[0][0]
    pictures = {
        metric: draw_differences([d for _, m, d in differences if m == metric], metric, unit, first)
        for metric in FIGURE_METRICS
        if any(m == metric for _, m, _ in differences)
    }
    return {
        "first": style.label(first),
        "pictures": [{"title": style.METRICS[m], "picture": p} for m, p in pictures.items()],
        "tables": [
            {"key": key, "title": where, "rows": list(_paired_rows(judged))}
            for key, judged, where in references(summary)
            if judged["paired"]
        ],
        "both": len(list(references(summary))) == 2,
        "higher": _rmse_excess(summary, first),
    }


def box_plots(
    summary: Json, scores: pd.DataFrame, unit: str, goal: float | None = None
) -> list[Json]:
    """Return box plots of the scores over the places of each reference.

    Args:
      summary: the summary of the evaluation.
      scores: the scores table.
      unit: unit of errors.
      goal: ubRMSE to draw as a line; None for no line.
    """
    groups = []
    for key, judged, where in references(summary):
        target = {"sites": "site", "truth": "truth"}[key]
        names = [*judged["arms"], *judged["baselines"]]
        rows = scores[(scores.target == target) & (scores.seed == "ensemble")]
        pictures = []
        for metric in FIGURE_METRICS:
            of_metric = rows[rows.metric == metric]
            values = {name: finite_values(of_metric.value[of_metric.arm == name]) for name in names}
            values = {name: finite for name, finite in values.items() if finite.size}
            if values:
                line = goal if metric == "ubrmse" else None
                picture = draw_boxes(values, metric, unit, f"at {where}", line)
                pictures.append({"title": style.METRICS[metric], "picture": picture})
        if pictures:
            groups.append({"key": key, "title": where, "pictures": pictures})
    return groups


def coverage_section(summary: Json) -> list[Json]:
    """Return, for each reference, the coverage of intervals and how well widths rank errors."""
    groups = []
    for key, judged, where in references(summary):
        arms = {name: d for name, d in judged["arms"].items() if _has_coverage(d)}
        if arms:
            shares = {
                name: {level: (c["before"], c["after"]) for level, c in d["coverage"].items()}
                for name, d in arms.items()
            }
            picture = draw_coverage(shares, f"at {where}")
            rows = [_coverage_row(name, d) for name, d in arms.items()]
            others = [style.label(name) for name in judged["arms"] if name not in arms]
            group = {"key": key, "title": where, "picture": picture, "rows": rows}
            groups.append(group | {"without_interval": " and ".join(others)})
    return groups


def footprint_rows(summary: Json) -> list[Json]:
    """Return the scores of arm satellite at footprints, a row for each seed and set of values."""
    names = {"all": "all values", "without_ceiling": "without values at a footprint's maximum"}
    return [
        {
            "values": names.get(values, values),
            "seed": seed,
            "n": style.format_count(described["n_footprints"]),
            "cells": [
                style.format_number(described["median"].get(m), _decimals(m, [described]))
                for m in TABLE_METRICS
            ],
        }
        for values, by_seed in summary.get("footprints", {}).items()
        for seed, described in by_seed.items()
    ]


def _decimals(metric: str, judged: list[Json]) -> int:
    """Return the number of decimals for a metric."""
    return style.metric_decimals(metric, judged)


def _table_rows(judged: Json) -> list[Json]:
    """Return a row of the table of scores for each arm and baseline."""
    described = judged["arms"] | judged["baselines"]
    spread = judged.get("training_spread", {}).get("median_sd", {})
    decimals = {m: style.metric_decimals(m, described.values()) for m in TABLE_METRICS}
    best = {m: _best_candidate(m, described) for m in BEST}
    rows = []
    for name, d in described.items():
        cells = [
            _score_cell(m, d, decimals[m], best.get(m) == name)
            | _spread(spread.get(name, {}).get(m), decimals[m])
            for m in TABLE_METRICS
        ]
        row = {"name": name, "label": style.label(name), "colour": style.colour(name)}
        row |= {
            "arm": name in judged["arms"],
            "n": style.format_count(d["n_sites"]),
            "cells": cells,
        }
        rows.append(row)
    return rows


def _score_cell(metric: str, described: Json, decimals: int, best: bool) -> Json:
    """Return a cell of the table of scores: the median and its interval."""
    sign = "+" if metric == "bias" else ""
    value, bounds = described["median"].get(metric), described["ci95"].get(metric, (None, None))
    return {
        "metric": metric,
        "value": style.format_number(value, decimals, sign),
        "interval": style.format_interval(bounds, min(decimals, 3), sign),
        "best": best,
    }


def _spread(sd: float | None, decimals: int) -> Json:
    """Return the part of a cell that has the spread over training; empty if it is not known."""
    return {"spread": "" if sd is None else f"± {style.format_number(sd, decimals)}"}


def _best_candidate(metric: str, described: Json) -> str | None:
    """Return the name of the candidate with the best median; None if no candidate has one."""
    medians = {name: d["median"].get(metric) for name, d in described.items()}
    medians = {name: value for name, value in medians.items() if value is not None}
    return str(BEST[metric](medians, key=lambda name: medians[name])) if medians else None


def _differences(summary: Json) -> Iterator[tuple[str, str, Difference]]:
    """Yield first arm, metric and difference of every pair that has an interval."""
    for key, judged, _ in references(summary):
        for pair, by_metric in judged["paired"].items():
            first, other = pair.split("-", 1)
            for metric in PAIRED_METRICS:
                median, bounds = by_metric[metric]["median_difference"], by_metric[metric]["ci95"]
                if median is not None and None not in bounds:
                    yield first, metric, Difference(other, key, median, *bounds)


def _paired_rows(judged: Json) -> Iterator[Json]:
    """Yield a row of the table of paired differences for each pair."""
    decimals = {m: style.metric_decimals(m, judged["arms"].values()) for m in PAIRED_METRICS}
    spread = judged.get("training_spread", {}).get("paired_sd", {})
    for pair, by_metric in judged["paired"].items():
        cells: list[dict[str, Any]] = [
            {
                "metric": m,
                "value": style.format_number(by_metric[m]["median_difference"], decimals[m], "+"),
                "interval": style.format_interval(by_metric[m]["ci95"], decimals[m], "+"),
            }
            | _spread(spread.get(pair, {}).get(m), decimals[m])
            for m in PAIRED_METRICS
        ]
        other = pair.split("-", 1)[1]
        n = style.format_count(by_metric["rmse"]["n_sites"])
        yield {"pair": pair, "label": style.label(other), "n": n, "cells": cells}


def _rmse_excess(summary: Json, first: str) -> str:
    """Return how much higher the RMSE of an arm is at sites than against the truth; else ""."""
    described = [judged["arms"].get(first) for _, judged, _ in references(summary)]
    if len(described) < 2 or any(d is None or d["median"]["rmse"] is None for d in described):
        return ""
    excess = described[0]["median"]["rmse"] - described[1]["median"]["rmse"]
    return (
        style.format_number(excess, style.metric_decimals("rmse", described) - 1)
        if excess > 0
        else ""
    )


def _has_coverage(described: Json) -> bool:
    """Return whether an arm has the coverage of all intervals."""
    shares = [s for level in described.get("coverage", {}).values() for s in level.values()]
    return bool(shares) and None not in shares


def _coverage_row(name: str, described: Json) -> Json:
    """Return a row of the table of coverage and of rank correlations for an arm."""
    shares = [s for level in described["coverage"].values() for s in level.values()]
    ranks = described["width_ranks_errors"]
    return {
        "name": name,
        "label": style.label(name),
        "colour": style.colour(name),
        "shares": [style.format_percent(share) for share in shares],
        "ranks": style.format_number(ranks["sites"], 2),
        "ranks_interval": style.format_interval(ranks["sites_ci95"], 2),
        "ranks_days": style.format_number(ranks["site_days"], 2),
    }


@dataclass(frozen=True)
class Difference:
    """A median of paired differences with its 95 % interval.

    Attributes:
      other: the arm or baseline that is subtracted.
      judge: reference that the scores are measured against: sites or truth.
      median: median of the differences.
      low: lower end of the interval.
      high: upper end of the interval.
    """

    other: str
    judge: str
    median: float
    low: float
    high: float


def draw_boxes(
    values: dict[str, NDArray[Any]], metric: str, unit: str, where: str, goal: float | None = None
) -> Picture:
    """Draw box plots of one metric over places.

    Args:
      values: by arm or baseline, scores (place,) without NaN.
      metric: the metric.
      unit: unit of errors.
      where: which places, for the text alternative.
      goal: a value to draw as a line; None for no line.
    """
    names = list(values)
    name = style.METRICS[metric]
    with style.canvas(_WIDTH, 0.62 + 0.3 * len(names)) as figure:
        axes = figure.subplots()
        artists = axes.boxplot(
            list(values.values()),
            orientation="horizontal",
            positions=range(len(names)),
            widths=0.56,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "white", "linewidth": 1.6},
        )
        for arm, box in zip(names, artists["boxes"], strict=True):
            box.set(facecolor=style.colour(arm), edgecolor=style.colour(arm))
        for part in ("whiskers", "caps"):
            for k, line in enumerate(artists[part]):  # two for each box
                line.set_color(style.colour(names[k // 2]))
        axes.set_yticks(range(len(names)), [style.label(arm) for arm in names])
        axes.invert_yaxis()
        if goal is not None:
            axes.axvline(goal, color=style.INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
        style.finish_rows(
            axes, style.label_with_unit(name, "" if metric == "correlation" else unit)
        )
        return style.embed_figure(figure, f"Box plot of {name} by arm and baseline, {where}.")


def draw_differences(differences: list[Difference], metric: str, unit: str, first: str) -> Picture:
    """Draw paired differences with intervals, a row for each other arm or baseline."""
    others = list(dict.fromkeys(d.other for d in differences))
    name = style.METRICS[metric]
    with style.canvas(_WIDTH, 0.66 + 0.42 * len(others)) as figure:
        axes = figure.subplots()
        axes.axvline(0, color=style.INK, linewidth=0.9)
        for d in differences:
            marker, face, shift = _MARKERS[d.judge]
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
        metric_unit = "" if metric == "correlation" else unit
        style.finish_rows(axes, style.label_with_unit(f"difference in {name}", metric_unit))
        arrow = "better →" if better == "right" else "← better"
        axes.set_title(arrow, loc=better, fontsize=7.5, color="#5b6472")  # type: ignore[arg-type]
        alt = f"Paired differences in {name}: {first} minus each other arm or baseline."
        return style.embed_figure(figure, alt)


def draw_coverage(shares: dict[str, dict[str, tuple[float, float]]], where: str) -> Picture:
    """Draw the coverage of prediction intervals before (open) and after (filled) calibration.

    Args:
      shares: by arm and nominal level in per cent (as text), the share of values inside the
        interval before and after calibration.
      where: which places, for the text alternative.
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
        style.finish_rows(axes, "coverage of the 50 and the 90 % interval [%]")
        axes.set_xticks([0, 25, 50, 75, 90])
        return style.embed_figure(
            figure, f"Coverage of intervals before and after calibration, {where}."
        )


def finite_values(values: Any) -> NDArray[np.float64]:
    """Return the finite values."""
    array = np.asarray(values, float)
    return np.asarray(array[np.isfinite(array)])
