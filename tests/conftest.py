"""Fixtures: a small world, a workspace in which all its stages have run, a local Ray."""

from __future__ import annotations

import gc
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

# Pytest imports readline, which sets these for the processes that it starts; tests set their own.
for variable in ("COLUMNS", "LINES"):
    os.environ.pop(variable, None)
# Each test process uses one thread, because several processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import in_process
import pytest
import ray
import servers
import small_demo
import torch
import world as world_module
from hypothesis import settings

from pipeline import evaluate, publish
from pipeline.cluster import malloc, ray_cluster
from pipeline.evaluate import report
from pipeline.experiment import load
from pipeline.experiment.product import ProductConfig
from pipeline.predict import stage as predict_stage
from pipeline.prepare import folds
from pipeline.prepare import stage as prepare_stage
from pipeline.progress import SilentProgress
from pipeline.sources.shared import access, http_errors
from pipeline.storage.artefacts import Workspace
from pipeline.tracking import mirror
from pipeline.train import stage as train_stage

if TYPE_CHECKING:
    from pipeline.experiment.config import Experiment


malloc.keep_freed_memory()  # as the command line does
mirror.END_S = 600.0  # a busy machine is not a slow server


# The same examples in every run, on machines of any speed.
settings.register_profile("deterministic", derandomize=True, deadline=None)


settings.load_profile("deterministic")


# The kind of a test that uses a fixture; the first that applies counts, and the others are units.
KINDS = {
    "places": "runs",  # a whole run on SeaweedFS, in test_buckets.py, for minutes
    "s3": "servers",  # SeaweedFS
    "started": "servers",  # SeaweedFS, PostgreSQL and MLflow, in test_servers.py
    "server": "servers",  # MLflow, in test_tracking.py
    "cluster": "servers",  # a Ray head that takes jobs, in test_jobs.py
    "local_ray": "stages",
}


NO_GPU = "marked cuda: torch sees no CUDA device here"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Mark every test by what it needs: `units`, `stages`, `servers`, or what it is marked.

    Where tests run in several processes, those of a file run in one of them. So do all that use the
    small demo, which takes a minute to make.
    """
    marked = {"cluster", "viewer", *KINDS.values()}
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(pytest.mark.skipif(not torch.cuda.is_available(), reason=NO_GPU))
        if not any(mark.name in marked for mark in item.iter_markers()):
            kinds = [kind for name, kind in KINDS.items() if name in item.fixturenames]
            item.add_marker([*kinds, "units"][0])
        together = "demo" if "demo" in item.fixturenames else str(item.path)
        item.add_marker(pytest.mark.xdist_group(together))


def pytest_collection_finish():
    """Leave imported modules out of the search for garbage, which takes a tenth of the time."""
    gc.collect()
    gc.freeze()


@dataclass(frozen=True)
class World:
    """The small world: its folder of sources, its experiment, and a finished workspace."""

    folder: Path
    path: Path
    experiment: Experiment
    workspace: Workspace
    summary: dict


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Busy servers are asked again, and failed reads and tasks repeated, as often but soon."""
    monkeypatch.setattr(ray_cluster, "RETRY_WAIT_S", 0.01)
    monkeypatch.setattr(http_errors, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(access, "WAITS_S", tuple(0.01 * wait for wait in access.WAITS_S))


@pytest.fixture(scope="session")
def local_ray():
    """One local Ray of two CPUs (logical ones) for all tests that need it."""
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=200 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def world(tmp_path_factory, local_ray) -> World:
    """Snow on a mountain, all stages run once."""
    folder = tmp_path_factory.mktemp("snow")
    path = world_module.write(folder)
    experiment = load.load_experiment(str(path))
    workspace = Workspace(str(tmp_path_factory.mktemp("workspace") / "snow"))
    with in_process.training():  # the small demo is trained by Ray Train
        for stage in (prepare_stage, folds, train_stage, predict_stage):
            stage.run(experiment, workspace, SilentProgress())
    summary = evaluate.run(experiment, workspace, SilentProgress())
    report.run(experiment, workspace, SilentProgress())
    with pytest.MonkeyPatch.context() as clean:
        clean.delenv("MLFLOW_TRACKING_URI", raising=False)
        mirror.Mirror(experiment, workspace, SilentProgress()).end("FINISHED")
    workspace.lease.release()
    return World(folder, path, experiment, workspace, summary)


@pytest.fixture(scope="session")
def variant(world, tmp_path_factory) -> World:
    """One arm of the small world with fewer updates, on the same cube: its stages but prepare."""
    settings = [f"cube={world.workspace.root}", "arms=[insitu]", "train.updates=20"]
    experiment = load.load_experiment(str(world.path), settings, "variant")
    workspace = Workspace(str(Path(world.workspace.root).parent / "variant"))
    with in_process.training():
        for stage in (prepare_stage, folds, train_stage, predict_stage):
            stage.run(experiment, workspace, SilentProgress())
    summary = evaluate.run(experiment, workspace, SilentProgress())
    report.run(experiment, workspace, SilentProgress())
    workspace.lease.release()
    return World(world.folder, world.path, experiment, workspace, summary)


@pytest.fixture
def prepared_here():
    """The blocks of a cube are written in this process, without Ray."""
    with in_process.preparing():
        yield


@pytest.fixture
def trained_here():
    """Models are trained in this process, without Ray Train."""
    with in_process.training():
        yield


@pytest.fixture
def snow(tmp_path) -> Path:
    """The experiment file of a fresh small world, for tests that spoil it."""
    return world_module.write(tmp_path / "snow")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real files."""
    folder = os.environ.get("SOILWEAVE_DATA")
    if not folder:
        pytest.skip("SOILWEAVE_DATA is not set: the real SMAP, NLDAS-2 and SCAN files are absent")
    return Path(folder)


@pytest.fixture(scope="session")
def demo(tmp_path_factory, local_ray):
    """The small demo: its workspace's folder, and the exit code of `run`."""
    folder = tmp_path_factory.mktemp("demo")
    return folder, small_demo.run(folder)


@pytest.fixture(scope="session")
def published(demo, tmp_path_factory) -> str:
    """The URL of a publication of the small demo, whose licence and creator are stated."""
    url = str(tmp_path_factory.mktemp("published"))
    made = {"license": "CC-BY-4.0", "creator": "A. Group", "creator_url": "https://example.org"}
    product = ProductConfig(**made, doi="10.5281/zenodo.1", references=("A paper",))
    publish.publish(Workspace(str(demo[0] / "demo")), url, SilentProgress(), product=product)
    return url


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A real S3 server of this session, its keys in the environment."""
    with servers.seaweed(tmp_path_factory.mktemp("s3")) as made, pytest.MonkeyPatch.context() as to:
        for name, value in made.environment.items():
            to.setenv(name, value)
        yield made


def pytest_sessionfinish(session, exitstatus):
    """Keep the status for the end."""
    session.config.exit_status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Leave at once, with the status: all is told and torn down.

    Ray, gRPC, GDAL and Icechunk in one process crashed in the interpreter's own shutdown, once in
    three full runs, after every test had passed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(getattr(config, "exit_status", 0))
