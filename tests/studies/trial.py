"""One variant, trained in this process on one thread: at sites of layout A, or on a planet."""

from __future__ import annotations

import numpy as np

from model import metrics
from model.calibration import calibrate
from model.ensemble import combine_members, merge_predictions, predict_series
from pipeline.experiment import load
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import training_data
from studies import world
from studies.training import trained
from studies.world import ARMS

JUDGED = ("correlation", "rmse", "ubrmse")
PLANET_LEVEL = 0.5  # best fixed weight with 30 sites on planets 200-207; choosing costs three folds


def at_sites(folder, variant, settings):
    """{arm: {metric: [site]}} at held-out sites of layout A, and the blocks of the sites."""
    workspace = Workspace(str(folder / "scan-tuning"))
    experiment = load.load_experiment("scan-tuning", settings)
    cube = Cube.open(workspace.url("cube.zarr"))
    dealt = tables.read_table(workspace.url("folds.parquet"))
    packed = changed(training_data.pack_data(experiment, cube, dealt), cube, variant)
    fold, sites = packed.fold, packed.sites("cpu")
    folds = np.unique(fold).tolist()
    made = {}
    for arm in ARMS:
        heads = models.trained_heads(experiment, arm)
        members = []
        for seed in range(variant.members):
            if arm == "satellite":
                model = trained(experiment, packed, arm, models.ALL_SITES, seed)
                members.append(predict_series(model, sites))
                continue
            pieces = {
                k: predict_series(
                    trained(experiment, packed, arm, k, seed), sites.select(fold == k)
                )
                for k in folds
            }
            members.append(merge_predictions(pieces, fold))
        series = np.full(packed.insitu.shape, np.nan, np.float32)
        for k in folds:
            here = fold == k
            calibration = calibrate(members, heads, packed.learn_insitu, ~here)
            series[here] = combine_members(members, heads, calibration.level_weight)[0][here]
        made[arm] = scored(series, packed.insitu, cube.days, experiment.judging.min_days)
    return {"arms": made, "block": dealt.block.tolist()}


def on_planet(folder, seed, variant, settings):
    """{arm: {metric: median}} against the truth, at cells away from sites."""
    place = world.World(folder, f"planet{seed}", [*settings, f"planet.seed={seed}"])
    place.judge_at(place.where[::3])  # only medians are compared
    place.packed = changed(place.packed, place.cube, variant)
    made = {}
    for arm in ARMS:
        members = [
            predict_series(place.model(arm, seed=member), place.places)
            for member in range(variant.members)
        ]
        heads = models.trained_heads(place.experiment, arm)
        made[arm] = place.score(combine_members(members, heads, PLANET_LEVEL)[0])
    return {"arms": made}


def changed(packed, cube, variant):
    """Training data under a variant."""
    return variant.change(packed, cube) if variant.change else packed


def scored(series, observed, days, min_days):
    """{metric: [site]}, null where a site has too few pairs."""
    scores = metrics.scores(series, observed, days)
    few = scores["n"] < min_days
    return {
        metric: [None if bad else float(v) for v, bad in zip(scores[metric], few, strict=True)]
        for metric in JUDGED
    }
