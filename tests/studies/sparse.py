"""How many sites is the satellite worth: arms and controls against the number of training sites.

Every case is a number of sites and a random draw of them from layout A of scan (`scan-sparse`).
Models of all arms are trained on the drawn sites, and scored at the held-out sites of every fold.
Predictions and scores of a case are kept, and read if they are there. The table goes into
docs/results/sparse.json and docs/results.md, the figure beside it.

Controls, beside the arms `multiscale` and `insitu` and the baseline `ridge`:
  late_fusion: the dynamics of `insitu`, its level moved towards that of a satellite model that was
    trained alone, by the same rule and the same calibration as those of `multiscale`.
  one_head: `multiscale` with one head for both kinds of observation, as published.
  ridge_level: the ridge regression, its level moved in the same way.
  multiscale_half, late_fusion_half: with the level weight 0.5 instead of the chosen one.
  multiscale_shrunk, late_fusion_shrunk: with the chosen level weight moved towards 0.5, by the
    weighted mean in which the choice counts as its number of sites and 0.5 as 15 sites.

Usage: PYTHONPATH=tests python -m studies.sparse --help
"""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import track

from model import metrics
from model.calibration import calibrate
from model.ensemble import Prediction, combine_members, merge_predictions, predict_series
from model.recipe import ModelKey
from model.ridge import SiteMoments
from model.sampling import SPINUP_DAYS
from model.trainer import Trainer
from pipeline.experiment import load
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import stage, training_data
from studies import sparse_page, trials
from studies.training import trained

METRICS = ("correlation", "anomaly_correlation", "rmse", "ubrmse")
ARMS = ("insitu", "multiscale", "one_head")  # those that are trained for every draw of sites
SETTINGS = {"one_head": ("network.heads=one",)}
BOTH = ("site", "satellite")
CHOSEN, SHRUNK = "chosen", "shrunk"  # rules of the level weight
# Sites that the prior of the level weight counts as; it was chosen on the first draw of sites.
PRIOR_SITES = 15
RESAMPLES = 8  # ensembles drawn from the members, if these are too many to list all


def loaded(folder, sites, draw, arm="multiscale", more=()):
    """The experiment, the cube, the blocks of the sites and the training data of one case."""
    settings = [f"folds.train_sites={sites}", f"folds.train_sites_seed={draw}", *more]
    experiment = load.load_experiment("scan-sparse", [*settings, *SETTINGS.get(arm, ())])
    workspace = Workspace(str(folder / "scan-tuning"))
    cube = Cube.open(workspace.url("cube.zarr"))
    dealt = tables.read_table(workspace.url("folds.parquet"))
    return (
        experiment,
        cube,
        dealt.block.to_numpy(),
        training_data.pack_data(experiment, cube, dealt),
    )


def satellite_members(folder, members, more):
    """Predictions of arm satellite, which learns from no site, at the sites: one per member."""
    path = folder / "sparse" / f"satellite-{members}.npz"
    if not path.exists():
        experiment, _, _, packed = loaded(folder, "null", 0, more=more)
        made = [
            predict_series(
                trained(experiment, packed, "satellite", models.ALL_SITES, seed),
                packed.sites("cpu"),
            )
            for seed in range(members)
        ]
        write(path, {"satellite": made})
    return read(path)["satellite"]


def predictions(folder, sites, draw, members, more):
    """Predictions at held-out sites by what is trained on the drawn sites: lists of members."""
    path = folder / "sparse" / f"{sites}-sites-{draw}-{members}.npz"
    if not path.exists():
        made = {arm: [] for arm in ARMS}
        for arm in ARMS:
            experiment, _, _, packed = loaded(folder, sites, draw, arm, more)
            fold, places = packed.fold, packed.sites("cpu")
            name = "multiscale" if arm == "one_head" else arm
            for seed in range(members):
                pieces = {
                    k: predict_series(
                        trained(experiment, packed, name, k, seed), places.select(fold == k)
                    )
                    for k in np.unique(fold).tolist()
                }
                made[arm].append(merge_predictions(pieces, fold))
        write(path, made | {"ridge": [ridge(experiment, packed)]})
    return read(path)


