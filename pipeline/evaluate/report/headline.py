"""Say the main result of an evaluation in words: the scores, and how the strongest rival does.

The strongest rival of an arm is the other arm or baseline whose RMSE is lowest, on the places and
days that both predict. It is named also where it wins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.evaluate.report import style
from pipeline.evaluate.report.style import format_count, format_interval, format_number
from pipeline.experiment.config import SATELLITE_BASELINE, reference_arm

if TYPE_CHECKING:
    from pipeline.files import Json


# By metric of the headline, whether higher values are better.
JUDGED = {"rmse": False, "correlation": True}
WINS, TIES, LOSES = "wins", "ties", "loses"


def headline(summary: Json, unit: str) -> str:
    """Return the main result: scores of the reference arm, and whether it beats its rival.

    The scores are those against the truth if it is known, else those at sites, else those of arm
    satellite at footprints.
    """
    found = _judged(summary)
    if found is None:
        return _footprint_headline(summary, unit)
    where, judged, against = found
    arms = judged["arms"]
    name = reference_arm([*arms])
    text = f"{where}, {style.label(name)} has {_format_scores(arms[name], unit)}{against}."
    rival = strongest_rival(judged, "rmse")
    return text if rival is None else f"{text} {_compare(judged, rival, unit)}"


def detail(summary: Json, unit: str) -> str:
    """Return the differences that the headline is about; empty if there is no rival."""
    found = _judged(summary)
    rival = None if found is None else strongest_rival(found[1], "rmse")
    if found is None or rival is None:
        return ""
    judged = found[1]
    name = style.label(reference_arm([*judged["arms"]]))
    told = ", ".join(_difference(judged, rival, metric, unit) for metric in JUDGED)
    parts = [f"{name} minus {style.label(rival)}: {told}"]
    if (other := strongest_rival(judged, "correlation")) not in (rival, None):
        told = _difference(judged, str(other), "correlation", unit)
        parts.append(f"in R, the strongest rival is {style.label(str(other))}: {told}")
    text = "; ".join(parts)
    baselines = judged["baselines"]
    if SATELLITE_BASELINE in baselines and rival != SATELLITE_BASELINE:
        scores = _format_scores(baselines[SATELLITE_BASELINE], unit)
        text += f"; the satellite itself has {scores}"
    text = text[0].upper() + text[1:]
    return f"{text}. Differences are medians of paired differences, with 95 % intervals."


def strongest_rival(judged: Json, metric: str) -> str | None:
    """Return the other arm or baseline that comes closest to the reference arm, or beats it.

    Args:
      judged: arms, baselines and paired differences of a reference.
      metric: the metric, a key of JUDGED.

    Returns:
      Its name; None if nothing is compared.
    """
    name = reference_arm([*judged["arms"]])
    differences = {
        pair.removeprefix(f"{name}-"): by_metric[metric]["median_difference"]
        for pair, by_metric in judged["paired"].items()
        if pair.startswith(f"{name}-") and by_metric[metric]["median_difference"] is not None
    }
    if not differences:
        return None
    best = min if JUDGED[metric] else max
    return str(best(differences, key=lambda other: differences[other]))


def _judged(summary: Json) -> tuple[str, Json, str] | None:
    """Return where, and by what, the headline judges the arms; None without scores of arms."""
    if (truth := summary.get("truth") or {}).get("arms"):
        n = format_count(truth["n_cells"])
        return f"At {n} cells away from every site", truth, " against the truth"
    if not summary.get("arms"):
        return None
    held_out = "" if summary["place"] == "seen" else "held-out "
    return f"At {format_count(summary['n_sites'])} {held_out}sites", summary, ""


def _compare(judged: Json, rival: str, unit: str) -> str:
    """Return a sentence that says how the reference arm does against its rival."""
    described = {**judged["arms"], **judged["baselines"]}[rival]
    name = f"its strongest rival, {style.label(rival)} ({_format_scores(described, unit)})"
    verdicts = {metric: _verdict(judged, rival, metric) for metric in JUDGED}
    if "" in verdicts.values():  # too few blocks for intervals
        return f"There are too few regions to tell it from {name}."
    rmse, r = verdicts.values()
    if rmse == r:
        told = {WINS: "is better than", TIES: "ties with", LOSES: "loses to"}[rmse]
        return f"It {told} {name}."
    return f"Against {name}, it {rmse} in RMSE and {r} in R."


def _verdict(judged: Json, rival: str, metric: str) -> str:
    """Return whether the reference arm wins, ties or loses; empty without an interval."""
    low, high = _paired(judged, rival)[metric]["ci95"]
    if low is None or high is None:
        return ""
    if low <= 0 <= high:
        return TIES
    return WINS if (low > 0) == JUDGED[metric] else LOSES


def _paired(judged: Json, rival: str) -> Json:
    paired: Json = judged["paired"][f"{reference_arm([*judged['arms']])}-{rival}"]
    return paired


def _difference(judged: Json, rival: str, metric: str, unit: str) -> str:
    """Return a difference with its interval."""
    found = _paired(judged, rival)[metric]
    digits = style.metric_decimals(metric, judged["arms"].values())
    value = format_number(found["median_difference"], digits, "+")
    interval = format_interval(found["ci95"], digits, "+")
    named = "" if metric == "correlation" else unit
    parts = (style.METRICS[metric], value, interval, named)
    return " ".join(filter(None, parts)).replace(" ", "\N{NO-BREAK SPACE}")


def _footprint_headline(summary: Json, unit: str) -> str:
    """Return the scores of arm satellite at footprints, in a sentence."""
    seeds = summary.get("footprints", {}).get("all", {})
    described = seeds.get("ensemble") or next(iter(seeds.values()), None)
    if described is None:
        return "There are no scores."
    n = format_count(described["n_footprints"])
    days = "unseen days" if summary["time"] == "unseen" else "days of the training period"
    scores = _format_scores(described, unit)
    return f"At {n} footprints, {style.label('satellite')} has {scores} on {days}."


def _format_scores(described: Json, unit: str) -> str:
    """Format the median R and RMSE, to two significant figures."""
    r, rmse = described["median"]["correlation"], described["median"]["rmse"]
    decimals = max(style.metric_decimals("rmse", [described]) - 1, 0)
    error = " ".join(filter(None, (format_number(rmse, decimals), unit)))
    parts = (f"R {format_number(r, 2)}", f"RMSE {error}")
    return " and ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)
