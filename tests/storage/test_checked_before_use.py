"""Stages do not take an artefact for complete, nor read it, if its objects are not as recorded."""

import shutil
from pathlib import Path

import pytest

from model.recipe import ModelKey
from pipeline import files
from pipeline.cli.run_stages import stage_modules
from pipeline.errors import DamagedError
from pipeline.prepare import folds
from pipeline.progress import SilentProgress
from pipeline.storage import models, records, tables
from pipeline.storage.artefacts import Workspace

ORDER = ("prepare", "folds", "train", "predict", "evaluate", "report")
STAGES = {name: stage_modules()[name] for name in ORDER}
CHECKPOINT = "models/insitu/fold=0/seed=0/checkpoint.safetensors"
SHARD = "cube.zarr/cells/snowfall/c/0/0/0"


@pytest.fixture
def copy(world, tmp_path):
    shutil.copytree(world.workspace.root, tmp_path / "snow")
    return Workspace(str(tmp_path / "snow"))


def contents(workspace):
    return {p: p.read_bytes() for p in Path(workspace.root).rglob("*") if p.is_file()}


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("stage", "key", "damage"),
    [
        ("prepare", SHARD, Path.unlink),
        ("prepare", SHARD, truncate),
        ("prepare", "cube.zarr/cells/time/zarr.json", flip),
        ("folds", "folds.parquet", flip),
        ("folds", SHARD, Path.unlink),
        ("train", "folds.parquet", truncate),
        ("train", CHECKPOINT, flip),
        ("train", CHECKPOINT, Path.unlink),
        ("train", "models/attributes.json", flip),
        ("train", "sites.parquet", flip),
        ("predict", CHECKPOINT, truncate),
        ("predict", "models/insitu/calibration.json", flip),
        ("predict", "maps/insitu.zarr/snow_depth/c/0/0/0", Path.unlink),
        ("predict", "state/insitu.zarr/hidden/c/0/0/0/0/0", truncate),
        ("predict", "next_probes.csv", flip),
        ("evaluate", "sites.parquet", flip),
        ("evaluate", "scores.parquet", flip),
        ("report", "report.html", flip),
        ("report", "summary.json", Path.unlink),
    ],
)
def test_damage_is_an_error_that_names_the_object_and_what_to_do(copy, world, stage, key, damage):
    damage(Path(copy.url(key)))
    before = contents(copy)
    with pytest.raises(DamagedError) as caught:
        STAGES[stage].run(world.experiment, copy, SilentProgress())
    copy.lease.release()
    text = str(caught.value)
    assert f"1 of its objects is not as the manifest records: {key}: " in text
    hint = f"soilweave verify {copy.root} names all, and with --repair makes them again"
    assert text.endswith(hint)
    assert "\n" not in text
    assert contents(copy) == before


def test_overwriting_makes_a_damaged_artefact_again(copy, world):
    before = Path(copy.url("folds.parquet")).read_bytes()
    flip(Path(copy.url("folds.parquet")))
    folds.run(world.experiment, copy, SilentProgress(), overwrite=True)
    copy.lease.release()
    assert Path(copy.url("folds.parquet")).read_bytes() == before


def test_a_complete_run_lists_every_folder_once_and_reads_no_shard(copy, world, monkeypatch):
    listed, read = [], []
    list_objects, read_records = files.list_objects, records.read_records

    def count_list(url):
        listed.append(url.removeprefix(copy.root))
        return list_objects(url)

    def count_read(root, keys, sizes=None):
        read.extend(keys)
        return read_records(root, keys, sizes)

    monkeypatch.setattr(files, "list_objects", count_list)
    monkeypatch.setattr(records, "read_records", count_read)
    with records.check_once():
        for stage in STAGES.values():
            stage.run(world.experiment, copy, SilentProgress())
    assert sorted(listed) == ["/cube.zarr", "/maps", "/models", "/state"]
    assert len(read) == len({*read})
    shards = [s["key"] for s in copy.artefact("maps").manifest()["shards"] if "/c/" in s["key"]]
    assert not {*shards} & {*read}
    assert {CHECKPOINT, "sites.parquet", "models/attributes.json"} <= {*read}


def test_models_that_were_copied_alone_can_be_used(copy, world, tmp_path):
    shutil.copytree(copy.url("models"), tmp_path / "elsewhere" / "borrowed")
    url = str(tmp_path / "elsewhere" / "borrowed")
    experiment = world.experiment.model_copy(update={"models": url})
    models.find_models(experiment, copy)
    key = CHECKPOINT.replace("models", "borrowed")
    flip(tmp_path / "elsewhere" / key)
    with pytest.raises(DamagedError, match=key):
        models.find_models(experiment, copy)


def test_a_change_that_is_being_put_in_place_is_no_damage(copy, world):
    truncate(Path(copy.url("maps/insitu.zarr/snow_depth/c/0/0/0")))
    files.write_json(copy.url("update", "maps", "ready.json"), {"of": "", "shards": []})
    copy.artefact("maps").digest()


SPOILED = {
    "empty": b"",
    "text": b"not JSON",
    "list": b"[]",
    "other": b'{"all": {"level": 1}}',
    "null": b"null",
    "number": b'{"mean": 1, "std": 1, "sites": 1, "learnt": 1, "all": 1}',
}


@pytest.mark.parametrize("data", SPOILED.values(), ids=SPOILED)
def test_what_cannot_be_decoded_is_one_line(tmp_path, data):
    root = str(tmp_path)
    key = ModelKey("insitu", 0, 0)
    readers = {
        models.attributes_url(root): lambda: models.read_attribute_space(root),
        f"{root}/insitu/calibration.json": lambda: models.read_calibrations(root, "insitu"),
        models.checkpoint_url(root, key): lambda: models.load_model(root, key),
        models.ridge_url(root, 0): lambda: models.load_ridge(root, 0),
        f"{root}/folds.parquet": lambda: tables.read_table(f"{root}/folds.parquet", ["site"]),
    }
    for url, read in readers.items():
        files.write_bytes(url, data)
        with pytest.raises(DamagedError, match="is damaged") as caught:
            read()
        assert str(caught.value).startswith(url)
        assert "\n" not in str(caught.value)


def test_calibrations_and_checkpoints_that_are_missing_are_one_line(tmp_path):
    with pytest.raises(DamagedError, match=r"calibration\.json: not found; soilweave verify"):
        models.read_calibrations(str(tmp_path), "insitu")
    with pytest.raises(DamagedError, match=r"checkpoint\.safetensors: not found; soilweave"):
        models.load_model(str(tmp_path), ModelKey("insitu", 0, 0))
    assert models.read_attribute_space(str(tmp_path)) is None  # of models that learn from no site
