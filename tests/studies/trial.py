"""One variant, trained in this process on one thread: at sites of layout A, or on a planet."""

from __future__ import annotations

import numpy as np
import torch

from model import metrics
from model.calibration import calibrate
from model.checkpoint import Trained
from model.fit import Fitting
from model.predict import gathered, predict, product
from model.recipe import Job
from model.ridge import Moments
from model.sampling import Places
from pipeline import models, packing, resolve, tables
from pipeline.cube import Cube
from pipeline.store import Workspace
from studies import world

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
        """A model, trained to its end; it does not see what the arm does not."""
        torch.set_num_threads(1)
        experiment, job = self.experiment, Job(arm, fold, seed)
        data = self.packed.data(job, 0.0, "cpu")
        fitting = Fitting(experiment.recipe_sections, job, data, experiment.train.updates)
        fitting.advance(experiment.train.updates)
        heads = models.heads(experiment, arm)
        return Trained(fitting.network, data.features, data.scaler, data.target, heads, {})

    def ridge(self, places, fold):
        """(place, day) of the linear baseline that leaves a fold out."""
        moments = Moments(self.packed.sites("cpu"), self.packed.learn_insitu)
        sites = self.packed.training_sites(fold, 0.0)
        return moments.fit(sites, self.packed.fold).predict(places)

    def blended(self, series, ridge):
        """The product and ridge, by the variant's weight."""
        weight = self.variant.blend
        return series if weight == 0 else (1 - weight) * series + weight * ridge()


def at_sites(folder, variant, settings):
    """{arm: {metric: [site]}} at held-out sites of layout A, and the blocks of the sites."""
    workspace = Workspace(str(folder / "scan-tuning"))
    experiment = resolve.experiment("scan-tuning", settings)
    cube = Cube.open(workspace.url("cube.zarr"))
    dealt = tables.read(workspace.url("folds.parquet"))
    trial = Trial(experiment, cube, dealt, variant)
    fold, sites = trial.packed.fold, trial.packed.sites("cpu")
    folds = np.unique(fold).tolist()
    ridge = {k: trial.ridge(sites.at(fold == k), k) for k in folds} if variant.blend else {}
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
            chosen = product(members, heads, calibration.level_weight)[0][here]
            series[here] = trial.blended(chosen, lambda k=k: ridge[k])
        made[arm] = scored(series, trial.packed.insitu, trial.days, experiment.judging.min_days)
    return {"arms": made, "block": dealt.block.tolist()}


def on_planet(folder, seed, variant, settings):
    """{arm: {metric: median}} against the truth, at cells away from sites."""
    place = world.World(folder, f"planet{seed}", [*settings, f"planet.seed={seed}"])
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
        series = product(members, heads, PLANET_LEVEL)[0]
        series = trial.blended(series, lambda: trial.ridge(cells, models.ALL))
        made[arm] = place.score(series)
    return {"arms": made}


def scored(series, observed, days, min_days):
    """{metric: [site]}, null where a site has too few pairs."""
    scores = metrics.scores(series, observed, days)
    few = scores["n"] < min_days
    return {
        metric: [None if bad else float(v) for v, bad in zip(scores[metric], few, strict=True)]
        for metric in JUDGED
    }
