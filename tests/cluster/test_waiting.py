"""Clusters without workers: an autoscaler is asked for what is declared, or the stage says so.

Ray's own AutoscalingCluster stops every Ray on the machine when it starts, so the head is started
here. Its autoscaler has the same provider, which starts nodes on this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass

import processes
import pytest
import world
import yaml
from processes import BIN

from pipeline.cluster import resources
from pipeline.errors import StoreError
from pipeline.experiment.config import ComputeConfig
from pipeline.progress import SilentProgress

ENDS_S = 540  # far more than anything here takes
CHANGED = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")

# Runs with RAY_ADDRESS: waits for what is declared, and runs a task on each worker.
WAITS = """
import json, sys
import ray
from pipeline.cluster import ray_cluster, resources
from pipeline.experiment.config import ComputeConfig
from pipeline.progress import SilentProgress

class Lines(SilentProgress):
    def note(self, text):
        print(json.dumps(text), flush=True)

resources.WAIT_S, resources.NOTE_EVERY_S = 200.0, 2.0
with ray_cluster.connected():
    before = ray.cluster_resources().get("GPU", 0)
    workers = resources.wait_for_workers(ComputeConfig(gpus=2), Lines())
    reserved = ray.util.placement_group_table()
    states = sorted({group["state"] for group in reserved.values()})
    print(json.dumps([before, workers.count, workers.resources, states]))
"""

# `soilweave prepare EXPERIMENT` with a shorter wait.
PREPARES = """
import sys
from pipeline.cluster import resources
from pipeline.cli import main

resources.WAIT_S, resources.NOTE_EVERY_S = 3.0, 1.0
main()
"""


@dataclass(frozen=True)
class Head:
    """A head, and how a driver reaches it."""

    address: str

    def run(self, *command: str) -> subprocess.CompletedProcess:
        """Run a Python with this cluster as its RAY_ADDRESS, to its end."""
        environment = {k: v for k, v in os.environ.items() if k not in CHANGED}
        return subprocess.run(
            [sys.executable, *command],
            env=environment
            | processes.MARK
            | {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=ENDS_S,
            check=False,
        )


@contextlib.contextmanager
def head(folder, node_types=None):
    """A head without CPUs; with an autoscaler if there are types of nodes that it may start."""
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = dict(zip(names, processes.free_ports(len(names)), strict=True))
    address = f"127.0.0.1:{ports['port']}"
    command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=0", "--num-gpus=0"]
    command += ["--object-store-memory=100000000", "--node-ip-address=127.0.0.1"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment |= {"RAY_enable_worker_prestart": "0", "RAY_FAKE_CLUSTER": "1"}
    environment |= {"AUTOSCALER_UPDATE_INTERVAL_S": "1"}
    if node_types:
        config = folder / "autoscaler.yaml"
        config.write_text(yaml.safe_dump(autoscaler(address, node_types)))
        command += [f"--autoscaling-config={config}"]
    url = f"http://127.0.0.1:{ports['dashboard-port']}/api/gcs_healthz"
    with processes.temporary("sw-w-") as temporary:
        command += [f"--temp-dir={temporary}"]
        log = folder / "head.log"
        with processes.running(command, log, environment, signal.SIGTERM) as server:
            server.wait_for(lambda: answers(url))
            yield Head(address)


def autoscaler(gcs_address, node_types):
    """What `ray start --autoscaling-config` reads; the nodes are processes of this machine."""
    nothing = {key: {} for key in ("auth", "docker", "file_mounts")}
    lists = ("initialization_commands", "setup_commands", "head_setup_commands")
    lists += ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    lists += ("cluster_synced_files", "rsync_exclude", "rsync_filter")
    head_type = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    provider = {"type": "fake_multinode", "gcs_address": gcs_address}
    provider |= dict.fromkeys(
        ("use_node_id_as_ip", "disable_node_updaters", "disable_launch_config_check"), True
    )
    return {
        "cluster_name": "soilweave-test",
        "max_workers": 4,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": provider,
        "available_node_types": {"ray.head.default": head_type, **node_types},
        "head_node_type": "ray.head.default",
        "file_mounts_sync_continuously": False,
        **nothing,
        **{key: [] for key in lists},
    }


def answers(url):
    """Whether the head is up."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return b"success" in answer.read()
    return False


