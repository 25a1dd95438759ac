"""Connecting to Ray: each thing that is wrong is one line with its own remedy, said soon."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import socket
import subprocess
import sys

import processes
import pytest
import ray

from pipeline.cluster import connect
from pipeline.errors import ConfigError

ENDS_S = 180
RAY_VARIABLES = ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")

CONNECTED = """
import sys
from pipeline.cluster import ray_cluster
from pipeline.errors import SoilweaveError
try:
    with ray_cluster.connected():
        exec(sys.argv[1])
except SoilweaveError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """An environment without an address or a token of Ray, and an empty HOME."""
    for name in RAY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return monkeypatch


def refused(address: str) -> str:
    """What is wrong with an address."""
    with pytest.raises(ConfigError) as error:
        connect.check_head(address)
    assert "\n" not in str(error.value)
    return str(error.value)


def connected(code: str = "pass", before: str = "", **environment: str) -> tuple[int, str, str]:
    """Connect in a process of its own and run code there: its status, what it wrote, its errors.

    `before` runs first, before Ray is imported.
    """
    kept = {k: v for k, v in os.environ.items() if k not in RAY_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", before + CONNECTED, code],
        env=kept | processes.MARK | environment,
        capture_output=True,
        text=True,
        timeout=ENDS_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# The address


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "is empty; unset it to work on this machine"),
        ("http://head:8265", "URL of a dashboard, .* set it to the head's address, head:6379"),
        ("https://head", "URL of a dashboard, .* set it to the head's address, head:6379"),
        ("head", "expected HOST:PORT"),
        ("head:many", "expected HOST:PORT"),
        ("[::1:6379", "expected HOST:PORT"),
        ("head:99999", "expected HOST:PORT"),
        ("redis://head:6379", "expected HOST:PORT"),
        ("head.invalid:6379", "host head.invalid cannot be found: .*; correct the host"),
        ("127.0.0.1:1", "connection refused; start a cluster with `ray start --head`, correct"),
    ],
)
def test_an_address_that_cannot_be_right(clean, address, says):
    said = refused(address)
    assert re.search(says, said), said
    assert said.startswith("RAY_ADDRESS")
    assert "this machine" in said


