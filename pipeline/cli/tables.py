"""Tables for a terminal: summaries of scores, comparisons of experiments, bias adjustment.

Each function takes a summary as summary.json has it and returns tables of the library rich.
"""

from __future__ import annotations

import re
from math import ceil
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from model.metrics import LABELS as METRIC_LABELS
from pipeline.experiment.config import FARTHEST_CELL_KM, SATELLITE_BASELINE, reference_arm
from pipeline.experiment.folds_config import FoldsConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pipeline.files import Json


MAX_NAMED_SITES = 3  # sites that a line names; more are counted
MAX_SHOWN_PROBES = 30  # probes that have a row each

# Headings of metrics.
METRIC_HEADINGS = {m: METRIC_LABELS[m] for m in ("correlation", "rmse", "ubrmse", "bias")}
OTHER_HEADINGS = {m: METRIC_LABELS[m] for m in ("anomaly_correlation", "kge")}
PAIRED_METRICS = ("correlation", "rmse", "ubrmse")  # metrics of which paired differences are shown


def summary_tables(summary: Json) -> Iterator[Table]:
    """Yield the tables of a summary: medians, paired differences, footprints."""
    if summary["arms"]:
        yield _median_table(summary, "Median over sites")
        yield _paired_table(summary, "on common site-days")
    if summary.get("truth"):
        yield _median_table(
            summary["truth"], "Against the truth, median over cells away from sites"
        )
        yield _paired_table(summary["truth"], "against the truth")
    if summary.get("footprints"):
        yield _footprint_table(summary)


def known_places_lines(probes: list[Json]) -> list[str]:
    """Return a line that names the probes at places of training sites; none if there are none.

    Args:
      probes: Items of `probes` of a summary.
    """
    known = [f"{p['id']} at {p['known_as']}" for p in probes if p["known_as"]]
    if not known:
        return []
    more = f" and {len(known) - MAX_NAMED_SITES} more" if len(known) > MAX_NAMED_SITES else ""
    count = f"{len(known)} probes" if len(known) > 1 else "1 probe"
    named = ", ".join(known[:MAX_NAMED_SITES])
    return [f"{count} in the cell of a training site, or within 1 km: {named}{more}"]


def nearest_cell_lines(probes: Iterable[Json]) -> list[str]:
    """Return a line that says how to score the probes outside all cells; none if there are none.

    Args:
      probes: Items of `probes` of a summary.
    """
    unscored = [p for p in probes if not reference_scores(p)["n"]]
    away = [p["cell_km"] for p in unscored if 0 < (p["cell_km"] or 0) <= FARTHEST_CELL_KM]
    if not away:
        return []
    more = f"to score {len(away)} more with the inputs of the nearest cell"
    return [f"{more}: --nearest {ceil(max(away))}"]


def reference_scores(probe: Json) -> Json:
    """Return the scores of a probe by the arm that others are compared with."""
    scores: Json = probe["scores"]
    return dict(scores[reference_arm([*scores])])


def probe_tables(probes: list[Json], summary: Json) -> Iterator[Table]:
    """Yield a table with the scores of each probe, if there are few.

    Args:
      probes: Items of `probes` of a summary.
      summary: The summary of their group, which names the arms.
    """
    if not 0 < len(probes) <= MAX_SHOWN_PROBES or not summary["arms"]:
        return
    arm = reference_arm([*summary["arms"]])
    table = _new_table(f"Each probe, by {arm}", "probe")
    for heading in METRIC_HEADINGS.values():
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("inputs of", no_wrap=True)
    for probe in probes:
        scores, km = probe["scores"][arm], probe["cell_km"]
        numbers = [
            _format_number(scores[metric], "+" if metric == "bias" else "")
            for metric in METRIC_HEADINGS
        ]
        place = "none" if km is None else f"a cell {km:.0f} km away" if km else "its place"
        table.add_row(probe["id"], str(scores["n"]), *numbers, place)
    yield table


def adjustment_tables(summary: Json) -> Iterator[Table]:
    """Yield tables of the bias adjustment.

    RMSE against the number of days that the offset is learned on, and the offsets of sites that
    have too few days for that.
    """
    result = summary["adjustment"]
    if result["by_days"]:
        yield from _adjustment_curve_tables(result)
    short = {item["id"] for item in result["not_in_curve"]}
    if short:
        yield _offset_table(
            [item for item in result["offsets"] if item["id"] in short], summary["arms"]
        )


