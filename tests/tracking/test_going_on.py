"""The mirror goes on, whatever a server refuses, delays or loses; real servers only."""

from __future__ import annotations

import json
import resource
import shutil
import threading
from pathlib import Path

import pytest
from proxy import proxied
from test_tracking import ARMS_AND_FOLDS, Told, copied, mirrored, record_of, runs_of

from model.recipe import ModelKey
from pipeline import files
from pipeline.cli import run_stages
from pipeline.storage import schema, tables
from pipeline.storage.artefacts import Workspace
from pipeline.tracking import mirror, worker

SETTINGS = {"experiment kind", "experiment", "experiment.yaml", "folds"}
KEY = ModelKey("insitu", 1, 0)
ITEM = "models/insitu/fold=1/seed=0"


@pytest.fixture
def proxy(server, monkeypatch):
    """A proxy before the server, to which MLflow's clients are pointed."""
    with proxied(server) as made:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.url)
        yield made


@pytest.fixture
def begun(world, tmp_path, request):
    """An experiment named after the test, and a workspace with cube and folds alone."""
    name = request.node.name.replace("test_", "").replace("[", "-").strip("]")
    workspace = copied(world, tmp_path)
    for artefact in ("models", "maps", "scores", "report"):
        workspace.artefact(artefact).remove()
    return world.experiment.model_copy(update={"name": name}), workspace


def params_of(uri: str, name: str) -> dict[str, str]:
    (parent,), _ = runs_of(uri, name)
    return parent.data.params


def artifacts_of(uri: str, name: str) -> set[str]:
    from mlflow import MlflowClient

    (parent,), _ = runs_of(uri, name)
    return {item.path for item in MlflowClient(uri).list_artifacts(parent.info.run_id)}


def points_of(uri: str, name: str, metric: str = "seed-0/loss_insitu") -> list[tuple[int, float]]:
    """Step and value of the points of a curve of KEY's fold, each as often as the server has it."""
    from mlflow import MlflowClient

    _, children = runs_of(uri, name)
    (run,) = (r for r in children if (r.data.tags["arm"], r.data.tags["fold"]) == ("insitu", "1"))
    history = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def test_an_older_server_gets_everything_but_the_models(world, tmp_path, server, proxy):
    """One that has no logged models, which came with MLflow 3."""
    workspace = copied(world, tmp_path)
    experiment = world.experiment.model_copy(update={"name": "older"})
    proxy.answer(" /api/2.0/mlflow/logged-models", 404)
    (line,) = mirrored(experiment, workspace)
    products = "models/multiscale, models/insitu, models/satellite"
    assert f"cannot be logged there, and is not tried again: {products} (" in line
    assert "error code 404" in line
    assert "next run" not in line
    (parent,), children = runs_of(server, "older")
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert len(children) == len(ARMS_AND_FOLDS)
    tables_of_it = {"folds.geojson", "summary.json", "scores.parquet", "report.html"}
    assert artifacts_of(server, "older") == tables_of_it | {"experiment.yaml"}
    proxy.asked.clear()
    assert mirrored(experiment, workspace) == []  # it is said once
    assert proxy.asked == []


@pytest.mark.parametrize("status", [403, 500])
def test_artifacts_that_are_refused_keep_nothing_else_back(begun, server, proxy, status):
    experiment, workspace = begun
    proxy.answer("PUT .*/mlflow-artifacts/", status)
    (line,) = mirrored(experiment, workspace)
    left = "; the next run tries again: experiment.yaml, folds ("
    assert left in line, line
    assert str(status) in line.partition(left)[2]
    assert params_of(server, experiment.name)["train.updates"] == "60"
    assert set(record_of(workspace)["logged"]) == SETTINGS - {"experiment.yaml", "folds"}
    proxy.answers.clear()
    (line,) = mirrored(experiment, workspace)
    assert line.startswith(f"mlflow: logged to {proxy.url}/#/experiments/")
    assert ";" not in line
    assert artifacts_of(server, experiment.name) == {"experiment.yaml", "folds.geojson"}
    (parent,), _ = runs_of(server, experiment.name)
    assert parent.info.status == "FINISHED"


