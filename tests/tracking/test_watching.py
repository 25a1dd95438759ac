"""A person sees in MLflow how far a run is while its stages work: Ray Train and a real server."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray import cloudpickle
from test_tracking import Told, copied, runs_of

from pipeline.cli import run_stages
from pipeline.cluster import ray_cluster
from pipeline.storage import tables

WAIT_S = 300  # nothing waits so long unless the test fails


class Waiting:
    """The queue of a worker, which goes on after its second point only once a file exists."""

    def __init__(self, queue, gate: Path) -> None:
        self.queue, self.gate, self.sent = queue, gate, 0

    @property
    def actor(self):
        return SimpleNamespace(put_nowait=SimpleNamespace(remote=self._send))

    def _send(self, item) -> None:
        self.queue.actor.put_nowait.remote(item)
        self.sent += not isinstance(item[0], int)  # points of curves, not units of progress
        end = time.monotonic() + WAIT_S
        while self.sent >= 2 and not self.gate.exists() and time.monotonic() < end:
            time.sleep(0.05)


@pytest.fixture
def gate(tmp_path, monkeypatch):
    """A file without which no worker trains on after its second point."""
    made, inner = tmp_path / "gate", ray_cluster.progress_queue

    @contextmanager
    def progress_queue(progress):
        with inner(progress) as reported:
            yield replace(reported, queue=Waiting(reported.queue, made))

    monkeypatch.setattr(ray_cluster, "progress_queue", progress_queue)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield made
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def curves(uri: str, name: str) -> dict[str, list[tuple[int, float]]]:
    """Step and value of each point of the loss that the server has, by fold."""
    from mlflow import MlflowClient

    client, metric = MlflowClient(uri), "seed-0/loss_insitu"
    if client.get_experiment_by_name(f"soilweave/{name}") is None:
        return {}
    return {
        run.data.tags["fold"]: sorted(
            (point.step, point.value)
            for point in client.get_metric_history(run.info.run_id, metric)
        )
        for run in runs_of(uri, name)[1]
        if metric in run.data.metrics
    }


def test_the_loss_is_seen_before_training_has_ended(world, tmp_path, server, gate, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    workspace = copied(world, tmp_path)
    for name in ("models", "maps", "scores", "report"):
        workspace.artefact(name).remove()
    changed = {"name": "watched", "arms": ("insitu",)}
    experiment = world.experiment.model_copy(update=changed)
    seen: dict = {}

    def watch() -> None:
        end = time.monotonic() + WAIT_S
        while not seen and time.monotonic() < end:
            time.sleep(0.2)
            if points := curves(server, "watched"):
                (parent,), _ = runs_of(server, "watched")
                seen.update(points=points, status=parent.info.status)
                seen["trained"] = [*Path(workspace.root).rglob("history.parquet")]
        gate.touch()

    watcher = threading.Thread(target=watch)
    watcher.start()
    told = Told()
    try:
        run_stages.run(("train", "predict"), experiment, workspace, told)
    finally:
        gate.touch()
        watcher.join()
    assert (seen["status"], seen["trained"]) == ("RUNNING", [])
    assert any(line.startswith("MLflow shows this run at ") for line in told.lines), told.lines
    shown = curves(server, "watched")
    assert shown.keys() == {"0", "1", "2", "all"}
    for fold, points in shown.items():
        url = workspace.url("models", "insitu", f"fold={fold}", "seed=0", "history.parquet")
        history = tables.read_table(url)
        assert points == list(zip(history.step, history.loss_insitu, strict=True))
        assert set(seen["points"].get(fold, ())) <= set(points)
    (parent,), children = runs_of(server, "watched")
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    metrics = parent.data.metrics
    for name in ("train/updates", "predict/blocks"):
        done, total = (metrics[f"progress/{name}_{what}"] for what in ("done", "total"))
        assert done == total > 0