def not_scored_lines(items: list[Json]) -> list[str]:
    """Return lines that say which sites have no score, and why.

    Sites with the same kind of reason share a line if there are more than three of them.

    Args:
      items: The keys `id`, `arm` and `reason` of each site.
    """
    by_kind: dict[tuple[str, str], list[Json]] = {}
    for item in items:
        kind = re.sub(r"\d+", "#", re.sub("^0 pairs", "no pairs", item["reason"]))
        by_kind.setdefault((item["arm"], kind), []).append(item)
    lines = []
    for (arm, _), group in by_kind.items():
        if len(group) <= MAX_NAMED_SITES:
            lines += [f"not scored: {i['id']} {i['arm']}: {i['reason']}" for i in group]
            continue
        ids = ", ".join(item["id"] for item in group[:MAX_NAMED_SITES])
        more = f"{ids} and {len(group) - MAX_NAMED_SITES} more"
        lines.append(
            f"not scored: {len(group)} sites, {arm}: {_shared_reason(group, arm)} ({more})"
        )
    return lines


def _shared_reason(group: list[Json], arm: str) -> str:
    """Return the reason that several sites share, with the range of each of its numbers."""
    if group[0]["reason"].startswith("0 pairs,"):
        product = "satellite" if arm == SATELLITE_BASELINE else arm
        return f"no {product} values on their observed days"
    numbers = zip(*(map(int, re.findall(r"\d+", item["reason"])) for item in group), strict=True)
    ranges = (f"{min(n)} to {max(n)}" if min(n) < max(n) else str(n[0]) for n in numbers)
    return re.sub(r"\d+", lambda _: next(ranges), group[0]["reason"])


def summary_caption(summary: Json) -> str:
    """Return a line on how scores were computed: recipe, seeds, folds, least number of pairs."""
    layout = FoldsConfig.model_validate(summary["folds"]).layout
    return (
        f"{summary['experiment']} ({summary['title']}), "
        f"recipe {summary['recipe']}, {summary['n_seeds']} seed(s); "
        f"place {summary['place']}, time {summary['time']}; {layout}; "
        f"sites with at least {summary['min_days']} pairs are scored"
    )


