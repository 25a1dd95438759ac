"""Nothing is deleted, and nothing taken for absent, because it could not be read."""

import shutil
from pathlib import Path

import missing_store
import pandas as pd
import pytest
import tiny
import web
import world as world_module

from model import checkpoint
from model.recipe import ModelKey
from pipeline import files, prepare, train
from pipeline.catalog import experiment_sources, intake_catalog
from pipeline.errors import DataError, StoreError
from pipeline.experiment import load
from pipeline.prepare import block_task, stage
from pipeline.progress import SilentProgress
from pipeline.sources.shared import access
from pipeline.storage import models, schema, source_copies, tables, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.pending_change import PendingChange

DAMAGED = {
    "empty": b"",
    "half": b'{"inputs_sha256": "0", "inputs": {"sch',
    "list": b"[]",
    "null": b"null",
    "other": b"{}",
    "bytes": b"\xff\xfe\x00{}",
}

FOLDERS = ("planet", "cube", "models", "maps")


def once_begun(monkeypatch, function):
    """Call a function when a stage has begun its store, before its tasks read any source."""
    create = zarr_arrays.create_group

    def created(*args):
        create(*args)
        function()

    monkeypatch.setattr(zarr_arrays, "create_group", created)


def contents(folder):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()}


def shards(workspace):
    return {p: held for p, held in contents(Path(workspace.root)).items() if "/c/" in str(p)}


def begin(artefact):
    """What every stage does before its first object."""
    if artefact.claim({"period": "any"}, False, SilentProgress()):
        artefact.begin({"period": "any"})


def small(path, *more):
    return load.load_experiment(str(path), ["qc.stuck_days=null", *more])


def begun(experiment, workspace, n_blocks):
    """Begin a cube as prepare does, and write its first blocks."""
    url = workspace.url("cube.zarr")
    digests = {
        f"source {e}": intake_catalog.entry_digest(experiment, e)
        for e in intake_catalog.cube_entries(experiment)
    }
    workspace.artefact("cube").begin(schema.identity(experiment, "cube", **digests))
    zarr_arrays.create_group(
        url, *stage._cube_template(experiment, experiment_sources.open_sources(experiment))
    )
    for number in range(n_blocks):
        block_task.write_block({"block": number}, experiment.model_dump_json(), url)


def test_a_source_that_disappears_during_prepare_leaves_the_finished_blocks(
    snow, tmp_path, local_ray, monkeypatch
):
    experiment, workspace = small(snow), Workspace(str(tmp_path / "mine"))
    begun(experiment, workspace, 2)
    before = shards(workspace)
    cells, elsewhere = snow.parent / "cells.nc", tmp_path / "cells.nc"
    with monkeypatch.context() as context:
        once_begun(context, lambda: cells.rename(elsewhere))
        with pytest.raises(DataError, match=r"cells\.nc") as caught:
            prepare.run(experiment, workspace, SilentProgress())
    assert workspace.artefact("cube").state() == "begun, not complete"
    assert "run again" in str(caught.value)
    elsewhere.rename(cells)
    prepare.run(experiment, workspace, SilentProgress())
    assert workspace.artefact("cube").state().startswith("complete")
    after = contents(Path(workspace.root))
    assert {p: held for p, held in before.items() if "cells" in p.parts}.items() <= after.items()


@pytest.mark.usefixtures("prepared_here")
def test_a_passing_outage_is_waited_for(snow, tmp_path, monkeypatch):
    catalog_file = snow.parent / "catalog.yaml"
    with web.serve(snow.parent) as site:
        text = catalog_file.read_text()
        catalog_file.write_text(text.replace(str(snow.parent / "cells.nc"), f"{site.url}/cells.nc"))
        one_block = ("2019-12-12", "2020-01-08")
        periods = ("period", "train_period", "test_period")
        experiment = small(snow, *(f"{key}=[{', '.join(one_block)}]" for key in periods))
        workspace = Workspace(str(tmp_path / "mine"))
        # The client gives up after five attempts; the sixth and seventh meet a second reading.
        once_begun(monkeypatch, lambda: site.fails("cells", *[503] * 7))
        prepare.run(experiment, workspace, SilentProgress())
        assert site.answers[0][1] == []
    assert workspace.artefact("cube").state().startswith("complete")


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("record", ["manifest.json", "begun.json"])
def test_a_damaged_record_is_an_error_and_nothing_is_deleted(tmp_path, name, record):
    for kind, data in DAMAGED.items():
        workspace = Workspace(str(tmp_path / kind))
        artefact = workspace.artefact(name)
        files.write_bytes(f"{artefact.prefix}c/0/0", b"hours of work")
        files.write_bytes(f"{artefact.prefix}{record}", data)
        with pytest.raises(StoreError) as caught:
            begin(artefact)
        workspace.lease.release()
        assert str(caught.value).startswith(f"{artefact.prefix}{record}: is damaged"), kind
        assert "--overwrite" in caught.value.remedy
        assert files.read_bytes(f"{artefact.prefix}c/0/0") == b"hours of work"