def test_an_artifact_store_that_is_out_of_reach_keeps_nothing_else_back(begun, server, monkeypatch):
    """The server names a folder that exists on its own machine alone."""
    from mlflow import MlflowClient

    experiment, workspace = begun
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    MlflowClient(server).create_experiment(f"soilweave/{experiment.name}", "/proc/nowhere")
    for _ in range(2):  # it is tried, and said, again
        (line,) = mirrored(experiment, workspace)
        assert "the next run tries again: experiment.yaml, folds (" in line
    (parent,), _ = runs_of(server, experiment.name)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["train.updates"] == "60"


def test_a_key_that_the_server_does_not_accept_is_left_out_alone(begun, server, proxy):
    experiment, workspace = begun
    refusal = {"error_code": "INVALID_PARAMETER_VALUE", "message": "Invalid parameter name"}
    proxy.answer(r"/runs/log-batch .*folds\.block_km", 400, json.dumps(refusal))
    (line,) = mirrored(experiment, workspace)
    assert "keys that it does not accept: folds.block_km (INVALID_PARAMETER_VALUE" in line
    params = params_of(server, experiment.name)
    assert "folds.block_km" not in params
    assert {"folds.n_folds", "folds.kind", "train.updates", "name"} <= params.keys()
    assert set(record_of(workspace)["logged"]) == SETTINGS
    assert mirrored(experiment, workspace) == []  # it is said once


def test_a_function_that_fails_for_now_is_tried_again_by_the_next_run(begun, server, proxy):
    experiment, workspace = begun
    proxy.answer("/experiments/set-experiment-tag", 500)
    (line,) = mirrored(experiment, workspace)
    assert "; the next run tries again: experiment kind (" in line
    assert set(record_of(workspace)["logged"]) == SETTINGS - {"experiment kind"}
    proxy.answers.clear()
    mirrored(experiment, workspace)
    assert set(record_of(workspace)["logged"]) == SETTINGS


def test_a_server_that_takes_no_run_is_not_promised_a_next_time(begun, proxy):
    experiment, workspace = begun
    proxy.answer("/runs/create", 404)
    (line,) = mirrored(experiment, workspace)
    assert line.endswith("; nothing can be logged there")
    proxy.answers[:] = [("/runs/create", 403, "<h1>Forbidden</h1>")]
    (line,) = mirrored(experiment, workspace)
    assert line.endswith("; the next run logs what is missing")


def test_a_server_that_dies_between_gets_the_rest_later(begun, server, proxy, monkeypatch):
    experiment, workspace = begun
    inner = worker.Worker._log_item

    def dying(self, runs, name, present):
        proxy.down = name == "experiment.yaml"
        inner(self, runs, name, present)

    monkeypatch.setattr(worker.Worker, "_log_item", dying)
    (line,) = mirrored(experiment, workspace)
    assert "does not answer any more; the next run logs experiment.yaml, folds" in line
    proxy.down = False
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
    mirrored(experiment, workspace)
    assert artifacts_of(server, experiment.name) == {"experiment.yaml", "folds.geojson"}
    (parent,), _ = runs_of(server, experiment.name)
    assert parent.info.status == "FINISHED"


def test_a_full_disk_stops_nothing_and_has_the_rest_later(begun, tmp_path, monkeypatch):
    """The system refuses that the database beside the workspace grows."""
    experiment, workspace = begun
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    database = tmp_path / "mlflow.db"
    mirrored(experiment.model_copy(update={"name": "before"}), workspace)
    (Path(workspace.root) / "mlflow.json").unlink()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (database.stat().st_size, limits[1]))
    try:
        said = mirrored(experiment, workspace)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(said) == 1
    assert "the next run" in said[0], said
    assert "\n" not in said[0]
    mirrored(experiment, workspace)
    assert set(record_of(workspace)["logged"]) == SETTINGS
    assert params_of(f"sqlite:///{database}", experiment.name)["train.updates"] == "60"
    (parent,), _ = runs_of(f"sqlite:///{database}", experiment.name)
    assert parent.info.status == "FINISHED"


# Late


