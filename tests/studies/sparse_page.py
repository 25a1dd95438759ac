"""The table, the figure and the numbers of `studies.sparse`, in docs/."""

from __future__ import annotations

import json

import numpy as np

from pipeline.evaluate.report import style
from studies import figures, text
from studies.page import placed

METRICS = ("correlation", "anomaly_correlation", "rmse", "ubrmse")
DIGITS = {"correlation": 3, "anomaly_correlation": 3, "rmse": 4, "ubrmse": 4}
LABELS = {"correlation": "R", "anomaly_correlation": "R of anomalies"}
LABELS |= {"rmse": "RMSE", "ubrmse": "ubRMSE"}
PAIRS = (
    ("multiscale", "insitu"),
    ("multiscale", "late_fusion"),
    ("multiscale", "one_head"),
    ("multiscale", "ridge_level"),
    ("late_fusion", "insitu"),
    ("multiscale_half", "late_fusion_half"),
    ("multiscale_half", "multiscale"),
    ("multiscale_shrunk", "multiscale"),
    ("late_fusion_shrunk", "late_fusion"),
    ("multiscale_shrunk", "late_fusion_shrunk"),
)
SHOWN = ("multiscale", "late_fusion", "insitu", "one_head", "ridge_level", "ridge")
DRAWS = 2000  # of the bootstrap


def publish(kept, members, docs):
    """Write sparse.json, the tables and the figure from cases: {number of sites: [case]}."""
    found = {number: summarise(cases) for number, cases in kept.items()}
    n_draws = {len(cases) for cases in kept.values()}
    about = {
        "made_by": "make sparse",
        "layout": "scan-tuning (layout A): its sites were used for choosing settings",
        "members": members,
        "draws_of_sites": max(n_draws),
        "interval": "95 %, resampling blocks of sites, draws of sites and members together",
        "median": "over sites, of the mean over draws",
        "training_sd": "standard deviation of the median between single members",
    }
    (docs / "results").mkdir(exist_ok=True)
    numbers = {str(number): each for number, each in found.items()}
    written = json.dumps({"about": about} | numbers, indent=1) + "\n"
    (docs / "results" / "sparse.json").write_text(written)
    draw(found, docs / "results" / "sparse.png")
    page = docs / "results" / "sparse.md"
    page.write_text(placed(page.read_text(), "sparse", table(found, about), "make sparse"))


def summarise(cases):
    """Medians and paired differences of one number of sites."""
    names = list(cases[0]["scores"])
    block = np.array(cases[0]["block"])
    every = {n: stacked(cases, n, "every") for n in names}  # (draw, metric, site)
    alone = {n: stacked(cases, n, "alone") for n in names}  # (draw, member, metric, site)
    resampled = {n: stacked(cases, n, "resampled") for n in names}
    made = {}
    for name in names:
        made[name] = {
            "median": by_metric(median_of_means(every[name])),
            "training_sd": by_metric(training_sd(alone[name])),
            "level_weight": float(np.mean([case["level_weight"][name] for case in cases])),
            "n_sites": int(np.isfinite(every[name]).all((0, 1)).sum()),
            "paired": {},
        }
    for a, b in PAIRS:
        difference = median_of_means(every[a] - every[b])
        low, high = interval(resampled[a] - resampled[b], block)
        made[a]["paired"][b] = {
            metric: {
                "median_difference": float(difference[i]),
                "ci95": [float(low[i]), float(high[i])],
            }
            for i, metric in enumerate(METRICS)
        }
    return made


def stacked(cases, name, which):
    """Scores of a candidate, the draws of sites first."""
    return np.array([case["scores"][name][which] for case in cases], float)


def by_metric(values):
    """{metric: value}."""
    return dict(zip(METRICS, map(float, values), strict=True))


def median_of_means(values):
    """(metric,) median over sites of the mean over draws of (draw, metric, site)."""
    return np.nanmedian(values.mean(0), axis=-1)


def training_sd(values):
    """(metric,) standard deviation of medians between members, of (draw, member, metric, site)."""
    if values.shape[1] < 2:
        return np.full(values.shape[2], np.nan)
    return np.nanmedian(values, axis=-1).std(1, ddof=1).mean(0)