@pytest.mark.parametrize("name", ["folds", "scores", "report"])
def test_a_damaged_record_beside_a_file_is_an_error(tmp_path, name):
    artefact = Workspace(str(tmp_path)).artefact(name)
    for data in DAMAGED.values():
        files.write_bytes(f"{artefact.prefix}manifest.json", data)
        with pytest.raises(StoreError, match="is damaged"):
            artefact.complete({"period": "any"})


def test_models_whose_manifest_is_truncated_are_not_trained_again(world, tmp_path):
    shutil.copytree(world.workspace.root, tmp_path / "snow")
    workspace = Workspace(str(tmp_path / "snow"))
    manifest = tmp_path / "snow" / "models" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:1000])
    before = contents(tmp_path / "snow" / "models")
    settings = world.experiment.model_copy(update={"planet": None})
    with pytest.raises(StoreError, match=r"models/manifest\.json: is damaged"):
        train.run(settings, workspace, SilentProgress())
    workspace.lease.release()
    assert contents(tmp_path / "snow" / "models") == before
    assert "damaged" in workspace.artefact("models").state()


@pytest.mark.parametrize("name", FOLDERS)
def test_objects_that_no_record_names_are_not_deleted(tmp_path, name):
    workspace = Workspace(str(tmp_path))
    artefact = workspace.artefact(name)
    files.write_bytes(f"{artefact.prefix}c/0/0", b"somebody's")
    with pytest.raises(StoreError, match=r"neither manifest\.json nor begun\.json"):
        begin(artefact)
    assert files.read_bytes(f"{artefact.prefix}c/0/0") == b"somebody's"
    assert artefact.claim({"period": "any"}, True, SilentProgress())
    artefact.begin({"period": "any"})
    workspace.lease.release()
    assert files.list_folder(artefact.prefix.rstrip("/")) == ["begun.json"]


def test_overwrite_replaces_what_is_damaged(tmp_path):
    workspace = Workspace(str(tmp_path))
    artefact = workspace.artefact("cube")
    for data in DAMAGED.values():
        files.write_bytes(f"{artefact.prefix}manifest.json", data)
        assert artefact.claim({"period": "any"}, True, SilentProgress())
        artefact.begin({"period": "any"})
        assert artefact.state() == "begun, not complete"
        files.remove(artefact.prefix.rstrip("/"))
    workspace.lease.release()


def test_overwrite_deletes_nothing_while_the_store_does_not_answer(tmp_path, monkeypatch):
    artefact = Workspace(str(tmp_path)).artefact("cube")
    files.write_bytes(f"{artefact.prefix}c/0/0", b"hours of work")

    def away(url):
        raise StoreError(url, "cannot be read: the store does not answer")

    monkeypatch.setattr(files, "read_bytes", away)
    with pytest.raises(StoreError, match="does not answer"):
        artefact.complete({"period": "any"}, overwrite=True)


def test_a_damaged_calibration_is_not_an_absent_one(tmp_path):
    files.write_bytes(str(tmp_path / "insitu" / "calibration.json"), b'{"all": {"level_we')
    with pytest.raises(StoreError, match=r"calibration\.json: is damaged"):
        models.read_calibrations(str(tmp_path), "insitu")


@pytest.mark.parametrize("name", ["plan.json", "ready.json"])
def test_a_damaged_plan_of_an_update_is_not_an_absent_one(tmp_path, name):
    artefact = Workspace(str(tmp_path)).artefact("cube")
    aside = PendingChange(artefact, str(tmp_path / "update"), artefact.prefix.rstrip("/"))
    aside.begin({"through": "2020-01-01"})
    files.write_bytes(str(tmp_path / "update" / "c" / "0"), b"a shard")
    aside.seal({"shards": []})
    files.write_bytes(str(tmp_path / "update" / name), b'{"of": "')
    with pytest.raises(StoreError, match=f"{name}: is damaged"):
        aside.begin({"through": "2020-01-01"}) if name == "plan.json" else aside.ready()
    assert files.read_bytes(str(tmp_path / "update" / "c" / "0")) == b"a shard"


def test_unsound_values_are_refused_and_leave_no_cube(snow, tmp_path, local_ray):
    import xarray as xr

    with xr.open_dataset(snow.parent / "cells.nc", engine="h5netcdf") as held:
        spoilt = held.load()
    spoilt.T2C.values[11, 100] = 999.0
    spoilt.to_netcdf(snow.parent / "cells.nc", engine="h5netcdf")
    workspace = Workspace(str(tmp_path / "mine"))
    with pytest.raises(DataError, match="is outside"):
        prepare.run(small(snow), workspace, SilentProgress())
    assert workspace.artefact("cube").state() == "absent"
    assert zarr_arrays.read_attributes(workspace.url("cube.zarr")) == {}


