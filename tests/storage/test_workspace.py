"""The workspace: identity of artefacts, and whole shards written in any order."""

import hashlib
import itertools
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import files
from pipeline.errors import StoreError
from pipeline.storage import schema, zarr_arrays
from pipeline.storage.artefacts import Artefact, Workspace
from pipeline.storage.schema import (
    BLOCK_DAYS,
    ArraySpec,
    block_days,
    block_of_day,
    block_range,
    epoch_day,
    time_axis,
)

INPUTS = {"schema": 1, "period": ["2020-01-01", "2020-02-01"], "qc.stuck_days": 30}
N_BLOCKS, N_Y, N_X, SHARD = 4, 7, 5, 4  # sizes differ, and the last shards are cut by the end


def template(url, path="cells/depth"):
    """One array of N_BLOCKS blocks, its shards SHARD x SHARD cells."""
    shape, shards = (N_BLOCKS * BLOCK_DAYS, N_Y, N_X), (BLOCK_DAYS, SHARD, SHARD)
    array = ArraySpec(path, ("time", "y", "x"), shape, "<f4", shards, (BLOCK_DAYS, 2, 2))
    zarr_arrays.create_group(url, [array], {"": {"title": "test"}})
    return shape


def block_slice(first, last=None):
    last = first + 1 if last is None else last
    return slice(first * BLOCK_DAYS, last * BLOCK_DAYS)


@pytest.fixture(params=["cube", "folds"])
def artefact(request, tmp_path):
    """An artefact with a folder of its own, and one of single files."""
    workspace = Workspace(str(tmp_path / "mine"))
    workspace.lease.take(print)
    yield workspace.artefact(request.param)
    workspace.lease.release()


def test_an_artefact_is_absent_then_begun_then_complete(artefact):
    assert (artefact.complete(INPUTS), artefact.state()) == (False, "absent")
    assert artefact.begin(INPUTS) is False
    assert (artefact.complete(INPUTS), artefact.state()) == (False, "begun, not complete")
    assert artefact.begin(dict(reversed(INPUTS.items()))) is True  # the same one goes on
    with pytest.raises(StoreError, match=f"no complete {artefact.name} here"):
        artefact.digest()
    records = [
        {"key": "b", "size": 2, "sha256": files.sha256(b"ab")},
        {"key": "a", "size": 0, "sha256": ""},
    ]
    own = artefact.prefix if artefact.name == "cube" else f"{artefact.home}/"
    files.write_bytes(f"{own}b", b"ab")
    artefact.commit(INPUTS, records, note="extra")
    assert artefact.complete(INPUTS)
    assert artefact.digest() == files.sha256_of_json(INPUTS)
    assert not files.exists(f"{artefact.prefix}begun.json")
    manifest = artefact.manifest()
    assert (manifest["shards"], manifest["empty"], manifest["note"]) == (
        [records[0]],
        ["a"],
        "extra",
    )
    assert artefact.state().startswith("complete, 1 objects")


@pytest.mark.parametrize("is_complete", [False, True])
def test_another_artefact_of_the_name_is_refused_with_both_remedies(artefact, is_complete):
    artefact.begin(INPUTS)
    if is_complete:
        artefact.commit(INPUTS, [])
    changed = INPUTS | {"qc.stuck_days": 20, "domain.refinement": 4}
    with pytest.raises(StoreError) as caught:
        artefact.complete(changed)
    text = str(caught.value)
    assert "qc.stuck_days 30 -> 20" in text
    assert "domain.refinement None -> 4" in text
    assert "period" not in text
    assert "schema" not in text
    assert "--name NEW" in text
    assert "--overwrite" in text
    assert "\n" not in text


@pytest.mark.parametrize("is_complete", [False, True])
def test_overwrite_replaces_it_and_nothing_of_the_old_one_stays(artefact, is_complete):
    artefact.begin(INPUTS)
    files.write_bytes(f"{artefact.prefix}receipts.json", b"old")
    if is_complete:
        artefact.commit(INPUTS, [])
    changed = INPUTS | {"qc.stuck_days": 20}
    assert artefact.complete(changed, overwrite=True) is False
    assert artefact.begin(changed) is False
    assert artefact.manifest() is None
    if artefact.prefix.endswith("/"):
        assert files.list_folder(artefact.prefix) == ["begun.json"]
    artefact.commit(changed, [])
    assert artefact.complete(changed)


def test_a_workspace_under_a_file_cannot_be_begun(tmp_path):
    (tmp_path / "file").write_text("in the way")
    artefact = Workspace(str(tmp_path / "file" / "mine")).artefact("cube")
    assert artefact.complete(INPUTS) is False
    with pytest.raises(StoreError, match=str(tmp_path / "file")):
        artefact.begin(INPUTS)


@pytest.mark.parametrize(
    "region",
    [
        (slice(1, 33), slice(0, 4), slice(0, 4)),  # time, both edges
        (slice(0, 31), slice(0, 4), slice(0, 4)),  # time, last edge
        (slice(16, 32), slice(0, 4), slice(0, 4)),  # time, first edge
        (slice(0, 32), slice(0, 3), slice(0, 4)),  # y
        (slice(0, 32), slice(0, 4), slice(2, 5)),  # x, though it ends with the array
    ],
)
def test_a_region_that_cuts_a_shard_is_refused_and_writes_nothing(tmp_path, region):
    url = str(tmp_path / "cube.zarr")
    template(url)
    values = np.ones([part.stop - part.start for part in region], np.float32)
    with pytest.raises(StoreError, match=r"cells/depth: .* cuts shards of \(32, 4, 4\)"):
        zarr_arrays.write_shards(url, "cells/depth", region, values)
    assert np.isnan(zarr.open_array(url, path="cells/depth")[...]).all()