def test_a_late_server_holds_no_stage_up_and_the_end_only_for_a_while(
    begun, server, proxy, monkeypatch
):
    """No request is answered before the verb has ended."""
    experiment, workspace = begun
    monkeypatch.setattr(mirror, "END_S", 1.0)
    monkeypatch.setattr(mirror, "LAST_ANSWER_S", 0.0)
    released, told = proxy.hold(""), Told()
    log = mirror.Mirror(experiment, workspace, told)
    log.start("predict", 2, "blocks")
    log.advance()
    log.update()
    log.finish("done")  # the stage ends while nothing was answered
    assert told.lines == ["predict: done"]
    log.end("FINISHED")
    assert "took more than 1 s at the end; the next run logs what is missing" in told.lines[-1]
    released.set()
    log._thread.join(60)  # in a process that ends, it is not waited for
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
    mirrored(experiment, workspace)
    assert set(record_of(workspace)["logged"]) == SETTINGS
    (parent,), _ = runs_of(server, experiment.name)
    assert parent.info.status == "FINISHED"


def test_what_was_not_reached_in_time_is_named_and_the_run_has_its_status(
    begun, server, proxy, monkeypatch
):
    experiment, workspace = begun
    monkeypatch.setattr(mirror, "END_S", 0.0)
    monkeypatch.setattr(mirror, "LAST_ANSWER_S", 60.0)
    (line,) = mirrored(experiment, workspace)
    left = "experiment kind, experiment, experiment.yaml, folds"
    assert line.endswith(f"took more than 0 s at the end; the next run logs {left}")
    (parent,), _ = runs_of(server, experiment.name)
    assert parent.info.status == "FINISHED"
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.url)
    mirrored(experiment, workspace)
    assert set(record_of(workspace)["logged"]) == SETTINGS


# Curves while a model trains


def in_training(workspace: Workspace, source: Workspace) -> list[dict[str, float]]:
    """Let training be under way in a workspace; the points that the model KEY will have."""
    manifest = json.loads(Path(source.url("models", "manifest.json")).read_text())
    left = {key: manifest[key] for key in ("inputs_sha256", "inputs", "begun")}
    files.write_json(workspace.url("models", "begun.json"), left)
    history = tables.read_table(source.url(ITEM, "history.parquet"))
    return history.to_dict("records")


def logged_live(log: mirror.Mirror, points, condition) -> None:
    """Report points as training does, and wait until MLflow has them."""
    for point in points:
        log.curve(KEY, point)
    for _ in range(1200):
        if condition():
            return
        threading.Event().wait(0.1)
    raise AssertionError("no points arrived")


@pytest.fixture
def trains(world, begun):
    """As `begun`, while the model KEY trains; with the points of its curve."""
    experiment, workspace = begun
    return experiment, workspace, in_training(workspace, world.workspace)


def has(uri: str, name: str, n: int) -> bool:
    """Whether the curve has n points."""
    try:
        return len(points_of(uri, name)) >= n
    except (AttributeError, ValueError):
        return False  # neither the experiment nor the run is there yet


def complete(world, workspace: Workspace) -> None:
    """Let the training of KEY have ended."""
    shutil.copytree(world.workspace.url(ITEM), workspace.url(ITEM), dirs_exist_ok=True)


def test_a_curve_grows_and_a_worker_that_repeats_updates_doubles_nothing(
    world, trains, server, proxy
):
    experiment, workspace, points = trains
    log = mirror.Mirror(experiment, workspace, Told())
    log.start("train", 60, "updates")
    logged_live(log, points[:3], lambda: has(server, experiment.name, 3))
    (parent,), (child,) = runs_of(server, experiment.name)
    assert {parent.info.status, child.info.status} == {"RUNNING"}
    # A worker is lost, and another one repeats what it had done since its last checkpoint.
    logged_live(log, points[1:5], lambda: has(server, experiment.name, 5))
    log.end("FAILED", "interrupted")
    (parent,), (child,) = runs_of(server, experiment.name)
    assert {parent.info.status, child.info.status} == {"FAILED"}
    # The run is resumed from a checkpoint, by another driver.
    log = mirror.Mirror(experiment, workspace, Told())
    log.start("train", 60, "updates")
    logged_live(log, points[2:8], lambda: has(server, experiment.name, 8))
    _, (child,) = runs_of(server, experiment.name)
    assert child.info.status == "RUNNING"
    complete(world, workspace)
    log.end("FINISHED")
    expected = [(point["step"], point["loss_insitu"]) for point in points]
    assert points_of(server, experiment.name) == expected
    _, (child,) = runs_of(server, experiment.name)
    assert child.info.status == "FINISHED"


