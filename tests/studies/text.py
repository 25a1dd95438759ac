"""Tables of the studies, in Markdown."""

from __future__ import annotations

import numpy as np
from scipy import stats

from pipeline.evaluate.report import style

UNITS = {"correlation": 3, "rmse": 4, "ubrmse": 4, "bias": 4}  # digits


def interval(values):
    """Mean of differences and the half width of its 95 % t interval."""
    values = np.asarray(values, float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return values.mean(), half


def difference(found, a, b, metric):
    """Mean of a minus b over replicates, and its half width."""
    return interval([each[a][metric] - each[b][metric] for each in found])


def told(mean, half, digits=4):
    """A difference with its interval, as text."""
    low, high = mean - half, mean + half
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def mean(found, name, metric):
    """Mean over replicates, as text."""
    return f"{np.mean([each[name][metric] for each in found]):.{UNITS[metric]}f}"


def listed(values):
    """Numbers, in a row."""
    return ", ".join(f"{value:g}" for value in values)


def rows(header, lines):
    """A Markdown table of text."""
    ruled = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


def table(found, names, first):
    """Scores by name, and what `first` gains on each other."""
    metrics = ("correlation", "rmse", "ubrmse")
    header = [
        "",
        *(style.METRICS[m] for m in UNITS),
        *(f"{style.METRICS[m]}: difference" for m in metrics),
    ]
    lines = []
    for name in names:
        line = [style.label(name), *(mean(found, name, metric) for metric in UNITS)]
        gains = [told(*difference(found, first, name, metric)) for metric in metrics]
        line += [""] * len(metrics) if name == first else gains
        lines.append(line)
    return rows(header, lines)
