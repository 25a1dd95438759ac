"""Two drivers on one workspace: one writes, the other waits or is told who holds it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pipeline import files
from pipeline.errors import StoreError
from pipeline.progress import SilentProgress
from pipeline.storage import lease
from pipeline.storage.artefacts import Workspace

INPUTS = {"schema": 1}

HOLDER = """
import sys, time
from pipeline.storage import lease
lease.get_lease(sys.argv[1]).take(print)
print("held", flush=True)
time.sleep(120)
"""


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.servers)])
def url(request, tmp_path):
    """Where a lease lies."""
    if request.param == "local":
        return str(tmp_path / "snow" / "lease.json")
    s3 = request.getfixturevalue("s3")
    return s3.url(tmp_path.name, "lease.json")


@pytest.fixture
def other(url):
    """Another process that holds the lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.fixture
def mine(url):
    held = lease.Lease(url)
    yield held
    held.release()


def foreign(url: str) -> bytes:
    """A lease of a driver on another machine."""
    record = {"holder": "x", "host": "elsewhere", "pid": 1, "since": "today", "renewed": "0"}
    data = json.dumps(record).encode()
    while not files.compare_and_swap(
        url, data, files.read_bytes(url) if files.exists(url) else None
    ):
        time.sleep(0.01)  # a renewal came between
    return data


def test_a_second_driver_is_told_who_holds_it(url, other, mine):
    with pytest.raises(StoreError, match=f"held by process {other.pid} on .*, since"):
        mine.take(print)


def test_a_killed_driver_of_this_machine_is_replaced_at_once(url, other, mine):
    other.send_signal(signal.SIGKILL)
    other.wait()
    waited_for = []
    mine.take(waited_for.append)
    mine.check()
    assert waited_for == []
    assert json.loads(files.read_bytes(url))["pid"] == os.getpid()
    mine.release()
    assert not files.exists(url)


def test_a_silent_driver_elsewhere_is_waited_for_then_replaced(url, mine, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 2.0)
    foreign(url)
    told = []
    mine.take(told.append)
    assert mine.held
    assert [line for line in told if "process 1 on elsewhere" in line] == told != []


def test_a_driver_elsewhere_that_renews_is_alive(url, mine, monkeypatch):
    monkeypatch.setattr(lease, "STALE_S", 20.0)
    found = foreign(url)
    renew = threading.Timer(
        1.5, lambda: files.compare_and_swap(url, found.replace(b'"0"', b'"1"'), found)
    )
    renew.start()
    with pytest.raises(StoreError, match="held by process 1 on elsewhere"):
        mine.take(lambda line: None)
    renew.join()


def test_of_many_who_try_one_gets_it(url):
    """Creation, and the takeover of a stale lease, from eight threads at a time."""
    for before in (None, foreign(url)):
        if before is None:
            files.remove(url)
        gate, won = threading.Barrier(8), []

        def attempt(i, before=before, gate=gate, won=won):
            gate.wait()
            if files.compare_and_swap(url, f"driver {i}".encode(), before):
                won.append(i)

        threads = [threading.Thread(target=attempt, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert files.read_bytes(url) == f"driver {won[0]}".encode()
        foreign(url)


def test_a_lost_lease_commits_nothing(tmp_path):
    workspace = Workspace(str(tmp_path / "snow"))
    artefact = workspace.artefact("cube")
    assert artefact.claim(INPUTS, False, SilentProgress())
    artefact.begin(INPUTS)
    foreign(workspace.url("lease.json"))
    with pytest.raises(StoreError, match="lost to process 1 on elsewhere"):
        artefact.commit(INPUTS, [])
    assert artefact.manifest() is None
    workspace.lease.release()
    assert b"elsewhere" in files.read_bytes(workspace.url("lease.json"))


def test_whoever_loses_it_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_S", 0.2)
    held = lease.get_lease(str(tmp_path / "lease.json"))
    ended = []

    def work():
        with held.given_back():
            held.take(print)
            foreign(held.url)
            for _ in range(300):  # one long sleep can begin between the signal and its handling
                time.sleep(0.1)
            ended.append(True)

    with pytest.raises(StoreError, match="lost to process 1 on elsewhere"):
        work()
    assert not ended  # it did not come to its end first


def test_a_complete_artefact_needs_no_lease(tmp_path):
    workspace = Workspace(str(tmp_path / "snow"))
    artefact = workspace.artefact("cube")
    artefact.claim(INPUTS, False, SilentProgress())
    artefact.begin(INPUTS)
    artefact.commit(INPUTS, [])
    workspace.lease.release()
    foreign(workspace.url("lease.json"))
    assert not artefact.claim(INPUTS, False, SilentProgress())


def test_neighbours_do_not_disturb_each_other(tmp_path):
    """A lease is of one experiment, not of the folder that holds several."""
    first, second = (Workspace(str(tmp_path / name)) for name in ("one", "two"))
    foreign(first.url("lease.json"))
    assert second.artefact("cube").claim(INPUTS, False, SilentProgress())
    second.lease.release()