def test_a_table_that_is_cut_short_is_damaged(tmp_path):
    url = str(tmp_path / "folds.parquet")
    tables.write_table(url, pd.DataFrame({"site": ["a", "b"], "fold": [0, 1]}))
    whole = files.read_bytes(url)
    for data in (b"", whole[: len(whole) // 2], b"garbage"):
        files.write_bytes(url, data)
        with pytest.raises(StoreError, match=r"folds\.parquet: is damaged: .* run again with"):
            tables.read_table(url)


@pytest.mark.parametrize("data", list(DAMAGED.values())[:2], ids=["empty", "half"])
def test_metadata_of_a_store_that_are_cut_short_are_damaged(tmp_path, data):
    url = str(tmp_path / "cube.zarr")
    zarr_arrays.create_group(url, [], {"": {"target": "any"}})
    files.write_bytes(f"{url}/zarr.json", data)
    for read in (zarr_arrays.read_attributes, lambda url: zarr_arrays.open_group(url, "")):
        with pytest.raises(StoreError, match=r"cube\.zarr: is damaged: a zarr\.json"):
            read(url)


def test_a_model_that_is_cut_short_is_damaged(tmp_path):
    job, whole = ModelKey("insitu", 0, 0), checkpoint.model_to_bytes(tiny.trained())
    files.write_bytes(models.checkpoint_url(str(tmp_path), job), whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"checkpoint\.safetensors: is damaged"):
        models.load_model(str(tmp_path), job)
    files.write_bytes(models.ridge_url(str(tmp_path), 0), b"")
    with pytest.raises(StoreError, match=r"ridge\.safetensors: is damaged"):
        models.load_ridge(str(tmp_path), 0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, local_ray) -> dict:
    """The manifest of the cube that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    workspace = Workspace(str(folder / "workspace"))
    prepare.run(small(world_module.write(folder / "snow")), workspace, SilentProgress())
    return workspace.artefact("cube").manifest()


@pytest.mark.parametrize(
    ("name", "data"),
    [("json", b"{}"), ("json", b'{"sha'), ("npz", b""), ("npz", b"PK\x03\x04 cut")],
)
def test_a_block_whose_receipt_is_damaged_is_read_again(snow, tmp_path, undisturbed, name, data):
    experiment, workspace = small(snow), Workspace(str(tmp_path / "mine"))
    begun(experiment, workspace, 2)
    first = schema.block_range(experiment.period).start
    files.write_bytes(workspace.url("cube.zarr", "receipts", f"{first}.{name}"), data)
    prepare.run(experiment, workspace, SilentProgress())
    manifest = workspace.artefact("cube").manifest()
    assert manifest["shards"] == undisturbed["shards"]
    assert manifest["missing"] == undisturbed["missing"]


@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_a_chunk_of_blosc_that_is_cut_short_is_unreadable(snow, local_ray, monkeypatch, keep):
    """Blosc itself decodes what lies behind it in memory, which may look like values."""
    monkeypatch.setattr(access, "WAITS_S", (), raising=False)
    folder = missing_store.with_store(snow, version=2)
    chunk = folder / "PR" / "1.0.1"
    chunk.write_bytes(chunk.read_bytes()[: int(keep * chunk.stat().st_size)])
    text, _, _ = missing_store.prepared(snow, *missing_store.STORE)
    assert "PR: cannot be read, damaged: a Blosc chunk has" in text
    assert "finished blocks are kept" in text
    workspace = Workspace(str(snow.parent / "workspace"))
    assert workspace.artefact("cube").state() == "begun, not complete"


def test_a_folder_in_the_place_of_a_file_is_told(snow, tmp_path):
    cells = snow.parent / "cells.nc"
    cells.unlink()
    cells.mkdir()
    with pytest.raises(DataError, match=r"cells") as caught:
        prepare.run(small(snow), Workspace(str(tmp_path / "mine")), SilentProgress())
    assert caught.value.remedy


def test_a_damaged_lease_is_told_as_such(tmp_path):
    workspace = Workspace(str(tmp_path))
    workspace.lease.take(SilentProgress().note)
    try:
        files.write_bytes(workspace.url("lease.json"), b"")
        with pytest.raises(StoreError, match="lost to a process whose record is damaged"):
            workspace.lease.check()
    finally:  # end the thread that renews it, which interrupts this process otherwise
        workspace.lease.release()


@pytest.mark.parametrize("kind", list(DAMAGED))
def test_a_copy_whose_manifest_is_damaged_is_told(tmp_path, kind):
    files.write_bytes(
        f"{source_copies.copy_url(str(tmp_path), 'cells')}/manifest.json", DAMAGED[kind]
    )
    for read in (source_copies.copied_digest, source_copies.open_copy):
        with pytest.raises(StoreError, match=r"cells\.zarr/manifest\.json: is damaged"):
            read(str(tmp_path), "cells")


def test_a_record_that_may_not_be_read_is_told(tmp_path):
    """A folder stands for any error of a local disk; root may read every file."""
    artefact = Workspace(str(tmp_path)).artefact("models")
    (tmp_path / "models" / "manifest.json").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"models/manifest\.json: cannot be read") as caught:
        begin(artefact)
    assert caught.value.remedy
