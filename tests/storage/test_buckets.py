"""A workspace in a bucket: everything as on a local path, and read from there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import fsspec
import intake
import numpy as np
import pandas as pd
import pytest
import servers
import small_demo
import xarray as xr
import zarr

from pipeline import files
from pipeline.cluster import ray_cluster
from pipeline.sources.shared import access
from pipeline.storage import tables, zarr_arrays

ARMS = ("multiscale", "insitu", "satellite")
GROUPS = [("cube.zarr", g) for g in ("cells", "footprints", "sites")]


GROUPS += [(f"maps/{arm}.zarr", g) for arm in ARMS for g in (None, "series")]


GROUPS += [(f"state/{arm}.zarr", None) for arm in ARMS]


STAGES = ("prepare", "folds", "train", "predict", "evaluate", "report")

# What differs from run to run, not from place to place.
OF_A_RUN = {"date_created", "history", "id", "code_commit", "cube_sha256", "models_sha256"}


def soilweave(*args, **environment):
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *args],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.fixture(scope="module")
def places(demo, s3):
    """The same small demo on a local path and in a bucket."""
    workspace = s3.url("ws")
    made = soilweave("run", "demo", "--workspace", workspace, *small_demo.OPTIONS)
    assert made.returncode == 0, made.stderr
    # Nothing but what the stages say: no warning, and no line of a library's log.
    said = {line.partition(":")[0] for line in made.stderr.splitlines()}
    assert said == {"planet", *STAGES, "mlflow"}, made.stderr
    return f"{demo[0]}/demo", f"{workspace}/demo"


@pytest.mark.parametrize(("store", "group"), GROUPS)
def test_arrays_are_equal(places, store, group):
    local, remote = (xr.open_zarr(files.join(place, store), group=group) for place in places)
    xr.testing.assert_equal(local.load(), remote.load())
    for ours, theirs in ((local, remote), *((local[n], remote[n]) for n in local.variables)):
        assert _lasting(ours.attrs) == _lasting(theirs.attrs)


def _lasting(attrs):
    return {name: value for name, value in attrs.items() if name not in OF_A_RUN}


@pytest.mark.parametrize("name", ["folds", "sites", "scores"])
def test_tables_are_equal(places, name):
    local, remote = (tables.read_table(files.join(place, f"{name}.parquet")) for place in places)
    pd.testing.assert_frame_equal(local, remote)


def test_every_object_is_there_too(places):
    local, remote = places
    here = {str(p.relative_to(local)) for p in Path(local).rglob("*") if p.is_file()}
    import s3fs

    root = remote.removeprefix("s3://")
    there = {k.removeprefix(f"{root}/") for k in s3fs.S3FileSystem().find(root)}
    assert here - there <= {"mlflow.json"}
    assert there - here <= {"mlflow.json"}
    one, other = (json.loads(files.read_bytes(f"{place}/summary.json")) for place in places)
    assert one == other


def test_a_catalog_opens_the_maps(places):
    catalog = intake.open_catalog("catalogs/products.yaml")
    workspace = places[1].rsplit("/", 1)[0]
    for entry, group in (("maps", None), ("series", "series")):
        opened = catalog[entry](workspace=workspace, experiment="demo", arm="insitu").to_dask()
        plain = xr.open_zarr(f"{places[1]}/maps/insitu.zarr", group=group)
        xr.testing.assert_identical(opened, plain)
        assert np.isfinite(opened.soil_moisture_std.isel(time=200)).any()


def test_a_second_run_writes_nothing(places):
    import s3fs

    root = places[1].removeprefix("s3://")
    before = s3fs.S3FileSystem(use_listings_cache=False).find(root, detail=True)
    again = soilweave(
        "run", "demo", "--workspace", places[1].rsplit("/", 1)[0], *small_demo.OPTIONS
    )
    assert again.returncode == 0
    assert "maps complete" in again.stderr
    after = s3fs.S3FileSystem(use_listings_cache=False).find(root, detail=True)
    assert {k: v["LastModified"] for k, v in after.items()} == {
        k: v["LastModified"] for k, v in before.items()
    }


@pytest.mark.parametrize(
    "environment",
    [{"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}],
    ids=["wrong key", "no server"],
)
def test_storage_that_cannot_be_used_is_told_first(s3, environment):
    told = soilweave("prepare", "demo", "--workspace", s3.url("refused"), **environment)
    assert told.returncode == 2, told.stderr
    assert "cannot be read" in told.stderr
    assert "AWS_ENDPOINT_URL" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1, told.stderr


UNEQUAL_NODES = """
import os, sys
import ray
from pipeline.cluster import ray_cluster
from pipeline.errors import StoreError

