"""Shards written by a Ray dataset, on a real S3: whole, hashed as sent, and committed once."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr

from pipeline import files
from pipeline.storage import schema, zarr_arrays

if TYPE_CHECKING:
    from pathlib import Path

SHAPE, SHARDS = (64, 7, 10), (32, 4, 8)
STORE, ARRAY = "cube.zarr", "cells/depth"


def template(root: str) -> np.ndarray:
    """Create the array; returns its values, which are all fill in the last shard."""
    dims = ("time", "y", "x")
    spec = schema.ArraySpec(ARRAY, dims, SHAPE, "float32", SHARDS, (32, 4, 4))
    zarr_arrays.create_group(files.join(root, STORE), [spec], {})
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    values[32:, 4:, 8:] = np.nan
    return values


def tiles(values: np.ndarray) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Every shard's first index and values."""
    starts = np.stack(np.meshgrid(*map(np.arange, (0, 0, 0), SHAPE, SHARDS), indexing="ij"), -1)
    found = []
    for start in starts.reshape(-1, 3).tolist():
        region = tuple(slice(s, s + n) for s, n in zip(start, SHARDS, strict=True))
        found.append((tuple(start), values[region]))
    return found


def write_in_tasks(root: str, folder: Path, fault: str) -> tuple[list, str]:
    """Write the array in tasks of two rows each; returns what was committed, and the error."""
    import ray

    from pipeline.storage.datasink import ZarrDatasink, shard_row

    class FaultySink(ZarrDatasink):
        def _write_shard(self, row):
            records = super()._write_shard(row)
            if fault == "killed" and row["start"] == "[32, 0, 8]":
                with contextlib.suppress(FileExistsError):
                    (folder / "killed").touch(exist_ok=False)
                    os.kill(os.getpid(), signal.SIGKILL)
            return records

    committed: list = []
    rows = [shard_row(STORE, ARRAY, *tile) for tile in tiles(template(root))]
    if fault == "cut":
        rows[5] = shard_row(STORE, ARRAY, (32, 1, 8), np.zeros((32, 2, 2), np.float32))
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        dataset = ray.data.from_items(rows, override_num_blocks=4)
        dataset.write_datasink(FaultySink(root, committed.append))
    except Exception as error:  # noqa: BLE001
        return committed, str(error)
    finally:
        ray.shutdown()
    return committed, ""


def written(root: str, folder: Path, fault: str = "") -> tuple[list, str]:
    """The same in a process of its own, whose Ray has the keys of the server."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(write_in_tasks, root, folder, fault).result(timeout=500)


def test_a_writer_that_is_killed_leaves_whole_shards_and_one_commit(s3, tmp_path):
    root = s3.url("datasink")
    committed, error = written(root, tmp_path, "killed")
    assert error == ""
    assert (tmp_path / "killed").exists()
    (receipts,) = committed
    keys = [f"{STORE}/{ARRAY}/c/{t}/{y}/{x}" for t in (0, 1) for y in (0, 1) for x in (0, 1)]
    assert [receipt["key"] for receipt in receipts] == keys
    assert receipts.pop() == {"key": keys[-1], "size": 0, "sha256": ""}  # all fill
    for receipt in receipts:
        data = files.read_bytes(files.join(root, receipt["key"]))
        assert receipt["size"] == len(data)
        assert receipt["sha256"] == hashlib.sha256(data).hexdigest()
    stored = zarr_arrays.read_packed(files.join(root, STORE), ARRAY, [slice(None)] * 3)
    expected = template(s3.url("other"))
    np.testing.assert_array_equal(stored, expected)


def test_nothing_is_committed_if_a_row_cannot_be_written(s3, tmp_path):
    committed, error = written(s3.url("refused"), tmp_path, "cut")
    assert "cuts shards of (32, 4, 8)" in error
    assert committed == []


def test_no_shard_is_read_when_it_is_written(s3, monkeypatch):
    import s3fs

    read, cat = [], s3fs.S3FileSystem._cat_file

    async def cat_file(self, path, *args, **kwargs):
        read.append(path)
        return await cat(self, path, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", cat_file)
    root = s3.url("read")
    values = template(root)
    region = [slice(0, size) for size in SHAPE]
    for _ in range(2):  # the second time all shards exist
        records = zarr_arrays.write_shards(files.join(root, STORE), ARRAY, region, values)
    assert len(records) == 8
    assert read
    assert [path for path in read if "/c/" in path] == []
    stored = zarr.open_array(zarr_arrays._open_store(files.join(root, STORE)), path=ARRAY)
    np.testing.assert_array_equal(stored[...], values)


def test_a_row_is_flat():
    from pipeline.storage.datasink import shard_row

    values = np.arange(640, dtype=np.int16).reshape(32, 2, 10)[:, :, :2]
    row = shard_row(STORE, ARRAY, (0, 0, 8), values)
    assert {type(value) for value in row.values()} == {str, bytes}
    np.testing.assert_array_equal(np.frombuffer(row["values"], row["dtype"]), values.ravel())


@pytest.mark.parametrize("n", range(3))
def test_coordinates_that_a_killed_run_has_left_empty_are_written_by_the_next(tmp_path, n):
    """An array and its values are two writes; a run was killed between those of one coordinate."""
    url, size = str(tmp_path / "a.zarr"), 4
    coordinates = [
        schema.ArraySpec(
            f"cells/{name}", (name,), (size,), "<i4", (size,), (size,), {}, np.arange(size)
        )
        for name in ("time", "y", "x")
    ]
    field = schema.ArraySpec("cells/rain", ("time",), (size,), "<f4", (size,), (size,))
    left = [dataclasses.replace(coordinates[n], values=None), *coordinates[:n]]
    zarr_arrays.create_group(url, [*left, field], {})
    zarr_arrays.write_shards(url, "cells/rain", [slice(0, size)], np.ones(size, np.float32))
    zarr_arrays.create_group(url, [*coordinates, field], {})
    opened = zarr_arrays.open_group(url, "cells")
    for name in ("time", "y", "x"):
        assert opened[name].values.tolist() == [0, 1, 2, 3]
    assert (opened["rain"].values == 1).all()
