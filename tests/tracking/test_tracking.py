"""MLflow has what lies in the workspace, once, whatever happened on the way; real servers only."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import servers
from processes import free_ports

from model.ensemble import combine_members, predict_series
from pipeline import files
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube
from pipeline.tracking import contents, mirror
from pipeline.tracking import server as server_module
from pipeline.train import training_data

ARMS_AND_FOLDS = {
    *((arm, fold) for arm in ("multiscale", "insitu") for fold in ("0", "1", "2", "all")),
    ("satellite", "all"),
}


@dataclass
class Told:
    """What a driver tells."""

    lines: list[str] = field(default_factory=list)

    def start(self, stage: str, total: int, unit: str) -> None:
        self.lines.append(stage)

    def finish(self, note: str) -> None:
        self.lines[-1] += f": {note}"

    def advance(self, units: int = 1) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        self.lines.append(text)

    def curve(self, key, point) -> None:
        """Show nothing."""


def copied(world, folder: Path) -> Workspace:
    left = shutil.ignore_patterns("mlflow.json")
    shutil.copytree(world.workspace.root, folder / "snow", ignore=left)
    return Workspace(str(folder / "snow"))


def mirrored(experiment, workspace: Workspace, status: str = "FINISHED") -> list[str]:
    told = Told()
    mirror.Mirror(experiment, workspace, told).end(status)
    # A server that is slow is waited for, which is said in a line of its own.
    return [line for line in told.lines if not line.startswith("waiting for ")]


def record_of(workspace: Workspace) -> dict:
    return files.read_json(workspace.url("mlflow.json"))


def runs_of(uri: str, name: str = "snow") -> tuple[list, list]:
    """Parents and children in an MLflow experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(f"soilweave/{name}")
    runs = client.search_runs([found.experiment_id])
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return [run for run in runs if run not in children], children


def assert_whole(uri: str, workspace: Workspace, experiment) -> None:
    """One finished parent, its children once, curves as in the history, a version per arm."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    (parent,), children = runs_of(uri, experiment.name)
    tags = [run.data.tags for run in children]
    assert len(children) == len(ARMS_AND_FOLDS)
    assert {(t["arm"], t["fold"]) for t in tags} == ARMS_AND_FOLDS
    assert {t["mlflow.parentRunId"] for t in tags} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    for run in children:
        arm, fold = run.data.tags["arm"], run.data.tags["fold"]
        url = workspace.url("models", arm, f"fold={fold}", "seed=0", "history.parquet")
        history = tables.read_table(url)
        for name in history.columns.drop("step"):
            points = client.get_metric_history(run.info.run_id, f"seed-0/{name}")
            points.sort(key=lambda point: point.step)
            assert [point.step for point in points] == history.step.tolist()
            assert [point.value for point in points] == history[name].tolist()
    for arm in experiment.arms:
        name = f"{experiment.name}-{arm}"
        assert len(client.search_model_versions(f"name = '{name}'")) == 1
        assert str(client.get_model_version_by_alias(name, "champion").version) == "1"
    number = client.get_experiment_by_name(f"soilweave/{experiment.name}").experiment_id
    assert len(client.search_logged_models([number])) == len(experiment.arms)
    artifacts = {item.path for item in client.list_artifacts(parent.info.run_id)}
    tables_of_it = {"folds.geojson", "summary.json", "scores.parquet", "report.html"}
    assert artifacts == tables_of_it | {"experiment.yaml"}


@pytest.fixture(scope="module")
def filed(world, tmp_path_factory):
    """A workspace mirrored to a file, while the environment names somebody else's run."""
    folder = tmp_path_factory.mktemp("filed")
    workspace = copied(world, folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(tmp_path_factory.mktemp("cwd")):
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("MLFLOW_RUN_ID", "0123456789abcdef0123456789abcdef")
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "somebody's")
        before = dict(os.environ)
        lines = mirrored(world.experiment, workspace)
        assert dict(os.environ) == before
        assert list(Path().iterdir()) == []
    return workspace, f"sqlite:///{folder}/mlflow.db", lines


