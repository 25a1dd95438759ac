"""`verify --repair` mends every kind of object that `verify` finds damaged."""

import json
import shutil
from pathlib import Path

import pytest
import results
import world as world_module

from pipeline import files
from pipeline.cli import repair
from pipeline.errors import SoilweaveError, StoreError
from pipeline.evaluate import stage as evaluate
from pipeline.experiment.config import PlanetConfig
from pipeline.progress import SilentProgress
from pipeline.storage import artefacts, records, verify
from pipeline.storage.artefacts import Workspace


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.fixture
def copy(world, tmp_path):
    shutil.copytree(world.workspace.root, tmp_path / "snow")
    return Workspace(str(tmp_path / "snow"))


def contents(workspace):
    """All objects; records and reports without when they were written."""
    root = Path(workspace.root)
    dated = ("manifest.json", "report.html", ".manifest.json", "lease.json", "mlflow.json")
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and not p.name.endswith(dated) and p.parent.name != "backup"
    }


def mend(workspace):
    result = verify.verify_workspace(workspace, SilentProgress())
    assert result.problems
    return repair.repair(workspace, result, SilentProgress())


SHARDS = [
    ("cube.zarr/cells/snowfall/c/0/0/0", flip),
    ("cube.zarr/cells/snowfall/c/4/0/0", Path.unlink),
    ("cube.zarr/cells/elevation/c/0/0", truncate),
    ("cube.zarr/cells/mask/c/0/0", flip),
    ("cube.zarr/footprints/snow_depth/c/1/0/0", Path.unlink),
    ("cube.zarr/sites/snow_depth/c/0/0", flip),
    ("cube.zarr/sites/air_temperature/c/2/0", Path.unlink),
]
MAPS = [
    ("maps/insitu.zarr/snow_depth/c/0/0/0", Path.unlink),
    ("maps/satellite.zarr/series/quality_flag/c/0/0/0", flip),
    ("maps/multiscale.zarr/probe_gain/c/0/0", truncate),
    ("state/insitu.zarr/hidden/c/0/0/0/0/0", flip),
    ("state/multiscale.zarr/attributes/c/0/0/0", Path.unlink),
    ("next_probes.csv", truncate),
]
WRITTEN_BACK = [
    ("cube.zarr/zarr.json", flip),
    ("cube.zarr/cells/lat/zarr.json", Path.unlink),
    ("cube.zarr/cells/lat/c/0", flip),
    ("maps/insitu.zarr/zarr.json", truncate),
    ("state/insitu.zarr/block/c/0", flip),
    ("cube.zarr/manifest.json", flip),
    ("maps/manifest.json", Path.unlink),
    ("models/manifest.json", truncate),
    ("folds.manifest.json", flip),
    ("experiment.yaml", flip),
    ("backup/report.json", flip),
    ("backup/scores.json", Path.unlink),
]
TABLES = [
    ("folds.parquet", flip),
    ("folds.geojson", Path.unlink),
    ("scores.parquet", truncate),
    ("summary.json", flip),
    ("report.html", Path.unlink),
]
MODELS = [
    ("models/insitu/calibration.json", flip),
    ("models/attributes.json", Path.unlink),
    ("models/ridge/fold=0/ridge.safetensors", truncate),
    ("sites.parquet", flip),
]


def spoil(workspace, damages):
    for key, damage in damages:
        damage(Path(workspace.url(key)))


@pytest.mark.usefixtures("prepared_here", "local_ray")
@pytest.mark.parametrize(
    "damages",
    [SHARDS, WRITTEN_BACK, TABLES, MODELS],
    ids=["cube", "written back", "tables", "models"],
)
def test_repaired_objects_are_those_that_were_lost(copy, damages):
    before = contents(copy)
    spoil(copy, damages)
    assert mend(copy).problems == []
    assert contents(copy) == before


@pytest.mark.usefixtures("local_ray")
def test_repaired_maps_are_those_that_were_lost(copy):
    before = contents(copy)
    spoil(copy, MAPS)
    assert mend(copy).problems == []
    assert contents(copy) == before


@pytest.mark.usefixtures("prepared_here", "trained_here", "local_ray")
def test_a_model_that_is_trained_again_otherwise_makes_what_follows_anew(copy):
    """The world was trained by Ray Train; here one process trains one model at a time."""
    digest = copy.artefact("models").digest()
    maps = copy.artefact("maps").manifest()["inputs"]["models"]
    assert maps == digest
    path = Path(copy.url("models/insitu/fold=all/seed=0/checkpoint.safetensors"))
    lost = path.read_bytes()
    path.unlink()
    result = mend(copy)
    assert result.problems == []
    found = copy.artefact("models").digest()
    assert (found == digest) == (path.read_bytes() == lost)
    assert copy.artefact("maps").manifest()["inputs"]["models"] == found
    assert copy.artefact("scores").manifest()["inputs"]["models"] == found