def ridge(experiment, packed):
    """The ridge regression on the drawn sites, at held-out sites, with its level."""
    places, fold = packed.sites("cpu"), packed.fold
    moments = SiteMoments(places, packed.learn_insitu)
    series = np.empty(packed.insitu.shape, np.float32)
    for k in np.unique(fold).tolist():
        sites = packed.training_sites(k, experiment.folds.buffer_km)
        series[fold == k] = moments.fit(sites, fold, packed.place).predict(places.select(fold == k))
    level = series[:, :SPINUP_DAYS].mean(1)
    empty = np.zeros_like(series)
    return Prediction(series, empty, empty, level, np.zeros_like(level))


def fused(own, satellite):
    """The dynamics of one model, with the level of a satellite model beside its own."""
    levels = (own.site_level, satellite.satellite_level)
    return Prediction(own.site, satellite.satellite, own.width, *levels)


def candidates(found, satellite):
    """{name: (members, heads, the rule of the level weight: CHOSEN, SHRUNK, or a number)}."""
    late = [fused(*pair) for pair in zip(found["insitu"], satellite, strict=True)]
    level = [fused(found["ridge"][0], each) for each in satellite]
    return {
        "multiscale": (found["multiscale"], BOTH, CHOSEN),
        "insitu": (found["insitu"], ("site",), CHOSEN),
        "late_fusion": (late, BOTH, CHOSEN),
        "one_head": (found["one_head"], ("site",), CHOSEN),
        "ridge": (found["ridge"] * len(satellite), ("site",), CHOSEN),
        "ridge_level": (level, BOTH, CHOSEN),
        "multiscale_half": (found["multiscale"], BOTH, 0.5),
        "late_fusion_half": (late, BOTH, 0.5),
        "multiscale_shrunk": (found["multiscale"], BOTH, SHRUNK),
        "late_fusion_shrunk": (late, BOTH, SHRUNK),
    }


def ensembles(n_members):
    """Ensembles to score, as tuples of members: all members, each alone, and resampled ones."""
    every = tuple(range(n_members))
    if n_members <= 2:
        resampled = list(itertools.product(every, repeat=n_members))
    else:
        draws = np.random.default_rng(0).integers(n_members, size=(RESAMPLES, n_members))
        resampled = [tuple(draw) for draw in draws.tolist()]
    return every, [(member,) for member in every], [tuple(sorted(each)) for each in resampled]


def case(folder, sites, draw, members, more):
    """Score every candidate of one case, each with the ensembles of `ensembles`; keep it."""
    path = folder / "sparse" / f"{sites}-sites-{draw}-{members}.json"
    if path.exists():
        return
    satellite = satellite_members(folder, members, more)
    found = predictions(folder, sites, draw, members, more)
    experiment, cube, block, packed = loaded(folder, sites, draw, more=more)
    every, alone, resampled = ensembles(members)
    made = {"block": block.tolist(), "scores": {}, "level_weight": {}}
    for name, (all_members, heads, rule) in candidates(found, satellite).items():
        of = {}
        for chosen in dict.fromkeys([every, *alone, *resampled]):
            some = [all_members[i] for i in chosen]
            series, weights = calibrated(some, heads, packed, rule)
            scored = metrics.scores(series, packed.insitu, cube.days)
            few = scored["n"] < experiment.judging.min_days
            of[chosen] = [np.where(few, np.nan, scored[m]).tolist() for m in METRICS]
            if chosen == every:
                made["level_weight"][name] = weights
        made["scores"][name] = {
            "every": of[every],
            "alone": [of[each] for each in alone],
            "resampled": [of[each] for each in resampled],
        }
    path.write_text(json.dumps(made))