@pytest.fixture(scope="module")
def port() -> int:
    """Where the server of this module is, once it is there."""
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory, port):
    """A tracking server that hands artifacts on; its URI."""
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "free_ports", lambda *_: [port])
        backend, artifacts = f"sqlite:///{folder}/server.db", str(folder / "artifacts")
        with servers.mlflow_server(folder, backend, artifacts) as uri:
            patch.undo()  # other servers have ports of their own
            yield uri


def test_a_local_workspace_is_mirrored_to_a_file_beside_it(world, filed):
    workspace, uri, lines = filed
    assert lines == [f"mlflow: logged to {uri}"]
    assert_whole(uri, workspace, world.experiment)
    assert not workspace.lease.held
    (parent,), _ = runs_of(uri)
    assert parent.info.artifact_uri.startswith(str(Path(workspace.root).parent / "mlartifacts"))


def test_the_parent_says_what_was_run_and_what_came_out(world, filed):
    (parent,), _ = runs_of(filed[1])
    params, metrics, tags = parent.data.params, parent.data.metrics, parent.data.tags
    assert (params["train.updates"], params["folds.block_km"]) == ("60", "36.0")
    assert tags["workspace"] == filed[0].root
    assert (tags["recipe"], tags["catalog"]) == ("default", world.experiment.sources.catalog)
    assert len(tags["git_commit"]) >= 7
    arm, pair = world.summary["arms"]["multiscale"], world.summary["paired"]["multiscale-insitu"]
    assert metrics["multiscale/rmse"] == arm["median"]["rmse"]
    assert metrics["multiscale/coverage-90/after"] == arm["coverage"]["90"]["after"]
    assert metrics["ridge/rmse"] == world.summary["baselines"]["ridge"]["median"]["rmse"]
    assert metrics["multiscale-insitu/rmse"] == pair["rmse"]["median_difference"]


def test_an_experiment_opens_on_its_runs(world, filed, tmp_path):
    """By its kind, and in MLflow 3.17, whose pages do not look at it, by the link."""
    from mlflow import MlflowClient

    found = MlflowClient(filed[1]).get_experiment_by_name("soilweave/snow")
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    page = server_module.page("http://me:secret@host:5000/", "7")
    assert page == "http://me:***@host:5000/#/experiments/7?workflowType=machine_learning"


def test_registered_models_say_what_they_are(world, filed):
    from mlflow import MlflowClient

    client, experiment = MlflowClient(filed[1]), world.experiment
    for arm in experiment.arms:
        text = client.get_registered_model(f"snow-{arm}").description
        assert client.get_model_version(f"snow-{arm}", "1").description == text
        assert f"Arm: {arm}. Recipe: default, 1 seeds." in text
        assert experiment.title in text
        assert f"catalog {experiment.sources.catalog}; inputs: cells; " in text
        assert ("footprints: footprints" in text) == (arm != "insitu")
        assert ("sites: sites (" in text) == (arm != "satellite")
        median = world.summary["arms"].get(arm, {}).get("median", {})
        assert (f"rmse {median['rmse']:.3g}" if median else "held-out") in text or not median
        assert ("Median over held-out sites" in text) == bool(median)


def test_children_have_the_scores_of_the_sites_held_out(world, filed):
    _, children = runs_of(filed[1])
    scores = tables.read_table(world.workspace.url("scores.parquet"))
    folds = tables.read_table(world.workspace.url("folds.parquet"))
    for run in children:
        arm, fold = run.data.tags["arm"], run.data.tags["fold"]
        own = scores[(scores.arm == arm) & (scores.fold == fold) & (scores.metric == "rmse")]
        logged = run.data.metrics.get("test/rmse")
        assert logged == (own.value.median() if own.value.notna().any() else None)
        assert (run.data.params["seeds"], run.data.params["updates"]) == ("1", "60")
        if arm != "satellite":
            assert int(run.data.params["training_sites"]) == (folds.fold.astype(str) != fold).sum()
    judged = {run.data.tags["fold"] for run in children if "test/rmse" in run.data.metrics}
    assert judged == {"0", "1", "2", "all"}