def test_points_that_a_dead_server_missed_are_filled_in_once(
    world, trains, server, proxy, monkeypatch
):
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    experiment, workspace, points = trains
    log = mirror.Mirror(experiment, workspace, Told())
    log.start("train", 60, "updates")
    logged_live(log, points[:2], lambda: has(server, experiment.name, 2))
    proxy.down, asked = True, len(proxy.asked)
    logged_live(log, points[2:4], lambda: len(proxy.asked) > asked)
    proxy.down = False
    logged_live(log, points[4:5], lambda: has(server, experiment.name, 5))
    # The answers to further points are lost, though the server took them.
    proxy.lost.append("/runs/log-batch")
    logged_live(log, points[5:7], lambda: has(server, experiment.name, 7))
    proxy.lost.clear()
    complete(world, workspace)
    log.end("FINISHED")
    expected = [(point["step"], point["loss_insitu"]) for point in points]
    assert points_of(server, experiment.name) == expected


def test_progress_of_a_stage_is_a_metric_of_the_parent_while_it_works(begun, server, proxy):
    experiment, workspace = begun
    log, name = mirror.Mirror(experiment, workspace, Told()), "progress/prepare/blocks"
    log.start("prepare", 6, "blocks")
    log.advance(2)

    def shown() -> bool:
        try:
            (parent,), _ = runs_of(server, experiment.name)
        except (AttributeError, ValueError):
            return False
        return parent.data.metrics.get(f"{name}_done") == 2

    logged_live(log, [], shown)
    log.advance(4)
    log.end("FINISHED")
    (parent,), _ = runs_of(server, experiment.name)
    assert (parent.data.metrics[f"{name}_done"], parent.data.metrics[f"{name}_total"]) == (6, 6)


def test_blocks_of_prepare_are_a_metric_of_the_run(world, tmp_path, server, proxy, prepared_here):
    experiment = world.experiment.model_copy(update={"name": "prepared"})
    workspace = Workspace(str(tmp_path / "prepared"))
    run_stages.run(("prepare",), experiment, workspace, Told())
    (parent,), _ = runs_of(server, "prepared")
    n = len(schema.block_range(experiment.period))
    assert parent.data.metrics["progress/prepare/blocks_done"] == n
    assert parent.data.metrics["progress/prepare/blocks_total"] == n
    assert parent.info.status == "FINISHED"


# Copies


@pytest.mark.parametrize("recorded", [True, False])
def test_a_copied_workspace_has_runs_of_its_own(begun, server, proxy, tmp_path, recorded):
    """Also where the record was written before it had the workspace's URL."""
    experiment, workspace = begun
    mirrored(experiment, workspace, "RUNNING")
    if not recorded:
        record = record_of(workspace)
        files.write_json(
            workspace.url("mlflow.json"), {k: v for k, v in record.items() if k != "workspace"}
        )
    shutil.copytree(workspace.root, tmp_path / "copy" / "snow")
    copy = Workspace(str(tmp_path / "copy" / "snow"))
    mirrored(experiment, copy)
    parents, _ = runs_of(server, experiment.name)
    status = {run.data.tags["workspace"]: run.info.status for run in parents}
    assert status == {workspace.root: "RUNNING", copy.root: "FINISHED"}
    assert artifacts_of_run(server, copy) == {"experiment.yaml", "folds.geojson"}
    mirrored(experiment, workspace)
    parents, _ = runs_of(server, experiment.name)
    assert {run.info.status for run in parents} == {"FINISHED"}
    assert len(parents) == 2


def artifacts_of_run(uri: str, workspace: Workspace) -> set[str]:
    from mlflow import MlflowClient

    parent = record_of(workspace)["parent"]
    return {item.path for item in MlflowClient(uri).list_artifacts(parent)}
