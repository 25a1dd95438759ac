"""A real Ray cluster of one node that takes jobs, with token authentication."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import processes
import psutil
import pytest

ENDS_S = 180  # far more than anything here takes
BIN = Path(sys.executable).parent
PRESTART = "RAY_prestart_worker_first_driver"
ACCESS = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@dataclass(frozen=True)
class Cluster:
    """Its dashboard, its head's address, and what a client's environment must say."""

    url: str
    head: str
    environment: dict[str, str]

    def client(self, *args, **changed) -> subprocess.Popen:
        """`soilweave submit` in a process of its own."""
        environment = {k: v for k, v in os.environ.items() if k not in ACCESS}
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", "submit", *map(str, args)],
            env=environment | processes.MARK | self.environment | changed,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args, **changed) -> tuple[int, str, str]:
        """The same to its end: exit code, standard output, standard error."""
        with self.client(*args, **changed) as process:
            try:
                out, err = process.communicate(timeout=ENDS_S)
            finally:
                process.kill()
        return process.returncode, out, err

    def start(self, entrypoint: str) -> str:
        """Any command as a job: its id."""
        return self._ask("jobs/", {"entrypoint": entrypoint})["submission_id"]

    def stop(self, job: str) -> None:
        """Stop a job."""
        self._ask(f"jobs/{job}/stop", {})

    def _ask(self, path: str, body: dict) -> dict:
        headers = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        headers["Content-Type"] = "application/json"
        ask = urllib.request.Request(f"{self.url}/api/{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(ask, timeout=ENDS_S) as answer:
            return json.load(answer)


@pytest.fixture(scope="package")
def cluster(tmp_path_factory):
    """A cluster of one node with a made-up token; afterwards no process and no file is left."""
    token = secrets.token_hex(16)
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = dict(zip(names, processes.free_ports(len(names)), strict=True))
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    url = f"http://127.0.0.1:{ports['dashboard-port']}"
    with processes.temporary("sw-ray-") as folder:
        command = [str(BIN / "ray"), "start", "--head", "--block", "--num-cpus=2"]
        command += ["--object-store-memory=150000000", f"--temp-dir={folder}"]
        command += ["--node-ip-address=127.0.0.1", *(f"--{k}={v}" for k, v in ports.items())]
        environment = given | {"RAY_USAGE_STATS_ENABLED": "0"}
        # Workers that nobody has asked for cost a second of a core each.
        environment |= dict.fromkeys(("RAY_enable_worker_prestart", PRESTART), "0")
        environment["PATH"] = f"{BIN}:{os.environ['PATH']}"
        log = tmp_path_factory.mktemp("ray") / "ray.log"
        head = f"127.0.0.1:{ports['port']}"
        made = Cluster(url, head, given | {"RAY_API_SERVER_ADDRESS": url})
        with pytest.MonkeyPatch.context() as to:
            to.delenv("RAY_ADDRESS", raising=False)
            with processes.running(command, log, environment, signal.SIGKILL) as server:
                server.wait_for(lambda: _takes_jobs(made))
                yield made
                assert len(_holders(token)) > 3
    assert _holders(token) == []
    assert not folder.exists()


def _holders(token: str) -> list[str]:
    """What runs with this token: whatever the cluster has started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RAY_AUTH_TOKEN") == token:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:200]}")
    return found


def _takes_jobs(made: Cluster) -> bool:
    try:
        made.start("true")
    except OSError:
        return False
    return True
