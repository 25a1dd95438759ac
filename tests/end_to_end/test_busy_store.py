"""prepare and predict in a bucket whose server is busy for a while: tasks run again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import s3_proxy

from pipeline import files
from pipeline.storage.artefacts import Workspace

# Two requests of a client before it gives up, and no time between two runs of a task.
CODE = """
from pipeline.cluster import ray_cluster
ray_cluster.RETRY_WAIT_S = 0.1
from pipeline import cli
cli.main()
"""
KEPT = ("cube.zarr", "folds", "models", "sites.parquet", "experiment.yaml")

pytestmark = pytest.mark.runs  # each takes half a minute


@pytest.fixture(scope="module")
def proxy(s3):
    with s3_proxy.before(s3.endpoint) as made:
        yield made


def soilweave(proxy, *args):
    """A verb through the proxy, in a process of its own; returns the first words of its lines."""
    environment = {"AWS_ENDPOINT_URL": proxy.url, "AWS_MAX_ATTEMPTS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, args)],
        env=os.environ | environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return {line.partition(":")[0] for line in ran.stderr.splitlines()}


def refused(proxy, pattern):
    """The requests that the proxy has refused: three of one object, so of two runs of a task."""
    requests = proxy.refused[pattern]
    assert len(requests) == 3, requests
    return requests


def test_blocks_are_written_again(snow, s3, proxy):
    pattern = r"PUT /.*/cube.zarr/cells/snowfall/c/"
    proxy.refuse(pattern, 3)
    workspace = s3.url("busy", "prepare")
    # Nothing but what the stages say: no line of Ray's, of a task's, of a library's.
    assert soilweave(proxy, "prepare", snow, "--workspace", workspace) == {
        "prepare",
        "folds",
        "mlflow",
    }
    refused(proxy, pattern)
    assert Workspace(f"{workspace}/snow").artefact("cube").state().startswith("complete")


def test_tiles_are_mapped_again(world, s3, proxy):
    pattern = r"PUT /.*/maps/insitu.zarr/snow_depth/c/"
    proxy.refuse(pattern, 3)
    workspace = s3.url("busy", "predict")
    root = Path(world.workspace.root)
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_file() and name.startswith(KEPT):
            files.write_bytes(f"{workspace}/snow/{name}", path.read_bytes())
    assert soilweave(proxy, "predict", world.path, "--workspace", workspace) == {
        "predict",
        "mlflow",
    }
    refused(proxy, pattern)
    ours = Workspace(f"{workspace}/snow").artefact("maps").manifest()
    theirs = world.workspace.artefact("maps").manifest()
    assert [
        (shard["key"], shard["sha256"]) for shard in ours["shards"] if "/c/" in shard["key"]
    ] == [(shard["key"], shard["sha256"]) for shard in theirs["shards"] if "/c/" in shard["key"]]