right = os.environ["AWS_SECRET_ACCESS_KEY"]
os.environ["AWS_SECRET_ACCESS_KEY"] = "wrong"  # what the node and its workers are started with
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
os.environ["AWS_SECRET_ACCESS_KEY"] = right
try:
    ray_cluster.probe(sys.argv[1])
except StoreError as error:
    print(error)
"""


def test_a_node_without_the_keys_is_named_before_anything_is_computed(s3):
    command = [sys.executable, "-c", UNEQUAL_NODES, s3.url("probed")]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    refused = r"cannot be read: the server does not accept the signature"
    assert re.search(rf"s3://soilweave/probed: node [\d.]+: {refused}", told), told
    assert "give all nodes the keys" in told
    assert s3.keys("probed") == []


def test_every_node_is_probed_and_nothing_is_left(local_ray, tmp_path):
    ray_cluster.probe(str(tmp_path))
    assert [*tmp_path.iterdir()] == []


def test_an_object_is_copied_over_another(s3, tmp_path):
    for folder in (s3.url("ws"), str(tmp_path)):
        source, target = (files.join(folder, "copied", name) for name in ("source", "target"))
        files.write_bytes(target, b"before")
        files.write_bytes(source, b"after")
        files.copy(source, target)
        assert files.read_bytes(target) == b"after"


def test_a_client_follows_the_endpoint_of_the_environment(s3, tmp_path, monkeypatch):
    """Two servers in turn in one process: what is read is what the named one holds."""
    url = s3.url("endpoints", "which.txt")
    with servers.seaweed(tmp_path) as other:
        for server in (s3, other):
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            files.write_bytes(url, server.endpoint.encode())
            write_group(s3.url("endpoints", "which.zarr"), server.endpoint)
        for server in (s3, other, s3):
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            assert files.read_bytes(url) == access.read_file(url) == server.endpoint.encode()
            assert zarr_arrays.read_attributes(s3.url("endpoints", "which.zarr")) == {
                "of": server.endpoint
            }
            filesystem, path = files.arrow_filesystem(url)
            with filesystem.open_input_stream(path) as stream:
                assert stream.read() == server.endpoint.encode()


def write_group(url, endpoint):
    """A group of Zarr whose attribute says where it is."""
    zarr.open_group(zarr_arrays._open_store(url), mode="w", attributes={"of": endpoint})


ENVIRONMENT, OPTION, CLIENT, CONFIGURED = (f"http://127.0.0.1:{port}" for port in (1, 2, 3, 4))
IN_CLIENT = {"client_kwargs": {"endpoint_url": CLIENT}}


@pytest.mark.parametrize(
    ("options", "configured", "environment", "expected"),
    [
        ({}, {}, {}, None),
        ({}, {}, {"AWS_ENDPOINT_URL": ENVIRONMENT}, ENVIRONMENT),
        ({}, {}, {"AWS_ENDPOINT_URL": OPTION, "AWS_ENDPOINT_URL_S3": ENVIRONMENT}, ENVIRONMENT),
        ({}, {"endpoint_url": CONFIGURED}, {"AWS_ENDPOINT_URL": ENVIRONMENT}, CONFIGURED),
        (IN_CLIENT, {}, {"AWS_ENDPOINT_URL": ENVIRONMENT}, CLIENT),
        ({"endpoint_url": OPTION}, {}, {"AWS_ENDPOINT_URL": ENVIRONMENT}, OPTION),
        ({"endpoint_url": OPTION}, {"endpoint_url": CONFIGURED}, {}, OPTION),
    ],
)
def test_the_endpoint_of_s3_is_the_nearest_that_is_named(
    options, configured, environment, expected, monkeypatch
):
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setitem(fsspec.config.conf, "s3", configured)
    assert files.s3_endpoint(options) == expected
    filesystem, _ = fsspec.core.url_to_fs(
        "s3://b/key", skip_instance_cache=True, **files.with_endpoint("s3://b/key", options)
    )
    client = filesystem.connect()
    assert client.meta.endpoint_url == (expected or "https://s3.eu-west-1.amazonaws.com")
    assert files.with_endpoint("/a/path", options) == options
