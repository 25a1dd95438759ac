"""One variant, trained in this process on one thread: at sites of layout A, or on a planet."""

from __future__ import annotations

import numpy as np

from model import metrics
from model.calibration import calibrate
from model.predict import gathered, predict, product
from model.sampling import Places
from pipeline import models, packing, resolve, tables
from pipeline.cube import Cube
from pipeline.store import Workspace
from studies import world
from studies.training import trained

ARMS = ("multiscale", "insitu", "satellite")
JUDGED = ("correlation", "rmse", "ubrmse")
PLANET_LEVEL = 0.5  # best fixed weight with 30 sites on planets 200-207; choosing costs three folds


class Trial:
    """Training data of an experiment under a variant."""

    def __init__(self, experiment, cube, dealt, variant):
        self.experiment, self.variant = experiment, variant
        packed = packing.pack(experiment, cube, dealt)
        self.packed = variant.change(packed, cube) if variant.change else packed
        self.days = cube.days

    def model(self, arm, fold, seed):
        """A model, trained to its end."""
        return trained(self.experiment, self.packed, arm, fold, seed)


def at_sites(folder, variant, settings):
    """{arm: {metric: [site]}} at held-out sites of layout A, and the blocks of the sites."""
    workspace = Workspace(str(folder / "scan-tuning"))
    experiment = resolve.experiment("scan-tuning", settings)
    cube = Cube.open(workspace.url("cube.zarr"))
    dealt = tables.read(workspace.url("folds.parquet"))
    trial = Trial(experiment, cube, dealt, variant)
    fold, sites = trial.packed.fold, trial.packed.sites("cpu")
    folds = np.unique(fold).tolist()
    made = {}
    for arm in ARMS:
        heads = models.heads(experiment, arm)
        members = []
        for seed in range(variant.members):
            if arm == "satellite":
                members.append(predict(trial.model(arm, models.ALL, seed), sites))
                continue
            pieces = {k: predict(trial.model(arm, k, seed), sites.at(fold == k)) for k in folds}
            members.append(gathered(pieces, fold))
        series = np.full(trial.packed.insitu.shape, np.nan, np.float32)
        for k in folds:
            here = fold == k
            calibration = calibrate(members, heads, trial.packed.learn_insitu, ~here)
            series[here] = product(members, heads, calibration.level_weight)[0][here]
        made[arm] = scored(series, trial.packed.insitu, trial.days, experiment.judging.min_days)
    return {"arms": made, "block": dealt.block.tolist()}


def on_planet(folder, seed, variant, settings):
    """{arm: {metric: median}} against the truth, at cells away from sites."""
    # Fewer cells than a study's: only medians are compared.
    place = world.World(folder, f"planet{seed}", [*settings, f"planet.seed={seed}"])
    place.judge_at(place.where[::3])
    dealt = tables.read(Workspace(str(folder / f"planet{seed}")).url("folds.parquet"))
    trial = Trial(place.experiment, place.cube, dealt, variant)
    every = trial.packed.cells("cpu")
    cells = Places(every.forcing[place.where], every.static[place.where])
    made = {}
    for arm in ARMS:
        heads = models.heads(place.experiment, arm)
        members = [
            predict(trial.model(arm, models.ALL, member), cells)
            for member in range(variant.members)
        ]
        made[arm] = place.score(product(members, heads, PLANET_LEVEL)[0])
    return {"arms": made}


def scored(series, observed, days, min_days):
    """{metric: [site]}, null where a site has too few pairs."""
    scores = metrics.scores(series, observed, days)
    few = scores["n"] < min_days
    return {
        metric: [None if bad else float(v) for v, bad in zip(scores[metric], few, strict=True)]
        for metric in JUDGED
    }