def test_where_nothing_is_new_mlflow_is_not_even_imported(world, filed):
    workspace, _, _ = filed
    before = Path(workspace.url("mlflow.json")).read_bytes()
    script = f"""
import sys
from pipeline.experiment import load
from pipeline.tracking import contents, mirror
from pipeline.tracking import server as server_module
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace
experiment, workspace = load.load_experiment({str(world.path)!r}), Workspace({workspace.root!r})
for status in ("RUNNING", "RUNNING", "FINISHED"):
    mirror.Mirror(experiment, workspace, SilentProgress()).end(status)
assert "mlflow" not in sys.modules
"""
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert Path(workspace.url("mlflow.json")).read_bytes() == before


LOADED = """
import sys
# The interpreter knows our packages by a finder (or a path) of their development install.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [path for path in sys.path if path != sys.argv[4]]
import importlib.util
assert not any(importlib.util.find_spec(name) for name in ("model", "pipeline"))
import mlflow, numpy as np
mlflow.set_tracking_uri(sys.argv[1])
loaded = mlflow.pyfunc.load_model(f"models:/{sys.argv[2]}@champion")
given = np.load(sys.argv[3])
made = loaded.predict(given["raw"])
assert "pipeline" not in sys.modules
assert "/code/model/" in sys.modules["model"].__file__
assert list(given["names"]) == loaded.metadata.metadata["inputs"]
assert loaded.metadata.metadata["units"]["air_temperature"] == "K"
for name in ("mean", "std"):
    np.testing.assert_allclose(made[name], given[name], rtol=0, atol=1e-5)
assert not np.isnan(made["mean"]).any()
"""


def assert_served(world, uri: str, name: str, folder: Path) -> None:
    """The registered model gives the pipeline's product, by its artifact alone."""
    workspace = world.workspace
    cube = Cube.open(workspace.url("cube.zarr"))
    packed = training_data.pack_data(
        world.experiment, cube, tables.read_table(workspace.url("folds.parquet"))
    )
    members = models.load_ensemble(workspace.url("models"), "multiscale")
    calibration = models.read_calibrations(workspace.url("models"), "multiscale")["all"]
    series = [predict_series(member, packed.sites("cpu")) for member in members]
    mean, std = combine_members(series, members[0].heads, calibration.level_weight)
    features = members[0].features
    forcing = [cube.series(cube.sites, f).T for f in features.forcing]
    static = [np.broadcast_to(cube.sites[f].values[:, None], mean.shape) for f in features.static]
    np.savez(
        folder / "given.npz",
        raw=np.stack(forcing + static, 2).astype(np.float32),
        names=[*features.forcing, *features.static],
        mean=mean,
        std=std * calibration.width_scale,
    )
    root = str(Path(__file__).resolve().parents[2])
    arguments = [uri, name, str(folder / "given.npz"), root]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-I", "-c", LOADED, *arguments], check=True, cwd=folder, env=environment
    )


@pytest.mark.runs  # it takes some seconds
def test_the_product_is_loaded_without_soilweave(world, filed, tmp_path):
    assert_served(world, filed[1], "snow-multiscale", tmp_path)


@pytest.mark.servers
def test_a_server_that_was_away_is_caught_up(world, tmp_path, monkeypatch, port, request):
    workspace, uri = copied(world, tmp_path), f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert mirrored(world.experiment, workspace, "RUNNING") == []
    lines = mirrored(world.experiment, workspace)
    assert lines == [f"mlflow: {uri} does not answer; the next run logs what is missing"]
    assert record_of(workspace) is None
    assert request.getfixturevalue("server") == uri  # the first test that starts it
    for status in ("RUNNING", "RUNNING", "FINISHED"):
        mirrored(world.experiment, workspace, status)
    assert_whole(uri, workspace, world.experiment)
    assert_served(world, uri, "snow-multiscale", tmp_path)
    assert mirrored(world.experiment, workspace) == []


