"""Ray Train under losses, and what its workers share; on real processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import world as world_module
import yaml
from fault_run import train_workers

from pipeline.experiment import load
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.train import stage as train_stage
from pipeline.train import training_data

pytestmark = pytest.mark.cluster
SCRIPT = Path(__file__).resolve().parents[1] / "fixtures" / "fault_run.py"


def seven_models(folder: Path) -> Path:
    """An experiment of 7 small models: two arms x (2 folds + all), and arm satellite."""
    path = world_module.write(folder)
    tree = yaml.safe_load(path.read_text())
    tree["folds"]["n_folds"] = 2
    tree["train"] |= {"updates": 150}
    tree["compute"] = {"checkpoint_every_updates": 10}
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.cluster
def test_a_lost_worker_and_a_lost_node_change_no_bit(tmp_path, local_ray):
    path = seven_models(tmp_path / "sources")
    disturbed = Workspace(str(tmp_path / "disturbed"))
    told = subprocess.run(
        [sys.executable, str(SCRIPT), str(path), disturbed.root],
        env=os.environ | {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"},
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    ).stdout
    assert "killed worker" in told
    assert "removed a node of 3 workers" in told
    assert "group of 2" in told
    assert "finished 7 killer done True" in told

    experiment, quiet = load.load_experiment(str(path)), Workspace(str(tmp_path / "quiet"))
    for stage in (prepare_stage, folds, train_stage):
        stage.run(experiment, quiet, SilentProgress())
    for job in models.list_workspace_models(quiet, experiment):
        urls = [models.checkpoint_url(w.url("models"), job) for w in (disturbed, quiet)]
        ours, theirs = (Path(url).read_bytes() for url in urls)
        assert ours == theirs, job
    left = [
        p for p in Path(disturbed.root).rglob("*") if "progress" in p.name or ".train" in p.name
    ]
    assert left == []


def private_bytes(stop: threading.Event, seen: dict[int, int]) -> None:
    """Watch the memory that each training worker shares with nobody; keep the most of each."""
    while not stop.is_set():
        for process in train_workers(os.getpid()):
            try:
                uss = process.memory_full_info().uss
                seen[process.pid] = max(seen.get(process.pid, 0), uss)
            except psutil.Error:
                continue
        time.sleep(0.2)


def most_private(experiment, packed, root: Path) -> int:
    """Largest private memory of any worker while three models are trained on `packed`."""
    stop, seen = threading.Event(), dict[int, int]()
    watcher = threading.Thread(target=private_bytes, args=(stop, seen))
    watcher.start()
    try:
        train_stage.run_workers(experiment, str(root), "test", packed, 150, SilentProgress())
    finally:
        stop.set()
        watcher.join()
    assert len(seen) == 3
    return max(seen.values())


def with_three_workers(experiment, cube: str, folds_table: str, folder: Path) -> tuple[int, ...]:
    """Private memory of a worker on little and on much data, and the size of the latter."""
    packed = training_data.pack_data(experiment, Cube.open(cube), tables.read_table(folds_table))
    factor = 120 * 2**20 // packed.cell_forcing.nbytes
    larger = dataclasses.replace(packed, cell_forcing=np.tile(packed.cell_forcing, (factor, 1, 1)))
    three = experiment.model_copy(update={"arms": ("satellite",), "n_seeds": 3})
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        small = most_private(three, packed, folder / "small")
        large = most_private(three, larger, folder / "large")
    finally:
        ray.shutdown()
    return small, large, larger.cell_forcing.nbytes


def test_three_workers_of_a_node_share_one_copy_of_the_data(world, tmp_path):
    """In a process of its own, whose Ray has three CPUs."""
    places = (world.workspace.url(name) for name in ("cube.zarr", "folds.parquet"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        asked = pool.submit(with_three_workers, world.experiment, *places, tmp_path)
        small, large, size = asked.result()
    assert size > 100 * 2**20
    assert large - small < 0.2 * size
