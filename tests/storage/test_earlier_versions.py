"""What soilweave made in each schema version is used as it is by that of today."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import intake.source
import numpy as np
import pytest
import xarray as xr
import yaml
from rerecord import rerecord

from pipeline import doctor, files, publish
from pipeline.catalog import intake_catalog
from pipeline.cli import update
from pipeline.doctor import recordings
from pipeline.errors import StoreError
from pipeline.evaluate import probes
from pipeline.evaluate import stage as evaluate_stage
from pipeline.evaluate.report import page
from pipeline.experiment import load
from pipeline.predict import repair as predict_repair
from pipeline.predict import stage as predict_stage
from pipeline.prepare import copy_sources, folds
from pipeline.prepare import repair as prepare_repair
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.sources import drivers
from pipeline.sources.gridded import GriddedSource
from pipeline.storage import (
    earlier_versions,
    models,
    publications,
    schema,
    source_copies,
    tables,
    verify,
)
from pipeline.storage.artefacts import Artefact, Workspace
from pipeline.storage.cube import Cube
from pipeline.tracking import contents
from pipeline.train import stage as train_stage

ARCHIVES = Path(__file__).resolve().parents[1] / "recordings" / "earlier-workspaces"

COMPLETE = {
    prepare_stage: "cube complete",
    folds: "folds complete",
    train_stage: "3 models complete",
    predict_stage: "maps complete",
    evaluate_stage: "scores complete",
    page: "report complete",
}

TARGET = "snow_depth"

# Digests of the sources as the cube of version 2 records them: each covers the path of its driver.
RECORDED = {
    "forcing": "0091e96bc14091441348bd8ea153e3c8d8205f41cca749d783e21dab62e4fc3b",
}


class Said(SilentProgress):
    """Keeps the last line of every stage."""

    def __init__(self):
        self.lines = []

    def finish(self, note):
        self.lines.append(note)


@dataclass(frozen=True)
class Old:
    """The folder that the archive was unpacked to."""

    folder: Path
    version: int

    @property
    def workspace(self):
        return Workspace(str(self.folder / "workspace" / "snow"))

    def experiment(self, *settings):
        """The experiment as its file of that version has it, on the catalog of that version."""
        place = f"sources.catalog={self.folder}/sources/catalog.yaml"
        return load.load_experiment(str(self.folder / "snow.yaml"), [place, *settings])

    def run(self, stage, *settings, **options):
        """What a stage says at its end."""
        said = Said()
        try:
            stage.run(self.experiment(*settings), self.workspace, said, **options)
        finally:
            self.workspace.lease.release()
        return said.lines[-1]

    def state(self):
        """Content and time of every file."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}

    def recorded(self, name="cube"):
        """What an artefact is recorded to be made from."""
        return self.workspace.artefact(name).manifest()["inputs"]

    def edit(self, change):
        """Change the entries of the catalog."""
        url = self.folder / "sources" / "catalog.yaml"
        tree = yaml.safe_load(url.read_text())
        change(tree["sources"])
        url.write_text(yaml.safe_dump(tree))


