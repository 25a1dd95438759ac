"""What reports, evaluations and plans say of an experiment."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from model.sampling import steps_per_epoch
from pipeline import evaluate, train
from pipeline.doctor import plan
from pipeline.errors import SoilweaveError
from pipeline.evaluate import bias_adjustment, report, scoring, stage
from pipeline.evaluate.report import page
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage import tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import stage as train_stage


def begun_on(world, folder, *settings):
    """An experiment on the small world's cube and folds, with nothing made of them yet."""
    for name in ("folds.parquet", "folds.geojson", "folds.manifest.json"):
        subprocess.run(["cp", f"{world.workspace.root}/{name}", str(folder)], check=True)
    chosen = [f"cube={world.workspace.root}", *settings]
    return load.load_experiment(str(world.path), chosen), Workspace(str(folder))


def test_a_recipe_with_epochs_can_be_reported():
    experiment = load.load_experiment("scan", ["recipe=liu2022"])
    facts = page.facts(experiment, scoring.summary_header(experiment, experiment.test_period))
    assert dict(facts)["recipe"] == "liu2022, 40 epochs, 1 seed"


@pytest.mark.usefixtures("trained_here")
def test_the_report_has_the_updates_that_epochs_were(world, tmp_path):
    """10 footprints and 160 days, 4 x 60 drawn a step: ln 0.01 / ln 0.85 = 28.3, so 29 steps."""
    experiment, workspace = begun_on(world, tmp_path, "arms=[insitu]", "train.epochs=1")
    train.run(experiment, workspace, SilentProgress())
    summary = evaluate.run(experiment, workspace, SilentProgress())
    assert summary["updates"] == 29
    report.run(experiment, workspace, SilentProgress())
    assert "default, 29 updates, 1 seed" in (tmp_path / "report.html").read_text()


def test_an_evaluation_without_anything_to_judge_says_what_is_lacking(world, tmp_path):
    """Models trained elsewhere have no predictions at the sites of this cube."""
    settings = [f"models={world.workspace.url('models')}", "arms=[insitu]"]
    experiment, workspace = begun_on(world, tmp_path, *settings)
    with pytest.raises(SoilweaveError, match="nothing to score against: its models were trained"):
        evaluate.run(experiment, workspace, SilentProgress())
    assert not list(tmp_path.glob("scores*"))


def test_footprints_without_a_day_in_the_test_period_are_nothing_to_judge(tmp_path):
    experiment = load.load_experiment("scan-coarse")
    workspace = Workspace(str(tmp_path))
    rows = pd.DataFrame(
        {
            "seed": "0",
            "footprint": "0,0",
            "time": pd.date_range("2015-05-01", periods=9),
            "observation": np.float32(0.2),
            "at_ceiling": False,
            "prediction": np.float32(0.2),
        }
    )
    tables.write_table(workspace.url("footprints.parquet"), rows)
    with pytest.raises(SoilweaveError, match="no footprint has a day in the test period"):
        stage._score_footprints(experiment, workspace)


@pytest.mark.parametrize("satellite", [True, False])
def test_a_plan_counts_the_updates_that_training_makes(satellite):
    settings = ["train.epochs=2", "arms=[insitu]", "planet.n_sites=23", "train.sites_per_step=7"]
    if not satellite:
        settings.append("sources.satellite=null")
    experiment = load.load_experiment("demo", settings)
    first, last = experiment.train_period
    days, sizes = (last - first).days + 1, plan.experiment_sizes(experiment)
    footprints = sizes.cells // experiment.domain.refinement**2
    n, places = (experiment.train.footprints_per_step, footprints) if satellite else (7, 23)
    expected = 2 * steps_per_epoch(n, experiment.train.window_days, places, days)
    assert plan.updates_per_model(experiment, sizes) == expected

    class Counted:
        members, site_ids, n_days = np.zeros((footprints, 1)), ("",) * 23, days

    assert train_stage.updates_per_model(experiment, Counted) == expected


def test_what_a_probe_is_adjusted_by_does_not_depend_on_the_last_of_the_arms(world, tmp_path):
    """The satellite's errors are of the observations, whatever the linear baseline's rows say."""
    cube = Cube.open(world.workspace.url("cube.zarr"))
    table = tables.read_table(world.workspace.url("sites.parquet"))
    expected = bias_adjustment._training_errors(world.experiment, world.workspace, cube)[
        "footprint"
    ]
    assert table.arm.iloc[-1] == "ridge"
    table.loc[table.arm == "ridge", "observation"] = np.nan
    other = Workspace(str(tmp_path))
    tables.write_table(other.url("sites.parquet"), table)
    found = bias_adjustment._training_errors(world.experiment, other, cube)["footprint"]
    assert np.isfinite(expected).any()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["scan", "scan-public", "scan-region", "scan-later-unseen"])
def test_that_settings_were_chosen_on_the_same_data_is_said_of_the_recipe(name):
    experiment = load.load_experiment(name)
    summary = scoring.summary_header(experiment, experiment.test_period)
    said = [note for note in page.notes(experiment, summary) if "chosen on" in note]
    assert said == [
        "The settings of recipe default were chosen on SCAN sites and SMAP footprints over CONUS, "
        "April 2015 to March 2017 (scan-tuning): scores there are not scores on untouched data."
    ]


@pytest.mark.parametrize(("name", "recipe"), [("scan", "liu2022"), ("demo", "default")])
def test_a_published_recipe_and_a_planet_have_no_such_note(name, recipe):
    experiment = load.load_experiment(name, [f"recipe={recipe}"])
    summary = scoring.summary_header(experiment, experiment.test_period)
    assert not [note for note in page.notes(experiment, summary) if "chosen on" in note]
