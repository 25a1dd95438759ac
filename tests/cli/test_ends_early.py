"""What is wrong from the start is said before the work; a run that fails is shown as failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from processes import running
from typer.testing import CliRunner

from pipeline import prepare, train
from pipeline.cli import app, run_stages
from pipeline.errors import SoilweaveError
from pipeline.evaluate import stage as evaluate_stage
from pipeline.experiment import load
from pipeline.prepare import folds, stage
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace
from pipeline.train import stage as train_stage


@pytest.fixture
def no_work(monkeypatch):
    """Names of the stages that are run, none of which does anything."""
    done = []
    for module in (stage, folds, train_stage, evaluate_stage):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "run", lambda *_, name=name, **__: done.append(name))
    monkeypatch.setattr("pipeline.planet.run", lambda *_, **__: done.append("planet"))
    monkeypatch.setattr("pipeline.predict.run", lambda *_, **__: done.append("predict"))
    monkeypatch.setattr("pipeline.evaluate.report.run", lambda *_, **__: done.append("report"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    return done


def spoilt(snow: Path, change) -> Path:
    """The experiment file of the small world, changed."""
    tree = yaml.safe_load(snow.read_text())
    change(tree)
    snow.write_text(yaml.safe_dump(tree))
    return snow


def noticed(path: Path, stages, *settings: str) -> str:
    """Run stages for an experiment; the message of the error, "" where there is none."""
    experiment = load.load_experiment(str(path), settings)
    workspace = Workspace(str(path.parent / "ws" / experiment.name))
    try:
        run_stages.run(stages, workspace.place(experiment), workspace, SilentProgress())
    except SoilweaveError as error:
        return str(error)
    return ""


MAPS = ("planet", "prepare", "predict")


def test_models_that_are_not_there_are_noticed_before_the_cube_is_prepared(snow, no_work):
    wrong = snow.parent / "nowhere" / "models"
    said = noticed(snow, MAPS, f"models={wrong}", "sources.satellite=null", "sources.insitu=[]")
    assert (no_work, "no complete models here" in said) == ([], True)


def test_predict_with_wrong_models_leaves_no_cube(snow, tmp_path):
    command = ["predict", str(snow), "--models", str(tmp_path / "no-models")]
    done = CliRunner().invoke(app, [*command, "--workspace", str(tmp_path / "ws")])
    assert "no complete models here" in str(done.exception)
    assert not (tmp_path / "ws" / "snow" / "cube.zarr").exists()


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("baselines=[cells, nowhere.smap9]", "no entry 'nowhere.smap9'"),
        ("sources.truth=truht", "no entry 'truht'"),
        ("sources.forcing=[cells, rain]", "no entry 'rain'"),
        ("sources.insitu=[sites, sties]", "no entry 'sties'; did you mean 'sites'"),
        ("sources.staged=/nowhere/staged", "no complete copy of cells"),
        ("cube=/nowhere/cube.zarr", "no complete cube here"),
    ],
)
def test_what_a_later_stage_would_miss_is_noticed_first(snow, no_work, key, said):
    found = noticed(snow, run_stages.RUN, key)
    assert (no_work, said in found) == ([], True), found


def test_everything_that_is_missing_is_named_at_once(snow, no_work):
    settings = ("baselines=[one]", "sources.truth=two", "sources.forcing=[cells, three]")
    found = noticed(snow, run_stages.RUN, *settings)
    assert no_work == []
    assert [name for name in ("one", "two", "three") if f"no entry '{name}'" in found] == [
        "one",
        "two",
        "three",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "not found; give the path or URL of a GeoJSON file"),
        ("[1, 2]", "is not GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "has no features"),
        ('{"type": "Point", "coordinates": [0, 0]}', "a feature of type Point"),
        ('{"type": "Polygon", "coordinates": [0, 0]}', "has no rings"),
    ],
)
def test_regions_that_cannot_be_used_are_noticed_first(snow, no_work, content, said):
    regions = snow.parent / "regions.geojson"
    if content is not None:
        regions.write_text(content)
    found = noticed(snow, run_stages.RUN, "folds.kind=region", f"folds.by={regions}")
    assert (no_work, said in found) == ([], True), found


def test_a_job_with_regions_that_are_not_there_is_not_uploaded(snow, tmp_path):
    from pipeline.cluster import submit

    settings = ("folds.kind=region", f"folds.by={tmp_path}/nowhere.geojson")
    order = submit.JobSpec(str(snow), "run", "s3://bucket/ws", settings=settings)
    said = ""
    try:
        submit.collect_upload(order, tmp_path)
    except (SoilweaveError, OSError) as error:
        said = str(error)
    assert said == f"folds.by {tmp_path}/nowhere.geojson: not found; correct the path"


def test_a_product_without_the_target_is_noticed_before_training(world, tmp_path, monkeypatch):
    """Also where the cube is another experiment's, so that nothing is prepared here."""
    worked = []
    monkeypatch.setattr(train_stage, "run_workers", lambda *_, **__: worked.append("train"))
    settings = [f"cube={world.workspace.root}", "arms=[insitu]", "baselines=[cells]"]
    experiment = load.load_experiment(str(world.path), settings, "unjudged")
    workspace = Workspace(str(tmp_path / "unjudged"))
    folds.run(experiment, workspace, SilentProgress())
    said = ""
    try:
        train.run(experiment, workspace, SilentProgress())
    except SoilweaveError as error:
        said = str(error)
    except KeyError as error:  # what f22735c ends with, when nothing was trained
        said = repr(error)
    finally:
        workspace.lease.release()
    assert (worked, "baseline cells: no snow_depth" in said) == ([], True), said


