"""An experiment that names another's cube: nothing is prepared, everything else is its own."""

import re
import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

from pipeline import explain, files, planet, prepare, train
from pipeline.cli import app
from pipeline.cluster import submit
from pipeline.errors import StoreError
from pipeline.experiment import load
from pipeline.predict import resume
from pipeline.predict import stage as predict_stage
from pipeline.prepare import folds
from pipeline.progress import SilentProgress
from pipeline.storage import origins, schema, tables, verify
from pipeline.storage.artefacts import Artefact, Workspace
from pipeline.storage.cube import Cube
from pipeline.tracking import contents, mirror


class Told(SilentProgress):
    """Keeps what is told at the end of a stage."""

    def __init__(self):
        self.said = []

    def finish(self, outcome):
        self.said.append(outcome)


def test_a_variant_prepares_nothing_and_is_made_from_the_cube_it_names(world, variant):
    experiment, workspace = variant.experiment, variant.workspace
    told = Told()
    prepare.run(experiment, workspace, told)
    theirs = world.workspace.artefact("cube").manifest()
    assert told.said == [f"uses the cube {world.workspace.url('cube.zarr')}"]
    assert not files.exists(workspace.url("cube.zarr"))
    for name in ("folds", "models", "maps", "scores"):
        made = workspace.artefact(name).manifest()
        assert made["inputs"]["cube"] == theirs["inputs_sha256"]
    assert tables.read_table(workspace.url("folds.parquet")).equals(
        tables.read_table(world.workspace.url("folds.parquet"))
    )
    assert variant.summary["arms"].keys() == {"insitu"}
    assert variant.summary["n_sites"] == 24
    assert Cube.source(experiment, workspace) == Cube.source(world.experiment, world.workspace)


def test_the_folder_of_an_experiment_names_its_cube(world, tmp_path):
    folder = world.workspace.root
    for url in (folder, f"{folder}/", f"{folder}/cube.zarr", f"{folder}/cube.zarr/"):
        experiment = world.experiment.model_copy(update={"cube": url})
        found, _ = Cube.source(experiment, Workspace(str(tmp_path / "mine")))
        assert found == world.workspace.url("cube.zarr")


def test_a_cube_of_other_settings_is_refused_with_all_that_differ(world, tmp_path):
    url = world.workspace.root
    settings = [f"cube={url}", "qc.min_days=50", "domain.refinement=2"]
    other = load.load_experiment(str(world.path), settings)
    with pytest.raises(StoreError) as caught:
        folds.run(other, Workspace(str(tmp_path / "mine")), SilentProgress())
    said = str(caught.value)
    assert said.startswith(f"{url}/cube.zarr: was made with other settings: ")
    assert "domain.refinement 4 -> 2, qc.min_days 0 -> 50" in said
    assert "omit cube and prepare another one" in said
    assert not (tmp_path / "mine").exists()


def part_of_the_cube(world, first, last):
    """The world with a part of its period, on its cube and with its models."""
    period = f"[{first}, {last}]"
    settings = [f"{key}={period}" for key in ("period", "train_period", "test_period")]
    root = world.workspace.root
    settings += [f"cube={root}", f"models={root}/models"]
    return load.load_experiment(str(world.path), settings)


def day_of(world, number):
    return world.experiment.period[0] + timedelta(number)