def test_regions_end_on_shards_or_with_the_array(tmp_path):
    url = str(tmp_path / "cube.zarr")
    template(url)
    region = (block_slice(3), slice(4, N_Y), slice(4, N_X))
    values = np.arange(32 * 3 * 1, dtype=np.float32).reshape(32, 3, 1)
    (record,) = zarr_arrays.write_shards(url, "cells/depth", region, values)
    assert record["key"] == "cells/depth/c/3/1/1"
    np.testing.assert_array_equal(zarr.open_array(url, path="cells/depth")[region], values)


def test_records_tell_the_real_bytes_and_an_all_fill_shard_has_none(tmp_path):
    url = str(tmp_path / "cube.zarr")
    shape = template(url)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)[:64]
    values[32:64, 0:4, 4:5] = np.nan
    region = (block_slice(0, 2), slice(0, N_Y), slice(0, N_X))
    records = {r["key"]: r for r in zarr_arrays.write_shards(url, "cells/depth", region, values)}
    expected = {f"cells/depth/c/{t}/{y}/{x}" for t in (0, 1) for y in (0, 1) for x in (0, 1)}
    assert records.keys() == expected
    empty = records.pop("cells/depth/c/1/0/1")
    assert (empty["size"], empty["sha256"]) == (0, "")
    assert not Path(url, empty["key"]).exists()
    for key, record in records.items():
        data = Path(url, key).read_bytes()
        assert record["size"] == len(data) > 0
        assert record["sha256"] == hashlib.sha256(data).hexdigest()


def test_shards_that_an_interrupted_run_left_are_replaced_without_being_read(tmp_path):
    url = str(tmp_path / "cube.zarr")
    template(url)
    region = (block_slice(0), slice(0, N_Y), slice(0, N_X))
    values = np.random.default_rng(0).normal(size=(32, N_Y, N_X)).astype(np.float32)
    records = zarr_arrays.write_shards(url, "cells/depth", region, values)
    for record in records:
        Path(url, record["key"]).write_bytes(b"half of a shard")
    assert zarr_arrays.write_shards(url, "cells/depth", region, values) == records
    np.testing.assert_array_equal(zarr.open_array(url, path="cells/depth")[region], values)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_blocks_written_in_any_order_and_grouping_give_the_same_array(data, seed):
    cuts = data.draw(st.sets(st.integers(1, N_BLOCKS - 1)))
    edges = [0, *sorted(cuts), N_BLOCKS]
    spans = data.draw(st.permutations(list(itertools.pairwise(edges))))
    twice = data.draw(st.sampled_from(spans))
    with tempfile.TemporaryDirectory() as folder:
        url = f"{folder}/cube.zarr"
        shape = template(url)
        values = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
        for first, last in [*spans, twice]:  # writing twice changes nothing
            time = block_slice(first, last)
            region = (time, slice(0, N_Y), slice(0, N_X))
            zarr_arrays.write_shards(url, "cells/depth", region, values[time])
        np.testing.assert_array_equal(zarr.open_array(url, path="cells/depth")[...], values)


@given(day=st.dates(date(1900, 1, 1), date(2100, 1, 1)), n_days=st.integers(0, 900))
def test_the_time_axis_is_the_period_in_blocks_counted_from_its_first_day(day, n_days):
    last = date.fromordinal(day.toordinal() + n_days)
    period = (day, last)
    axis, blocks = time_axis(period), block_range(period)
    assert (axis[0], axis[-1], len(axis)) == (epoch_day(day), epoch_day(last), n_days + 1)
    parts = [axis[schema.block_slice(period, block)] for block in blocks]
    np.testing.assert_array_equal(np.concatenate(parts), axis)
    assert {len(part) for part in parts[:-1]} <= {BLOCK_DAYS}
    assert 1 <= len(parts[-1]) <= BLOCK_DAYS
    assert block_of_day(period, last) == blocks[-1] == len(blocks) - 1
    days = block_days(period, blocks[-1]).astype("datetime64[D]").astype(int)
    np.testing.assert_array_equal(days, parts[-1])
    assert np.datetime64(epoch_day(day), "D") == np.datetime64(day)


def test_a_removal_that_is_interrupted_is_never_taken_for_finished_work(tmp_path, monkeypatch):
    names = ("c/0/0", "receipts/1.json", "zarr.json", "manifest.json", "begun.json")
    remove = files.remove
    for stop in range(len(names)):
        artefact = Artefact("cube", f"{tmp_path}/{stop}/cube.zarr/")
        for name in names:
            files.write_bytes(f"{artefact.prefix}{name}", b"{}")
        calls = []

        def interrupted(url, calls=calls, stop=stop):
            if len(calls) == stop:
                raise KeyboardInterrupt
            calls.append(url)
            remove(url)

        monkeypatch.setattr(files, "remove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            artefact.remove()
        left = files.list_folder(artefact.prefix.rstrip("/"))
        assert "begun.json" in left
        if "zarr.json" not in left or "c" not in left:
            assert not {"manifest.json", "receipts"} & set(left)
