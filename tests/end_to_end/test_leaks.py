"""Leaks: what spatial cross-validation is for, and that nothing held out gets into a model.

In each footprint of a made-up world stand two sites, twins: their target is one hash of (footprint,
day), so that no weather and no place tells it. But each site has an input of its own, its twin's
value, in a channel that only this footprint has: what it means can be learnt nowhere else.
"""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import date

import in_process
import numpy as np
import pytest
import xarray as xr
import yaml

from model.recipe import ModelKey
from pipeline import files, prepare
from pipeline.evaluate import stage as evaluate_stage
from pipeline.experiment import load
from pipeline.grid import ease, spatial_blocks
from pipeline.prepare import folds
from pipeline.progress import SilentProgress
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import stage as train_stage
from pipeline.train import training_data, worker

WINDOW = ease.Window(row=60, col=180, height=2, width=4, refinement=1)
N_FOOTPRINTS, N_DAYS, N_FOLDS = 8, 120, 2
DAYS = np.datetime64("2020-01-01") + np.arange(N_DAYS)
PERIOD = [str(DAYS[0]), str(DAYS[-1])]
TWINS = np.repeat(np.arange(N_FOOTPRINTS), 2)  # footprint of each site
CHANNELS = [f"channel_{k}" for k in range(N_FOOTPRINTS)]

RANDOM_SEED = next(
    seed
    for seed in range(1000)
    if (
        np.diff(
            spatial_blocks.assign_random_folds(len(TWINS), N_FOLDS, seed).reshape(-1, 2), axis=1
        )
        != 0
    ).all()
)  # no twins in one fold

STAGES = (folds, train_stage, evaluate_stage)


def hashed(footprint: int, day: int) -> float:
    """A number in [0, 1) that looks like chance."""
    digest = hashlib.sha256(f"{footprint} {day}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


@pytest.fixture(scope="module")
def twins(tmp_path_factory, local_ray):
    """The experiment with folds of a kind, all stages run; the cube is made once."""
    folder = tmp_path_factory.mktemp("twins")
    (folder / "twins.yaml").write_text(yaml.safe_dump(written(folder), sort_keys=False))
    cube = Workspace(str(folder / "cube"))
    prepare.run(load.load_experiment(str(folder / "twins.yaml")), cube, SilentProgress())

    def judged(kind, seed):
        settings = [f"folds.kind={kind}", f"folds.seed={seed}", f"cube={cube.root}"]
        experiment = load.load_experiment(str(folder / "twins.yaml"), settings, kind)
        workspace = Workspace(str(folder / kind))
        with in_process.training():
            for stage in STAGES:
                stage.run(experiment, workspace, SilentProgress())
        workspace.lease.release()
        scores = tables.read_table(workspace.url("scores.parquet"))
        own = scores[(scores.metric == "correlation") & (scores.target == "site")]
        return own.pivot(index="arm", columns="id", values="value")

    return judged


def written(folder):
    """Write the files of cells and sites; returns the experiment, its catalog beside it."""
    rng = np.random.default_rng(0)
    secret = np.array([[hashed(f, d) for d in range(N_DAYS)] for f in range(N_FOOTPRINTS)])
    lat, lon = (a.ravel() for a in np.meshgrid(WINDOW.cell_lat, WINDOW.cell_lon, indexing="ij"))
    second = np.arange(len(TWINS)) % 2  # of two twins stands 5 km away, hence at another place
    for place, which in (("cell", np.arange(N_FOOTPRINTS)), ("site", TWINS)):
        forcing = {"weather": rng.normal(size=(len(which), N_DAYS))}
        for k, name in enumerate(CHANNELS):
            own = (which == k)[:, None] * (secret[which] - 0.5) * np.sqrt(12)
            forcing[name] = own if place == "site" else rng.normal(size=own.shape)
        made = {name: ((place, "time"), values.astype("f4")) for name, values in forcing.items()}
        made["height"] = (place, rng.normal(size=len(which)).astype("f4"))
        if place == "site":
            made["secret"] = ((place, "time"), secret[which].astype("f4"))
        coords = {
            "time": DAYS.astype("datetime64[ns]"),
            "lat": (place, lat[which] + 0.05 * (second if place == "site" else 0)),
            "lon": (place, lon[which]),
        }
        coords[place] = [f"{i:02d}" for i in range(len(which))]
        xr.Dataset(made, coords).to_netcdf(folder / f"{place}.nc", engine="h5netcdf")
    inputs = ["weather", *CHANNELS, "height"]
    sources = {
        "cells": entry(folder, "cell", inputs),
        "sites": entry(folder, "site", [*inputs, "secret"]),
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"sources": sources}))
    return experiment_of(folder)


def entry(folder, place, names):
    return {
        "driver": "pipeline.sources.points.PointsSource",
        "args": {
            "urlpath": str(folder / f"{place}.nc"),
            "place": place,
            "mapping": {name: {"from": name, "units": "1"} for name in names},
        },
        "metadata": {
            "support": place,
            "license": "CC0-1.0",
            "time_convention": "UTC day",
            "period": "..".join(PERIOD),
            "auth": "none",
        },
    }