@pytest.mark.cluster
def test_a_cluster_that_scales_from_zero_is_asked_and_waited_for(tmp_path):
    before = processes.ours()
    resource = {"CPU": 1, "GPU": 1, "object_store_memory": 100_000_000}
    gpu = {"resources": resource, "node_config": {}, "min_workers": 0, "max_workers": 2}
    with head(tmp_path, {"gpu": gpu}) as cluster:
        done = cluster.run("-c", WAITS)
    assert done.returncode == 0, done.stderr
    *notes, last = map(json.loads, done.stdout.splitlines())
    assert last[:3] == [0, 2, {"CPU": 1.0, "GPU": 1.0}]
    assert last[3] in ([], ["REMOVED"])  # nothing is reserved any more
    assert notes[0].startswith("waiting for 2 workers of 1 CPU and 1 GPU, for at most 200 s; ")
    assert notes[0].endswith("; the cluster has 1 node with 0 CPUs and 0 GPUs")
    assert processes.leftovers(before) == []


@pytest.mark.cluster
def test_prepare_on_a_head_without_cpus_says_so_and_ends(tmp_path):
    before = processes.ours()
    path = world.write(tmp_path / "snow")
    with head(tmp_path) as cluster:
        given = ["prepare", str(path), "--workspace", str(tmp_path / "ws")]
        done = cluster.run("-c", PREPARES, *given)
    told = done.stderr + done.stdout
    has = "1 node with 0 CPUs and 0 GPUs"
    assert done.returncode == 2, told
    assert "Traceback" not in told
    assert (
        f"prepare: waiting for 1 worker of 1 CPU, for at most 3 s; the cluster has {has}\n" in told
    )
    assert (
        f"Ray cluster {cluster.address}: no room for 1 worker of 1 CPU after 3 s; it has {has}"
        in told
    )
    assert "; start nodes that have it, or raise the limits of the cluster's autoscaler\n" in told
    assert processes.leftovers(before) == []


# --- on a cluster that does not grow


class Lines(SilentProgress):
    """Keeps what a person would be told."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def test_what_is_not_declared_is_taken_from_the_cluster(local_ray):
    lines = Lines()
    workers = resources.wait_for_workers(ComputeConfig(), lines)
    assert (workers.count, workers.resources, workers.on_gpus) == (2, {"CPU": 1.0}, False)
    assert resources.wait_for_workers(ComputeConfig(cpus_per_worker=2), lines).count == 1
    assert resources.wait_for_workers(ComputeConfig(workers=1, gpus=0), lines).count == 1
    assert lines.said == []


def test_fewer_workers_than_declared_are_used_and_told(local_ray):
    lines = Lines()
    workers = resources.wait_for_workers(ComputeConfig(workers=5, memory=0.001), lines)
    assert workers.count == 2
    assert workers.resources == {"CPU": 1.0, "memory": 1e6}
    assert lines.said == ["continues with 2 instead of 5 workers of 1 CPU and 0.001 GB of memory"]


@pytest.mark.parametrize(
    ("declared", "needed", "settings"),
    [
        ({"cpus_per_worker": 3}, "3 CPUs", "compute.cpus_per_worker"),
        ({"gpus": 2}, "1 CPU and 1 GPU", "compute.gpus"),
        ({"memory": 9000}, "1 CPU and 9000 GB of memory", "compute.memory"),
    ],
)
def test_a_worker_that_fits_nowhere_is_an_error_at_once(local_ray, declared, needed, settings):
    with pytest.raises(StoreError) as caught:
        resources.wait_for_workers(ComputeConfig(**declared), SilentProgress())
    text = str(caught.value)
    assert text.startswith(f"Ray on this machine: no room for 1 worker of {needed}; it has 1 node ")
    assert text.endswith(f"; lower {settings}, or set RAY_ADDRESS to a cluster that has it")