@pytest.mark.usefixtures("prepared_here", "local_ray")
@pytest.mark.parametrize(
    ("name", "key"), [("cube", "cube.zarr/sites/lat/c/0"), ("maps", "maps/insitu.zarr/zarr.json")]
)
def test_metadata_that_is_damaged_as_well_as_its_backup_is_made_anew(copy, name, key):
    before = results.results(copy.root)
    shard = {"cube": SHARDS, "maps": MAPS}[name][0]
    spoil(copy, [(key, truncate), (f"backup/{name}.json", truncate), shard])
    assert mend(copy).problems == []
    assert results.differences(results.results(copy.root), before) == []


@pytest.mark.usefixtures("local_ray")
def test_an_updated_artefact_with_damaged_metadata_and_backup_is_not_removed(copy):
    copy.lease.take(print)
    copy.artefact("maps").amend((), updated=[{"through": "2017-01-01"}])
    copy.lease.release()
    before = contents(copy)
    key = "maps/insitu.zarr/zarr.json"
    spoil(copy, [(key, truncate), ("backup/maps.json", Path.unlink)])
    with pytest.raises(SoilweaveError, match=r"were appended.*snow --overwrite.*--through"):
        mend(copy)
    assert {**contents(copy), key: b""} == {**before, key: b""}


@pytest.mark.usefixtures("prepared_here", "local_ray")
def test_an_artefact_without_any_manifest_is_made_anew(copy):
    before = contents(copy)
    for name in ("cube.zarr/manifest.json", "backup/cube.json"):
        Path(copy.url(name)).unlink()
    assert mend(copy).problems == []
    assert contents(copy) == before


@pytest.mark.parametrize("name", ["folds.manifest.json", "scores.manifest.json"])
def test_an_artefact_whose_manifest_and_backup_are_damaged_is_made_anew(copy, name, local_ray):
    before = contents(copy)
    Path(copy.url(name)).write_text("[1]")
    Path(copy.url("backup", name.replace(".manifest", ""))).write_text("[1]")
    assert mend(copy).problems == []
    assert contents(copy) == before


def test_begun_json_that_is_damaged_during_a_repair_costs_no_models(copy, local_ray):
    before = contents(copy)
    copy.artefact("models").reopen([])
    truncate(Path(copy.url("models/begun.json")))
    checkpoint = Path(copy.url("models/insitu/fold=0/seed=0/checkpoint.safetensors"))
    written = checkpoint.stat().st_mtime_ns
    assert mend(copy).problems == []
    assert contents(copy) == before
    assert checkpoint.stat().st_mtime_ns == written


@pytest.mark.usefixtures("prepared_here", "local_ray")
def test_begun_json_that_was_left_beside_a_manifest_does_not_keep_what_is_damaged(copy):
    before = contents(copy)
    manifest = copy.artefact("cube").manifest()  # killed before it wrote the backup
    begun = {key: manifest[key] for key in artefacts.IDENTITY_KEYS}
    files.write_json(copy.url("cube.zarr/begun.json"), records.seal(begun, "cube"))
    spoil(copy, [("backup/cube.json", Path.unlink), ("cube.zarr/sites/lat/c/0", truncate)])
    spoil(copy, [("cube.zarr/cells/lat/zarr.json", truncate)])
    assert mend(copy).problems == []
    assert contents(copy) == before


def test_the_experiment_yaml_of_another_run_is_replaced_and_nothing_made_with_it(
    copy, world, local_ray
):
    before = contents(copy)
    other = world.experiment.train.model_copy(update={"updates": 3})
    copy.describe(world.experiment.model_copy(update={"train": other}))
    assert mend(copy).problems == []
    assert contents(copy) == before


def test_settings_that_an_artefact_was_made_with_last_are_kept(copy, world, local_ray):
    judging = world.experiment.judging.model_copy(update={"min_days": 31})
    other = world.experiment.model_copy(update={"judging": judging})
    evaluate.run(other, copy, SilentProgress(), overwrite=True)
    described = Path(copy.url("experiment.yaml")).read_bytes()
    truncate(Path(copy.url("report.html")))
    assert mend(copy).problems == []
    assert Path(copy.url("experiment.yaml")).read_bytes() == described


