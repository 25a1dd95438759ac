"""Scores: boxes over places, paired differences, coverage of intervals.

Scores on the page: tables, paired differences, boxes over places, trust in the intervals.
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


def draw_boxes(values: dict[str, NDArray[Any]], metric: str, unit: str, where: str) -> Picture:
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


SHOWN = ("correlation", "rmse", "ubrmse", "bias")
COMPARED = ("correlation", "rmse", "ubrmse")
BETTER = {"correlation": max, "rmse": min, "ubrmse": min}


def judges(summary: Json) -> Iterator[tuple[str, Json, str]]:
    """What the arms were judged by: key, scores, and in words; sites, then the truth."""
    if summary["arms"]:
        yield "sites", summary, f"{style.count(summary['n_sites'])} held-out sites"
    if summary.get("truth", {}).get("arms"):
        n = style.count(summary["truth"]["n_cells"])
        yield "truth", summary["truth"], f"{n} cells of known truth, away from sites"


def tables(summary: Json) -> list[Json]:
    """The table of arms and baselines for every judge."""
    return [
        {"key": key, "title": where, "rows": _rows(judged)}
        for key, judged, where in judges(summary)
    ]


def paired(summary: Json, unit: str) -> Json | None:
    """Differences of the reference arm and every other, as figures and as a table."""
    found = list(_differences(summary))
    if not found:
        return None
    first = found[0][0]
    figure = {
        metric: forest([d for _, m, d in found if m == metric], metric, unit, first)
        for metric in COMPARED
        if any(m == metric for _, m, _ in found)
    }
    return {
        "first": style.label(first),
        "pictures": [{"title": style.METRICS[m], "picture": p} for m, p in figure.items()],
        "tables": [
            {"key": key, "title": where, "rows": list(_paired_rows(judged))}
            for key, judged, where in judges(summary)
            if judged["paired"]
        ],
        "both": len(list(judges(summary))) == 2,
        "higher": _higher(summary, first),
    }


def boxes(summary: Json, scores: pd.DataFrame, unit: str) -> list[Json]:
    """Box plots over sites and over cells of known truth."""
    made = []
    for key, judged, where in judges(summary):
        target = {"sites": "site", "truth": "truth"}[key]
        names = [*judged["arms"], *judged["baselines"]]
        own = scores[(scores.target == target) & (scores.seed == "ensemble")]
        pictures = []
        for metric in COMPARED:
            of_metric = own[own.metric == metric]
            values = {name: known(of_metric.value[of_metric.arm == name]) for name in names}
            values = {name: found for name, found in values.items() if found.size}
            if values:
                picture = draw_boxes(values, metric, unit, f"at {where}")
                pictures.append({"title": style.METRICS[metric], "picture": picture})
        made.append({"key": key, "title": where, "pictures": pictures})
    return [group for group in made if group["pictures"]]


def trust(summary: Json) -> list[Json]:
    """Coverage before and after calibration, and how far width ranks errors."""
    made = []
    for key, judged, where in judges(summary):
        arms = {name: d for name, d in judged["arms"].items() if _covered(d)}
        if arms:
            shares = {
                name: {level: (c["before"], c["after"]) for level, c in d["coverage"].items()}
                for name, d in arms.items()
            }
            picture = coverage(shares, f"at {where}")
            rows = [_trust_row(name, d) for name, d in arms.items()]
            lacking = [style.label(name) for name in judged["arms"] if name not in arms]
            group = {"key": key, "title": where, "picture": picture, "rows": rows}
            made.append(group | {"lacking": " and ".join(lacking)})
    return made


def footprints(summary: Json) -> list[Json]:
    """Arm satellite against the satellite itself, a row for each seed and set of values."""
    names = {"all": "all values", "without_ceiling": "without values at a footprint's ceiling"}
    return [
        {
            "values": names.get(values, values),
            "seed": seed,
            "n": style.count(described["n_footprints"]),
            "cells": [
                style.format_number(described["median"][m], _places(m, [described])) for m in SHOWN
            ],
        }
        for values, by_seed in summary.get("footprints", {}).items()
        for seed, described in by_seed.items()
    ]


def _places(metric: str, judged: list[Json]) -> int:
    return style.digits(metric, judged)


def _rows(judged: Json) -> list[Json]:
    described = judged["arms"] | judged["baselines"]
    decimals = {m: style.digits(m, described.values()) for m in SHOWN}
    best = {m: _best(m, described) for m in BETTER}
    rows = []
    for name, d in described.items():
        cells = [_cell(m, d, decimals[m], best.get(m) == name) for m in SHOWN]
        row = {"name": name, "label": style.label(name), "colour": style.colour(name)}
        row |= {"arm": name in judged["arms"], "n": style.count(d["n_sites"]), "cells": cells}
        rows.append(row)
    return rows


def _cell(metric: str, described: Json, decimals: int, best: bool) -> Json:
    sign = "+" if metric == "bias" else ""
    value, bounds = described["median"][metric], described["ci95"][metric]
    return {
        "metric": metric,
        "value": style.format_number(value, decimals, sign),
        "interval": style.interval(bounds, min(decimals, 3), sign),
        "best": best,
    }


def _best(metric: str, described: Json) -> str | None:
    """Who has the best median."""
    known = {n: d["median"][metric] for n, d in described.items()}
    known = {n: value for n, value in known.items() if value is not None}
    return str(BETTER[metric](known, key=lambda n: known[n])) if known else None


def _differences(summary: Json) -> Iterator[tuple[str, str, Difference]]:
    """The first arm, the metric, and the difference, of every pair with an interval."""
    for key, judged, _ in judges(summary):
        for pair, made in judged["paired"].items():
            first, other = pair.split("-", 1)
            for metric in COMPARED:
                middle, bounds = made[metric]["median_difference"], made[metric]["ci95"]
                if middle is not None and None not in bounds:
                    yield first, metric, Difference(other, key, middle, *bounds)


def _paired_rows(judged: Json) -> Iterator[Json]:
    decimals = {m: style.digits(m, judged["arms"].values()) for m in COMPARED}
    for pair, made in judged["paired"].items():
        cells: list[dict[str, Any]] = [
            {
                "metric": m,
                "value": style.format_number(made[m]["median_difference"], decimals[m], "+"),
                "interval": style.interval(made[m]["ci95"], decimals[m], "+"),
            }
            for m in COMPARED
        ]
        other = pair.split("-", 1)[1]
        n = style.count(made["rmse"]["n_sites"])
        yield {"pair": pair, "label": style.label(other), "n": n, "cells": cells}


def _higher(summary: Json, first: str) -> str:
    """How much higher RMSE of an arm is at sites than against the truth; empty where it is not."""
    found = [judged["arms"].get(first) for _, judged, _ in judges(summary)]
    if len(found) < 2 or any(d is None or d["median"]["rmse"] is None for d in found):
        return ""
    higher = found[0]["median"]["rmse"] - found[1]["median"]["rmse"]
    return style.format_number(higher, style.digits("rmse", found) - 1) if higher > 0 else ""


def _covered(described: Json) -> bool:
    shares = [s for level in described.get("coverage", {}).values() for s in level.values()]
    return bool(shares) and None not in shares


def _trust_row(name: str, described: Json) -> Json:
    shares = [s for level in described["coverage"].values() for s in level.values()]
    ranks = described["width_ranks_errors"]
    return {
        "name": name,
        "label": style.label(name),
        "colour": style.colour(name),
        "shares": [style.percent(share) for share in shares],
        "ranks": style.format_number(ranks["sites"], 2),
        "ranks_interval": style.interval(ranks["sites_ci95"], 2),
        "ranks_days": style.format_number(ranks["site_days"], 2),
    }