@pytest.mark.runs  # it takes some seconds
def test_maps_of_a_part_of_a_shared_cube_are_those_of_a_cube_of_that_part(
    world, tmp_path, prepared_here, local_ray
):
    period = day_of(world, 32), day_of(world, 32 + 69)
    shared = part_of_the_cube(world, *period)
    own = shared.model_copy(update={"cube": None})
    cubes, maps = [], []
    for name, experiment in (("shared", shared), ("own", own)):
        workspace = Workspace(str(tmp_path / name))
        prepare.run(experiment, workspace, SilentProgress())
        predict_stage.run(experiment, workspace, SilentProgress())
        workspace.lease.release()
        cubes.append(Cube.of(experiment, workspace))
        url = workspace.url("maps", "multiscale.zarr")
        maps.append(xr.open_zarr(url, mask_and_scale=False).load())
    for group in ("cells", "footprints", "sites"):
        name = "snowfall" if group == "cells" else cubes[0].target
        here, there = (cube.series(getattr(cube, group), name) for cube in cubes)
        np.testing.assert_array_equal(here, there)
    xr.testing.assert_equal(*maps)
    assert maps[0].sizes["time"] == 70
    whole = part_of_the_cube(world, *world.experiment.period)
    assert Cube.source(whole, workspace)[1] != Cube.source(shared, workspace)[1]
    for name in ("shared", "own"):
        assert_nothing_is_stale(Workspace(str(tmp_path / name)), world, period[0])


def assert_nothing_is_stale(workspace, world, day):
    """Neither `verify` nor `explain` calls maps stale that were made from what is there."""
    assert verify.verify_workspace(workspace, SilentProgress()).problems == []
    site = tables.read_table(world.workspace.url("folds.parquet")).iloc[0]
    origin = explain.explain(workspace.root, site.lat, site.lon, day)["origin"]
    assert origin["artefacts"].keys() == {"maps", "models", "cube"}
    assert origin["stale"] == []


def test_models_of_a_part_of_a_cube_are_made_from_that_part(world, tmp_path, trained_here):
    period = f"[{day_of(world, 32)}, {day_of(world, 130)}]"
    settings = [f"{key}={period}" for key in ("period", "train_period", "test_period")]
    settings += [f"cube={world.workspace.root}", "arms=[insitu]", "train.updates=2"]
    experiment = load.load_experiment(str(world.path), settings, "part")
    workspace = Workspace(str(tmp_path / "part"))
    for stage in (folds, train):
        stage.run(experiment, workspace, SilentProgress())
    workspace.lease.release()
    assert verify.verify_workspace(workspace, SilentProgress()).problems == []
    logged = contents.loggable_digests(experiment, workspace)
    assert not logged["foreign"]
    assert {"folds", "models/insitu"} <= logged["logged"].keys()
    assert origins.find_stale(experiment, origins.read_chain(experiment, workspace)) == []


def test_an_update_of_days_before_the_part_changes_no_maps(world, monkeypatch):
    experiment = part_of_the_cube(world, day_of(world, 32), day_of(world, 100))
    last, before = str(world.experiment.period[1]), str(day_of(world, 31))
    updated = {"complete_through": last, "updated": [{"revised": [before]}]}
    monkeypatch.setattr(Cube, "manifest", staticmethod(lambda *_: updated))
    said = resume.run(experiment, world.workspace, SilentProgress(), ("", ""), None)
    assert said == [f"nothing new, maps reach {last}"]


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (33, 100, "does not begin with a block of 32 days of the cube: begin it on {32} or {64}"),
        (32, 160, "has the days {0} to {159}, which do not hold the period {32} to {160}"),
        (-32, 100, "has the days {0} to {159}, which do not hold the period {-32} to {100}"),
    ],
)
def test_a_period_that_is_no_part_of_a_shared_cube_is_refused_with_dates(
    world, tmp_path, first, last, said
):
    experiment = part_of_the_cube(world, day_of(world, first), day_of(world, last))
    said = re.sub(r"\{(-?\d+)\}", lambda day: str(day_of(world, int(day[1]))), said)
    with pytest.raises(StoreError, match=said):
        prepare.run(experiment, Workspace(str(tmp_path / "mine")), SilentProgress())
    assert not (tmp_path / "mine").exists()


def test_a_cube_that_is_absent_is_one_error(world, tmp_path):
    experiment = world.experiment.model_copy(update={"cube": str(tmp_path / "nowhere")})
    with pytest.raises(StoreError, match=r"nowhere/cube.zarr: no complete cube here"):
        prepare.run(experiment, Workspace(str(tmp_path / "mine")), SilentProgress())


