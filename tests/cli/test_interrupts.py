"""Ctrl-C and SIGTERM end a run on a local Ray: one line, the status of a shell, nothing left."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial

import processes
import pytest
import world

from pipeline.train import stage

ENDS_S = 300


def run_until(root, log, begun, send) -> int:
    """Run a small experiment, send a signal once something is there: the exit status.

    Args:
      root: The experiment's folder in the workspace.
      log: File for what the run says.
      begun: Takes the command lines that are running; returns whether the signal is to be sent.
      send: Sends the signal to a process.
    """
    before = processes.ours()
    command = [sys.executable, "-m", "pipeline", "run", str(root.parent.parent / "snow.yaml")]
    command += ["--workspace", str(root.parent), "--set", "arms=[insitu]"]
    with processes.running(command, log) as run:
        run.wait_for(lambda: begun(" ".join(processes.leftovers(before))), ENDS_S)
        send(run.process)
        status = run.process.wait(ENDS_S)
        # The workers end a moment after the raylet that they belong to.
        end = time.monotonic() + processes.STOP_S
        while (left := processes.leftovers(before)) and time.monotonic() < end:
            time.sleep(processes.POLL_S)
        assert left == []
    return status


def ctrl_c(process) -> None:
    """As a terminal does it: to the process and all that it has started in its group."""
    os.killpg(process.pid, signal.SIGINT)


def terminate(process) -> None:
    """As `ray job stop` and schedulers do it."""
    process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where the artefacts of a small experiment will be."""
    folder = tmp_path_factory.mktemp("interrupted")
    world.write(folder)
    return folder / "ws" / "snow"


@pytest.mark.runs
@pytest.mark.parametrize(
    ("begun", "send", "status"),
    [
        (lambda root, titles: "gcs_server" in titles, ctrl_c, 130),
        (lambda root, titles: "raylet" in titles and (root / "cube.zarr").exists(), ctrl_c, 130),
        (lambda root, _: any(root.glob("models/.train-*")), terminate, 143),
        (lambda root, _: any(root.glob("maps/*.zarr")), ctrl_c, 130),
    ],
    ids=["start", "prepare", "train", "predict"],
)
def test_an_interrupted_run_leaves_nothing(root, tmp_path, monkeypatch, begun, send, status):
    """The same run each time, interrupted while Ray starts and in stages that use it."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert run_until(root, tmp_path / "log", partial(begun, root), send) == status
    said = (tmp_path / "log").read_text()
    assert said.count("interrupted; what is complete is kept, and the same command") == 1, said
    for unwanted in ("Traceback", "SIGTERM", "*** "):
        assert unwanted not in said
    assert [*root.glob("models/.train-*")] == []
    assert not (root / "lease.json").exists()


def test_what_a_killed_run_has_left_is_removed(tmp_path):
    (tmp_path / ".train-0123abcd" / "checkpoints").mkdir(parents=True)
    (tmp_path / "insitu").mkdir()
    stage._remove_run_folders(str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["insitu"]