LOGIN = ("soilweave", "a-password-of-this-test")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A tracking server behind a login; its URI."""
    pytest.importorskip("flask_wtf", reason="needs mlflow[auth], which the extra `test` brings")
    folder = tmp_path_factory.mktemp("guarded")
    backend, artifacts = f"sqlite:///{folder}/server.db", str(folder / "artifacts")
    with servers.mlflow_server(folder, backend, artifacts, login=LOGIN) as uri:
        yield uri


@pytest.mark.runs  # it takes a minute
def test_a_server_behind_a_login_is_logged_in_to(world, guarded, tmp_path, monkeypatch):
    workspace = copied(world, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", LOGIN[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", LOGIN[1])
    (line,) = mirrored(world.experiment, workspace)
    assert line.startswith(f"mlflow: logged to {guarded}/#/experiments/")
    assert_whole(guarded, workspace, world.experiment)
    assert LOGIN[1] not in Path(workspace.url("mlflow.json")).read_text()


@pytest.mark.servers
@pytest.mark.parametrize("login", [None, ("soilweave", "a-wrong-password"), ("nobody", LOGIN[1])])
def test_a_wrong_login_is_one_line(world, guarded, tmp_path, monkeypatch, login):
    workspace = copied(world, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", guarded)
    for name, value in zip(("USERNAME", "PASSWORD"), login or (), strict=False):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    (line,) = mirrored(world.experiment, workspace)
    assert line == (
        f"mlflow: not logged: {guarded}: the server refuses the login; set "
        "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; the next run logs what is missing"
    )
    assert record_of(workspace) is None
    assert not workspace.lease.held


def test_a_server_that_says_nothing_does_not_hold_up_the_run(world, tmp_path, monkeypatch):
    workspace = copied(world, tmp_path)
    monkeypatch.setitem(server_module.PROBE_SETTINGS, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as mute:
        uri = f"http://127.0.0.1:{mute.getsockname()[1]}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        (line,) = mirrored(world.experiment, workspace)
        mute.setblocking(False)
        for _ in range(1 + int(server_module.PROBE_SETTINGS["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])):
            mute.accept()[0].close()
        with pytest.raises(BlockingIOError):  # it was not asked more often
            mute.accept()
    assert "does not answer" in line


KILLED = """
import os, signal, sys
from mlflow import MlflowClient
from pipeline.experiment import load
from pipeline.tracking import contents, mirror
from pipeline.tracking import server as server_module
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

path, root, name = sys.argv[1:]
experiment = load.load_experiment(path).model_copy(update={"name": name})

def killed_after(method, n):
    calls, inner = [], getattr(MlflowClient, method)
    def outer(self, *args, **kwargs):
        made = inner(self, *args, **kwargs)
        if method != "log_batch" or kwargs.get("metrics"):
            calls.append(method)
        if len(calls) == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return made
    setattr(MlflowClient, method, outer)

points = [("create_run", 1), ("create_run", 2), ("log_batch", 1), ("log_batch", 2)]
for method, n in [*points, ("create_logged_model", 1), ("create_model_version", 2)]:
    child = os.fork()
    if not child:
        killed_after(method, n)
        mirror.Mirror(experiment, Workspace(root), SilentProgress()).end("RUNNING")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, (method, n)