def test_ls_tells_whose_cube_it_is(world, variant):
    command = ["ls", f"{variant.workspace.root}/experiment.yaml", "--workspace"]
    ran = CliRunner().invoke(app, [*command, str(Path(variant.workspace.root).parent)])
    (line,) = [line for line in ran.output.splitlines() if line.startswith("cube ")]
    assert line.endswith(f", in {world.workspace.root}")
    assert "complete" in line


def test_a_job_is_told_where_the_cube_lies(world, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(world.workspace.root).parent)
    order = submit.JobSpec(str(world.path), "run", "w", settings=("cube=snow",))
    submit.collect_upload(order, tmp_path)
    sent = load.load_experiment(str(tmp_path / "experiment.yaml"))
    assert sent.cube == world.workspace.root


def test_mlflow_shows_a_variant_beside_what_it_is_a_variant_of(
    world, variant, tmp_path, monkeypatch
):
    from mlflow import MlflowClient

    shutil.copyfile(Path(world.workspace.root).parent / "mlflow.db", tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    told = Told()
    mirror.Mirror(variant.experiment, variant.workspace, told).end("FINISHED")
    variant.workspace.lease.release()
    assert told.said == [f"logged to {uri}"]
    client = MlflowClient(uri)
    number = client.get_experiment_by_name("soilweave/snow").experiment_id
    assert client.get_experiment_by_name("soilweave/variant") is None
    found = client.search_runs([number], "params.`train.updates` != ''")
    runs = {run.info.run_name: run.data for run in found}
    assert runs.keys() == {"snow", "variant"}
    assert {name: data.params["train.updates"] for name, data in runs.items()} == {
        "snow": "60",
        "variant": "20",
    }
    tags = runs["variant"].tags
    assert tags["cube"] == world.workspace.url("cube.zarr")
    assert tags["changed"] == "arms=['insitu'], train.updates=20"
    assert "changed" not in runs["snow"].tags
    assert runs["variant"].metrics.keys() >= {"insitu/rmse", "insitu/correlation"}


@pytest.fixture
def observed(tmp_path):
    """A planet and its cube as far as manifests tell, and an experiment that names the cube."""
    whole = load.load_experiment("demo")
    theirs = Workspace(str(tmp_path / "demo"))
    for name in ("planet", "cube"):
        Artefact(name, theirs.artefact(name).prefix).commit(schema.identity(whole, name), [])
    return theirs, [f"cube={theirs.root}"]


def placed(settings, tmp_path):
    workspace = Workspace(str(tmp_path / "mine"))
    return workspace.place(load.load_experiment("demo", settings)), workspace


def test_the_planet_of_the_cube_is_taken_and_not_made_again(observed, tmp_path):
    theirs, settings = observed
    experiment, workspace = placed(settings, tmp_path)
    assert experiment.planet.url == theirs.url("planet")
    with pytest.raises(
        StoreError, match=r"demo/planet: there is no planet in this folder; .*set planet.url"
    ):
        planet.run(experiment, workspace, SilentProgress())
    told = Told()
    without, workspace = placed([*settings, "sources.truth=null"], tmp_path)
    planet.run(without, workspace, told)
    files.write_bytes(theirs.url("planet", "sites.nc"), b"")
    planet.run(experiment, workspace, told)
    assert told.said == [
        "not needed: the cube exists already, and no truth is configured",
        f"using the planet in {theirs.url('planet')}",
    ]
    assert not (tmp_path / "mine").exists()
    # The truth only judges: it is in no cube.
    assert Cube.source(without, workspace) == Cube.source(experiment, workspace)


def test_another_planet_than_the_cubes_is_refused(observed, tmp_path):
    experiment, workspace = placed([*observed[1], "planet.seed=5"], tmp_path)
    with pytest.raises(StoreError, match=r"was made with other settings: planet.seed 0 -> 5"):
        Cube.source(experiment, workspace)
