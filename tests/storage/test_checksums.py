"""Chunks have a CRC-32C: readers notice damage, and stores of earlier versions are continued."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from pipeline import files
from pipeline.errors import DamagedError
from pipeline.storage import cube as cubes
from pipeline.storage import zarr_arrays
from pipeline.storage.schema import ArraySpec

SHAPE, SHARD, CHUNK = (64, 6, 5), (32, 4, 4), (32, 2, 2)
FIELD = ArraySpec("depth", ("time", "y", "x"), SHAPE, "<f4", SHARD, CHUNK)
DAYS = ArraySpec("time", ("time",), (64,), "<i4", (64,), (64,), values=np.arange(64, dtype="<i4"))
BLOCK = [slice(0, 32), slice(0, 6), slice(0, 5)]


def values(seed=0):
    return np.random.default_rng(seed).normal(size=(32, 6, 5)).astype(np.float32)


def old_store(url):
    """A store as earlier versions wrote it, without checksums."""
    root = zarr.open_group(url, mode="w")
    options = {"shards": SHARD, "dimension_names": FIELD.dims, "fill_value": np.nan}
    root.create_array("depth", shape=SHAPE, chunks=CHUNK, dtype="<f4", **options)


def codecs(url, array="depth"):
    described = zarr.open_array(url, path=array, mode="r").metadata.to_dict()["codecs"]
    inner = [c for c in described if c["name"] == "sharding_indexed"]
    inner = inner[0]["configuration"]["codecs"] if inner else described
    return [codec["name"] for codec in inner]


@pytest.fixture
def store(tmp_path):
    url = str(tmp_path / "a.zarr")
    zarr_arrays.create_group(url, [FIELD, DAYS], {})
    zarr_arrays.write_shards(url, "depth", BLOCK, values())
    return url


def test_a_store_is_continued_although_a_coordinate_is_damaged(store):
    (Path(store) / "time/c/0").write_bytes(b"cut short")
    zarr_arrays.create_group(store, [FIELD, DAYS], {})
    np.testing.assert_array_equal(zarr.open_array(store, path="time", mode="r")[:], DAYS.values)
    found = zarr_arrays.read_packed(store, "depth", BLOCK)
    np.testing.assert_array_equal(found, values())


@pytest.mark.parametrize("key", ["zarr.json", "time/zarr.json"])
@pytest.mark.parametrize("text", ["", "[1]", '{"zarr_format": 3'])
def test_a_store_whose_metadata_are_damaged_is_not_continued(store, key, text):
    (Path(store) / key).write_text(text)
    with pytest.raises(DamagedError, match=r"a\.zarr: is damaged: .*; remove .*a\.zarr and run"):
        zarr_arrays.create_group(store, [FIELD, DAYS], {})


def test_chunks_and_coordinates_have_checksums(store):
    assert codecs(store) == codecs(store, "time") == ["bytes", "zstd", "crc32c"]


@pytest.mark.parametrize("at", [0, 40, 200, 333, -30, -1])
def test_zarr_and_xarray_raise_on_a_damaged_shard(store, at):
    path = Path(store) / "depth/c/0/0/0"
    data = bytearray(path.read_bytes())
    data[at] ^= 16
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(store, path="depth", mode="r")[:]
    with pytest.raises(ValueError, match="checksum"):
        xr.open_zarr(store, consolidated=False, chunks=None).depth.values  # noqa: B018
    with pytest.raises(
        DamagedError, match=r"a\.zarr/depth: a chunk is damaged .* soilweave verify"
    ):
        zarr_arrays.read_packed(store, "depth", BLOCK)


def test_a_damaged_coordinate_raises(store):
    path = Path(store) / "time/c/0"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(store, path="time", mode="r")[:]


def test_a_missing_shard_still_reads_as_fill(store):
    files.remove(f"{store}/depth/c/0/0/0")
    found = zarr.open_array(store, path="depth", mode="r")[:32]
    assert np.isnan(found[:, :4, :4]).all()
    np.testing.assert_array_equal(found[:, 4:], values()[:, 4:])


def test_an_interrupted_store_of_an_earlier_version_is_continued_as_it_is(tmp_path):
    url = str(tmp_path / "old.zarr")
    old_store(url)
    zarr_arrays.write_shards(url, "depth", BLOCK, values(1))
    zarr_arrays.create_group(url, [FIELD, DAYS], {})
    zarr_arrays.write_shards(url, "depth", [slice(32, 64), *BLOCK[1:]], values(2))
    assert codecs(url) == ["bytes", "zstd"]
    found = zarr.open_array(url, path="depth", mode="r")[:]
    np.testing.assert_array_equal(found, np.concatenate([values(1), values(2)]))


def test_shards_of_a_change_have_the_form_of_the_store_they_are_copied_to(tmp_path):
    for name, made in (
        ("old", old_store),
        ("new", lambda url: zarr_arrays.create_group(url, [FIELD], {})),
    ):
        url, change = (str(tmp_path / name / part) for part in ("a.zarr", "update"))
        made(url)
        zarr_arrays.create_group(change, [FIELD], {}, like=url)
        (first, *_) = zarr_arrays.write_shards(change, "depth", BLOCK, values(3))
        files.copy(files.join(change, first["key"]), files.join(url, first["key"]))
        assert codecs(change) == codecs(url)
        found = zarr.open_array(url, path="depth", mode="r")[:32, :4, :4]
        np.testing.assert_array_equal(found, values(3)[:, :4, :4])


def test_a_damaged_chunk_of_a_cube_is_one_line(tmp_path):
    url = str(tmp_path / "cube.zarr")
    field = ArraySpec("cells/depth", FIELD.dims, SHAPE, "<f4", SHARD, CHUNK)
    days = ArraySpec("cells/time", ("time",), (64,), "<i4", (64,), (64,), values=DAYS.values)
    days = ArraySpec(**vars(days) | {"attrs": {"units": "days since 1970-01-01"}})
    about = {"period": ["1970-01-01", "1970-03-05"], "target": "depth"}
    zarr_arrays.create_group(url, [field, days], {"": about, "footprints": {}})
    zarr.open_group(url, mode="a").require_group("footprints")
    zarr_arrays.write_shards(url, "cells/depth", BLOCK, values())
    cube = cubes.Cube.open(url)
    path = Path(url) / "cells/depth/c/0/0/0"
    path.write_bytes(path.read_bytes()[:20] + b"?" + path.read_bytes()[21:])
    for read in (
        lambda: cube.series(cube.cells, "depth"),
        lambda: cube.part(cube.cells, "depth", slice(0, 32)),
    ):
        with pytest.raises(DamagedError, match=r"cube\.zarr, depth: a chunk is damaged"):
            read()
