"""An experiment without sites: arm satellite, judged at footprints."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from pipeline import evaluate
from pipeline.experiment import load
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import tables
from pipeline.storage.artefacts import Workspace
from pipeline.train import stage as train_stage


@pytest.mark.usefixtures("local_ray", "trained_here")
def test_footprints_are_judged_in_another_period(snow, tmp_path):
    tree = yaml.safe_load(snow.read_text())
    del tree["sources"]["insitu"]
    tree |= {"arms": ["satellite"], "n_seeds": 2, "folds": {"kind": "none"}}
    tree |= {
        "train_period": ["2019-11-20", "2020-02-20"],
        "test_period": ["2020-02-21", "2020-04-27"],
    }
    tree["judging"] = {"min_days": 10, "footprints": True}
    tree["train"]["updates"] = 20
    snow.write_text(yaml.safe_dump(tree))
    experiment, workspace = load.load_experiment(str(snow)), Workspace(str(tmp_path / "w"))
    for stage in (prepare_stage, folds, train_stage):
        stage.run(experiment, workspace, SilentProgress())
    summary = evaluate.run(experiment, workspace, SilentProgress())

    assert (summary["time"], summary["place"], summary["n_sites"]) == ("unseen", "seen", 0)
    table = tables.read_table(workspace.url("footprints.parquet"))
    assert set(table.seed) == {"0", "1", "ensemble"}
    wide = table.pivot(index=["footprint", "time"], columns="seed", values="prediction")
    np.testing.assert_allclose(wide["ensemble"], wide[["0", "1"]].mean(axis=1), rtol=1e-5)

    test = table[(table.time >= "2020-02-21") & table.observation.notna() & (table.seed == "1")]
    error = test.prediction - test.observation
    by_footprint = (error**2).groupby(test.footprint).mean() ** 0.5
    found = summary["footprints"]["all"]["1"]
    assert found["n_footprints"] == len(by_footprint) == 10
    np.testing.assert_allclose(found["median"]["rmse"], by_footprint.median(), rtol=1e-5)
    assert table[table.at_ceiling].observation.notna().all()