def test_models_that_need_what_the_sources_lack_are_noticed_by_prepare(world, tmp_path):
    """The models take elevation; these sources have none."""
    settings = [f"models={world.workspace.url('models')}", "sources.static=[]"]
    settings += ["sources.satellite=null", "sources.insitu=[]"]
    experiment = load.load_experiment(str(world.path), settings, "elsewhere")
    workspace = Workspace(str(tmp_path / "elsewhere"))
    said = ""
    try:
        prepare.run(experiment, workspace, SilentProgress())
    except SoilweaveError as error:
        said = str(error)
    finally:
        workspace.lease.release()
    assert "needs static elevation" in said
    assert not (tmp_path / "elsewhere" / "cube.zarr").exists()


def test_score_opens_its_sites_before_it_learns_anything(world, monkeypatch, tmp_path):
    learnt = []
    monkeypatch.setattr(
        "pipeline.evaluate.bias_adjustment._training_errors", lambda *_: learnt.append(1) or {}
    )
    command = ["score", str(world.path), "--sites", str(tmp_path / "nowhere.nc"), "--adjust"]
    root = Path(world.workspace.root).parent
    done = CliRunner().invoke(app, [*command, "--workspace", str(root)])
    assert (learnt, "nowhere.nc" in str(done.exception)) == ([], True)


@pytest.mark.parametrize("option", ["--json", "--figure"])
def test_score_notices_first_that_its_result_cannot_be_written(
    world, monkeypatch, tmp_path, option
):
    (tmp_path / "file").write_text("no folder")
    begun = []
    monkeypatch.setattr(
        "pipeline.evaluate.probes.score_probes", lambda *_, **__: begun.append(1) or {}
    )
    command = ["score", str(world.path), "--sites", "sites.nc", "--adjust"]
    command += [option, str(tmp_path / "file" / "result")]
    done = CliRunner().invoke(app, command)
    assert (begun, "cannot be written" in str(done.exception)) == ([], True)


# MLflow