def test_a_port_that_keeps_silent_is_not_waited_for(clean):
    clean.setattr(connect, "ANSWER_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        said = refused(f"127.0.0.1:{silent.getsockname()[1]}")
    assert "does not answer as the head of a Ray cluster (no answer within" in said
    assert "port of `ray start --head`, by default 6379" in said


def test_the_dashboards_port_is_not_the_heads(cluster, clean):
    said = refused(cluster.url.removeprefix("http://"))
    assert "does not answer as the head of a Ray cluster (UNAVAILABLE: " in said
    assert "port of `ray start --head`, by default 6379" in said


@pytest.mark.parametrize("address", ["auto", "ray://head:10001"])
def test_what_only_ray_can_find_is_left_to_it(clean, address):
    connect.check_head(address)


@pytest.mark.parametrize("setting", connect.ONLY_RAY_CAN_ASK)
def test_a_head_that_needs_more_than_a_token_is_left_to_ray(clean, setting):
    clean.setenv(setting, "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connect.check_head(f"127.0.0.1:{silent.getsockname()[1]}")
    assert "nobody listens there" in refused("127.0.0.1:1")


# Tokens


def test_a_token_that_is_not_sent(cluster, clean, tmp_path):
    said = refused(cluster.head)
    assert "the cluster wants a token, but RAY_AUTH_MODE is not set here" in said
    assert "set RAY_AUTH_MODE and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) as on the" in said
    clean.setenv("RAY_AUTH_MODE", "disabled")
    assert "but RAY_AUTH_MODE is disabled here" in refused(cluster.head)


def test_a_token_that_an_earlier_ray_has_left(cluster, clean, tmp_path):
    """`ray start` takes it and then refuses whoever does not send it."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(cluster.environment["RAY_AUTH_TOKEN"])
    said = refused(cluster.head)
    assert said.endswith("set RAY_AUTH_MODE=token; the token in ~/.ray/auth_token is then sent")
    clean.setenv("RAY_AUTH_MODE", "token")
    connect.check_head(cluster.head)


def test_no_token_and_a_wrong_one(cluster, clean, tmp_path):
    clean.setenv("RAY_AUTH_MODE", "token")
    said = refused(cluster.head)
    assert "wants a token, but there is none in ~/.ray/auth_token; set RAY_AUTH_TOKEN" in said
    (tmp_path / "token").write_text("wrong-" * 8)
    clean.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    said = refused(cluster.head)
    assert "refuses the token in the file of RAY_AUTH_TOKEN_PATH; set RAY_AUTH_TOKEN to" in said
    clean.setenv("RAY_AUTH_TOKEN", "also-wrong-" * 4)
    said = refused(cluster.head)
    assert "the cluster refuses the token in RAY_AUTH_TOKEN" in said
    assert "also-wrong" not in said
    clean.setenv("RAY_AUTH_TOKEN", cluster.environment["RAY_AUTH_TOKEN"])
    connect.check_head(cluster.head)


def test_a_verb_says_it_in_one_line(cluster, tmp_path):
    """As the command line shows it, before anything is computed."""
    kept = {k: v for k, v in os.environ.items() if k not in RAY_VARIABLES}
    environment = kept | {"RAY_ADDRESS": cluster.head, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "pipeline", "run", "demo", "--workspace", str(tmp_path / "ws")]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=ENDS_S, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"soilweave run: RAY_ADDRESS {cluster.head}: the cluster wants")
    assert done.stderr.count("\n") == 1


# Versions


def test_another_version_of_ray(cluster, clean):
    for name, value in cluster.environment.items():
        clean.setenv(name, value)
    clean.setattr(ray, "__version__", "2.1.0")
    said = refused(cluster.head)
    real = importlib.metadata.version("ray")
    assert f"Ray {real} on the cluster and 2.1.0 here; use Ray {real} here" in said
    assert "`soilweave submit`" in said


OTHER_PYTHON = """
from ray._private import utils
version = utils.compute_version_info()[0]
utils.compute_version_info = lambda: (version, "3.99.1")
"""


def test_another_version_of_python(cluster):
    environment = cluster.environment | {"RAY_ADDRESS": cluster.head}
    status, _, err = connected(before=OTHER_PYTHON, **environment)
    own = platform.python_version()
    problem = f"Python {own} on the cluster and 3.99.1 here; use Python {own} here, or run it"
    assert status == 1
    assert err.startswith(f"RAY_ADDRESS {cluster.head}: {problem}")
    assert err.count("\n") == 1


# A local Ray

LISTENING = """
import psutil, ray
from pipeline.cluster.ray_cluster import run_tasks
print(len([*run_tasks([{"n": n} for n in range(4)], lambda item: item)]))
me = psutil.Process()
for process in (me, *me.children(recursive=True)):
    for connection in process.net_connections("inet"):
        if connection.status in (psutil.CONN_LISTEN, psutil.CONN_NONE):
            print(connection.laddr.ip, process.name())
"""


@pytest.mark.servers
def test_a_local_ray_listens_on_loopback_only_and_needs_no_home(tmp_path):
    """No token is left in HOME either, which a later `ray start` would take."""
    (tmp_path / "file").touch()
    status, out, err = connected(LISTENING, HOME=str(tmp_path / "file" / "home"))
    assert status == 0, err
    n, *sockets = out.splitlines()
    assert n == "4"
    names = {line.partition(" ")[2] for line in sockets}
    assert {"gcs_server", "raylet"} <= names
    assert len(sockets) > 7
    addresses = {line.split()[0].removeprefix("::ffff:") for line in sockets}
    assert addresses == {"127.0.0.1"}, out


@pytest.mark.servers
@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_temporary_folder_with_a_long_name(tmp_path, variable):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    status, _, err = connected(**{variable: str(folder)})
    assert status == 1
    assert re.fullmatch(
        rf"{variable} {folder}: too long by \d+ characters for the names of Ray's sockets; "
        r"set RAY_TMPDIR to a folder with a shorter name, such as /tmp\n",
        err,
    )


@pytest.mark.servers
def test_a_temporary_folder_that_is_none(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "folder"
    status, _, err = connected(RAY_TMPDIR=str(folder))
    assert status == 1
    assert err.startswith(f"RAY_TMPDIR {folder}: {folder}")
    assert err.endswith("Not a directory; set RAY_TMPDIR to a folder that can be written to\n")


# What a real Ray says after half a minute, when its folder is full or nothing can be started.
LATE = RuntimeError("Timed out waiting for file /tmp/ray/session_1/gcs_server_port_1")


def test_a_full_disk_is_named_only_if_it_is_full(clean, tmp_path):
    clean.setenv("RAY_TMPDIR", str(tmp_path))
    said = str(connect._explain_start(LATE))
    assert said.startswith("local Ray: did not start: Timed out waiting for file")
    assert said.endswith(f"see the logs in {tmp_path}/ray/session_latest/logs, and try again")
    usage = shutil.disk_usage(tmp_path)._replace(free=2**20)
    clean.setattr(shutil, "disk_usage", lambda _: usage)
    said = str(connect._explain_start(LATE))
    assert said.startswith(f"RAY_TMPDIR {tmp_path}: 1 MB free, too little to start Ray")
