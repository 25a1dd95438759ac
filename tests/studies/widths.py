"""Do widths of intervals rank better if they know more? `make widths`.

The calibrated standard deviation of an experiment's held-out predictions is the spread that its
models predict times one factor. Here the factor depends on properties of a site as well: how far it
is from the training sites in attributes and in km, how many of them are near, and how much the two
heads of `multiscale` differ. The dependence is fitted on the held-out sites of all other folds, so
every site is judged by factors that have not seen it.

Usage: PYTHONPATH=tests python -m studies.widths --help
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy import optimize, special, stats

from model import calibration, metrics
from pipeline import files
from pipeline.experiment import load
from pipeline.grid import distance_matching, lookup
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from studies.page import placed

ROOT = Path(__file__).resolve().parents[2]
ARM = "multiscale"
NEAR_KM = 500.0
EVERY_DAYS = 5  # days that a fit sees; scores are those of all days
# Standard deviation of the prior of every coefficient: a factor of 1.3 for one standard deviation
# of a property. It keeps fits on a few tens of sites from following single ones.
PRIOR = 0.26
MIN_DAYS = 30
LOGISTIC = np.pi / np.sqrt(3)  # standard deviation of the logistic distribution of scale 1

CONSTANT, SHIPPED = "one width for all", "spread of the models, one factor (as shipped)"
FITTED = "the same, its factor fitted by likelihood"
ADDED = {
    "with attribute distance": ["attribute distance"],
    "with distance in km": ["distance"],
    "with the number of training sites near": ["density"],
    "with the heads' disagreement": ["disagreement"],
    "with all four": ["attribute distance", "distance", "density", "disagreement"],
}


def crps(error, std):
    """Continuous ranked probability score of logistic distributions, in the unit of `error`.

    Of Jordan, Krueger and Lerch (2019, doi:10.18637/jss.v090.i12), table 1.

    Args:
      error: observation minus mean.
      std: standard deviation, of the same shape.
    """
    scale = std / LOGISTIC
    z = np.abs(error) / scale
    return scale * (z - 2 * special.log_expit(z) - 1)


def properties(workspace, folds, series):
    """{name: (site,) property}, in logarithms, of the sites of an experiment."""
    space = models.read_attribute_space(workspace.url("models"))
    fold = folds.fold.to_numpy()
    lat, lon = folds.lat.to_numpy(), folds.lon.to_numpy()
    distance = np.maximum(distance_matching.distances_to_others(lat, lon, fold), 1.0)
    apart = lookup.great_circle_km(lat[:, None], lon[:, None], lat, lon)
    near = ((apart < NEAR_KM) & (fold[:, None] != fold)).sum(1)
    differ = np.nanmean(np.abs(series["site_head"] - series["satellite_head"]), axis=1)
    return {
        "attribute distance": np.log(np.maximum(space.held_out(fold), 0.1)),
        "distance": np.log(distance),
        "density": np.log1p(near),
        "disagreement": np.log(differ),
    }


def fitted_factors(error, spread, known, fold):
    """(site,) the factor on the spread of every site, fitted on the sites of other folds.

    The fit maximises the posterior density. A site counts as one observation, however many days it
    has, because most of its error is an offset that all days share.

    Args:
      error: (site, day) observation minus prediction, NaN where there is none.
      spread: (site, day) standard deviation that the models predict.
      known: (site, property) properties.
      fold: (site,) fold of each site; NaN rows of `error` are not fitted.
    """
    factors = np.full(len(fold), np.nan)
    for k in np.unique(fold):
        others = (fold != k) & np.isfinite(error).any(1)
        centre, scale = known[others].mean(0), known[others].std(0)
        design = np.column_stack([np.ones(len(fold)), (known - centre) / scale])
        seen = (error[others, ::EVERY_DAYS], spread[others, ::EVERY_DAYS])

        def cost(weights, design=design[others], seen=seen):
            width = seen[1] * np.exp(design @ weights)[:, None]
            by_site = np.nanmean(stats.logistic.logpdf(seen[0], scale=width / LOGISTIC), axis=1)
            return -np.nansum(by_site) + np.square(weights[1:] / PRIOR).sum() / 2

        start = np.zeros(design.shape[1])
        factors[fold == k] = np.exp(design[fold == k] @ optimize.minimize(cost, start).x)
    return factors


def judged(error, std, block):
    """Scores of a width: CRPS by site, coverage, and whether wide intervals mean large errors."""
    both = np.isfinite(error) & np.isfinite(std)
    error, std = np.where(both, error, np.nan), np.where(both, std, np.nan)
    enough = both.sum(1) >= MIN_DAYS
    error, std, block = error[enough], std[enough], block[enough]
    by_site = np.nanmean(crps(error, std), axis=1)
    width, size = np.nanmean(std, axis=1), np.nanmean(np.abs(error), axis=1)
    return {
        "n_sites": int(enough.sum()),
        "crps_by_site": by_site,
        "block": block,
        "crps": float(by_site.mean()),
        "coverage": [
            float(np.nanmean(calibration.interval_coverage(error, std, level)))
            for level in (0.5, 0.9)
        ],
        "rank": metrics.spearman(width, size),
        "rank_ci95": metrics.spearman_interval(width, size, block),
    }


def study(workspace):
    """{name of a width: its scores} at the held-out sites of an experiment."""
    folds = tables.read_table(workspace.url("folds.parquet"))
    sites = tables.read_table(workspace.url("sites.parquet"))
    sites = sites[(sites.arm == ARM) & (sites.status == "out_of_fold")]
    names = ("observation", "prediction", "std_raw", "std", "site_head", "satellite_head")
    series = {
        name: sites.pivot(index="site", columns="time", values=name)
        .reindex(folds.site)
        .to_numpy(float)
        for name in names
    }
    error, fold = series["observation"] - series["prediction"], folds.fold.to_numpy()
    block, known = folds.block.to_numpy(), properties(workspace, folds, series)
    none = np.zeros((len(fold), 0))
    same = np.where(np.isfinite(series["std_raw"]), np.nanmedian(series["std_raw"]), np.nan)
    widths = {
        CONSTANT: same * fitted_factors(error, same, none, fold)[:, None],
        SHIPPED: series["std"],
        FITTED: series["std_raw"] * fitted_factors(error, series["std_raw"], none, fold)[:, None],
    }
    for name, chosen in ADDED.items():
        columns = np.column_stack([known[each] for each in chosen])
        factor = fitted_factors(error, series["std_raw"], columns, fold)
        widths[name] = series["std_raw"] * factor[:, None]
    found = {name: judged(error, width, block) for name, width in widths.items()}
    base = found[FITTED]["crps_by_site"]
    for each in found.values():
        difference, labels = each.pop("crps_by_site") - base, each.pop("block")
        each["crps_difference"] = float(difference.mean())
        each["crps_difference_ci95"] = metrics.block_bootstrap(difference, labels, "mean")
    return found


def written(found, experiment):
    """The table of the page, in Markdown."""
    n = next(iter(found.values()))["n_sites"]
    lines = [
        f"Experiment `{experiment.name}`, {experiment.n_seeds} members, arm `{ARM}`, {n} held-out "
        "sites. CRPS is the mean over sites; its difference is from the spread of the models with "
        "one factor that is fitted in the same way. Intervals of 95 % resample blocks of sites.",
        "",
        "| width | CRPS, m3 m-3 | difference | 50 % and 90 % intervals hold | rank correlation |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, each in found.items():
        low, high = each["crps_difference_ci95"]
        half, most = each["coverage"]
        differs = f"{each['crps_difference']:+.5f} [{low:+.5f}, {high:+.5f}]"
        rank = f"{each['rank']:.2f} [{each['rank_ci95'][0]:.2f}, {each['rank_ci95'][1]:.2f}]"
        rank = "none" if name == CONSTANT else rank
        lines.append(
            f"| {name} | {each['crps']:.4f} | {differs} | {half:.0%}, {most:.0%} | {rank} |"
        )
    return "\n".join(lines)


def main(
    experiment: Annotated[Path, typer.Argument(help="The folder of the experiment that was run.")],
    docs: Annotated[Path, typer.Option(help="Where results/ lies.")] = ROOT / "docs",
) -> None:
    """Judge widths at the held-out sites of an experiment, and write the table."""
    workspace = Workspace(str(experiment.absolute()))
    settings = load.load_experiment(workspace.url("experiment.yaml"), [], None)
    found = study(workspace)
    page = docs / "results" / "widths.md"
    page.write_text(placed(page.read_text(), "widths", written(found, settings), "make widths"))
    text = json.dumps({"experiment": settings.name, "widths": found}, indent=1) + "\n"
    files.write_bytes(str((docs / "results" / "widths.json").absolute()), text.encode())
    print(written(found, settings))


if __name__ == "__main__":
    typer.run(main)