def runs_of(folder: Path, name: str) -> dict[str, tuple[str, str]]:
    """Status and tag `error` of every run of an experiment, by its own name."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name(f"soilweave/{name}")
    if found is None:
        return {}
    return {
        run.info.run_name: (run.info.status, run.data.tags.get("error", ""))
        for run in client.search_runs([found.experiment_id])
    }


@pytest.fixture
def kept(world, tmp_path, monkeypatch):
    """The small world's file, and a workspace with its cube alone; MLflow in a file beside it."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "ws" / "snow"
    shutil.copytree(world.workspace.url("cube.zarr"), root / "cube.zarr")
    shutil.copy(world.workspace.url("experiment.yaml"), root)
    return world.path, Workspace(str(root))


def failing(message: str):
    """A stage that finds a fault before it has begun any work."""

    def run(*_, **__):
        raise SoilweaveError("stage", message)

    return run


def test_a_run_that_fails_early_is_shown_as_failed_with_the_error(kept, monkeypatch):
    """Prepare finds its work done and opens the run; folds then fails before it takes the lease."""
    path, workspace = kept
    experiment = load.load_experiment(str(path))
    monkeypatch.setattr(folds, "run", failing("too few sites"))
    with pytest.raises(SoilweaveError, match="too few sites"):
        run_stages.run(run_stages.STAGES["prepare"], experiment, workspace, SilentProgress())
    folder = Path(workspace.root).parent
    assert runs_of(folder, "snow") == {"snow": ("FAILED", "stage: too few sites")}
    assert json.loads((Path(workspace.root) / "mlflow.json").read_text())["status"] == "FAILED"
    monkeypatch.undo()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run_stages.run(run_stages.STAGES["prepare"], experiment, workspace, SilentProgress())
    assert runs_of(folder, "snow") == {"snow": ("FINISHED", "")}


def test_an_error_is_logged_without_its_secrets(kept, monkeypatch):
    path, workspace = kept
    experiment = load.load_experiment(str(path))
    monkeypatch.setenv("PROVIDER_TOKEN", "s3cret-of-the-provider")

    def run(*_, **__):
        raise ValueError("asked https://host/a?sig=abcdef with s3cret-of-the-provider")

    monkeypatch.setattr(folds, "run", run)
    with pytest.raises(ValueError, match="asked"):
        run_stages.run(run_stages.STAGES["prepare"], experiment, workspace, SilentProgress())
    shown = runs_of(Path(workspace.root).parent, "snow")
    assert shown == {"snow": ("FAILED", "ValueError: asked https://host/a with ***")}