def interval(values, block, seed=0):
    """The 95 % interval of `median_of_means`, resampling blocks, draws and members together.

    Args:
      values: (draw, ensemble, metric, site) differences, by ensembles of resampled members.
      block: (site,) label of each site's block.
      seed: seed of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    n_draws, n_ensembles = values.shape[:2]
    names = np.unique(block)
    sites_of = [np.flatnonzero(block == name) for name in names]
    medians = np.empty((DRAWS, values.shape[2]))
    for i in range(DRAWS):
        drawn = generator.integers(n_draws, size=n_draws)
        ensemble = generator.integers(n_ensembles, size=n_draws)
        chosen = generator.integers(len(names), size=len(names))
        sites = np.concatenate([sites_of[k] for k in chosen])
        medians[i] = np.nanmedian(values[drawn, ensemble].mean(0)[:, sites], axis=-1)
    return np.quantile(medians, (0.025, 0.975), axis=0)


def told(paired, metric):
    """A paired difference with its interval, as text."""
    middle, (low, high) = paired[metric]["median_difference"], paired[metric]["ci95"]
    digits = DIGITS[metric]
    return f"{middle:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def score(described, metric):
    """A median with the standard deviation between single members, as text."""
    digits = DIGITS[metric]
    spread = described["training_sd"][metric]
    return f"{described['median'][metric]:.{digits}f} ± {spread:.{digits}f}"


def table(found, about):
    """The tables of medians and of paired differences, in Markdown."""
    lines = [
        [
            str(number),
            style.label(name) if name in ("multiscale", "insitu", "ridge") else name,
            *(score(each[name], m) for m in METRICS),
            f"{each[name]['level_weight']:.2f}",
        ]
        for number, each in found.items()
        for name in SHOWN
    ]
    header = ["sites", "", *(LABELS[m] for m in METRICS), "level weight"]
    pairs = [
        [str(number), f"{a} - {b}", *(told(each[a]["paired"][b], m) for m in METRICS)]
        for number, each in found.items()
        for a, b in PAIRS
    ]
    first = found[next(iter(found))]["multiscale"]["n_sites"]
    intro = (
        f"Random draws of each number of sites: {about['draws_of_sites']}; members of an ensemble: "
        f"{about['members']}; sites that are scored: {first}. Median over sites of the mean over "
        "draws ± the standard deviation between single members; differences with 95 % intervals, "
        "for which blocks of sites, draws and members are resampled together. With one draw, the "
        "intervals do not show what the choice of sites does."
    )
    paired = text.rows(["sites", "", *(LABELS[m] for m in METRICS)], pairs)
    return "\n\n".join([intro, text.rows(header, lines), paired])


def draw(found, path):
    """Scores against the number of sites, and what multiscale gains on others."""
    numbers = list(found)
    with style.canvas(7.4, 2.9) as figure:
        axes = figure.subplots(1, 3)
        for metric, panel in zip(("correlation", "rmse"), axes, strict=False):
            for k, name in enumerate(SHOWN):
                values = [found[n][name]["median"][metric] for n in numbers]
                panel.plot(numbers, values, color=f"C{k}", label=name, **figures.LINES)
            panel.set_ylabel(figures.PANELS[metric])
        axes[2].axhline(0, color=style.INK, linewidth=0.9)
        for k, other in enumerate(("insitu", "late_fusion")):
            for i, number in enumerate(numbers):
                paired = found[number]["multiscale"]["paired"][other]["rmse"]
                middle, (low, high) = paired["median_difference"], paired["ci95"]
                where, colour = number * (1 + 0.08 * k), f"C{SHOWN.index(other)}"
                shown = {"label": f"multiscale {style.MINUS} {other}"} if i == 0 else {}
                axes[2].vlines(where, low, high, color=colour)
                axes[2].plot(where, middle, "o", ms=4.5, color=colour, **shown)
        axes[2].set_ylabel(f"difference of {figures.PANELS['rmse']}")
        axes[2].legend(fontsize=6.5)
        for panel in axes:
            panel.set_xscale("log")
            panel.set_xticks(numbers, [str(n) for n in numbers])
            panel.minorticks_off()
            panel.set_xlabel("training sites")
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(SHOWN))
        figures.save(figure, axes, path)