def unpacked(version: int, folder: Path) -> Old:
    with tarfile.open(ARCHIVES / f"version{version}.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    old = Old(folder, version)
    # Left out of the archive.
    files.write_bytes(old.workspace.url("report.html"), b"<p>left out of the archive</p>")
    rerecord(old.workspace, "report")
    return old


@pytest.fixture
def old(tmp_path) -> Old:
    return unpacked(2, tmp_path / "old")


@pytest.fixture(params=earlier_versions.COUNTS_FROM_1970)
def earlier(request, tmp_path) -> Old:
    """Of a version whose blocks are counted from 1970."""
    return unpacked(request.param, tmp_path / "old")


VERSIONS = range(earlier_versions.VERSION2, schema.SCHEMA_VERSION + 1)


@pytest.fixture(params=VERSIONS)
def recorded(request, tmp_path) -> Old:
    """Of any version, that of today included, as an earlier release wrote it."""
    return unpacked(request.param, tmp_path / "old")


def test_every_version_is_recorded(tmp_path):
    """A new version needs a recording: docs/decisions/earlier-versions.md."""
    found = {path.name for path in ARCHIVES.glob("*.tar.gz")}
    assert found == {f"version{version}.tar.gz" for version in VERSIONS}
    for version in VERSIONS:
        old = unpacked(version, tmp_path / str(version))
        made = {name: old.recorded(name)["schema"] for name in ("cube", "folds", "models", "maps")}
        assert made == dict.fromkeys(made, version)


@pytest.fixture
def moved(tmp_path, monkeypatch):
    """The driver of NetCDF grids in a module that it was not in before, its path that of today."""
    text = "from pipeline.sources import gridded\n\n\n"
    text += "class GriddedSource(gridded.GriddedSource):\n    name = 'soilweave_gridded'\n"
    (tmp_path / "moved_grids.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(
        drivers.PUBLISHED_PATHS, "gridded.GriddedSource", "moved_grids.GriddedSource"
    )
    registered = intake.source.drivers.registered()
    before = dict(registered)
    yield "moved_grids.GriddedSource"
    registered.clear()
    registered.update(before)
    sys.modules.pop("moved_grids", None)


def test_the_archive_is_of_version_2_and_has_old_names_of_settings_and_drivers(old):
    assert schema.SCHEMA_VERSION == max(earlier_versions.COUNTS_FROM_1970) + 1 == 4
    assert {old.recorded(name)["schema"] for name in ("cube", "folds", "models", "maps")} == {2}
    assert old.recorded()["qc.several"] == "longest"
    entries = yaml.safe_load((old.folder / "sources" / "catalog.yaml").read_text())["sources"]
    assert {spec["driver"] for spec in entries.values()} == {
        "pipeline.sources." + "gridded.GriddedSource",
        "pipeline.sources." + "points.PointsSource",
    }
    assert old.recorded()["source forcing"] == RECORDED["forcing"]


def test_every_stage_is_complete_and_touches_nothing(recorded):
    before = recorded.state()
    assert {stage: recorded.run(stage) for stage in COMPLETE} == COMPLETE
    assert {stage: recorded.run(stage, overwrite=True) for stage in COMPLETE} == COMPLETE
    assert recorded.state() == before


def test_earlier_predictions_are_scored_and_reported_as_those_of_today(recorded):
    """They have no predictions of single members, so the spread over training is not known."""
    before = files.read_json(recorded.workspace.url("summary.json"))
    for name in ("scores", "report"):
        files.remove(recorded.workspace.url(f"{name}.manifest.json"))
    recorded.run(evaluate_stage)
    summary = files.read_json(recorded.workspace.url("summary.json"))
    for name, described in before["arms"].items():
        assert summary["arms"][name]["median"] == described["median"]
    assert summary["paired"] == before["paired"]
    assert summary["training_spread"] == {}
    table = files.read_bytes(recorded.workspace.url("site_scores.csv")).decode()
    assert table.count("\n") == 1 + summary["n_sites"] * (
        len(summary["arms"]) + len(summary["baselines"])
    )
    recorded.run(page)
    html = files.read_bytes(recorded.workspace.url("report.html")).decode()
    assert 'data-table="sites"' in html


def test_earlier_copies_are_complete_and_so_is_the_cube_read_from_them(recorded):
    before, folder = recorded.state(), f"{recorded.folder}/copies"
    staged = f"sources.staged={folder}"
    assert recorded.run(copy_sources, staged) == f"all sources are already copied to {folder}"
    assert {stage: recorded.run(stage, staged) for stage in COMPLETE} == COMPLETE
    assert recorded.state() == before


def test_a_cube_of_version_2_is_complete_where_it_is_read_from_new_copies(old, local_ray):
    folder = str(old.folder / "again")
    old.run(copy_sources, f"sources.staged={folder}")
    made = files.read_json(files.join(folder, "forcing.zarr/manifest.json"))
    assert (made["inputs"]["schema"], made["digest_version2"]) == (4, RECORDED["forcing"])
    assert made["digest"] == made["inputs"]["source"] != RECORDED["forcing"]
    assert old.run(prepare_stage, f"sources.staged={folder}") == "cube complete"


def test_a_cube_made_from_copies_of_version_2_is_that_of_the_sources(old):
    """A later cube that was read from them records the digest that they have."""
    plain, staged = old.experiment(), old.experiment(f"sources.staged={old.folder}/copies")
    made = [
        schema.identity(
            e, "cube", **{f"source {n}": intake_catalog.entry_digest(e, n) for n in ("forcing",)}
        )
        for e in (staged, plain)
    ]
    assert made[0]["source forcing"] == RECORDED["forcing"] != made[1]["source forcing"]
    artefact = Artefact("cube", f"{old.folder}/other/")
    artefact.commit(made[0], [])
    assert artefact.manifest()["inputs"]["schema"] == 4
    assert artefact.complete(made[1])


@pytest.mark.parametrize("setting", ["qc.several=mean", "qc.duplicate_sites=mean"])
def test_a_setting_that_differs_is_named_as_it_is_called_today(old, setting):
    said = r"other settings: qc.duplicate_sites longest -> mean;"
    with pytest.raises(StoreError, match=said):
        old.run(prepare_stage, setting)
    with pytest.raises(StoreError, match=said):
        Cube.source(old.experiment(setting), old.workspace)


def test_a_source_that_has_changed_is_named(old):
    path = old.folder / "sources" / "sites.nc"
    with xr.open_dataset(path, engine="h5netcdf") as held:
        dataset = held.load()
    dataset["HS"][2, 3] += 1
    dataset.to_netcdf(path, engine="h5netcdf")
    with pytest.raises(StoreError, match=r"other settings: source sites [0-9a-f]{12} -> [0-9a-f]"):
        old.run(prepare_stage)
    assert (
        old.run(train_stage) == "3 models complete"
    )  # they are asked for the cube, which is as it was


def test_another_driver_or_another_argument_gives_another_digest(old, tmp_path, monkeypatch):
    first = intake_catalog.entry_digest(old.experiment(), "forcing")
    content = intake_catalog.driver_of_entry(old.experiment(), "forcing").digest()
    mapping = {"snowfall": {"from": "SNOWF", "units": "kg m-2 day-1"}}
    assert first == files.sha256_of_json(["soilweave_gridded", {"mapping": mapping}, content])
    text = (
        "from pipeline.sources import gridded\n\n\nclass Grids(gridded.GriddedSource):\n    pass\n"
    )
    (tmp_path / "drivers_of_a_user.py").write_text(text)
    package = tmp_path / "drivers_of_a_user-1.dist-info"  # as an installed package has it
    package.mkdir()
    (package / "METADATA").write_text("Name: drivers_of_a_user\nVersion: 1\n")
    points = "[intake.drivers]\nuser_grids = drivers_of_a_user:Grids\n"
    (package / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path))
    old.edit(lambda entries: entries["forcing"].update(driver="drivers_of_a_user.Grids"))
    own = intake_catalog.entry_digest(
        old.experiment(), "forcing"
    )  # it has no name, so that of its class counts
    assert own == files.sha256_of_json(["Grids", {"mapping": mapping}, content])
    path = "drivers_of_a_user.Grids"
    assert own.version2 == files.sha256_of_json([path, {"mapping": mapping}, content])
    mapping["snowfall"]["units"] = "mm/day"
    old.edit(lambda entries: entries["forcing"]["args"].update(mapping=mapping))
    changed = intake_catalog.entry_digest(old.experiment(), "forcing")
    assert changed == files.sha256_of_json(["Grids", {"mapping": mapping}, content])
    assert len({first, own, changed}) == 3