def test_a_verb_that_fails_before_any_work_makes_no_run(snow, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    experiment = load.load_experiment(str(snow), ["sources.forcing=[nowhere]"])
    workspace = Workspace(str(snow.parent / "ws" / "snow"))
    with pytest.raises(SoilweaveError, match="no entry 'nowhere'"):
        run_stages.run(run_stages.STAGES["prepare"], experiment, workspace, SilentProgress())
    assert not (snow.parent / "ws" / "mlflow.db").exists()


STOPPED = """
import sys, time
from pathlib import Path
from pipeline.cli import run_stages
from pipeline.experiment import load
from pipeline.prepare import folds
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

path, root, begun = sys.argv[1:]
experiment, workspace = load.load_experiment(path), Workspace(root)
def run(*_, **__):
    Path(begun).touch()
    time.sleep(60)
folds.run = run
run_stages.run(run_stages.STAGES["prepare"], experiment, workspace, SilentProgress())
"""


@pytest.mark.runs  # each waits for a process of its own
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_driver_that_is_told_to_end_leaves_no_run_running(kept, tmp_path, how):
    """SIGTERM, as of `ray job stop` and of schedulers, Ctrl-C, and a terminal that is closed."""
    path, workspace = kept
    begun = tmp_path / "begun"
    arguments = [str(path), workspace.root, str(begun)]
    driver = subprocess.Popen([sys.executable, "-c", STOPPED, *arguments], env=dict(os.environ))
    try:
        end = time.monotonic() + 60
        while not begun.exists():
            assert driver.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        driver.send_signal(how)
        driver.wait(timeout=60)
    finally:
        driver.kill()
    shown = runs_of(Path(workspace.root).parent, "snow")
    assert {name: status for name, (status, _) in shown.items()} == {"snow": "FAILED"}
    assert not Path(workspace.url("lease.json")).exists()


REPAIRED = """
import sys, time
from pathlib import Path
from pipeline import cli
from pipeline.cli import repair

root, begun = sys.argv[1:]
def run(workspace, *_):
    with workspace.lease.given_back():
        workspace.lease.take(print)
        Path(begun).touch()
        time.sleep(60)
repair.repair = run
sys.argv = ["soilweave", "verify", root, "--repair"]
cli.main()
"""


@pytest.mark.runs  # it waits for a process of its own
def test_a_repair_that_is_told_to_end_gives_the_lease_back(kept, tmp_path):
    root, begun = kept[1].root, tmp_path / "begun"
    with running([sys.executable, "-c", REPAIRED, root, str(begun)], tmp_path / "log") as driver:
        driver.wait_for(begun.exists)
        driver.process.send_signal(signal.SIGTERM)
        assert driver.process.wait(timeout=60) == 128 + signal.SIGTERM
    assert not Path(root, "lease.json").exists()


WAITING = """
import sys
from pipeline.cli import run_stages
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

class Told(SilentProgress):
    def note(self, text):
        print(text, flush=True)

experiment, workspace = load.load_experiment(sys.argv[1]), Workspace(sys.argv[2])
run_stages.run(run_stages.STAGES["prepare"], experiment, workspace, Told())
"""


@pytest.mark.runs  # each waits for a process of its own
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_a_driver_that_is_told_to_end_while_it_waits_ends_and_takes_nothing(kept, tmp_path, how):
    path, workspace = kept
    held = Path(workspace.url("lease.json"))
    held.write_text(json.dumps({"host": "elsewhere", "pid": 1, "since": "today"}))
    before = held.read_bytes()
    command = [sys.executable, "-c", WAITING, str(path), workspace.root]
    with running(command, tmp_path / "log") as driver:
        driver.wait_for(lambda: b"waiting up to 60 s" in driver.log.read_bytes())
        driver.process.send_signal(how)
        assert driver.process.wait(timeout=60)
    assert held.read_bytes() == before


@pytest.mark.runs  # each waits for a process of its own
def test_a_driver_below_nohup_survives_a_closed_terminal(kept, tmp_path):
    path, workspace = kept
    begun = tmp_path / "begun"
    command = ["nohup", sys.executable, "-c", STOPPED, str(path), workspace.root, str(begun)]
    with running(command, tmp_path / "log") as driver:
        driver.wait_for(begun.exists)
        driver.process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            driver.process.wait(timeout=2)
        driver.process.send_signal(signal.SIGTERM)
        driver.process.wait(timeout=60)
    assert not Path(workspace.url("lease.json")).exists()


def test_what_cannot_be_logged_leaves_no_run_running(world, tmp_path, monkeypatch):
    """The report is lost: the run ends as it did, and the line says what is lacking."""
    from pipeline.tracking import mirror

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    left = shutil.ignore_patterns("mlflow.json", "report.html", "models")
    shutil.copytree(world.workspace.root, tmp_path / "snow", ignore=left)
    workspace = Workspace(str(tmp_path / "snow"))
    shutil.copytree(world.workspace.url("models"), tmp_path / "snow" / "models")
    experiment = world.experiment.model_copy(update={"arms": ("insitu",)})
    for name in ("models", "scores"):
        Path(workspace.artefact(name).prefix + "manifest.json").unlink()
    (tmp_path / "snow" / "folds.geojson").unlink()
    mirror.Mirror(experiment, workspace, SilentProgress()).end("FINISHED")
    shown = runs_of(tmp_path, "snow")
    assert {name: status for name, (status, _) in shown.items()} == {"snow": "FINISHED"}
