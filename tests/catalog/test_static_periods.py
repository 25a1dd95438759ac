"""Statics of the test period: refused; of unknown periods: allowed, and told."""

import pytest
import yaml

from pipeline import train as train_module
from pipeline.catalog import experiment_sources
from pipeline.errors import ConfigError
from pipeline.evaluate.report import page
from pipeline.experiment import load
from pipeline.prepare import folds
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

EARLY, LATE = "2019-11-20, 2020-01-31", "2020-02-01, 2020-04-27"


def told(snow, static_period, train=EARLY, test=LATE):
    """The experiment of a world whose statics are said to be of a period."""
    path = snow.parent / "catalog.yaml"
    catalog = yaml.safe_load(path.read_text())
    catalog["sources"]["cells"]["metadata"]["static_period"] = static_period
    path.write_text(yaml.safe_dump(catalog))
    return load.load_experiment(str(snow), [f"train_period=[{train}]", f"test_period=[{test}]"])


@pytest.mark.parametrize("period", ["2020-03-01..2020-03-31", "2020-02-01..", "2020-04-27 .. "])
def test_statics_of_the_test_period_are_refused(snow, period):
    with pytest.raises(ConfigError) as caught:
        experiment_sources.check_static_periods(told(snow, period))
    (problem,) = caught.value.problems
    assert problem.startswith(f"statics of cells describe {period}")
    assert "test_period 2020-02-01..2020-04-27 but not train_period 2019-11-20.." in problem
    assert "name statics of the training period" in caught.value.remedy


@pytest.mark.parametrize(
    "period",
    [
        "2019-12-01..2019-12-31",  # of training
        "2020-01-31..2020-02-01",  # of both
        "2021-01-01..2021-12-31",  # of neither
        "constant",
    ],
)
def test_other_statics_are_used(snow, period):
    assert experiment_sources.check_static_periods(told(snow, period)) == []


def test_seen_days_have_no_statics_of_their_own(snow):
    assert (
        experiment_sources.check_static_periods(told(snow, "2020-03-01..", train=LATE, test=LATE))
        == []
    )


def test_unknown_periods_are_told(snow):
    assert experiment_sources.check_static_periods(told(snow, "unknown")) == ["cells"]
    own = told(snow, "constant").model_copy(update={"inputs_from": "own"})
    assert experiment_sources.check_static_periods(own) == []


def test_the_summary_and_the_page_tell_of_them(world):
    assert world.summary["statics_of_unknown_period"] == []
    lines = page.notes(world.experiment, world.summary | {"statics_of_unknown_period": ["cells"]})
    assert "The period that the statics of cells describe is unknown." in lines


def test_another_experiments_cube_does_not_hide_them(world, tmp_path):
    path = tmp_path / "catalog.yaml"
    catalog = yaml.safe_load((world.folder / "catalog.yaml").read_text())
    catalog["sources"]["cells"]["metadata"]["static_period"] = "2020-04-01..2020-04-27"
    path.write_text(yaml.safe_dump(catalog))
    settings = [f"cube={world.workspace.root}", f"sources.catalog={path}"]
    settings += ["train_period=[2019-11-20, 2020-01-31]", "test_period=[2020-04-01, 2020-04-27]"]
    experiment = load.load_experiment(str(world.path), settings)
    workspace = Workspace(str(tmp_path / "w"))
    folds.run(experiment, workspace, SilentProgress())
    with pytest.raises(ConfigError, match="statics of cells"):
        train_module.run(experiment, workspace, SilentProgress())
    assert not (tmp_path / "w" / "models").exists()
