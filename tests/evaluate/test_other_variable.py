"""Another variable from YAML alone: snow depth, refinement 4, ragged footprints, all verbs."""

from __future__ import annotations

import signal
import sys

import numpy as np
import pytest
import yaml
from world import WINDOW

from pipeline import train
from pipeline.catalog import experiment_sources
from pipeline.errors import ConfigError, StoreError
from pipeline.evaluate import probes
from pipeline.experiment import load
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import stage as train_stage
from pipeline.train import training_data


@pytest.fixture(scope="module")
def packed(world):
    cube = Cube.open(world.workspace.url("cube.zarr"))
    table = tables.read_table(world.workspace.url("folds.parquet"))
    return training_data.pack_data(world.experiment, cube, table)


def test_footprints_are_ragged_and_those_less_than_half_valid_are_left_out(packed):
    n_cells = (packed.members >= 0).sum(1)
    # Of 12 footprints one is sea and one keeps 7 of 16 cells; a corner and a side are bitten off.
    assert len(n_cells) == 10
    assert sorted(n_cells.tolist()) == [12, 15] + [16] * 8
    assert packed.cell_forcing.shape == (n_cells.sum(), 160, 2)
    used = packed.members[packed.members >= 0]
    np.testing.assert_array_equal(np.sort(used), np.arange(n_cells.sum()))
    assert WINDOW.refinement == 4


def test_every_arm_learns_and_is_judged(world):
    root = world.workspace.url("models")
    jobs = models.list_workspace_models(world.workspace, world.experiment)
    assert [(j.arm, j.fold) for j in jobs] == [
        *(("multiscale", k) for k in (0, 1, 2, -1)),
        *(("insitu", k) for k in (0, 1, 2, -1)),
        ("satellite", -1),
    ]
    for job in jobs:
        history = tables.read_table(f"{models.model_folder(root, job)}/history.parquet")
        for source, others in (("satellite", "insitu"), ("insitu", "satellite")):
            loss = history[f"loss_{source}"]
            if job.arm == others:
                assert (loss == 0).all()
            else:
                assert loss.iloc[-5:].mean() < loss.iloc[:5].mean()
    arms = world.summary["arms"]
    assert list(arms) == ["multiscale", "insitu", "satellite"]
    assert all(arm["n_sites"] == 24 for arm in arms.values())


def test_held_out_sites_are_in_no_training(world):
    root = world.workspace.url("models")
    fold = tables.read_table(world.workspace.url("folds.parquet")).set_index("site").fold
    for job in models.list_workspace_models(world.workspace, world.experiment):
        trained_on = models.load_model(root, job).origin["training_sites"]
        if job.arm != "satellite" and job.fold >= 0:
            assert set(trained_on) == set(fold.index[fold != job.fold])


def test_score_needs_no_sites_of_its_own(world):
    url = str(world.folder / "sites.nc")
    scored = probes.score_probes(world.experiment, world.workspace, SilentProgress(), url)
    summary = scored.summary
    for arm, described in world.summary["arms"].items():
        for metric, value in described["median"].items():
            assert summary["arms"][arm]["median"][metric] == pytest.approx(value, abs=1e-4)


def test_the_distance_of_the_footprint_that_stands_for_a_site_is_kept(world):
    kept = world.summary["baselines"]["footprint"]["distance_km"]
    assert list(kept) == [f"snow-{i:02d}" for i in range(24)]
    assert all(0 < km <= 36.0 for km in kept.values())  # max_footprint_km


@pytest.mark.usefixtures("local_ray", "trained_here")
def test_without_folds_known_sites_are_said_to_be_trained_on(snow, tmp_path):
    tree = yaml.safe_load(snow.read_text())
    tree |= {"folds": {"kind": "none"}, "arms": ["insitu"]}
    tree["train"]["updates"] = 3
    snow.write_text(yaml.safe_dump(tree))
    experiment, workspace = load.load_experiment(str(snow)), Workspace(str(tmp_path / "w"))
    for stage in (prepare_stage, folds, train_stage):
        stage.run(experiment, workspace, SilentProgress())
    summary = probes.score_probes(
        experiment, workspace, SilentProgress(), str(snow.parent / "sites.nc")
    ).summary
    assert (summary["place"], summary["trained"]["n_sites"]) == ("seen", 24)
    assert "out_of_fold" not in summary
    status = tables.read_table(workspace.url("sites.parquet")).status
    assert set(status) == {"trained"}


def test_a_fold_without_training_sites_is_refused(snow, tmp_path, local_ray):
    tree = yaml.safe_load(snow.read_text())
    tree["folds"]["buffer_km"] = 500.0
    snow.write_text(yaml.safe_dump(tree))
    experiment, workspace = load.load_experiment(str(snow)), Workspace(str(tmp_path / "w"))
    for stage in (prepare_stage, folds):
        stage.run(experiment, workspace, SilentProgress())
    with pytest.raises(ConfigError, match="fold 0 has no site to train on"):
        train.run(experiment, workspace, SilentProgress())
    assert not (tmp_path / "w" / "models").exists()


def test_an_unknown_site_to_leave_out_is_refused(snow):
    experiment = load.load_experiment(str(snow), ["qc.exclude_sites=[snow-03, snow-99]"])
    with pytest.raises(ConfigError, match="no source has a site with this id: snow-99"):
        experiment_sources.open_sources(experiment)


def test_epochs_become_updates_by_the_published_rule(world, packed):
    epochs = world.experiment.train.model_copy(update={"updates": None, "epochs": 2})
    experiment = world.experiment.model_copy(update={"train": epochs})
    # 10 footprints x 160 days, 4 x 60 drawn per step: ln 0.01 / ln 0.85 = 28.3, so 29 a epoch.
    assert train_stage.updates_per_model(experiment, packed) == 2 * 29
    assert train_stage.updates_per_model(world.experiment, packed) == 60


def test_the_experiment_a_workspace_keeps_is_one_to_run(world):
    kept = load.load_experiment(f"{world.workspace.root}/experiment.yaml")
    assert kept == world.experiment


def test_a_table_that_is_gone_is_missed(world, tmp_path):
    with pytest.raises(StoreError, match="not found; run the stage that writes it again"):
        tables.read_table(str(tmp_path / "sites.parquet"))
    manifest = world.workspace.artefact("models").manifest()
    assert [table["key"] for table in manifest["tables"]] == ["sites.parquet"]


def test_an_interrupt_is_an_interrupt_during_training_and_after_it(world):
    """Ray Train's own handler of SIGINT exits with 0; and it would stay."""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def rude():
        signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), train_stage.sigint_as_interrupt():
        rude()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
