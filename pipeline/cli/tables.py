"""Summaries as tables for a terminal."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.experiment.config import SATELLITE_BASELINE, FoldsConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.files import Json


NAMED = 3  # sites that a line names

COLUMNS = {
    "correlation": "R",
    "rmse": "RMSE",
    "ubrmse": "ubRMSE",
    "bias": "bias",
}

OTHERS = {"anomaly_correlation": "anomaly R", "kge": "KGE"}
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


def adjustment(judged: Json) -> Iterator[Table]:
    """What the first days of probes are worth, and the offsets of those with few days."""
    made = judged["adjustment"]
    if made["by_days"]:
        yield from _curve(made)
    short = {item["id"] for item in made["not_in_curve"]}
    if short:
        yield _offsets([item for item in made["offsets"] if item["id"] in short], judged["arms"])


def not_scored(items: list[Json]) -> list[str]:
    """Sites without a score: named where few have a reason of a kind, else counted.

    Args:
      items: `id`, `arm` and `reason` of each.
    """
    kinds: dict[tuple[str, str], list[Json]] = {}
    for item in items:
        kind = re.sub(r"\d+", "#", re.sub("^0 pairs", "no pairs", item["reason"]))
        kinds.setdefault((item["arm"], kind), []).append(item)
    lines = []
    for (arm, _), alike in kinds.items():
        if len(alike) <= NAMED:
            lines += [f"not scored: {i['id']} {i['arm']}: {i['reason']}" for i in alike]
            continue
        ids = ", ".join(item["id"] for item in alike[:NAMED])
        more = f"{ids} and {len(alike) - NAMED} more"
        lines.append(f"not scored: {len(alike)} sites, {arm}: {_reasons(alike, arm)} ({more})")
    return lines


def _reasons(alike: list[Json], arm: str) -> str:
    """A reason that several sites share, with the least and greatest of its numbers."""
    if alike[0]["reason"].startswith("0 pairs,"):
        whose = "satellite" if arm == SATELLITE_BASELINE else arm
        return f"no {whose} values on their observed days"
    numbers = zip(*(map(int, re.findall(r"\d+", item["reason"])) for item in alike), strict=True)
    ranges = (f"{min(n)} to {max(n)}" if min(n) < max(n) else str(n[0]) for n in numbers)
    return re.sub(r"\d+", lambda _: next(ranges), alike[0]["reason"])


def caption(summary: Json) -> str:
    """In which sense results are unseen, and what they rest on."""
    layout = FoldsConfig.model_validate(summary["folds"]).layout
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


def _curve(made: Json) -> Iterator[Table]:
    later = f"on the days after the first {made['scored_after']} [95 % interval]"
    curve = _table(f"Median RMSE with an offset learned on the first k days,\n{later}", "")
    less = _table(f"Median of paired differences in RMSE, k minus 0 days,\n{later}", "")
    for k in made["days"]:
        for table in (curve, less) if k else (curve,):
            table.add_column(f"k = {k}", justify="right", no_wrap=True)
    first, *others = made["by_days"].values()
    for name in first["minus_0"]:
        scored = [{**by["arms"], **by["baselines"]}[name] for by in (first, *others)]
        cells = [_with_interval(by["median"]["rmse"], by["ci95"]["rmse"]) for by in scored]
        curve.add_row(name, str(scored[0]["n_sites"]), *cells)
        found = [by["minus_0"][name]["rmse"] for by in others]
        cells = [_with_interval(d["median_difference"], d["ci95"], sign="+") for d in found]
        less.add_row(name, str(found[0]["n_sites"]), *cells)
    yield from (curve, less)


def _offsets(items: list[Json], arms: Json) -> Table:
    title = "Offset to add, of sites with too few days for a curve: mean ± standard deviation"
    table = _table(title, "site")
    for arm in arms:
        table.add_column(arm, justify="right", no_wrap=True)
    for item in items:
        found = [item[arm] for arm in arms]
        cells = [f"{_number(f['offset'], '+')} ± {_number(f['std'])}" for f in found]
        table.add_row(item["id"], str(max(f["days"] for f in found)), *cells)
    return table


def comparison(made: Json) -> Iterator[Table]:
    """What experiments are, their medians, and their differences from the first."""
    yield _experiments(made)
    yield _compared(made)
    for metrics in (PAIRED, tuple(OTHERS)):
        yield _minus_first(made, metrics)


def _experiments(made: Json) -> Table:
    table = Table(title="Experiments", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("", "n", "site-days"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.add_column(f"otherwise than {made['first']}")
    for name, about in made["experiments"].items():
        changed = ", ".join(f"{k}={v}" for k, v in about["changed"].items())
        table.add_row(name, str(about["n_sites"]), f"{about['n_site_days']:,}", changed)
    table.add_section()
    table.add_row("in common", str(made["n_sites"]), f"{made['n_site_days']:,}", "")
    return table


def _compared(made: Json) -> Table:
    table = _table("Median over sites, on the same site-days [95 % interval]", "")
    for metric in PAIRED:
        table.add_column((COLUMNS | OTHERS)[metric], justify="right", no_wrap=True)
    groups = {arm: found["experiments"] for arm, found in made["arms"].items()}
    for group, described in (groups | {f"of {made['first']}": made["baselines"]}).items():
        table.add_row(f"[bold]{group}[/bold]")
        for name, told in described.items():
            cells = [_with_interval(told["median"][m], told["ci95"][m]) for m in PAIRED]
            table.add_row(f"  {name}", str(told["n_sites"]), *cells)
        table.add_section()
    return table


def _minus_first(made: Json, metrics: tuple[str, ...]) -> Table:
    """Green where better than the first, red where worse, in 95 % of the resamples."""
    table = _table(f"Median paired difference, minus {made['first']} [95 % interval]", "")
    for metric in metrics:
        table.add_column((COLUMNS | OTHERS)[metric], justify="right", no_wrap=True)
    for arm, found in made["arms"].items():
        table.add_row(f"[bold]{arm}[/bold]")
        for name, pair in found["minus_first"].items():
            cells = []
            for metric in metrics:
                median, bounds = pair[metric]["median_difference"], pair[metric]["ci95"]
                text = _with_interval(median, bounds, sign="+")
                cells.append(Text(text, style=_verdict(metric, bounds)))
            table.add_row(f"  {name}", str(pair["rmse"]["n_sites"]), *cells)
        table.add_section()
    return table


def _verdict(metric: str, bounds: list[float | None]) -> str:
    """A colour, where an interval is on one side of zero."""
    low, high = bounds
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "green" if (low > 0) == (metric not in ("rmse", "ubrmse")) else "red"


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
