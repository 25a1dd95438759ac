"""A driver that is stopped in any stage of the demo: the same command goes on to equal results."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import processes
import pytest
import small_demo
from results import differences, results

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "fixtures" / "stopped_run.py"
ENDS_S = 500

pytestmark = pytest.mark.cluster  # each is two runs in processes of their own

# Of each stage: what it makes, an object in the middle of it, and the last one.
STAGES = {
    "planet": (("planet", "backup/planet.json"), "planet/footprints.nc", "planet/manifest.json"),
    "prepare": (("cube.zarr", "backup/cube.json"), "", "cube.zarr/manifest.json"),
    "folds": (("folds.*", "backup/folds.json"), "folds.geojson", "folds.manifest.json"),
    "train": (("models", "sites.parquet", "backup/models.json"), "", "models/manifest.json"),
    "predict": (("maps", "state", "next_probes.csv", "backup/maps.json"), "", "maps/manifest.json"),
    "evaluate": (
        ("scores.*", "summary.json", "backup/scores.json"),
        "summary.json",
        "scores.manifest.json",
    ),
    "report": (("report.*", "backup/report.json"), "report.html", "report.manifest.json"),
}

CASES = [(signal.SIGKILL, stage) for stage in STAGES]
CASES += [(signal.SIGTERM, stage) for stage, (_, middle, _) in STAGES.items() if middle]


@pytest.fixture
def copy(demo, tmp_path):
    """A copy of the finished demo: its workspace and the folder of the experiment."""
    shutil.copytree(demo[0], tmp_path / "workspace")
    return tmp_path / "workspace", tmp_path / "workspace" / "demo"


def run(log: Path, how: int, pattern: str, *arguments: str) -> int:
    """A verb in a process of its own, stopped where it writes what the pattern says: its status."""
    command = [sys.executable, str(SCRIPT), str(int(how)), pattern, *arguments]
    with processes.running(command, log, {"PYTHONPATH": str(ROOT)}) as running:
        return running.process.wait(ENDS_S)


def remove(folder: Path, patterns: tuple[str, ...]) -> None:
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("how", "stage"), CASES, ids=[f"{how.name}-{stage}" for how, stage in CASES]
)
def test_a_stopped_verb_goes_on(copy, tmp_path, how, stage):
    workspace, folder = copy
    wanted = results(str(folder))
    made, middle, last = STAGES[stage]
    remove(folder, made)
    assert differences(results(str(folder)), wanted) or stage == "report"
    arguments = ("run", "demo", "--workspace", str(workspace), *small_demo.OPTIONS)
    at = last if how == signal.SIGKILL else middle
    log = tmp_path / "log"
    status = run(log, how, f"/{at}$", *arguments)
    assert status == (-how if how == signal.SIGKILL else 128 + how), log.read_text()
    assert not (folder / last).exists()
    assert run(log, 0, "/$", *arguments) == 0, log.read_text()
    assert differences(results(str(folder)), wanted) == []
    assert (folder / last).exists()
    assert "Traceback" not in log.read_text()


def test_a_killed_repair_is_done_by_the_next(copy, tmp_path):
    workspace, folder = copy
    wanted = results(str(folder))
    remove(folder, ("maps/insitu.zarr/soil_moisture/c/*", "folds.geojson", "summary.json"))
    arguments = ("verify", "demo", "--workspace", str(workspace), "--repair")
    log = tmp_path / "log"
    assert run(log, signal.SIGKILL, "/summary.json$", *arguments) == -signal.SIGKILL
    assert run(log, 0, "/$", *arguments) == 0, log.read_text()
    assert differences(results(str(folder)), wanted) == []
    assert os.listdir(folder / "maps" / "insitu.zarr" / "soil_moisture" / "c")
