"""Make the table of the report with the scores of every site.

The table is of the reference arm; those of the other arms and of the baselines are in
site_scores.csv. Figures link to its rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.evaluate import site_files
from pipeline.evaluate.report import style

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from pipeline.files import Json
    from pipeline.storage.cube import Cube


COLUMNS = ("correlation", "rmse", "ubrmse", "bias", "anomaly_correlation")
DEGREES = 2  # decimals of latitude and longitude


def site_anchor(row: int) -> str:
    """Return the id of the element of a site in the page, by its row in the cube."""
    return f"site-{row}"


def site_table(
    cube: Cube, scores: pd.DataFrame, arm: str, goal: float | None, has_csv: bool
) -> Json:
    """Return the table of the scores of an arm at every site.

    Args:
      cube: a cube with sites.
      scores: the scores table.
      arm: the arm.
      goal: ubRMSE that sites should not exceed; None if there is none for the target.
      has_csv: whether site_scores.csv is beside the report.
    """
    table = site_files.site_table(cube, scores)
    table = table[table.candidate == arm]
    decimals = {m: _decimals(m, table) for m in COLUMNS}
    row_of = {site: row for row, site in enumerate(cube.site_ids)}
    rows = [
        {
            "id": site_anchor(row_of[of["site"]]),
            "site": of["site"],
            "network": of["network"],
            "cells": [
                *(_cell(of[a], style.format_number(of[a], DEGREES)) for a in ("lat", "lon")),
                _cell(of["n"], style.format_count(of["n"])),
                _cell(of["n_eff"], style.format_number(of["n_eff"], 0)),
                *(_score_cell(of, metric, decimals[metric]) for metric in COLUMNS),
            ],
        }
        for of in table.to_dict("records")
    ]
    has_network = bool((table.network != "").any())
    reached = int((table.ubrmse <= goal).sum()) if goal is not None else None
    return {
        "heads": ["latitude", "longitude", "days", "effective days"]
        + [style.METRICS[metric] for metric in COLUMNS],
        "rows": rows,
        "networks": has_network,
        "goal": None if goal is None else style.format_number(goal, 2),
        "reached": reached,
        "n_scored": int(table.rmse.notna().sum()),
        "csv": site_files.SITE_SCORES if has_csv else "",
        "series": site_files.COLLOCATED if has_csv else "",
    }


def site_texts(scores: pd.DataFrame, arm: str, unit: str) -> dict[str, str]:
    """Return what a figure shows of each site where the pointer is, by id."""
    rows = scores[(scores.target == "site") & (scores.arm == arm)]
    metrics = {m: of.set_index("id").value for m, of in rows.groupby("metric")}
    days = rows[rows.metric == "rmse"].set_index("id").n
    u = f" {unit}" if unit else ""
    return {
        str(site): f"{site}: R {style.format_number(metrics['correlation'][site], 2)}, "
        f"RMSE {style.format_number(metrics['rmse'][site], 3)}{u}, "
        f"bias {style.format_number(metrics['bias'][site], 3, '+')}{u}, {days[site]:,} days"
        for site in days.index
    }


def _cell(value: float, text: str, interval: str = "") -> Json:
    """Return a cell: its text, and its value to sort by, empty if it is missing."""
    return {"sort": f"{value:.6g}" if np.isfinite(value) else "", "text": text, "ci": interval}


def _score_cell(row: Mapping[Any, Any], metric: str, decimals: int) -> Json:
    """Return the cell of a metric, with its interval if it has one."""
    value = float(row[metric])
    sign = "+" if metric == "bias" else ""
    interval = ""
    if metric in site_files.INTERVALS:
        bounds = [float(row[f"{metric}_{end}"]) for end in ("low", "high")]
        if np.isfinite(bounds).all():
            interval = style.format_interval(bounds, decimals, sign)
    return _cell(value, style.format_number(value, decimals, sign), interval)


def _decimals(metric: str, table: pd.DataFrame) -> int:
    """Return the number of decimals of a metric: 2 for R, else 2 significant digits of RMSE."""
    if metric in style.UNITLESS:
        return 2
    largest = float(table.rmse.median()) if table.rmse.notna().any() else 0.1
    return int(np.clip(1 - np.floor(np.log10(max(largest, 1e-9))), 0, 6)) + 1