@pytest.mark.parametrize("written", ["old", "new"])
def test_a_driver_that_moves_changes_neither_digests_nor_what_is_complete(old, moved, written):
    if written == "new":
        grids = ("forcing", "elevation", "product")
        old.edit(lambda entries: [entries[name].update(driver=moved) for name in grids])
    before = old.state()
    assert {stage: old.run(stage) for stage in COMPLETE} == COMPLETE
    assert old.state() == before
    experiment = old.experiment()
    made = intake_catalog.driver_of_entry(experiment, "forcing")
    assert f"{type(made).__module__}.{type(made).__name__}" == moved
    digest = intake_catalog.entry_digest(experiment, "forcing")
    content, read = made.digest(), {"mapping": made.mapping}
    assert digest == files.sha256_of_json(["soilweave_gridded", read, content])
    assert digest.version2 == RECORDED["forcing"]
    assert {type(intake_catalog.driver_of_entry(experiment, "sites")).__module__} == {
        "pipeline.sources.points"
    }


def test_old_paths_open_in_nested_catalogs_in_others_in_the_doctor_and_in_intake(old, moved):
    outer = {"inner": {"driver": "yaml_file_cat", "args": {"path": "{{CATALOG_DIR}}/catalog.yaml"}}}
    url = old.folder / "sources" / "outer.yaml"
    url.write_text(yaml.safe_dump({"sources": outer}))
    inner = old.folder / "sources" / "catalog.yaml"
    nested = old.experiment(f"sources.catalog={url}")
    for entry in ("inner.forcing", f"{inner}:forcing", f"{url}:inner.forcing"):
        assert intake_catalog.open_source(nested, entry).snowfall.dims == ("time", "lat", "lon")
        assert intake_catalog.entry_digest(nested, entry).version2 == RECORDED["forcing"]
    more = dict.fromkeys(("doi", "region", "native_units", "native_grid"), "of the test")
    old.edit(lambda entries: [spec["metadata"].update(more) for spec in entries.values()])
    settings = [f"sources.catalog={inner}"]
    healthy, shown = doctor.examine(str(old.folder / "snow.yaml"), settings, SilentProgress())
    assert (healthy, shown[1]) == (True, "5 entries, 5 years in all: 5 healthy")
    drivers.register_moved_drivers()
    assert type(intake.open_catalog(str(inner))["forcing"]).__module__ == "moved_grids"