mirror.Mirror(experiment, Workspace(root), SilentProgress()).end("RUNNING")
mirror.Mirror(experiment, Workspace(root), SilentProgress()).end("FINISHED")
"""


def test_killed_at_any_point_everything_arrives_once(world, tmp_path, server):
    workspace = copied(world, tmp_path)
    experiment = world.experiment.model_copy(update={"name": "killed"})
    arguments = [str(world.path), workspace.root, "killed"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": server}
    subprocess.run([sys.executable, "-c", KILLED, *arguments], check=True, env=environment)
    assert_whole(server, workspace, experiment)


def test_training_that_failed_is_shown_as_far_as_it_came(world, tmp_path, server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    workspace = copied(world, tmp_path)
    experiment = world.experiment.model_copy(update={"name": "failed"})
    manifest = Path(workspace.url("models", "manifest.json"))
    whole = json.loads(manifest.read_text())
    begun = {key: whole[key] for key in ("inputs_sha256", "inputs", "begun")}
    Path(workspace.url("models", "begun.json")).write_text(json.dumps(begun))
    for name in ("models/manifest.json", "scores.manifest.json", "report.manifest.json"):
        Path(workspace.url(name)).unlink()
    missing = workspace.url("models", "insitu", "fold=all", "seed=0")
    shutil.rmtree(missing)
    assert mirrored(experiment, workspace, "RUNNING") == []
    (parent,), children = runs_of(server, "failed")
    assert parent.info.status == "RUNNING"
    mirrored(experiment, workspace, "FAILED")
    (parent,), children = runs_of(server, "failed")
    assert parent.info.status == "FAILED"
    assert len(children) == len(ARMS_AND_FOLDS) - 1
    assert record_of(workspace)["versions"] == {}
    for name in ("models/manifest.json", "scores.manifest.json", "report.manifest.json"):
        shutil.copy(world.workspace.url(name), workspace.url(name))
    shutil.copytree(world.workspace.url("models", "insitu", "fold=all", "seed=0"), missing)
    mirrored(experiment, workspace, "RUNNING")
    mirrored(experiment, workspace)
    assert_whole(server, workspace, experiment)


def test_other_models_of_the_same_settings_have_runs_of_their_own(
    world, tmp_path, server, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    workspace = copied(world, tmp_path)
    experiment = world.experiment.model_copy(update={"name": "again"})
    mirrored(experiment, workspace, "RUNNING")
    before = record_of(workspace)
    manifest = Path(workspace.url("models", "manifest.json"))
    # The data of a source changed, so --overwrite trained anew; scores are of the old models.
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"inputs_sha256": "0" * 64}))
    mirrored(experiment, workspace, "FAILED")
    after = record_of(workspace)
    assert after["parent"] == before["parent"]
    assert after["children"].keys() == before["children"].keys()
    assert not set(after["children"].values()) & set(before["children"].values())
    assert "scores" not in after["logged"]
    (_,), children = runs_of(server, "again")
    assert len(children) == 2 * len(ARMS_AND_FOLDS)


def test_what_was_deleted_there_is_logged_anew_when_something_new_comes(
    world, tmp_path, server, monkeypatch
):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    workspace, client = copied(world, tmp_path), MlflowClient(server)
    experiment = world.experiment.model_copy(update={"name": "deleted", "arms": ("insitu",)})
    for name in ("models", "scores", "report"):
        Path(workspace.artefact(name).prefix + "manifest.json").unlink()
    mirrored(experiment, workspace)
    (parent,), _ = runs_of(server, "deleted")
    client.delete_run(parent.info.run_id)
    assert mirrored(experiment, workspace) == []
    workspace.lease.take(print)  # a stage works
    mirrored(experiment, workspace, "FAILED")
    workspace.lease.release()
    (anew,), _ = runs_of(server, "deleted")
    assert anew.info.run_id != parent.info.run_id
    assert [item.path for item in client.list_artifacts(anew.info.run_id)] == [
        "experiment.yaml",
        "folds.geojson",
    ]


def test_a_server_that_refuses_is_told_and_stops_nothing(world, tmp_path, monkeypatch):
    workspace = copied(world, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    (line,) = mirrored(world.experiment, workspace)
    assert line.startswith(f"mlflow: file:{tmp_path}/mlruns: ")
    assert line.endswith("; nothing can be logged there")
    assert "\n" not in line
    assert not workspace.lease.held


def test_a_database_that_is_away_is_not_waited_for(world, tmp_path, monkeypatch):
    workspace, (port,) = copied(world, tmp_path), free_ports(1)
    uri = f"postgresql+psycopg2://me:secret@127.0.0.1:{port}/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    (line,) = mirrored(world.experiment, workspace)
    assert f"me:***@127.0.0.1:{port}/mlflow does not answer" in line
    assert "secret" not in line


def test_a_bucket_needs_a_server(world):
    workspace = Workspace("memory://nowhere/snow")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert mirrored(world.experiment, workspace, "RUNNING") == []
        (line,) = mirrored(world.experiment, workspace)
    assert line == "mlflow: nothing is logged; set MLFLOW_TRACKING_URI to a server"


def test_artefacts_of_other_settings_are_not_taken_for_these(world, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/would-be-refused")
    train = world.experiment.train.model_copy(update={"updates": 61})
    other = world.experiment.model_copy(update={"train": train})
    found = contents.loggable_digests(other, world.workspace)
    assert found["foreign"]
    settings = {"experiment kind", "experiment", "experiment.yaml"}
    assert found["logged"].keys() == settings | {"folds"}
    assert mirrored(other, world.workspace) == []
    assert not contents.loggable_digests(world.experiment, world.workspace)["foreign"]
