"""Scores by stratum: dots with intervals, a row for each part of the sites or days.

Strata and triple collocation on the page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.evaluate.report import style
from pipeline.experiment.config import SATELLITE_BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.evaluate.report.style import Picture
    from pipeline.files import Json


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


DRAWN = ("correlation", "rmse", "ubrmse")
TOLD = ("correlation", "rmse")
RECORDS = ("site", "satellite", "model")
MEASURES = ("error_std", "correlation", "snr_db")
ALL = "all sites"


def strata(summary: Json, unit: str) -> Json | None:
    """Scores by stratum, as pictures and as tables of paired differences."""
    found = summary.get("strata") or {}
    if not summary["arms"] or not found:
        return None
    parts = [(ALL, "all days", summary)]
    parts += [(s, name, judged) for s, names in found.items() for name, judged in names.items()]
    names = [*summary["arms"], *(b for b in summary["baselines"] if b == SATELLITE_BASELINE)]
    pictures = []
    for metric in DRAWN:
        rows = [
            Row(stratum, name, judged["n_sites"], dict(_points(judged, names, metric)))
            for stratum, name, judged in parts
        ]
        picture = dots(rows, metric, unit)
        pictures.append({"title": style.METRICS[metric], "picture": picture})
    legend = [{"label": style.label(n), "colour": style.colour(n)} for n in names]
    return {"pictures": pictures, "legend": legend, "tables": list(_tables(summary, parts))}


def triple(summary: Json) -> list[Json]:
    """A row for each arm or product, collocated with site and satellite."""
    rows = []
    found_by = summary.get("triple_collocation") if summary["arms"] else None
    for name, found in (found_by or {}).items():
        decimals = {"error_std": 4, "correlation": 3, "snr_db": 1}
        cells = [
            {
                "metric": f"{record}_{measure}",
                "value": style.format_number(found[record]["median"][measure], decimals[measure]),
                "interval": style.interval(found[record]["ci95"][measure], decimals[measure]),
            }
            for measure in MEASURES
            for record in RECORDS
        ]
        lost = ", ".join(f"{reason} ({n})" for reason, n in found["undefined"].items())
        row = {"name": name, "label": style.label(name), "colour": style.colour(name)}
        n = style.count(found["model"]["n_sites"])
        rows.append(row | {"n": n, "cells": cells, "undefined": lost})
    return rows


def _points(
    judged: Json, names: list[str], metric: str
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Median and interval of each arm; the median alone where too few blocks give none."""
    described = judged["arms"] | judged["baselines"]
    for name in names:
        middle, (low, high) = described[name]["median"][metric], described[name]["ci95"][metric]
        if middle is not None:
            yield name, (middle, middle if low is None else low, middle if high is None else high)


def _tables(summary: Json, parts: list[tuple[str, str, Json]]) -> Iterator[Json]:
    """By metric: the first arm's median, and its difference from every other."""
    pairs = [*summary["paired"]]
    if not pairs:
        return
    first = pairs[0].split("-", 1)[0]
    others = [style.label(pair.split("-", 1)[1]) for pair in pairs]
    for metric in TOLD:
        decimals = style.digits(metric, summary["arms"].values())
        rows = []
        for stratum, name, judged in parts:
            own = judged["arms"][first]
            cells = [_cell(own["median"][metric], own["ci95"][metric], decimals)]
            made = [judged["paired"][pair][metric] for pair in pairs]
            cells += [_cell(d["median_difference"], d["ci95"], decimals, "+") for d in made]
            row = {"stratum": stratum, "name": name, "n": style.count(own["n_sites"])}
            rows.append(row | {"cells": cells})
        title = f"{style.METRICS[metric]} of {style.label(first)}, and {style.label(first)} minus"
        yield {"metric": metric, "title": title, "others": others, "rows": rows}


def _cell(value: float | None, bounds: list[float | None], digits: int, sign: str = "") -> Json:
    told = style.format_number(value, digits, sign)
    return {"metric": "", "value": told, "interval": style.interval(bounds, digits, sign)}
