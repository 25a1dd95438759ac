"""`verify` finds every kind of damage of every kind of object, and says what it could not check."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import cli, files
from pipeline.errors import DamagedError, StoreError
from pipeline.progress import SilentProgress
from pipeline.storage import artefacts, backup, records, verify
from pipeline.storage.artefacts import Workspace

# An object of each kind, and another one of its kind that it is exchanged with.
OBJECTS = {
    "cube shard": ("cube.zarr/cells/snowfall/c/0/0/0", "cube.zarr/cells/snowfall/c/1/0/0"),
    "cube mask": ("cube.zarr/cells/mask/c/0/0", "cube.zarr/cells/elevation/c/0/0"),
    "cube coordinate": ("cube.zarr/cells/lat/c/0", "cube.zarr/cells/lon/c/0"),
    "cube metadata": ("cube.zarr/zarr.json", "cube.zarr/cells/zarr.json"),
    "array metadata": ("cube.zarr/cells/lat/zarr.json", "cube.zarr/cells/lon/zarr.json"),
    "maps shard": (
        "maps/insitu.zarr/snow_depth/c/0/0/0",
        "maps/satellite.zarr/snow_depth/c/0/0/0",
    ),
    "series shard": (
        "maps/insitu.zarr/series/snow_depth/c/0/0/0",
        "maps/insitu.zarr/series/snow_depth_std/c/0/0/0",
    ),
    "maps metadata": ("maps/insitu.zarr/zarr.json", "maps/satellite.zarr/zarr.json"),
    "state shard": (
        "state/insitu.zarr/hidden/c/0/0/0/0/0",
        "state/insitu.zarr/hidden/c/1/0/0/0/0",
    ),
    "state metadata": ("state/insitu.zarr/zarr.json", "state/satellite.zarr/zarr.json"),
    "next probes": ("next_probes.csv", "summary.json"),
    "checkpoint": (
        "models/insitu/fold=0/seed=0/checkpoint.safetensors",
        "models/insitu/fold=1/seed=0/checkpoint.safetensors",
    ),
    "history": (
        "models/insitu/fold=0/seed=0/history.parquet",
        "models/insitu/fold=1/seed=0/history.parquet",
    ),
    "calibration": ("models/insitu/calibration.json", "models/multiscale/calibration.json"),
    "attributes": ("models/attributes.json", "models/insitu/calibration.json"),
    "ridge": (
        "models/ridge/fold=0/ridge.safetensors",
        "models/ridge/fold=1/ridge.safetensors",
    ),
    "folds": ("folds.parquet", "folds.geojson"),
    "predictions": ("sites.parquet", "folds.parquet"),
    "scores": ("scores.parquet", "sites.parquet"),
    "summary": ("summary.json", "scores.parquet"),
    "report": ("report.html", "summary.json"),
    "cube manifest": ("cube.zarr/manifest.json", "models/manifest.json"),
    "models manifest": ("models/manifest.json", "maps/manifest.json"),
    "folds manifest": ("folds.manifest.json", "scores.manifest.json"),
    "begun": ("maps/begun.json", "models/manifest.json"),
    "backup": ("backup/cube.json", "backup/maps.json"),
    "experiment": ("experiment.yaml", "next_probes.csv"),
}


def flip(path, other):
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path, other):
    path.write_bytes(path.read_bytes()[:-7])


def delete(path, other):
    path.unlink()


def exchange(path, other):
    held = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(held)


DAMAGE = {"flipped": flip, "truncated": truncate, "deleted": delete, "exchanged": exchange}
KINDS = {
    "flipped": {verify.DAMAGED},
    "truncated": {verify.DAMAGED},
    "deleted": {verify.MISSING},
    "exchanged": {verify.EXCHANGED, verify.DAMAGED},
}
PAIRS = [(kind, how) for kind in OBJECTS for how in DAMAGE]


@pytest.fixture(scope="module")
def copy(world, tmp_path_factory):
    """A copy of the finished workspace; each test puts back what it spoils."""
    root = tmp_path_factory.mktemp("verified") / "snow"
    shutil.copytree(world.workspace.root, root)
    return Workspace(str(root))


def problems(workspace):
    return verify.verify_workspace(workspace, SilentProgress()).problems


@pytest.fixture
def spoiled(copy):
    """The objects of the workspace before the test, which are put back after it."""
    root = Path(copy.root)
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    yield root
    for path in [p for p in root.rglob("*") if p.is_file() and p not in before]:
        path.unlink()
    for path, data in before.items():
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


def test_there_are_at_least_31_pairs():
    assert len(PAIRS) >= 31


def test_a_finished_workspace_has_no_problem_and_nothing_unchecked(copy):
    result = verify.verify_workspace(copy, SilentProgress())
    assert (result.problems, result.unchecked, result.incomplete) == ([], [], [])
    assert result.artefacts == ["cube", "folds", "models", "maps", "scores", "report"]
    recorded = result.n_objects
    beside = len(result.artefacts) * 2 + 2  # manifests, backups, experiment.yaml, mlflow.json
    assert recorded + beside >= len(files.list_objects(copy.root)) - 1


@pytest.mark.parametrize(("kind", "how"), PAIRS, ids=[f"{k}-{h}" for k, h in PAIRS])
def test_damage_is_found_and_named(copy, spoiled, kind, how):
    key, other = OBJECTS[kind]
    if kind == "begun":
        begin_again(copy, "maps")
    DAMAGE[how](spoiled / key, spoiled / other)
    found = {problem.key: problem.kind for problem in problems(copy)}
    named = key
    if kind == "begun" and how == "deleted":
        named = "maps/manifest.json"  # neither record is there, but the objects are
    assert found.get(named) in KINDS[how], found
    if how in ("flipped", "truncated", "deleted"):
        assert len(found) == 1 or kind in ("cube manifest", "models manifest", "begun"), found


def begin_again(workspace, name):
    """Turn an artefact into one that was begun with the same inputs."""
    artefact = workspace.artefact(name)
    manifest = artefact.manifest()
    record = {key: manifest[key] for key in ("inputs_sha256", "inputs", "begun")}
    files.remove(f"{artefact.prefix}manifest.json")
    files.remove(workspace.url("backup", f"{name}.json"))
    files.write_json(f"{artefact.prefix}begun.json", records.seal(record, name))


def test_what_an_artefact_that_is_begun_has_is_no_problem(copy, spoiled):
    begin_again(copy, "maps")
    result = verify.verify_workspace(copy, SilentProgress())
    assert (result.problems, result.incomplete) == ([], ["maps"])


def made_anew(workspace, name, **inputs):
    """Replace a manifest by that of the same artefact made from other inputs."""
    artefact = workspace.artefact(name)
    manifest = artefact.manifest()
    manifest["inputs"] |= inputs
    manifest["inputs_sha256"] = files.sha256_of_json(manifest["inputs"])
    artefact._write_manifest(manifest)


@pytest.mark.parametrize(
    ("source", "stale"),
    [
        ("cube", {"folds.manifest.json", "models/manifest.json", "maps/manifest.json"}),
        ("folds", {"models/manifest.json", "scores.manifest.json"}),
        ("models", {"maps/manifest.json", "scores.manifest.json", "report.manifest.json"}),
        ("maps", {"report.manifest.json"}),
        ("scores", {"report.manifest.json"}),
    ],
)
def test_what_was_made_from_another_artefact_is_stale(copy, spoiled, source, stale):
    made_anew(copy, source, note="made with something else")
    found = {p.key for p in problems(copy) if p.kind == verify.STALE}
    assert stale <= found


@pytest.mark.parametrize("same", [True, False])
def test_models_that_are_trained_again_otherwise_make_what_follows_stale(copy, spoiled, same):
    artefact = copy.artefact("models")
    manifest, digest = artefact.manifest(), artefact.digest()
    key = "models/insitu/fold=0/seed=0/checkpoint.safetensors"
    lost = Path(copy.url(key)).read_bytes()
    copy.lease.take(print)
    artefact.reopen([key])
    assert artefact.manifest() is None
    Path(copy.url(key)).write_bytes(lost if same else lost + b" ")
    shards = [artefacts.shard_record(copy.url("models"), s["key"]) for s in manifest["shards"]]
    artefact.commit(manifest["inputs"], shards, tables=manifest["tables"])
    copy.lease.release()
    assert (artefact.digest() == digest) is same
    found = {p.key for p in problems(copy) if p.kind == verify.STALE}
    made_from_models = {"maps/manifest.json", "scores.manifest.json", "report.manifest.json"}
    assert found == (set() if same else made_from_models)


def test_an_experiment_with_other_settings_makes_artefacts_stale(copy, spoiled, world):
    judging = world.experiment.judging.model_copy(update={"min_days": 31})
    copy.describe(world.experiment.model_copy(update={"judging": judging}))
    (found,) = problems(copy)
    assert (found.key, found.kind) == ("scores.manifest.json", verify.STALE)
    assert "judging.min_days 30 -> 31" in found.detail


def test_a_begun_record_of_other_inputs_is_stale(copy, spoiled):
    begin_again(copy, "maps")
    made_anew(copy, "models", note="trained anew")
    assert ("maps/begun.json", verify.STALE) in {(p.key, p.kind) for p in problems(copy)}


def test_the_backup_of_another_run_is_stale(copy, spoiled):
    manifest = copy.artefact("folds").manifest() | {"created": "before"}
    backup.write_backup(copy.root, "folds", records.seal(manifest, "folds"))
    assert [(p.key, p.kind) for p in problems(copy)] == [("backup/folds.json", verify.STALE)]


@pytest.mark.parametrize(
    "key",
    [
        "cube.zarr/cells/snowfall/c/9/0/0",
        "maps/insitu.zarr/snow_depth/c/0/0/1",
        "state/other.zarr/zarr.json",
        "models/insitu/fold=0/seed=1/checkpoint.safetensors",
        "notes.txt",
    ],
)
def test_objects_that_no_manifest_records_are_named(copy, spoiled, key):
    files.write_bytes(copy.url(key), b"something")
    assert [(p.key, p.kind) for p in problems(copy)] == [(key, verify.UNLISTED)]


def test_a_stored_shard_that_should_be_fill_is_named(copy, spoiled):
    keys = sorted(records.recorded_fill("maps", copy.artefact("maps").manifest()))
    keys += sorted(records.recorded_fill("cube", copy.artefact("cube").manifest()))
    assert keys
    files.write_bytes(copy.url(keys[0]), b"something")
    (found,) = problems(copy)
    assert (found.key, found.kind) == (keys[0], verify.UNLISTED)
    assert "fill" in found.detail


def test_what_earlier_versions_did_not_record_is_counted_and_not_a_problem(copy, spoiled):
    for name in ("cube", "models", "maps"):
        artefact = copy.artefact(name)
        manifest = artefact.manifest()
        for key in ("metadata", "artefact", records.SEAL):
            manifest.pop(key, None)
        manifest["shards"] = [s for s in manifest["shards"] if not s["key"].startswith("ridge/")]
        files.write_json(f"{artefact.prefix}manifest.json", manifest)
        files.remove(copy.url("backup", f"{name}.json"))
    result = verify.verify_workspace(copy, SilentProgress())
    assert result.problems == []
    assert {
        "cube.zarr/manifest.json",
        "cube.zarr/zarr.json",
        "cube.zarr/cells/lat/c/0",
        "maps/insitu.zarr/crs/c",
        "state/insitu.zarr/block/c/0",
        "models/ridge/fold=0/ridge.safetensors",
    } <= {*result.unchecked}
    assert not any("/hidden/c/" in key for key in result.unchecked)
    assert f"{len(result.unchecked)} could not be checked" in verify.summary_line(result)


def test_the_verb_names_each_problem_and_its_exit_status_is_1(copy, spoiled, tmp_path):
    runner = CliRunner()
    arguments = ["verify", copy.root, "--json", str(tmp_path / "found.json")]
    clean = runner.invoke(cli.app, arguments)
    assert (clean.exit_code, clean.stdout.count("\n")) == (0, 1)
    assert "no problem" in clean.stdout
    flip(spoiled / "sites.parquet", None)
    delete(spoiled / "maps/insitu.zarr/snow_depth/c/0/0/0", None)
    by_name = ["verify", "snow", "--workspace", str(spoiled.parent)]
    for named in (arguments, by_name):
        found = runner.invoke(cli.app, named)
        assert found.exit_code == 1
        *lines, last = found.stdout.splitlines()
        assert lines == [
            "sites.parquet: damaged, its SHA-256 differs from the recorded one",
            "maps/insitu.zarr/snow_depth/c/0/0/0: missing",
        ]
        assert "1 missing, 1 damaged" in last
    written = json.loads((tmp_path / "found.json").read_text())
    assert [p["kind"] for p in written["problems"]] == ["damaged", "missing"]


def test_a_folder_without_an_experiment_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="nothing here to verify"):
        problems(Workspace(str(tmp_path)))


def test_a_large_object_is_read_in_pieces(copy, monkeypatch):
    monkeypatch.setattr(files, "HASHED_BYTES", 1000)
    assert problems(copy) == []


def test_verify_in_a_bucket(world, s3):
    """One request lists the folder, and each object is read once."""
    bucket = Workspace("s3://soilweave/verified/snow")
    root = Path(world.workspace.root)
    for path in (p for p in root.rglob("*") if p.is_file()):
        files.write_bytes(bucket.url(*path.relative_to(root).parts), path.read_bytes())
    assert problems(bucket) == []
    key = "maps/insitu.zarr/snow_depth/c/0/0/0"
    files.remove(bucket.url(key))
    files.write_bytes(bucket.url("folds.parquet"), b"other")
    assert {p.key: p.kind for p in problems(bucket)} == {
        key: verify.MISSING,
        "folds.parquet": verify.DAMAGED,
    }
    with pytest.raises(DamagedError, match=key):
        bucket.artefact("maps").digest()
    artefacts.Artefact("models", f"{bucket.root}/models/").digest()