def _median_table(summary: Json, title: str) -> Table:
    """Return median scores with intervals, one row per arm and baseline."""
    spread = (summary.get("training_spread") or {}).get("median_sd", {})
    told = "[95 % interval]" + (" ± sd over single members" if spread else "")
    table = _new_table(f"{title} {told}; share within 50/90 % intervals", "")
    for name in (*METRIC_HEADINGS.values(), "50/90"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind in ("arms", "baselines"):
        for name, scores in summary[kind].items():
            cells = _median_cells(scores, spread.get(name, {}))
            bias, within = _format_number(scores["median"]["bias"], "+"), _format_coverage(scores)
            table.add_row(name, str(scores["n_sites"]), *cells, bias, within)
        table.add_section()
    return table


def _paired_table(summary: Json, where: str) -> Table:
    """Return medians of paired differences, one row per pair of arms and baselines."""
    spread = (summary.get("training_spread") or {}).get("paired_sd", {})
    told = "[95 % interval]" + (" ± sd over single members" if spread else "")
    title = f"Median of paired differences A minus B {where} {told}"
    table = _new_table(title, "A-B")
    for metric in PAIRED_METRICS:
        table.add_column(METRIC_HEADINGS[metric], justify="right", no_wrap=True)
    for pair, scores in summary["paired"].items():
        cells = _difference_cells(scores, spread.get(pair, {}))
        table.add_row(pair, str(scores["rmse"]["n_sites"]), *cells)
    return table


def _median_cells(scores: Json, spread: Json | None = None) -> list[str]:
    """Return a cell for each paired metric: a median, its interval, its spread over training."""
    median, bounds = scores["median"], scores["ci95"]
    return [
        _format_interval(median[m], bounds[m]) + _format_spread((spread or {}).get(m))
        for m in PAIRED_METRICS
    ]


def _difference_cells(differences: Json, spread: Json | None = None) -> list[str]:
    """Return a cell for each paired metric: a difference, its interval, its spread."""
    return [
        _format_interval(differences[m]["median_difference"], differences[m]["ci95"], sign="+")
        + _format_spread((spread or {}).get(m))
        for m in PAIRED_METRICS
    ]


def _footprint_table(summary: Json) -> Table:
    """Return scores of arm satellite at footprints, one row per seed and kind of values."""
    table = _new_table("Arm satellite against the satellite, median over footprints", "values")
    for name in ("seed", "R", "RMSE", "ubRMSE"):
        table.add_column(name, justify="right", no_wrap=True)
    for values, by_seed in summary["footprints"].items():
        for seed, scores in by_seed.items():
            cells = [_format_number(scores["median"][m]) for m in PAIRED_METRICS]
            table.add_row(values, str(scores["n_footprints"]), seed, *cells)
    return table


def _adjustment_curve_tables(result: Json) -> Iterator[Table]:
    """Yield RMSE by days learned on, and its paired differences from no adjustment."""
    later = f"on the days after the first {result['scored_after']} [95 % interval]"
    curve = _new_table(f"Median RMSE with an offset learned on the first k days,\n{later}", "")
    difference = _new_table(f"Median of paired differences in RMSE, k minus 0 days,\n{later}", "")
    for k in result["days"]:
        for table in (curve, difference) if k else (curve,):
            table.add_column(f"k = {k}", justify="right", no_wrap=True)
    first, *others = result["by_days"].values()
    for name in first["minus_0"]:
        scored = [{**by["arms"], **by["baselines"]}[name] for by in (first, *others)]
        cells = [_format_interval(by["median"]["rmse"], by["ci95"]["rmse"]) for by in scored]
        curve.add_row(name, str(scored[0]["n_sites"]), *cells)
        pairs = [by["minus_0"][name]["rmse"] for by in others]
        cells = [_format_interval(d["median_difference"], d["ci95"], sign="+") for d in pairs]
        difference.add_row(name, str(pairs[0]["n_sites"]), *cells)
    yield from (curve, difference)


def _offset_table(items: list[Json], arms: Json) -> Table:
    """Return the offset of each site, one column per arm; `n` is the days learned on."""
    title = "Offset to add at sites with too few days for a curve: mean ± standard deviation"
    table = _new_table(title, "site")
    for arm in arms:
        table.add_column(arm, justify="right", no_wrap=True)
    for item in items:
        offsets = [item[arm] for arm in arms]
        cells = [
            f"{_format_number(o['offset'], '+')} ± {_format_number(o['std'])}" for o in offsets
        ]
        table.add_row(item["id"], str(max(o["days"] for o in offsets)), *cells)
    return table


def comparison_tables(compared: Json) -> Iterator[Table]:
    """Yield tables of a comparison: the experiments, their medians, differences from the first."""
    yield _experiment_table(compared)
    yield _compared_medians_table(compared)
    if compared["truth"]:
        yield _compared_truth_table(compared["truth"])
    for metrics in (PAIRED_METRICS, tuple(OTHER_HEADINGS)):
        yield _difference_table(compared, metrics)


def _experiment_table(compared: Json) -> Table:
    """Return the numbers of sites and site-days, and the settings unlike the first experiment's."""
    table = Table(title="Experiments", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name in ("", "n", "site-days"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    table.add_column(f"settings unlike {compared['first']}")
    for name, about in compared["experiments"].items():
        changed = ", ".join(f"{k}={v}" for k, v in about["changed"].items())
        table.add_row(name, str(about["n_sites"]), f"{about['n_site_days']:,}", changed)
    table.add_section()
    table.add_row("in common", str(compared["n_sites"]), f"{compared['n_site_days']:,}", "")
    return table


def _compared_medians_table(compared: Json) -> Table:
    """Return medians by arm, one row per experiment, and those of the baselines."""
    table = _new_table("Median over sites, on the same site-days [95 % interval]", "")
    for metric in PAIRED_METRICS:
        table.add_column((METRIC_HEADINGS | OTHER_HEADINGS)[metric], justify="right", no_wrap=True)
    groups = {arm: scores["experiments"] for arm, scores in compared["arms"].items()}
    groups[f"of {compared['first']}"] = compared["baselines"]
    for group, members in groups.items():
        table.add_row(f"[bold]{group}[/bold]")
        for name, scores in members.items():
            table.add_row(f"  {name}", str(scores["n_sites"]), *_median_cells(scores))
        table.add_section()
    return table


def _compared_truth_table(truth: Json) -> Table:
    """Return scores of each experiment's maps: medians by arm, and paired differences of arms."""
    title = "Against the truth, median over cells away from sites [95 % interval]"
    table = _new_table(title, counts=False)
    for metric in PAIRED_METRICS:
        table.add_column(METRIC_HEADINGS[metric], justify="right", no_wrap=True)
    for name, scores in truth.items():
        n_cells = max(d["n_sites"] for d in scores["arms"].values())
        table.add_row(f"[bold]{name}[/bold], {n_cells} cells")
        for arm, d in scores["arms"].items():
            table.add_row(f"  {arm}", *_median_cells(d))
        for pair, d in scores["paired"].items():
            table.add_row(f"  {pair}", *_difference_cells(d))
        table.add_section()
    return table


def _difference_table(compared: Json, metrics: tuple[str, ...]) -> Table:
    """Return paired differences from the first experiment, by arm.

    Green is better than the first, red is worse, each in 95 % of the resamples.
    """
    table = _new_table(f"Median paired difference, minus {compared['first']} [95 % interval]", "")
    for metric in metrics:
        table.add_column((METRIC_HEADINGS | OTHER_HEADINGS)[metric], justify="right", no_wrap=True)
    for arm, scores in compared["arms"].items():
        table.add_row(f"[bold]{arm}[/bold]")
        for name, pair in scores["minus_first"].items():
            cells = []
            for metric in metrics:
                median, bounds = pair[metric]["median_difference"], pair[metric]["ci95"]
                text = _format_interval(median, bounds, sign="+")
                cells.append(Text(text, style=_difference_style(metric, bounds)))
            table.add_row(f"  {name}", str(pair["rmse"]["n_sites"]), *cells)
        table.add_section()
    return table


def _difference_style(metric: str, bounds: list[float | None]) -> str:
    """Return a colour if the interval is on one side of zero, else an empty string."""
    low, high = bounds
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "green" if (low > 0) == (metric not in ("rmse", "ubrmse")) else "red"


def _new_table(title: str, first: str = "", counts: bool = True) -> Table:
    """Return a table with the column `first` and, if rows have counts, the column `n`."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    if counts:
        table.add_column("n", justify="right", no_wrap=True)
    return table


def _format_coverage(scores: Json) -> str:
    """Return the percentages of values within the 50 % and the 90 % interval, as "51/89"."""
    shares = [level["after"] for level in scores.get("coverage", {}).values()]
    if not shares or None in shares:
        return ""
    return "/".join(f"{100 * share:.0f}" for share in shares)


def _format_interval(value: float | None, bounds: list[float | None], sign: str = "") -> str:
    """Return a value with its interval on a second line, so that tables fit 80 characters."""
    low, high = bounds
    if value is None or low is None or high is None:
        return _format_number(value, sign)
    return (
        f"{_format_number(value, sign)}\n[{_format_number(low, sign)} {_format_number(high, sign)}]"
    )


def _format_spread(sd: float | None) -> str:
    """Return the spread over training on a line of its own; empty if it is not known."""
    return "" if sd is None else f"\n± {_format_number(sd)}"


def _format_number(value: float | None, sign: str = "") -> str:
    """Return a number with four decimals and no leading zero, "-" for None."""
    return "-" if value is None else f"{value:{sign}.4f}".replace("0.", ".", 1)


def as_json(parts: Iterable[str | Table]) -> Json:
    """Return lines and tables as JSON values.

    Returns:
      `lines`; and `tables`, each with a `title` and its `rows`, which have text by column.
    """
    parts, lines, tables = [*parts], [], []
    for part in parts:
        if isinstance(part, Table):
            names = [
                _plain(column.header) or f"column {i}" for i, column in enumerate(part.columns)
            ]
            columns = ([_plain(cell) for cell in column.cells] for column in part.columns)
            rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
            tables.append({"title": _plain(part.title or ""), "rows": rows})
        else:
            lines.append(_plain(part))
    return {"lines": lines, "tables": tables}


def _plain(text: object) -> str:
    """Return text without markup, on one line."""
    found = text if isinstance(text, Text) else Text.from_markup(str(text))
    return " ".join(found.plain.split())
