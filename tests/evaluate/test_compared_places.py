"""Experiments are compared, and probes are judged, by where sites are."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import world

from pipeline.evaluate import compare, probes
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage import artefacts, tables
from pipeline.storage.artefacts import Workspace

WINDOW = world.WINDOW
DAYS = world.FIRST + np.arange(world.N_DAYS)
KM_PER_DEGREE = 6371.0088 * math.pi / 180


def test_a_probe_between_two_places_of_different_folds_is_held_out_by_none(snow, tmp_path):
    """0.8 km from a training site on either side, which are 1.6 km apart."""
    step = 0.8 / KM_PER_DEGREE
    lat = WINDOW.cell_lat[9] + step * np.array([0.0, -1.0, 1.0])
    lon = np.full(3, WINDOW.cell_lon[9])
    experiment = load.load_experiment(str(snow), ["inputs_from=own"])
    table = pd.DataFrame({"site": ["a", "b"], "lat": lat[1:], "lon": lon[1:], "fold": [0, 1]})
    for dealt_to, expected in (([0, 1], -1), ([1, 1], 1)):
        fold, known_as = probes._match_known_sites(
            experiment, table.assign(fold=dealt_to), lat[:1], lon[:1]
        )
        assert fold.tolist() == [expected]
        assert known_as.tolist() in (["a"], ["b"])  # both are 0.8 km away


def test_experiments_are_compared_at_places_not_at_names(snow, tmp_path):
    """snow-03 of the second experiment is 200 km away: another site, however alike its record."""
    rng = np.random.default_rng(0)
    ids = [f"snow-{i:02d}" for i in range(6)]
    observed = rng.uniform(0, 2, (6, len(DAYS)))
    workspaces = []
    for name in ("one", "two"):
        experiment = load.load_experiment(str(snow), ["arms=[insitu]", "sources.satellite=null"])
        workspace = Workspace(str(tmp_path / name))
        workspace.describe(experiment)
        lat = WINDOW.cell_lat[np.arange(6)] + (np.arange(6) == 3) * (2.0 if name == "two" else 0.0)
        where = {"lat": lat, "lon": WINDOW.cell_lon[np.arange(6)]}
        table = pd.DataFrame(
            {"site": ids, **where, "block": np.arange(6), "fold": np.arange(6) % 3}
        )
        tables.write_table(workspace.url("folds.parquet"), table)
        rows = {
            "arm": "insitu",
            "site": np.repeat(ids, len(DAYS)),
            "status": "out_of_fold",
            "time": np.tile(DAYS.astype("datetime64[ns]"), 6),
            "observation": observed.ravel(),
            "prediction": (observed + rng.normal(0, 0.1, observed.shape)).ravel(),
        }
        tables.write_table(workspace.url("sites.parquet"), pd.DataFrame(rows))
        of_members = {k: rows[k] for k in ("arm", "site", "time")}
        for k, level in enumerate((-0.2, 0.2) if name == "two" else (0.0, 0.0)):
            of_members[tables.member_column(k)] = rows["prediction"] + level
        tables.write_table(workspace.url(tables.MEMBERS), pd.DataFrame(of_members))
        artefact = workspace.artefact("models")
        assert artefact.claim({}, False, SilentProgress())
        artefact.begin({})
        sites, members = (
            artefacts.shard_record(workspace.root, key) for key in ("sites.parquet", tables.MEMBERS)
        )
        artefact.commit({}, [sites], tables=[members])
        workspace.lease.release()
        workspaces.append(workspace)
    made = compare.compare_experiments(workspaces)
    assert made["n_sites"] == 5
    spread = made["arms"]["insitu"]["training_spread"]["two"]
    assert spread["ubrmse"] == pytest.approx(0.0, abs=1e-6)  # its members differ by their level
    assert spread["rmse"] > abs(made["arms"]["insitu"]["minus_first"]["two"]["rmse"]
                                ["median_difference"])  # fmt: skip
    told = [note for note in made["notes"] if note.startswith("two minus one, arm insitu, is sm")]
    assert len(told) == 1
    assert "RMSE " in told[0]
    assert "ubRMSE" not in told[0]
    assert "left out, as the id stands for another place in two: snow-03" in made["notes"]
