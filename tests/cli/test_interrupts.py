"""Ctrl-C and SIGTERM end a run on a local Ray: one line, the status of a shell, nothing left."""

from __future__ import annotations

import os
import signal
import sys
import time

import processes
import pytest
import world

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


@pytest.mark.servers
def test_interrupted_stages_leave_nothing(tmp_path, monkeypatch):
    """One run is interrupted while Ray starts and in each stage, and continued by the next."""
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    world.write(tmp_path)
    root = tmp_path / "ws" / "snow"
    moments = [
        ("start", lambda titles: "gcs_server" in titles, ctrl_c, 130),
        ("prepare", lambda titles: "raylet" in titles, ctrl_c, 130),
        ("train", lambda _: any(root.glob("models/.train-*")), terminate, 143),
        ("predict", lambda _: any(root.glob("maps/*.zarr")), ctrl_c, 130),
    ]
    for moment, begun, send, status in moments:
        log = tmp_path / f"{moment}.log"
        assert run_until(root, log, begun, send) == status, log.read_text()
        said = log.read_text()
        assert said.count("interrupted; what is complete is kept, and the same command") == 1, said
        for unwanted in ("Traceback", "SIGTERM", "*** "):
            assert unwanted not in said
        assert [*root.glob("models/.train-*")] == []
        assert not (root / "lease.json").exists()
        if moment == "train":  # the next run finds what one has left that was killed
            (root / "models" / ".train-0123abcd").mkdir()
    manifests = ["cube.zarr/manifest.json", "models/manifest.json", "maps/manifest.json"]
    assert [(root / name).exists() for name in manifests] == [True, True, False]