def test_recordings_of_an_entry_outlive_the_move_of_its_driver(moved):
    args = {"urlpath": "a.nc", "mapping": {}}
    before = files.sha256_of_json(["pipeline.sources." + "gridded.GriddedSource", args])
    assert recordings.entry_digest({"driver": moved, "args": args}) == before


def test_earlier_artefacts_open(recorded):
    old = recorded
    url = old.workspace.url("cube.zarr")
    cube = Cube.open(url)
    assert cube.site_ids == tuple(f"sites-{i:02d}" for i in range(8))
    with xr.open_dataset(old.folder / "sources" / "sites.nc", engine="h5netcdf") as given:
        expected = given.HS.isel(time=slice(0, 51)).values.T
    np.testing.assert_array_equal(cube.series(cube.sites, TARGET), expected)
    maps = xr.open_zarr(old.workspace.url("maps/multiscale.zarr"))
    assert maps.attrs["models_sha256"] == old.workspace.artefact("models").digest()
    values = maps[TARGET].sel(time=slice("2020-01-01", "2020-02-20"))
    assert bool(values.notnull().all())
    loaded = models.load_ensemble(old.workspace.url("models"), "multiscale")
    assert [trained.origin["inputs_sha256"] for trained in loaded] == [maps.attrs["models_sha256"]]
    assert source_copies.open_copy(f"{old.folder}/copies", "forcing").snowfall.dims[0] == "time"
    assert set(tables.read_table(old.workspace.url("scores.parquet")).arm) == {
        *("multiscale", "footprint", "ridge", "product")
    }
    assert old.workspace.described().qc.duplicate_sites == "longest"


