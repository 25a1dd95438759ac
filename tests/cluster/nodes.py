"""A Ray cluster of several nodes, each on a machine of its own (see network.py)."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from network import network
from processes import BIN, Running, running, temporary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from network import Machine, Network


GCS_PORT, DASHBOARD_PORT = 6379, 8265
JOIN_S = 90
STORE_BYTES = 200_000_000  # of each node's object store
OURS = ("RAY_", "AWS_", "MLFLOW_", "PYTEST_", "SOILWEAVE_")  # not handed down to nodes


@dataclass
class Nodes:
    """The nodes of a cluster: a head without CPUs, and workers."""

    net: Network
    folder: Path
    home: Path
    environment: dict[str, str]
    worker_cpus: int
    token: str
    stack: contextlib.ExitStack
    store_bytes: int = STORE_BYTES
    gpus: int = 0
    servers: dict[str, Running] = field(default_factory=dict)

    @property
    def head(self) -> Machine:
        """The head's machine."""
        return self.net.machines[0]

    @property
    def workers(self) -> tuple[Machine, ...]:
        """The workers' machines."""
        return self.net.machines[1:]

    @property
    def gcs(self) -> str:
        """Where nodes join, ip:port."""
        return f"{self.head.address}:{GCS_PORT}"

    @property
    def dashboard(self) -> str:
        """Where jobs are submitted."""
        return f"http://{self.head.address}:{DASHBOARD_PORT}"

    @property
    def access(self) -> dict[str, str]:
        """What every node and every submitter has in its environment: token authentication."""
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def alive(self) -> set[str]:
        """Addresses of the nodes that the head counts as alive."""
        url = f"{self.dashboard}/api/v0/nodes?limit=100&detail=false"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {self.token}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                rows = json.load(answer)["data"]["result"]["result"]
        except OSError:
            return set()
        return {row["node_ip"] for row in rows if row["state"] == "ALIVE"}

    def kill(self, worker: int) -> int:
        """SIGKILL to every process of a worker's node; returns how many there were."""
        return self.workers[worker].kill()

    def start(self, worker: int) -> float:
        """Start a worker's node and wait until it has joined; returns how long that took."""
        machine = self.workers[worker]
        options = [f"--address={self.gcs}", f"--num-cpus={self.worker_cpus}"]
        options += [f"--num-gpus={0 if worker else self.gpus}"]
        return self._start(machine, options)

    def wait_gone(self, worker: int, seconds: float = JOIN_S) -> float:
        """Wait until the head knows that a node is gone; returns how long that took."""
        since, address = time.monotonic(), self.workers[worker].address
        while address in self.alive():
            if time.monotonic() - since > seconds:
                raise TimeoutError(f"the head still counts {address} as alive")
            time.sleep(0.5)
        return time.monotonic() - since

    def _start(self, machine: Machine, options: list[str]) -> float:
        since, n = time.monotonic(), len(list(self.folder.glob(f"{machine.name}*.log")))
        common = [
            f"--node-ip-address={machine.address}",
            f"--object-store-memory={self.store_bytes}",
        ]
        common += ["--disable-usage-stats", "--block"]
        common += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        # Each its own, as on machines of their own; short, since paths of sockets are limited.
        common += [f"--temp-dir={self.home / machine.name}"]
        command = machine.command(str(BIN / "ray"), "start", *options, *common)
        given = clean() | self.environment | self.access | machine.environment
        log = self.folder / f"{machine.name}{n or ''}.log"
        server = self.stack.enter_context(running(command, log, given, inherit=False))
        # Killed before it is asked to end: a cluster that is thrown away has nothing to say.
        self.stack.callback(machine.kill)
        server.wait_for(lambda: machine.address in self.alive(), JOIN_S)
        return time.monotonic() - since


@contextlib.contextmanager
def cluster(
    folder: Path,
    environment: Mapping[str, str],
    worker_cpus: int = 1,
    net: Network | None = None,
    store_bytes: int = STORE_BYTES,
    gpus: int = 0,
) -> Iterator[Nodes]:
    """A head and two workers, joined one after the other; logs in `folder`.

    Args:
      folder: for logs.
      environment: of every process on every node.
      worker_cpus: CPUs of a worker.
      net: where they run, made with `machines()`; a network of its own without it.
      store_bytes: of each node's object store.
      gpus: GPUs of the first worker.
    """
    with contextlib.ExitStack() as stack:
        net = net or stack.enter_context(machines())
        home = stack.enter_context(temporary("sw-n-"))
        given = {"RAY_USAGE_STATS_ENABLED": "0", **environment}
        token = secrets.token_hex(32)
        nodes = Nodes(net, folder, home, given, worker_cpus, token, stack, store_bytes, gpus)
        options = ["--head", f"--port={GCS_PORT}", "--num-cpus=0", "--include-dashboard=true"]
        options += ["--num-gpus=0"]
        options += [f"--dashboard-host={nodes.head.address}", f"--dashboard-port={DASHBOARD_PORT}"]
        nodes._start(nodes.head, options)
        for worker in range(len(nodes.workers)):
            nodes.start(worker)
        yield nodes


def machines() -> contextlib.AbstractContextManager[Network]:
    """A network for a head and two workers."""
    return network(["h", "w0", "w1"])


def clean() -> dict[str, str]:
    """This process's environment without what is ours; `python` is that of the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(OURS)}
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
