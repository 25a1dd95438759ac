"""A driver that is stopped in any stage of the demo: the same command goes on to equal results."""

from __future__ import annotations

import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import processes
import pytest
import small_demo
from results import differences, results

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "fixtures" / "stopped_run.py"
ENDS_S = 900

pytestmark = pytest.mark.runs

# In the order in which one run after the other is stopped: how, in which stage, and just before
# it writes which object. A stage is killed before its last object, which completes it.
STOPS = [
    (signal.SIGTERM, "planet", "planet/footprints.nc"),
    (signal.SIGKILL, "planet", "planet/manifest.json"),
    (signal.SIGKILL, "prepare", "cube.zarr/manifest.json"),
    (signal.SIGTERM, "folds", "folds.geojson"),
    (signal.SIGKILL, "folds", "folds.manifest.json"),
    (signal.SIGKILL, "train", "models/manifest.json"),
    (signal.SIGKILL, "predict", "maps/manifest.json"),
    (signal.SIGTERM, "evaluate", "summary.json"),
    (signal.SIGKILL, "evaluate", "scores.manifest.json"),
    (signal.SIGTERM, "report", "report.html"),
    (signal.SIGKILL, "report", "report.manifest.json"),
]
IDS = [f"{how.name}-{stage}" for how, stage, _ in STOPS]


@dataclass(frozen=True)
class Stopped:
    """What a run that was stopped has left.

    Attributes:
      status: Its exit status.
      done: Objects of STOPS that are there.
      log: What it has said.
    """

    status: int
    done: set[str]
    log: str


def run(log: Path, how: int, key: str, *arguments: str) -> int:
    """A verb in a process of its own, stopped where it writes an object: its status."""
    command = [sys.executable, str(SCRIPT), str(int(how)), f"/{key}$", *arguments]
    with processes.running(command, log, {"PYTHONPATH": str(ROOT)}) as running:
        return running.process.wait(ENDS_S)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One workspace in which every run but the last was stopped: what each left, and the folder."""
    home = tmp_path_factory.mktemp("stopped")
    folder = home / "workspace" / "demo"
    arguments = ("run", "demo", "--workspace", str(home / "workspace"), *small_demo.OPTIONS)
    left = []
    for how, _, key in [*STOPS, (0, "", "nothing")]:
        log = home / f"log-{len(left)}"
        status = run(log, how, key, *arguments)
        done = {key for _, _, key in STOPS if (folder / key).exists()}
        left.append(Stopped(status, done, log.read_text()))
    return left, folder


@pytest.mark.parametrize("number", range(len(STOPS)), ids=IDS)
def test_a_stopped_verb_goes_on(runs, demo, number):
    """The stage is not complete, the next run keeps those that are, and the end is the same."""
    left, folder = runs
    how, _, key = STOPS[number]
    stopped, following = left[number : number + 2]
    assert stopped.status == (-how if how == signal.SIGKILL else 128 + how), stopped.log
    assert key not in stopped.done
    assert stopped.done <= following.done
    assert left[-1].status == 0, left[-1].log
    assert not [each for each in (stopped, following) if "Traceback" in each.log]
    assert differences(results(str(folder)), results(str(demo[0] / "demo"))) == []


def test_a_killed_repair_is_done_by_the_next(demo, tmp_path):
    workspace, wanted = tmp_path / "workspace", results(str(demo[0] / "demo"))
    shutil.copytree(demo[0], workspace)
    shutil.rmtree(workspace / "demo" / "maps" / "insitu.zarr" / "soil_moisture" / "c")
    for key in ("folds.geojson", "summary.json"):
        (workspace / "demo" / key).unlink()
    arguments = ("verify", "demo", "--workspace", str(workspace), "--repair")
    log = tmp_path / "log"
    assert run(log, signal.SIGKILL, "summary.json", *arguments) == -signal.SIGKILL
    assert run(log, 0, "nothing", *arguments) == 0, log.read_text()
    assert differences(results(str(workspace / "demo")), wanted) == []
