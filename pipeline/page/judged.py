"""Scores on the page: tables, paired differences, boxes over places, trust in the intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline.figures import scores as figures
from pipeline.figures import style
from pipeline.figures.scores import Difference
from pipeline.page import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from pipeline.files import Json

SHOWN = ("correlation", "rmse", "ubrmse", "bias")
COMPARED = ("correlation", "rmse", "ubrmse")
BETTER = {"correlation": max, "rmse": min, "ubrmse": min}


def judges(summary: Json) -> Iterator[tuple[str, Json, str]]:
    """What the arms were judged by: key, scores, and in words; sites, then the truth."""
    if summary["arms"]:
        yield "sites", summary, f"{text.count(summary['n_sites'])} held-out sites"
    if summary.get("truth", {}).get("arms"):
        n = text.count(summary["truth"]["n_cells"])
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
        metric: figures.forest([d for _, m, d in found if m == metric], metric, unit, first)
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
            values = {name: figures.known(of_metric.value[of_metric.arm == name]) for name in names}
            values = {name: found for name, found in values.items() if found.size}
            if values:
                picture = figures.boxes(values, metric, unit, f"at {where}")
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
            picture = figures.coverage(shares, f"at {where}")
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
            "n": text.count(described["n_footprints"]),
            "cells": [text.number(described["median"][m], _places(m, [described])) for m in SHOWN],
        }
        for values, by_seed in summary.get("footprints", {}).items()
        for seed, described in by_seed.items()
    ]


def _places(metric: str, judged: list[Json]) -> int:
    return text.digits(metric, judged)


def _rows(judged: Json) -> list[Json]:
    described = judged["arms"] | judged["baselines"]
    decimals = {m: text.digits(m, described.values()) for m in SHOWN}
    best = {m: _best(m, described) for m in BETTER}
    rows = []
    for name, d in described.items():
        cells = [_cell(m, d, decimals[m], best.get(m) == name) for m in SHOWN]
        row = {"name": name, "label": style.label(name), "colour": style.colour(name)}
        row |= {"arm": name in judged["arms"], "n": text.count(d["n_sites"]), "cells": cells}
        rows.append(row)
    return rows


def _cell(metric: str, described: Json, decimals: int, best: bool) -> Json:
    sign = "+" if metric == "bias" else ""
    value, bounds = described["median"][metric], described["ci95"][metric]
    return {
        "metric": metric,
        "value": text.number(value, decimals, sign),
        "interval": text.interval(bounds, min(decimals, 3), sign),
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
    decimals = {m: text.digits(m, judged["arms"].values()) for m in COMPARED}
    for pair, made in judged["paired"].items():
        cells: list[dict[str, Any]] = [
            {
                "metric": m,
                "value": text.number(made[m]["median_difference"], decimals[m], "+"),
                "interval": text.interval(made[m]["ci95"], decimals[m], "+"),
            }
            for m in COMPARED
        ]
        other = pair.split("-", 1)[1]
        n = text.count(made["rmse"]["n_sites"])
        yield {"pair": pair, "label": style.label(other), "n": n, "cells": cells}


def _higher(summary: Json, first: str) -> str:
    """How much higher RMSE of an arm is at sites than against the truth; empty where it is not."""
    found = [judged["arms"].get(first) for _, judged, _ in judges(summary)]
    if len(found) < 2 or any(d is None or d["median"]["rmse"] is None for d in found):
        return ""
    higher = found[0]["median"]["rmse"] - found[1]["median"]["rmse"]
    return text.number(higher, text.digits("rmse", found) - 1) if higher > 0 else ""


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
        "shares": [text.percent(share) for share in shares],
        "ranks": text.number(ranks["sites"], 2),
        "ranks_interval": text.interval(ranks["sites_ci95"], 2),
        "ranks_days": text.number(ranks["site_days"], 2),
    }
