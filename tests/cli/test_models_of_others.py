"""`score` and `predict` with models that were trained elsewhere, in the form of those shipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from studies import weights
from world import WINDOW

from pipeline import api, files
from pipeline.cluster import submit
from pipeline.errors import ConfigError
from pipeline.experiment import load, shipped_models
from pipeline.storage import records
from pipeline.storage.artefacts import Artefact, Workspace

TARGET = "snow_depth"


@pytest.fixture(scope="module")
def packed(world, tmp_path_factory) -> Workspace:
    """The models of the small world, packed as those that come with soilweave."""
    folder, sites = tmp_path_factory.mktemp("packed"), str(world.folder / "sites.nc")
    return Workspace(str(weights.pack(world.workspace, folder, sites)))


@pytest.fixture
def scored(soilweave, world, packed, tmp_path):
    """What `score` says of the sites of the world after a change, and what it prints."""

    def score(change, *options, home=packed):
        with xr.open_dataset(world.folder / "sites.nc", engine="h5netcdf") as raw:
            change(raw.load()).to_netcdf(tmp_path / "probes.nc", engine="h5netcdf")
        command = [world.path, "--models", home.url("models"), "--sites", tmp_path / "probes.nc"]
        command += ["--workspace", tmp_path / "none", "--json", tmp_path / "found.json"]
        code, out, err = soilweave("score", *command, *options)
        assert code == 0, err
        return files.read_json(str(tmp_path / "found.json")), out

    return score


def moved(sites, lat, lon):
    """Sites under new ids at other places."""
    ids = [f"new-{i:02d}" for i in range(sites.sizes["station"])]
    return sites.assign_coords(station=ids, lat=("station", lat), lon=("station", lon))


def at_free_cells(sites):
    """Some of the sites in cells of land that hold no site."""
    taken = set(zip(*WINDOW.cells_of(sites.lat, sites.lon), strict=True))
    free = [cell for cell in np.ndindex(WINDOW.cell_shape) if cell[0] > 5 and cell not in taken]
    y, x = np.array(free)[np.linspace(0, len(free) - 1, 6).astype(int)].T
    return moved(sites.isel(station=slice(6)), WINDOW.cell_lat[y], WINDOW.cell_lon[x])


def test_what_is_packed_is_complete_and_as_it_was(world, packed):
    root = packed.url("models")
    artefact = Artefact("models", f"{root}/")
    assert artefact.digest() != world.workspace.artefact("models").digest()
    manifest = artefact.manifest()
    assert not records.seal_is_broken(manifest)
    assert [record["key"] for record in manifest["shards"]] == [
        "attributes.json",
        "multiscale/calibration.json",
        "multiscale/fold=all/seed=0/checkpoint.safetensors",
        "ridge/fold=all/ridge.safetensors",
    ]
    for record in manifest["shards"]:
        there, here = (files.read_bytes(files.join(url, record["key"])) for url in
                       (root, world.workspace.url("models")))  # fmt: skip
        assert there == here
    card = files.read_json(packed.url("card.json"))
    assert card["scores"]["held-out sites"]["by_name"].keys() >= {"multiscale", "insitu", "ridge"}
    assert [each["sha256"] for each in card["files"]] == [r["sha256"] for r in manifest["shards"]]
    page = Path(packed.url("card.md")).read_text()
    assert "CC0-1.0" in page
    assert card["files"][0]["sha256"] in page


def test_packed_models_predict_as_before(world, packed):
    cells = api.open_cube(world.workspace.root).isel(y=[8, 9], x=[8, 9, 10]).load()
    here, there = (
        api.predict_at(root, cells, cells, "multiscale")
        for root in (packed.root, world.workspace.root)
    )
    xr.testing.assert_identical(here, there)


def test_places_that_the_models_do_not_know_are_scored_as_by_their_own_experiment(
    soilweave, world, scored, tmp_path
):
    summary, out = scored(at_free_cells)
    own = ["--sites", tmp_path / "probes.nc", "--workspace", Path(world.workspace.root).parent]
    assert soilweave("score", world.path, *own, "--json", tmp_path / "own.json")[0] == 0
    expected = files.read_json(str(tmp_path / "own.json"))
    assert summary["arms"].keys() == {"multiscale"}
    assert summary["arms"]["multiscale"]["median"] == expected["arms"]["multiscale"]["median"]
    assert summary["baselines"].keys() == {"ridge", "footprint"}
    assert (summary["place"], summary["n_sites"], summary["updates"]) == ("unseen", 6, 60)
    assert "unseen: the models have learnt from no site at these places" in out
    rows = {row["id"]: row for row in summary["probes"]}
    assert rows["new-03"]["cell_km"] == 0
    assert rows["new-03"]["known_as"] is None
    assert rows["new-03"]["scores"]["multiscale"]["rmse"] > 0
    assert f"new-03  {rows['new-03']['scores']['multiscale']['n']}" in " ".join(out.split(" "))


def test_places_of_training_sites_are_named_and_kept_apart(scored):
    summary, out = scored(lambda sites: moved(sites, sites.lat.values, sites.lon.values))
    assert "unseen" not in summary
    assert "out_of_fold" not in summary
    assert (summary["place"], summary["trained"]["n_sites"]) == ("seen", 24)
    assert [row["known_as"] for row in summary["probes"][:2]] == ["snow-00", "snow-01"]
    assert "trained: places of training sites, which these models have seen: not a test" in out
    said = "24 probes in the cell of a training site, or within 1 km: new-00 at snow-00, "
    assert said in out


def test_with_the_models_of_all_folds_they_are_scored_out_of_fold(world, scored):
    summary, _ = scored(lambda sites: sites, home=world.workspace)
    for arm, scores in world.summary["arms"].items():
        assert summary["arms"][arm]["median"]["rmse"] == pytest.approx(
            scores["median"]["rmse"], abs=1e-4
        )
    assert "trained" not in summary


def test_a_probe_in_no_cell_takes_the_inputs_of_the_nearest_if_asked(scored, soilweave, tmp_path):
    north = float(WINDOW.cell_lat[6]), float(WINDOW.cell_lon[0]) - 0.2  # 1 column west of the land

    def change(sites):
        return moved(sites.isel(station=[0]), [north[0]], [north[1]])

    summary, out = scored(change, "--nearest", "40")
    (row,) = summary["probes"]
    assert 10 < row["cell_km"] < 40
    assert row["scores"]["multiscale"]["rmse"] is not None
    assert f"a cell {row['cell_km']:.0f} km away" in out


def test_probes_without_any_inputs_are_one_line_that_says_what_to_type(
    soilweave, world, packed, tmp_path
):
    with xr.open_dataset(world.folder / "sites.nc", engine="h5netcdf") as raw:
        west = float(WINDOW.cell_lon[0]) - np.array([0.3, 0.4])
        moved(raw.load().isel(station=[0, 1]), [float(WINDOW.cell_lat[6])] * 2, west).to_netcdf(
            tmp_path / "far.nc", engine="h5netcdf"
        )
    command = [world.path, "--models", packed.url("models"), "--sites", tmp_path / "far.nc"]
    code, _, err = soilweave("score", *command, "--workspace", tmp_path / "none")
    assert code == 2
    (line,) = err.strip().splitlines()
    assert "no inputs: new-00, new-01 in no cell for which catalog" in line
    assert "take its inputs with --nearest " in line
    assert f"--models {packed.url('models')} --sites {tmp_path / 'far.nc'}" in line


def test_the_offset_of_a_probe_is_learnt_with_the_packed_priors(world, packed, scored):
    own = json.loads(files.read_bytes(packed.url("offsets.json")))
    assert own.keys() == {"multiscale", "ridge", "footprint"}
    summary, _ = scored(at_free_cells, "--adjust")
    prior = summary["adjustment"]["priors"]["multiscale"]["all"]
    assert prior["tau"] == pytest.approx(own["multiscale"]["tau"])


def test_models_that_do_not_say_what_they_have_learnt_from_are_not_scored(
    soilweave, world, packed, tmp_path
):
    shutil.copytree(packed.url("models"), tmp_path / "alone" / "models")
    command = [world.path, "--sites", world.folder / "sites.nc", "--models"]
    code, _, err = soilweave("score", *command, tmp_path / "alone" / "models")
    assert code == 2
    assert f"{tmp_path}/alone: experiment.yaml and folds.parquet not found" in err
    assert "copy the whole folder of the experiment" in err


def test_maps_are_of_the_arms_that_the_models_have(soilweave, world, packed, tmp_path, local_ray):
    command = ["predict", world.path, "--models", packed.url("models"), "--name", "lent"]
    code, _, err = soilweave(*command, "--workspace", tmp_path)
    assert code == 0, err
    assert files.list_folder(str(tmp_path / "lent" / "maps")) == [
        "manifest.json",
        "multiscale.zarr",
    ]
    series = [
        api.open_maps(url, "multiscale", "series")[TARGET].load()
        for url in (str(tmp_path / "lent"), world.workspace.root)
    ]
    np.testing.assert_array_equal(*series)
    assert soilweave("publish", "lent", "--workspace", tmp_path, "--to", tmp_path / "there")[0] == 0
    (release,) = (tmp_path / "there" / "releases").iterdir()
    card = files.read_json(str(release / "card.json"))
    trained = [str(day) for day in world.experiment.train_period]
    assert (card["training_period"], card["recipe"]["updates"]) == (trained, 60)
    assert card["arms"]["multiscale"]["learnt_from"] == [
        "footprints: footprints",
        "sites: sites (24)",
    ]
    code, _, err = soilweave(*command, "--workspace", tmp_path / "b", "--set", "arms=[insitu]")
    assert (code, "no models of arm insitu here" in err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scan"], "--sites: not given; name your probes: soilweave score scan --sites FILE.csv"),
        (["a.csv", "--sites", "b.csv"], "name one of them: soilweave score a.csv"),
        (
            ["a.csv", "--sites", "my.yaml:mine"],
            "name one of them: soilweave score my.yaml:mine; or an experiment: soilweave score "
            "EXPERIMENT --sites my.yaml:mine",
        ),
        (
            ["a.csv", "--models", "../models"],
            "name it: soilweave score EXPERIMENT.yaml --models ../models --sites a.csv",
        ),
        (["none.csv"], "none.csv: not found; correct the path"),
        (["demo", "--sites", "catalog.yaml:a", "--models", "scam"], "did you mean 'scan'? names: "),
    ],
)
def test_what_score_is_not_told_it_asks_for(soilweave, arguments, says):
    code, _, err = soilweave("score", *arguments)
    assert code == 2
    assert says in err


def test_a_word_is_a_name_and_a_path_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan").mkdir()
    (tmp_path / "mine").mkdir()
    shipped = shipped_models.models_url("scan")
    assert Path(shipped).parts[-3:] == ("models", "scan", "models")
    assert shipped_models.models_url("./scan") == str(tmp_path / "scan")
    assert shipped_models.models_url("mine") == str(tmp_path / "mine")
    assert shipped_models.models_url("s3://bucket/models/") == "s3://bucket/models"
    with pytest.raises(ConfigError, match="no models of this name come with soilweave"):
        shipped_models.models_url("yours")
    other = "/elsewhere/pipeline/experiment/presets/models/scan/models"
    assert shipped_models.url_here("scan", other) == shipped
    assert shipped_models.url_here(str(tmp_path), other) == other
    assert shipped_models.url_here(None, other) == other
    monkeypatch.delenv("SOILWEAVE_DATA", raising=False)
    assert shipped_models.experiment_of_inputs("scan")[0] == "scan-public"
    monkeypatch.setenv("SOILWEAVE_DATA", str(tmp_path))
    assert shipped_models.experiment_of_inputs("scan")[0] == "scan"


def test_a_job_names_them_as_its_nodes_have_them(tmp_path):
    job = submit.JobSpec("scan", "predict", "s3://bucket/ws", settings=("models=scan",))
    submit.collect_upload(job, tmp_path)
    assert load.load_experiment(str(tmp_path / "experiment.yaml")).models == "scan"
    packed = tmp_path / "pipeline" / "experiment" / "presets" / "models" / "scan" / "models"
    assert (packed / "multiscale" / "fold=all" / "seed=5" / "checkpoint.safetensors").exists()
    (tmp_path / "none").mkdir()
    submit.collect_upload(submit.JobSpec("scan", "run", "s3://bucket/ws"), tmp_path / "none")
    assert not (tmp_path / "none" / shipped_models.FOLDER).exists()
