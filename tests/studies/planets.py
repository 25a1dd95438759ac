"""Studies against truth: which arm, which heads, which level, which footprint operator.

Every case is a whole journey (planet, cube, models) on a planet of its own seed; planets are the
replicates, one seed of training each. Scores are medians over the cells away from sites. Cases that
are done are read, not run again. Usage: python tests/studies/planets.py --help
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from scipy import stats

from model import metrics
from model.calibration import LEVEL_WEIGHTS
from model.fit import Fitting
from model.predict import Prediction, predict, product
from model.recipe import Job
from pipeline import cluster, domain, folds, models, packing, planet, prepare, resolve, tables
from pipeline import train as training
from pipeline.cube import Cube
from pipeline.progress import Silent
from pipeline.store import Workspace
from pipeline.truth import away_from_sites

REPORTED = ("correlation", "rmse", "ubrmse", "bias")
ONE_HEAD = ("network.heads=one", "arms=[multiscale]", "folds.kind=none")
INPUTS = ("train.footprint_operator=inputs", "arms=[multiscale]", "folds.kind=none")
ONE_ARM = ("arms=[multiscale]",)
CROWDED = 100  # sites from which on footprints without one are too few to judge at


@dataclass(frozen=True)
class Case:
    """A planet, its number of sites, and what is changed of the experiment `demo`."""

    seed: int
    n_sites: int
    variant: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"planet{self.seed}-sites{self.n_sites}-{self.variant}"


class Journey:
    """The artefacts of a case, made where they are lacking, and what is judged in them."""

    def __init__(self, case: Case, folder: Path) -> None:
        shared = folder / f"planet{case.seed}-sites{case.n_sites}-arms" / "planet"
        settings = [f"planet.seed={case.seed}", f"planet.n_sites={case.n_sites}", *case.settings]
        if case.variant != "arms" and shared.exists():
            settings.append(f"planet.url={shared}")
        self.workspace = Workspace(str(folder / case.name))
        self.experiment = self.workspace.place(resolve.experiment("demo", settings, case.name))
        for stage in (planet, prepare, folds, training):
            stage.run(self.experiment, self.workspace, Silent())
        self.cube = Cube.open(self.workspace.url("cube.zarr"))
        table = tables.read(self.workspace.url("folds.parquet"))
        self.packed = packing.pack(self.experiment, self.cube, table)
        cells, _, _ = self.cube.membership()
        # 200 sites leave no footprint empty: there, 2 cells from any site must do.
        empty = case.n_sites < CROWDED
        away = {tuple(cell) for cell in away_from_sites(self.cube, empty).tolist()}
        self.away = np.array([tuple(cell) in away for cell in cells.tolist()])
        y, x = cells.T
        days = self.cube.days.astype("datetime64[ns]")
        self.truth = domain.open_truth(self.experiment).days(days)[:, y, x].T

    def members(self, arm: str) -> list[Prediction]:
        """What the models of all sites predict in every cell."""
        ensemble = models.ensemble(self.workspace.url("models"), arm)
        return [predict(member, self.packed.cells("cpu")) for member in ensemble]

    def score(self, series: np.ndarray) -> dict[str, float]:
        """Medians over the cells away from sites, against the truth."""
        scored = metrics.scores(series[self.away], self.truth[self.away], self.cube.days)
        return {metric: float(np.nanmedian(scored[metric])) for metric in REPORTED}

    def contrast(self, series: np.ndarray) -> float:
        """Standard deviation of the cells of a footprint about their mean, mean over all days."""
        members = self.packed.members[(self.packed.members >= 0).all(1)]
        return float(series[members].std(1).mean())

    def satellite(self) -> np.ndarray:
        """(cell, day) the footprint that holds each cell."""
        series = np.full_like(self.truth, np.nan)
        for footprint, cells in enumerate(self.packed.members):
            series[cells[cells >= 0]] = self.packed.satellite[footprint]
        return series


def judged(case: Case, folder: Path) -> dict:
    """Scores of every product a case has: arms, single heads, blends."""
    journey = Journey(case, folder)
    result: dict = {"contrast_truth": journey.contrast(journey.truth), "products": {}}
    products = {"satellite itself": journey.satellite()}
    for arm in journey.experiment.arms:
        heads = models.heads(journey.experiment, arm)
        members = journey.members(arm)
        calibration = models.calibrations(journey.workspace.url("models"), arm)["all"]
        chosen = calibration.level_weight
        products[arm] = product(members, heads, chosen)[0]
        if arm == "multiscale" and journey.experiment.network.heads == "two":
            result["level_weight"] = chosen
            products["site head"] = members[0].site
            products["satellite head"] = members[0].satellite
            for weight in LEVEL_WEIGHTS:
                products[f"level {weight:g}"] = product(members, heads, weight)[0]
    for name, series in products.items():
        result["products"][name] = journey.score(series) | {"contrast": journey.contrast(series)}
    return result


def seconds(case: Case, folder: Path, updates: int = 40) -> dict[str, float]:
    """Seconds an update of either footprint operator takes, on one thread, in turns."""
    journey = Journey(case, folder)
    torch.set_num_threads(1)
    data = journey.packed.data(Job("multiscale", models.ALL, 0), 0.0, "cpu")
    fitted, spent = {}, {}
    for operator in ("outputs", "inputs"):
        recipe = journey.experiment.recipe_sections
        train = recipe.train.model_copy(update={"footprint_operator": operator})
        changed = recipe.model_copy(update={"train": train})
        fitted[operator] = Fitting(changed, Job("multiscale", models.ALL, 0), data, updates)
        spent[operator] = []
    for _ in range(updates // 5):
        for operator, fitting in fitted.items():
            begun = time.perf_counter()
            fitting.advance(5)
            spent[operator].append((time.perf_counter() - begun) / 5)
    return {operator: float(np.median(times)) for operator, times in spent.items()}


def interval(differences: list[float]) -> str:
    """Mean of paired differences with its 95 % t interval over planets."""
    values = np.array(differences)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.4f} [{values.mean() - half:+.4f}, {values.mean() + half:+.4f}]"


def table(title: str, results: list[dict], names: list[str], against: str) -> str:
    """A Markdown table: mean over planets, and paired differences with t intervals."""
    lines = [f"### {title} ({len(results)} planets)", ""]
    lines += ["| | R | RMSE | ubRMSE | bias | contrast | R - | RMSE - |", "|---|" + "---|" * 7]
    for name in names:
        rows = [r["products"][name] for r in results]
        means = [np.mean([row[m] for row in rows]) for m in (*REPORTED, "contrast")]
        text = [f"{means[0]:.3f}", *(f"{value:.4f}" for value in means[1:])]
        paired = [
            ""
            if name == against
            else interval([r["products"][name][m] - r["products"][against][m] for r in results])
            for m in ("correlation", "rmse")
        ]
        lines.append(f"| {name} | " + " | ".join([*text, *paired]) + " |")
    return "\n".join([*lines, "", f"Differences are to {against}, with 95 % t intervals.", ""])


def merged(results: list[dict], other: list[dict], name: str) -> list[dict]:
    """Results with the multiscale product of another variant beside them."""
    return [
        r | {"products": r["products"] | {name: o["products"]["multiscale"]}}
        for r, o in zip(results, other, strict=True)
    ]


def main(
    folder: Annotated[Path, typer.Option(help="Where cases are kept.")] = Path("workspace/studies"),
    first: Annotated[int, typer.Option(help="First planet.")] = 200,
    planets: Annotated[int, typer.Option(help="Planets of the study of arms.")] = 8,
    few: Annotated[int, typer.Option(help="Planets of the study of operators.")] = 4,
    fewer: Annotated[int, typer.Option(help="Planets per other number of sites.")] = 2,
) -> None:
    """Run what is not run yet, then print the tables."""
    seeds, some = range(first, first + planets), range(first, first + few)
    cases = [Case(s, 30, "arms") for s in seeds]
    cases += [Case(s, 30, "one-head", ONE_HEAD) for s in seeds]
    cases += [Case(s, 30, "inputs", INPUTS) for s in some]
    cases += [Case(s, n, "arms", ONE_ARM) for n in (15, 60, 200) for s in some[:fewer]]
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[Case, dict] = {}
    with cluster.connected():
        for case in track(cases, "studies"):
            kept = folder / f"{case.name}.json"
            if not kept.exists():
                kept.write_text(json.dumps(judged(case, folder), indent=1))
            results[case] = json.loads(kept.read_text())
        timing = seconds(cases[0], folder)

    def of(n_sites: int, variant: str, which: range = some) -> list[dict]:
        return [
            r
            for c, r in results.items()
            if (c.n_sites, c.variant) == (n_sites, variant) and c.seed in which
        ]

    arms = merged(of(30, "arms", seeds), of(30, "one-head", seeds), "multiscale, one head")
    names = [
        "multiscale",
        "insitu",
        "satellite",
        "multiscale, one head",
        "site head",
        "satellite head",
        "satellite itself",
    ]
    print(table("Arms and heads, 30 sites", arms, names, "multiscale"))
    both = merged(of(30, "arms"), of(30, "inputs"), "inputs, level 0")
    print(table("Footprint operator", both, ["level 0", "inputs, level 0"], "level 0"))
    print(
        f"seconds an update: {timing}; contrast of the truth "
        f"{np.mean([r['contrast_truth'] for r in both]):.4f}\n"
    )
    levels = ["multiscale", "site head", "satellite head", *(f"level {w:g}" for w in LEVEL_WEIGHTS)]
    for n_sites in (15, 30, 60, 200):
        found = of(n_sites, "arms")
        chosen = [r["level_weight"] for r in found]
        print(table(f"Level, {n_sites} sites, chosen {chosen}", found, levels, "multiscale"))


if __name__ == "__main__":
    typer.run(main)