def test_earlier_models_predict_and_score_what_they_did(recorded, local_ray):
    old = recorded
    root = Path(old.workspace.root)
    for name in ("maps", "state"):
        shutil.move(root / name, old.folder / f"{name}-before")
    old.run(predict_stage)
    assert old.recorded("maps")["schema"] == 4
    made, before = (
        xr.open_zarr(url / "multiscale.zarr", mask_and_scale=False).load()
        for url in (root / "maps", old.folder / "maps-before")
    )
    assert [str(day)[:10] for day in made.time.values[[0, -1]]] == ["2020-01-01", "2020-02-20"]
    before = before.sel(time=made.time)
    np.testing.assert_array_equal(made.quality_flag, before.quality_flag)
    for name in (TARGET, f"{TARGET}_std"):
        # One step of the packing, where a CPU of another kind rounds otherwise.
        steps = made[name].astype("int32") - before[name].astype("int32")
        assert made[name].attrs["units"] == before[name].attrs["units"]
        assert int(abs(steps).max()) <= 1
    sites = str(old.folder / "sources" / "sites.nc")
    judged = probes.score_probes(old.experiment(), old.workspace, SilentProgress(), sites).summary
    summary = files.read_json(old.workspace.url("summary.json"))
    assert (judged["n_sites"], judged["place"]) == (8, "unseen")
    assert judged["arms"].keys() == summary["arms"].keys() == {"multiscale"}


def test_an_update_of_earlier_maps_says_what_to_do_instead(earlier):
    before = earlier.state()
    said = f"has schema version {earlier.version}, whose blocks are counted from 1970-01-01, so it "
    said += "cannot be continued; make them again, then update: soilweave run snow --overwrite"
    with pytest.raises(StoreError, match=said):
        earlier.run(update)
    assert earlier.state() == before


def test_maps_of_today_are_made_from_an_earlier_cube_and_cannot_be_updated(
    earlier, tmp_path, local_ray
):
    theirs = earlier.workspace.root
    experiment = earlier.experiment(f"cube={theirs}", f"models={theirs}/models")
    workspace = Workspace(str(tmp_path / "mine"))
    predict_stage.run(experiment, workspace, SilentProgress())
    mine, old = (
        xr.open_zarr(f"{root}/maps/multiscale.zarr", mask_and_scale=False).load()
        for root in (workspace.root, theirs)
    )
    for name in (experiment.target, f"{experiment.target}_std"):
        np.testing.assert_array_equal(mine[name], old[name].sel(time=mine.time))
    with pytest.raises(StoreError, match="then update: soilweave run snow --overwrite") as caught:
        update.run(experiment.model_copy(update={"name": "mine"}), workspace, SilentProgress())
    assert str(caught.value).startswith(f"{theirs}/cube.zarr: has schema version")
    workspace.lease.release()


@pytest.mark.parametrize("name", ["cube", "maps"])
def test_a_damaged_shard_of_an_earlier_version_is_not_made_again(earlier, name):
    workspace, makers = earlier.workspace, {"cube": prepare_repair, "maps": predict_repair}
    key = workspace.artefact(name).manifest()["shards"][0]["key"]
    before = earlier.state()
    with pytest.raises(StoreError, match=r"cannot be made again; .* --overwrite"):
        makers[name].repair(earlier.experiment(), workspace, SilentProgress(), [key])
    assert earlier.state() == before


def test_blocks_of_an_earlier_version_that_is_not_complete_are_made_anew(earlier, local_ray):
    artefact = earlier.workspace.artefact("maps")
    manifest = artefact.manifest()
    files.remove(f"{artefact.prefix}manifest.json")
    begun = {key: manifest[key] for key in ("inputs_sha256", "inputs", "begun")}
    files.write_json(f"{artefact.prefix}begun.json", begun)
    left = {"shards": [], "steps": 0, "problems": [], "node": ""}
    files.write_json(earlier.workspace.url("maps", "receipts", "multiscale-0-0.json"), left)
    earlier.run(predict_stage)
    assert artefact.manifest()["inputs"]["schema"] == 4
    assert len(artefact.manifest()["shards"]) > 0
    maps = xr.open_zarr(earlier.workspace.url("maps/multiscale.zarr"))
    assert bool(maps[TARGET].notnull().all())