def experiment_of(folder):
    kinds = {"weather": "forcing", "height": "static", "secret": "target"}
    kinds |= dict.fromkeys(CHANNELS, "forcing")
    edges = (WINDOW.cell_lon[0], WINDOW.cell_lat[-1], WINDOW.cell_lon[-1], WINDOW.cell_lat[0])
    sides = ("west_degrees", "south_degrees", "east_degrees", "north_degrees")
    return {
        "name": "twins",
        "title": "twin sites that tell each other's secret",
        "recipe": "default",
        "target": "secret",
        "variables": {
            name: {"kind": kind, "long_name": name, "units": "1", "minimum": -9, "maximum": 9}
            for name, kind in kinds.items()
        },
        "sources": {
            "catalog": str(folder / "catalog.yaml"),
            "forcing": ["cells"],
            "static": ["cells"],
            "insitu": "sites",
        },
        "domain": {side: float(edge) for side, edge in zip(sides, edges, strict=True)}
        | {"refinement": 1},
        **dict.fromkeys(("period", "train_period", "test_period"), PERIOD),
        "inputs_from": "own",
        "qc": {"stuck_days": None},
        "folds": {"kind": "block", "n_folds": N_FOLDS, "block_km": 36.0},
        "arms": ["insitu"],
        "n_seeds": 1,
        "inputs": {"slow": []},
        "network": {"hidden_size": 16, "heads": "one", "weight_dropout": 0.0},
        "loss": {"anomaly": False, "likelihood": "none"},
        "train": {
            "window_days": 30,
            "warmup_days": 5,
            "sites_per_step": 12,
            "updates": 150,
            "learning_rate": 0.02,
            "static_noise": 0.0,
        },
        "judging": {"min_days": 30, "bootstrap_draws": 100},
    }


def mean_and_null(correlations):
    """Mean over footprints of R; and how large it would be by chance, in 95 of 100 cases.

    A model that knows nothing of a footprint reads its channel either way up: by chance the R of
    its two sites has either sign.
    """
    by_footprint = correlations.to_numpy().reshape(-1, 2).mean(1)
    return by_footprint.mean(), 1.96 * np.sqrt((by_footprint**2).sum()) / len(by_footprint)


def test_blocks_keep_a_leak_out_that_random_folds_let_in(twins):
    block, random = twins("block", 0), twins("random", RANDOM_SEED)
    for name in ("insitu", "ridge"):
        mean, null = mean_and_null(block.loc[name])
        assert abs(mean) < null
        mean, null = mean_and_null(random.loc[name])
        assert mean > max(null, 0.7)


@pytest.mark.parametrize("arm", ["multiscale", "insitu"])
def test_a_checkpoint_is_the_same_to_the_bit_whatever_held_out_sites_say(world, tmp_path, arm):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    table = tables.read_table(world.workspace.url("folds.parquet"))
    odd = cube.sites.load().copy(deep=True)
    odd["snow_depth"].values[:, table.fold == 1] = 7.0 + np.arange(len(odd.time))[:, None] / 100
    stored = {}
    for name, sites in (("plain", cube.sites), ("odd", odd)):
        packed = training_data.pack_data(
            world.experiment, dataclasses.replace(cube, sites=sites), table
        )
        orders = worker.TrainSpec(world.experiment, str(tmp_path / name), "", 3, None)
        for fold in (0, 1):
            worker.train_models(orders, [ModelKey(arm, fold, 0)], packed, "cpu")
            url = models.checkpoint_url(orders.root, ModelKey(arm, fold, 0))
            stored[name, fold] = files.sha256(files.read_bytes(url))
    assert stored["plain", 1] == stored["odd", 1]
    assert stored["plain", 0] != stored["odd", 0]  # which learns from them


def test_observations_after_training_are_learnt_from_by_nobody(world):
    """Not by the arms, the linear baseline or a scaler: they see nothing else than these."""
    known = {"train_period": (world.experiment.period[0], date(2020, 1, 31))}
    experiment = world.experiment.model_copy(update=known)
    cube = Cube.open(world.workspace.url("cube.zarr"))
    table = tables.read_table(world.workspace.url("folds.parquet"))
    later = {}
    for group in ("sites", "footprints"):
        later[group] = getattr(cube, group).load().copy(deep=True)
        days = later[group].time.values > np.datetime64("2020-01-31")
        later[group]["snow_depth"].values[days] += 1.0
    plain, odd = (
        training_data.pack_data(experiment, c, table)
        for c in (cube, dataclasses.replace(cube, **later))
    )
    assert not np.array_equal(plain.insitu, odd.insitu, equal_nan=True)
    for name in ("learn_insitu", "learn_satellite"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(odd, name))
    datas = [packed.data(ModelKey("multiscale", 1, 0), 0.0, "cpu") for packed in (plain, odd)]
    assert datas[0].scaler == datas[1].scaler
    assert datas[0].target == datas[1].target


def test_models_trained_side_by_side_are_kept_as_if_trained_alone(world, tmp_path):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    packed = training_data.pack_data(
        world.experiment, cube, tables.read_table(world.workspace.url("folds.parquet"))
    )
    team = [ModelKey("insitu", 0, 0), ModelKey("insitu", 1, 0)]
    roots = [str(tmp_path / name) for name in ("together", "alone")]
    for root, of in zip(roots, ([team], [team[:1], team[1:]]), strict=True):
        orders = worker.TrainSpec(world.experiment, root, "", 3, None)
        for some in of:
            worker.train_models(orders, some, packed, "cpu")
    for job in team:
        both = [models.load_model(root, job) for root in roots]
        assert both[0].origin == both[1].origin
        assert (
            len(
                {
                    len(
                        tables.read_table(
                            files.join(models.model_folder(r, job), "history.parquet")
                        )
                    )
                    for r in roots
                }
            )
            == 1
        )
        alone = both[1].network.state_dict()
        apart = [(v - alone[k]).abs().mean() for k, v in both[0].network.state_dict().items()]
        assert max(apart) < 1e-3  # rounding turns the first steps of a few weights about
    assert not list(tmp_path.rglob("progress*"))