def calibrated(members, heads, packed, rule):
    """The product at held-out sites (site, day), and the level weight of each fold."""
    series = np.full(packed.insitu.shape, np.nan, np.float32)
    weights = []
    for k in np.unique(packed.fold).tolist():
        here, others = packed.fold == k, packed.elsewhere(k)
        level = rule
        if rule in (CHOSEN, SHRUNK):
            level = calibrate(members, heads, packed.learn_insitu, others).level_weight
        if rule == SHRUNK:
            level = shrunk(level, int(np.isfinite(packed.learn_insitu[others]).any(1).sum()))
        series[here] = combine_members(members, heads, level)[0][here]
        weights.append(level)
    return series, weights


def shrunk(weight, n_sites):
    """A level weight that so many sites have chosen, moved towards a half, the more the fewer."""
    return (n_sites * weight + PRIOR_SITES * 0.5) / (n_sites + PRIOR_SITES)


def write(path, named):
    """Keep lists of predictions."""
    arrays = {
        f"{name} {member} {field}": value
        for name, members in named.items()
        for member, each in enumerate(members)
        for field, value in vars(each).items()
    }
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    part.rename(path)


def read(path):
    """Lists of predictions, by name."""
    named = {}
    with np.load(path) as kept:
        for key in kept.files:
            name, member, field = key.split()
            named.setdefault(name, {}).setdefault(int(member), {})[field] = kept[key]
    return {
        name: [Prediction(**members[i]) for i in sorted(members)] for name, members in named.items()
    }


def seconds_per_model(folder, sites, more):
    """Time some updates of a multiscale model, and return what a whole model takes."""
    experiment, _, _, packed = loaded(folder, sites, 0, more=more)
    key = ModelKey("multiscale", models.ALL_SITES, 0)
    updates = stage.updates_per_model(experiment, packed)
    fitting = Trainer(experiment.recipe_sections, key, packed.data(key, 0.0, "cpu"), updates)
    fitting.advance(3)
    begun = time.monotonic()
    fitting.advance(10)
    return (time.monotonic() - begun) / 10 * updates


def main(
    folder: Annotated[Path, typer.Option(help="Where cases are kept.")] = Path("workspace/sparse"),
    docs: Annotated[Path, typer.Option(help="The folder of the documentation.")] = trials.ROOT
    / "docs",
    sites: Annotated[str, typer.Option(help="Numbers of training sites.")] = "8,15,30,60",
    draws: Annotated[int, typer.Option(help="Random draws of each number of sites.")] = 4,
    members: Annotated[int, typer.Option(help="Models of each ensemble.")] = 2,
    workers: Annotated[int, typer.Option(help="Processes, of one thread each.")] = 2,
    full: Annotated[bool, typer.Option("--full", help="20 draws, 12 members, all sites.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value of all.")] = None,
) -> None:
    """Train and score the cases that are not there yet; then write the table and the figure."""
    folder, more = folder.absolute(), tuple(settings or ())
    numbers = [int(number) for number in sites.split(",")]
    if full:
        draws, members, numbers = 20, 12, [*numbers, 94]
    (folder / "sparse").mkdir(parents=True, exist_ok=True)
    trials.prepared(folder, [])
    todo = [
        (number, draw)
        for draw in range(draws)
        for number in numbers
        if not (folder / "sparse" / f"{number}-sites-{draw}-{members}.json").exists()
    ]
    if todo:
        n_models = len(todo) * len(ARMS) * 5 * members
        minutes = n_models * seconds_per_model(folder, numbers[-1], more) / workers / 60
        print(f"{len(todo)} cases, at most {n_models} models: about {minutes:.0f} minutes")
        satellite_members(folder, members, more)
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        jobs = [pool.submit(case, folder, *each, members, more) for each in todo]
        for job in track(as_completed(jobs), "sparse", total=len(jobs)):
            job.result()
    kept = {
        number: [
            json.loads((folder / "sparse" / f"{number}-sites-{d}-{members}.json").read_text())
            for d in range(draws)
        ]
        for number in numbers
    }
    sparse_page.publish(kept, members, docs)


if __name__ == "__main__":
    typer.run(main)