def test_what_was_begun_in_version_2_is_completed_in_it(old):
    artefact = old.workspace.artefact("folds")
    manifest = artefact.manifest()
    files.remove(f"{artefact.prefix}manifest.json")
    begun = {key: manifest[key] for key in ("inputs_sha256", "inputs", "begun")}
    files.write_json(f"{artefact.prefix}begun.json", begun)
    old.run(folds)
    made = artefact.manifest()
    assert {k: made[k] for k in begun} == begun
    assert (made["digest"], made["shards"]) == (manifest["digest"], manifest["shards"])
    assert old.run(train_stage) == "3 models complete"


def test_what_is_replaced_is_of_this_version_and_of_another_name_of_the_setting(old, local_ray):
    old.run(prepare_stage, "qc.several=mean", overwrite=True)
    made = old.recorded()
    assert (made["schema"], made["qc.duplicate_sites"]) == (4, "mean")
    assert "qc.several" not in made
    described = yaml.safe_load(Path(old.workspace.url("experiment.yaml")).read_text())
    assert described["qc"]["duplicate_sites"] == "mean"
    assert "several" not in described["qc"]
    with pytest.raises(StoreError, match=r"other settings: cube 2b0d4797b753 -> [0-9a-f]{12};"):
        old.run(folds, "qc.several=mean")


def test_mlflow_finds_artefacts_of_version_2_its_own(old):
    found = contents.loggable_digests(old.experiment(), old.workspace)
    assert not found["foreign"]
    assert found["models"] == old.workspace.artefact("models").digest()
    named = {"experiment", "folds", "models/multiscale", "scores", "report"}
    assert named <= found["logged"].keys()


def test_a_digest_is_text_in_json_and_whole_after_a_pickle():
    made = earlier_versions.Digest("a", "b")
    assert json.dumps({"source": made}) == '{"source": "a"}'
    again = pickle.loads(pickle.dumps(made))
    assert (again, again.version2) == ("a", "b")


def test_every_published_path_leads_to_a_driver_and_each_has_a_name_of_its_own():
    drivers.register_moved_drivers()
    found = {}
    for old_path, path in drivers.PUBLISHED_PATHS.items():
        kind = intake.source.import_name(path)
        assert intake.source.get_plugin_class(f"pipeline.sources.{old_path}") is kind
        assert kind.__name__ == old_path.rpartition(".")[2]
        found[kind.__name__] = vars(kind)["name"]
    assert len(set(found.values())) == len(found) == 14
    assert found["GriddedSource"] == GriddedSource.name == "soilweave_gridded"
    assert all(name.startswith("soilweave_") for name in found.values())


def test_what_version_2_recorded_is_verified_and_the_rest_is_counted(old):
    result = verify.verify_workspace(old.workspace, SilentProgress())
    assert [p for p in result.problems if p.kind != verify.UNLISTED] == []
    assert not [p for p in result.problems if p.artefact]
    assert {"experiment.yaml", "cube.zarr/zarr.json", "maps/manifest.json"} <= {*result.unchecked}
    (Path(old.workspace.root) / "folds.parquet").write_bytes(b"spoiled")
    found = verify.verify_workspace(old.workspace, SilentProgress()).problems
    assert ("folds.parquet", verify.DAMAGED) in {(p.key, p.kind) for p in found}


def test_what_an_earlier_version_made_is_published(recorded, tmp_path):
    old = recorded
    before = old.state()
    publish.publish(old.workspace, str(tmp_path / "p"), SilentProgress())
    opened = publications.open_maps(str(tmp_path / "p"), group="series")
    maps = xr.open_zarr(old.workspace.url("maps/multiscale.zarr"), group="series")
    xr.testing.assert_equal(opened.load(), maps.load())
    release = publications.find_release(str(tmp_path / "p"))
    assert verify.summary_line(publications.verify_release(release, SilentProgress())).endswith(
        "no problem"
    )
    assert old.state() == before
