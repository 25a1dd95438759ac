"""Make the sections of the report with scores by stratum and with triple collocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluate.report import style
from pipeline.experiment.config import SATELLITE_BASELINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.evaluate.report.style import Picture
    from pipeline.files import Json


FIGURE_METRICS = ("correlation", "rmse", "ubrmse")  # metrics in figures
TABLE_METRICS = ("correlation", "rmse")  # metrics in tables of paired differences
RECORDS = ("site", "satellite", "model")
MEASURES = {"error_std": 4, "correlation": 3, "snr_db": 1}  # with their decimals
ALL_SITES = "all sites"
_WIDTH, _ROW, _HEADING = 3.5, 0.33, 0.27  # inches


def strata_section(summary: Json, unit: str) -> Json | None:
    """Return the scores by stratum, as figures and as tables of paired differences."""
    by_stratum = summary.get("strata") or {}
    if not summary["arms"] or not by_stratum:
        return None
    parts = [(ALL_SITES, "all days", summary)]
    parts += [
        (stratum, name, judged)
        for stratum, by_name in by_stratum.items()
        for name, judged in by_name.items()
    ]
    names = [*summary["arms"], *(b for b in summary["baselines"] if b == SATELLITE_BASELINE)]
    pictures = []
    for metric in FIGURE_METRICS:
        rows = [
            StratumRow(
                stratum, name, judged["n_sites"], dict(_median_points(judged, names, metric))
            )
            for stratum, name, judged in parts
        ]
        picture = draw_strata(rows, metric, unit)
        pictures.append({"title": style.METRICS[metric], "picture": picture})
    legend = [{"label": style.label(n), "colour": style.colour(n)} for n in names]
    return {
        "pictures": pictures,
        "legend": legend,
        "tables": list(_difference_tables(summary, parts)),
    }


def triple_collocation_rows(summary: Json) -> list[Json]:
    """Return the results of triple collocation, a row for each arm or product."""
    rows = []
    by_model = summary.get("triple_collocation") if summary["arms"] else None
    for name, described in (by_model or {}).items():
        cells = [
            {
                "metric": f"{record}_{measure}",
                "value": style.format_number(described[record]["median"][measure], decimals),
                "interval": style.format_interval(described[record]["ci95"][measure], decimals),
            }
            for measure, decimals in MEASURES.items()
            for record in RECORDS
        ]
        reasons = ", ".join(f"{reason} ({n})" for reason, n in described["undefined"].items())
        row = {"name": name, "label": style.label(name), "colour": style.colour(name)}
        n = style.format_count(described["model"]["n_sites"])
        rows.append(row | {"n": n, "cells": cells, "undefined": reasons})
    return rows


def _median_points(
    judged: Json, names: list[str], metric: str
) -> Iterator[tuple[str, tuple[float, float, float]]]:
    """Yield name, and median and interval, of each arm or baseline that has a median.

    The interval is the median itself if there are too few blocks for one.
    """
    described = judged["arms"] | judged["baselines"]
    for name in names:
        median, (low, high) = described[name]["median"][metric], described[name]["ci95"][metric]
        if median is not None:
            yield name, (median, median if low is None else low, median if high is None else high)


def _difference_tables(summary: Json, parts: list[tuple[str, str, Json]]) -> Iterator[Json]:
    """Yield by metric a table of the first arm's median and its paired differences."""
    pairs = [*summary["paired"]]
    if not pairs:
        return
    first = pairs[0].split("-", 1)[0]
    others = [style.label(pair.split("-", 1)[1]) for pair in pairs]
    for metric in TABLE_METRICS:
        decimals = style.metric_decimals(metric, summary["arms"].values())
        rows = []
        for stratum, name, judged in parts:
            described = judged["arms"][first]
            cells = [_value_cell(described["median"][metric], described["ci95"][metric], decimals)]
            differences = [judged["paired"][pair][metric] for pair in pairs]
            cells += [
                _value_cell(d["median_difference"], d["ci95"], decimals, "+") for d in differences
            ]
            row = {"stratum": stratum, "name": name, "n": style.format_count(described["n_sites"])}
            rows.append(row | {"cells": cells})
        title = f"{style.METRICS[metric]} of {style.label(first)}, and {style.label(first)} minus"
        yield {"metric": metric, "title": title, "others": others, "rows": rows}


def _value_cell(
    value: float | None, bounds: list[float | None], digits: int, sign: str = ""
) -> Json:
    """Return a cell of a table: a value and its interval."""
    text = style.format_number(value, digits, sign)
    return {"metric": "", "value": text, "interval": style.format_interval(bounds, digits, sign)}


@dataclass(frozen=True)
class StratumRow:
    """A part of a stratum in the figures.

    Attributes:
      stratum: name of the stratum.
      name: name of the part.
      n_sites: number of scored sites.
      points: by arm or baseline, median and lower and upper end of its 95 % interval.
    """

    stratum: str
    name: str
    n_sites: int
    points: dict[str, tuple[float, float, float]]


def draw_strata(rows: list[StratumRow], metric: str, unit: str) -> Picture:
    """Draw one metric by stratum, a dot with its interval for each arm and the satellite."""
    headings = list(dict.fromkeys(row.stratum for row in rows))
    height = _ROW * len(rows) + _HEADING * len(headings)
    name = style.METRICS[metric]
    with style.canvas(_WIDTH, 0.5 + height) as figure:
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
                # There are two shifts even for a single point, so the lengths may differ.
                for shift, (arm, (median, *ends)) in zip(shifts, row.points.items(), strict=False):
                    point_y, colour = y + _ROW / 2 + shift, style.colour(arm)
                    line: dict[str, Any] = {"linewidth": 1.3, "solid_capstyle": "butt"}
                    axes.plot(ends, [point_y, point_y], color=colour, **line)
                    axes.plot(median, point_y, "o", color=colour, markersize=4)
                y += _ROW
        axes.set_yticks(list(ticks), list(ticks.values()))
        axes.set_ylim(y, 0)
        style.finish_rows(
            axes, style.label_with_unit(name, "" if metric == "correlation" else unit)
        )
        return style.embed_figure(figure, f"{name} of each arm and the satellite by stratum.")