@pytest.mark.parametrize("lost", ["yaml", "list"])
def test_an_experiment_yaml_that_no_backup_has_is_written_again_by_the_remedy(
    copy, world, lost, soilweave, local_ray
):
    Path(copy.url("experiment.yaml")).write_text({"yaml": "{", "list": "[1]"}[lost])
    for path in Path(copy.url("backup")).iterdir():
        truncate(path)
    with pytest.raises(StoreError, match=r"experiment.yaml: .*no backup.*remove report.html and"):
        mend(copy)
    for name in ("report.html", "report.manifest.json"):
        Path(copy.url(name)).unlink()
    status, _, message = soilweave("evaluate", world.path, "--workspace", Path(copy.root).parent)
    assert status == 0, message
    assert mend(copy).problems == []


def test_a_manifest_of_before_an_update_is_not_the_right_one(copy, local_ray):
    path = Path(copy.url("maps/manifest.json"))
    earlier = path.read_bytes()
    copy.lease.take(print)
    shard = Path(copy.url("maps/insitu.zarr/snow_depth/c/9/0/0"))
    shard.parent.mkdir(parents=True)
    shard.write_bytes(b"of an appended day")
    record = artefacts.shard_record(copy.root, "maps/insitu.zarr/snow_depth/c/9/0/0")
    copy.artefact("maps").amend([record], updated=[{"through": "2020-05-01"}])
    copy.lease.release()
    before, manifest = contents(copy), path.read_bytes()
    path.write_bytes(earlier)
    assert mend(copy).problems == []
    assert (contents(copy), path.read_bytes()) == (before, manifest)


def test_the_manifest_of_another_run_is_not_that_which_others_were_made_from(copy, local_ray):
    before, path = contents(copy), Path(copy.url("folds.manifest.json"))
    manifest = path.read_bytes()
    other = copy.artefact("folds").manifest()
    other["inputs"] |= {"source": "elsewhere"}
    other["inputs_sha256"] = files.sha256_of_json(other["inputs"])
    files.write_json(str(path), records.seal(other, "folds"))
    flip(Path(copy.url("folds.geojson")))
    assert mend(copy).problems == []
    assert contents(copy) == before
    assert json.loads(path.read_bytes())["inputs"] == json.loads(manifest)["inputs"]


def test_stores_that_were_exchanged_are_told_apart(copy, local_ray):
    before = contents(copy)
    insitu, satellite = (Path(copy.url(f"maps/{arm}.zarr")) for arm in ("insitu", "satellite"))
    insitu.rename(copy.url("maps/other"))
    satellite.rename(insitu)
    Path(copy.url("maps/other")).rename(satellite)
    assert mend(copy).problems == []
    assert contents(copy) == before


def test_the_planet_of_a_folder_that_was_moved_is_its_own(copy, world, tmp_path):
    planet = PlanetConfig(url=str(tmp_path / "before" / "planet"))
    copy.describe(world.experiment.model_copy(update={"planet": planet}))
    assert repair._experiment(copy).planet.url == planet.url
    Path(copy.url("planet")).mkdir()
    Path(copy.url("planet/manifest.json")).write_text("{}")
    assert repair._experiment(copy).planet.url == copy.url("planet")


def test_a_repair_that_was_killed_is_finished_by_the_next(copy):
    wanted = contents(copy)
    copy.artefact("scores").reopen(["summary.json"])  # killed before the stage wrote it again
    found = verify.verify_workspace(copy, SilentProgress())
    assert (found.problems, found.incomplete) == ([], ["scores"])
    mended = repair.repair(copy, found, SilentProgress())
    assert (mended.problems, mended.incomplete) == ([], [])
    assert contents(copy) == wanted


def test_files_that_soilweave_does_not_write_are_left(copy, local_ray):
    note, shard = Path(copy.url("notes.txt")), Path(copy.url("cube.zarr/cells/mask/c/9/9"))
    note.write_text("mine")
    shard.parent.mkdir()
    shard.write_bytes(b"?")
    receipt = Path(copy.url("maps/receipts/insitu-0-0.json"))
    receipt.parent.mkdir()
    receipt.write_text("{}")
    (left,) = mend(copy).problems
    assert (left.key, left.kind) == ("notes.txt", verify.UNLISTED)
    assert note.exists()
    assert not shard.exists()
    assert not receipt.exists()


@pytest.mark.usefixtures("prepared_here")
def test_a_cube_whose_sources_have_changed_is_not_mended_with_other_values(copy, world, local_ray):
    world_module.write(world.folder, seed=1)
    try:
        shard = Path(copy.url("cube.zarr/cells/snowfall/c/0/0/0"))
        flip(shard)
        left = shard.read_bytes()
        with pytest.raises(SoilweaveError, match="have changed since"):
            mend(copy)
        assert shard.read_bytes() == left  # most of its chunks can still be read
    finally:
        world_module.write(world.folder)
    copy.lease.release()
