"""Environment variables, changed for a while.

MLflow, a mirror of what lies in a workspace; only the driver talks to it.

A run per experiment and settings, a child run per arm and fold, a registered model per arm. What
was logged is kept in mlflow.json in the workspace: uri (without a password), settings (digest),
models (identity of those logged), experiment, parent, children (ids), versions, status, and logged:
the digest of each thing that MLflow has. A server that was away is caught up at the next call.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pipeline import files
from pipeline.errors import SoilweaveError
from pipeline.experiment import renamed
from pipeline.storage import models, schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


@contextlib.contextmanager
def changed(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables until the block ends; None takes one away."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


Status = Literal["RUNNING", "FINISHED", "FAILED"]
RECORD = "mlflow.json"
CHAIN = ("cube", "folds", "models", "maps", "scores", "report")  # each made from those before it
MIRRORED = ("folds", "scores", "report")
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # and their ports
ANSWER_S, REQUEST_S = 4, 30
QUIET = ("mlflow", "alembic", "sqlalchemy")

# Read by MLflow at every request; its own defaults try for minutes.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_S),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}

PROBE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER_S),
}

# These would lead what is logged into a run of somebody else.
FOREIGN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def mirror(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    status: Status,
    error: str = "",
) -> None:
    """Log what MLflow lacks; where it lacks nothing, nothing is touched and mlflow not imported.

    Whatever goes wrong with MLflow stops nothing: at the end of a verb it is told in one line.

    Args:
      experiment: the experiment.
      workspace: where its artefacts and the record of what was logged lie.
      progress: is told at the end of a verb alone.
      status: RUNNING while a verb is at work, then FINISHED or FAILED.
      error: what ended a verb, shown as the run's tag `error`.
    """
    try:
        note = _mirror(experiment, workspace, progress, status, error)
    except Exception as failure:
        # Asked only now: what a store raises is known once its file system is loaded.
        if not isinstance(failure, (SoilweaveError, *files.failures())):
            raise
        note = f"not logged: {failure}"
    if note and status != "RUNNING":
        progress.start("mlflow", 0, "runs")
        progress.finish(note)


def _mirror(
    experiment: Experiment, workspace: Workspace, progress: Progress, status: Status, error: str
) -> str:
    """Catch MLflow up; returns what there is to tell, "" for nothing.

    Raises:
      SoilweaveError: the workspace cannot be written, or is another driver's.
      Exception: one of `files.failures()`: it cannot be read.
    """
    uri, wanted = tracking_uri(workspace), lying(experiment, workspace)
    if uri is None:
        return "nothing is tracked; set MLFLOW_TRACKING_URI to a server"
    remedy = "remove it, and the next run logs everything to MLflow again"
    record = files.read_json(workspace.url(RECORD), remedy) or {}
    shown, settings = without_password(uri), wanted["logged"]["experiment"]
    if (record.get("uri"), record.get("settings")) != (shown, settings):
        if wanted["foreign"]:
            return ""  # the stage that is next refuses these settings, or replaces what is there
        record = {"uri": shown, "settings": settings}
    if not _lacks(record, wanted, status):
        return ""
    lease = workspace.lease
    was_held = lease.held
    try:
        with _quiet(uri):
            client = _client(uri)
            if client is None:
                return f"{shown} does not answer; the next run logs what it lacks"
            lease.take(progress.note)
            _log(experiment, workspace, client, record, wanted, status, error)
    except SoilweaveError:
        raise
    except Exception as failure:  # noqa: BLE001  # of MLflow, its database or its artifact store
        said = " ".join(str(failure).split()).replace(uri, shown)[:200]
        return f"{shown}: {said}; the next run logs what it lacks"
    finally:
        if not was_held:
            lease.release()
    return f"logged to {shown}"


def _lacks(record: Json, wanted: Json, status: Status) -> bool:
    """Whether MLflow lacks anything; a finished run is not opened again for nothing."""
    if wanted["logged"].items() - record.get("logged", {}).items():
        return True
    known = record.get("status")
    return known != status and (status, known) != ("RUNNING", "FINISHED")


def _log(
    experiment: Experiment,
    workspace: Workspace,
    client: MlflowClient,
    record: Json,
    wanted: Json,
    status: Status,
    error: str,
) -> None:
    """Log each thing that is newer than the record says, recording one after the other.

    The run gets its status also where something could not be logged, which the next run logs.
    """
    from pipeline.tracking.registry import register
    from pipeline.tracking.runs import Runs

    runs = Runs(client, experiment, workspace, record, wanted["models"])
    runs.open(artifacts(tracking_uri(workspace)))
    curves = {models.folder("models", job): job for job in models.jobs_in(workspace, experiment)}
    logs = {
        "experiment": runs.log_experiment,
        "folds": runs.log_folds,
        "scores": runs.log_scores,
        "report": runs.log_report,
    }
    try:
        for name, digest in wanted["logged"].items():
            if runs.logged.get(name) == digest:
                continue
            if name in curves:
                runs.log_curves(curves[name], wanted["logged"].keys())
            elif name.startswith("models/"):
                register(runs, name.removeprefix("models/"), digest)
            else:
                logs[name]()
            runs.keep(name, digest)
    finally:
        runs.close(status, error)


def lying(experiment: Experiment, workspace: Workspace) -> Json:
    """What of these settings lies in the workspace.

    Returns:
      logged, the digest of each thing to log: experiment, folds, `models/{arm}/fold=../seed=..`
      (a curve), `models/{arm}` (the product), scores, report; models, their identity; foreign,
      whether there is anything of other settings.
    """
    settings = experiment.model_dump(mode="json", exclude={"compute"})
    logged = {"experiment": files.sha256_of(renamed.with_first_names(settings))}
    digests: dict[str, str] = {}
    foreign = False
    for name in CHAIN:
        holder = workspace.prepared(experiment) if name == "cube" else workspace
        artefact = holder.artefact(name)
        found = artefact.manifest()
        if found is None and name == "models":
            found = artefact.begun()
        if found is None:
            continue
        mine = schema.identity(experiment, name) if holder is workspace else {}
        mine = schema.as_recorded(mine, found["inputs"])
        same = all(found["inputs"].get(key) == value for key, value in mine.items())
        if not same or any(found["inputs"].get(k, d) != d for k, d in digests.items()):
            foreign = True
            break
        digests[name] = found["inputs_sha256"]
        if name == "models":
            logged |= _models(experiment, workspace, found)
        elif name in MIRRORED:
            logged[name] = files.sha256_of([found["inputs_sha256"], found["created"]])
    return {"logged": logged, "models": digests.get("models"), "foreign": foreign}


def _models(experiment: Experiment, workspace: Workspace, found: Json) -> dict[str, str]:
    """Digests of the curves and, once all models are there, of every arm's product."""
    every = models.jobs_in(workspace, experiment)
    if "shards" not in found:
        left = set(models.unfinished(workspace.url("models"), every))
        urls = {models.folder("models", job): job for job in every if job not in left}
        return {
            url: files.sha256(files.read_bytes(workspace.url(url, "history.parquet")))
            for url in urls
        }
    shards = {f"models/{shard['key']}": shard["sha256"] for shard in found["shards"]}
    curves = {
        url: shards[f"{url}/history.parquet"]
        for url in (models.folder("models", job) for job in every)
    }
    products = {}
    for arm in experiment.arms:
        parts = (f"models/{arm}/fold={models.fold_name(models.ALL)}/", f"models/{arm}/calibration")
        own = sorted((k, v) for k, v in shards.items() if k.startswith(parts))
        products[f"models/{arm}"] = files.sha256_of([e for e in own if "history" not in e[0]])
    return curves | products


