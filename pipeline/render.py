"""Summaries as tables for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.files import Json

COLUMNS = {
    "correlation": "R",
    "rmse": "RMSE",
    "ubrmse": "ubRMSE",
    "bias": "bias",
}
PAIRED = ("correlation", "rmse", "ubrmse")


def tables(summary: Json) -> Iterator[Table]:
    """Every table a summary has: medians, paired differences, footprints."""
    if summary["arms"]:
        yield _medians(summary, "Median over sites")
        yield _paired(summary, "on common site-days")
    if summary.get("truth"):
        yield _medians(summary["truth"], "Against the truth, median over cells away from sites")
        yield _paired(summary["truth"], "against the truth")
    if summary.get("footprints"):
        yield _footprints(summary)


def caption(summary: Json) -> str:
    """In which sense results are unseen, and what they rest on."""
    folds = summary["folds"]
    layout = "no folds" if folds["kind"] == "none" else f"{folds['n_folds']} random folds"
    if folds["kind"] == "block":
        layout = f"{folds['n_folds']} folds of {folds['block_km']:g} km blocks"
    return (
        f"{summary['experiment']} ({summary['title']}), "
        f"recipe {summary['recipe']}, {summary['n_seeds']} seed(s); "
        f"place {summary['place']}, time {summary['time']}; {layout}; "
        f"scored from {summary['min_days']} pairs on"
    )


def _medians(summary: Json, what: str) -> Table:
    table = _table(f"{what} [95 % interval]; share within 50/90 % intervals", "")
    for name in (*COLUMNS.values(), "50/90"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in ("arms", "baselines"):
        for name, described in summary[kind].items():
            median, bounds = described["median"], described["ci95"]
            cells = [_with_interval(median[m], bounds[m]) for m in PAIRED]
            bias, within = _number(median["bias"], "+"), _coverage(described)
            table.add_row(name, str(described["n_sites"]), *cells, bias, within)
        table.add_section()
    return table


def _paired(summary: Json, where: str) -> Table:
    title = f"Median of paired differences A minus B {where} [95 % interval]"
    table = _table(title, "A-B")
    for metric in PAIRED:
        table.add_column(COLUMNS[metric], justify="right", no_wrap=True)
    for pair, made in summary["paired"].items():
        cells = [
            _with_interval(made[m]["median_difference"], made[m]["ci95"], sign="+") for m in PAIRED
        ]
        table.add_row(pair, str(made["rmse"]["n_sites"]), *cells)
    return table


def _footprints(summary: Json) -> Table:
    table = _table("Arm satellite against the satellite, median over footprints", "values")
    for name in ("seed", "R", "RMSE", "ubRMSE"):
        table.add_column(name, justify="right", no_wrap=True)
    for values, by_seed in summary["footprints"].items():
        for seed, described in by_seed.items():
            cells = [_number(described["median"][m]) for m in PAIRED]
            table.add_row(values, str(described["n_footprints"]), seed, *cells)
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    table.add_column("n", justify="right", no_wrap=True)
    return table


def _coverage(described: Json) -> str:
    shares = [level["after"] for level in described.get("coverage", {}).values()]
    if not shares or None in shares:
        return ""
    return "/".join(f"{100 * share:.0f}" for share in shares)


def _with_interval(value: float | None, bounds: list[float | None], sign: str = "") -> str:
    """A value, and its interval on a line of its own: tables fit 80 columns."""
    low, high = bounds
    if value is None or low is None or high is None:
        return _number(value, sign)
    return f"{_number(value, sign)}\n[{_number(low, sign)} {_number(high, sign)}]"


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.4f}".replace("0.", ".", 1)
