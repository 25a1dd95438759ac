"""What `submit` says where no dashboard answers, or the cluster's Python lacks something."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import web

from pipeline.cluster import submit
from pipeline.errors import ConfigError

ROOT = Path(submit.__file__).parents[2]


def refused(address: str) -> str:
    """What is wrong with a dashboard's address."""
    with pytest.raises(ConfigError) as error:
        submit.follow_job("any", address, print)
    said = str(error.value)
    assert said.startswith(f"{address}: ")
    assert "\n" not in said
    return said


@contextlib.contextmanager
def answering(status: int, body: str):
    """The address of a server that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            """Say nothing."""

    with web.running(Handler) as url:
        yield url


NO_DASHBOARD = "no Ray dashboard: what answers there does not tell its version of Ray; start one"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, "nothing here", NO_DASHBOARD),
        (200, "<html>\nA page\n</html>", NO_DASHBOARD),
        (200, "{}", NO_DASHBOARD),
        (401, "who are you?", "Authentication required: who are you?; set RAY_AUTH_MODE and"),
        (403, "not you", "Authentication failed: not you; set RAY_AUTH_MODE and RAY_AUTH_TOKEN"),
        (502, "away", "no Ray dashboard answers: 502 Server Error: Bad Gateway for url"),
    ],
)
def test_another_answer_than_a_dashboards(status, body, says):
    with answering(status, body) as address:
        assert says in refused(address)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:1", "no Ray dashboard answers: Connection refused; start one with"),
        ("http://head.invalid:8265", "no Ray dashboard answers: Name or service not known"),
        ("http://127.0.0.1:99999", "127.0.0.1:99999"),
    ],
)
def test_no_answer(address, says):
    assert says in refused(address)


def test_https_where_http_is_spoken():
    with answering(200, "{}") as address:
        said = refused(address.replace("http:", "https:"))
    assert "no Ray dashboard answers: [SSL" in said


def test_the_heads_port_is_not_the_dashboards(cluster, monkeypatch):
    assert "no Ray dashboard answers: " in refused(f"http://{cluster.head}")


def test_a_python_without_our_packages_is_one_line(tmp_path):
    """The cluster's Python, whose own packages are not those of soilweave."""
    command = [sys.executable, "-S", "-m", "pipeline", "run", "demo"]
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=kept, capture_output=True, text=True, check=False)
    problem = f"soilweave: {sys.executable} has no package typer; install soilweave there"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(problem)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("entrypoint", "status", "says"),
    [
        (f"cd {ROOT} && python -S -m pipeline run demo", 1, "has no package typer; install"),
        ("PATH=/nowhere; python -m pipeline run demo", 127, "does not find `python`; start Ray"),
    ],
)
def test_a_job_in_a_cluster_without_soilweave(cluster, entrypoint, status, says):
    code, out, err = cluster.run("--follow", cluster.start(entrypoint))
    assert (code, err) == (status, "")
    assert "Traceback" not in out
    assert len([line for line in out.splitlines() if says in line]) == 1