def tracking_uri(workspace: Workspace) -> str | None:
    """MLFLOW_TRACKING_URI, else a file beside the experiments of a local workspace, else None."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if "://" in workspace.root:
        return None
    return f"sqlite:///{Path(files.absolute(workspace.root)).parent}/mlflow.db"


def artifacts(uri: str | None) -> str | None:
    """Where artifacts go: beside a file of ours; None where a server knows."""
    path = (uri or "").removeprefix("sqlite:///")
    return None if path == uri else str(Path(path).resolve().parent / "mlartifacts")


def without_password(uri: str) -> str:
    """A URI as it may be shown and kept."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def _client(uri: str) -> MlflowClient | None:
    """A client of a server that answers now, else None; its own ways would try for minutes."""
    parts = urlsplit(uri)
    port = DATABASES.get(parts.scheme.split("+")[0])
    if port and parts.hostname:
        try:
            socket.create_connection((parts.hostname, parts.port or port), ANSWER_S).close()
        except OSError:
            return None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    if not parts.scheme.startswith("http"):
        return client
    with changed(PROBE):
        try:
            client.search_experiments(max_results=1)
        except MlflowException as error:
            # A refusal is an answer: what it says is told when it is met again.
            return (
                None
                if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
                else client
            )
    return client


@contextlib.contextmanager
def _quiet(uri: str) -> Iterator[None]:
    """MLflow without its lines, links, warnings, and without what it reads of a run elsewhere."""
    # Saving a model asks the server of the environment; without one it would make a file here.
    own = SETTINGS | {"MLFLOW_TRACKING_URI": uri} | dict.fromkeys(FOREIGN)
    with changed(own), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401  # sets the level of its loggers, so comes before ours

        loggers = [logging.getLogger(name) for name in QUIET]
        before = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
