"""Mirror a workspace in MLflow: one run per experiment and settings.

A run has one child run per arm and fold, and there is one registered model per arm. Only the driver
talks to MLflow. The workspace remains the record of results: whatever MLflow has can be logged
again from it, and a server that was away is brought up to date at the next call.

mlflow.json in the workspace keeps what was logged:
  uri: tracking URI, without a password.
  settings: digest of the experiment's settings.
  models: identity of the models that were logged.
  experiment, parent, children: MLflow's ids.
  versions: version of each registered model.
  status: status of the run.
  logged: digest of each thing that MLflow has, by name.
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
from pipeline.storage.artefacts import digest_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


Status = Literal["RUNNING", "FINISHED", "FAILED"]
RECORD_FILE = "mlflow.json"
ARTEFACT_CHAIN = (
    "cube",
    "folds",
    "models",
    "maps",
    "scores",
    "report",
)  # each is made from those before it
MIRRORED = ("folds", "scores", "report")  # artefacts that are logged as they are
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # their default ports
ANSWER_S, REQUEST_S = 4, 30  # time limits: for a first answer, and for each request
SILENCED_LOGGERS = ("mlflow", "alembic", "sqlalchemy")  # loggers that are silenced

# MLflow reads these at every request; with its own defaults it retries for minutes.
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_S),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}

PROBE_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER_S),
}

# With these in the environment, MLflow would log to a run that is not ours.
FOREIGN_RUN_VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


def mirror(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    status: Status,
    error: str = "",
) -> None:
    """Log to MLflow what it lacks; if it lacks nothing, write nothing and do not import mlflow.

    An error of MLflow never stops a verb: it is reported in one line when the verb ends.

    Args:
      experiment: The experiment.
      workspace: The experiment's folder in the workspace.
      progress: Receives one line when the verb ends.
      status: RUNNING while a verb is working, then FINISHED or FAILED.
      error: The error that ended the verb, shown as the run's tag `error`.
    """
    try:
        note = _update_mlflow(experiment, workspace, progress, status, error)
    except Exception as failure:
        # The errors that a store raises are known only once its file system is loaded.
        if not isinstance(failure, (SoilweaveError, *files.storage_exceptions())):
            raise
        note = f"not logged: {failure}"
    if note and status != "RUNNING":
        progress.start("mlflow", 0, "runs")
        progress.finish(note)


def _update_mlflow(
    experiment: Experiment, workspace: Workspace, progress: Progress, status: Status, error: str
) -> str:
    """Bring MLflow up to date; return a line for the user, or an empty string.

    Raises:
      SoilweaveError: If the workspace cannot be written, or another driver holds its lease.
      Exception: One of `files.storage_exceptions()`, if the workspace cannot be read.
    """
    uri, present = tracking_uri(workspace), loggable_digests(experiment, workspace)
    if uri is None:
        return "nothing is logged; set MLFLOW_TRACKING_URI to a server"
    hint = "delete it, and the next run logs everything to MLflow again"
    record = files.read_json(workspace.url(RECORD_FILE), hint) or {}
    shown_uri, settings = without_password(uri), present["logged"]["experiment"]
    if (record.get("uri"), record.get("settings")) != (shown_uri, settings):
        if present["foreign"]:
            return ""  # the next stage refuses these settings, or replaces the artefacts
        record = {"uri": shown_uri, "settings": settings}
    if not _is_behind(record, present, status):
        return ""
    lease = workspace.lease
    had_lease = lease.held
    try:
        with _quiet_mlflow(uri):
            client = _connect(uri)
            if client is None:
                return f"{shown_uri} does not answer; the next run logs what is missing"
            lease.take(progress.note)
            _log_missing(experiment, workspace, client, record, present, status, error)
    except SoilweaveError:
        raise
    except Exception as failure:  # noqa: BLE001  # errors of MLflow, its database or its artifact store
        message = " ".join(str(failure).split()).replace(uri, shown_uri)[:200]
        return f"{shown_uri}: {message}; the next run logs what is missing"
    finally:
        if not had_lease:
            lease.release()
    return f"logged to {shown_uri}"


def _is_behind(record: Json, present: Json, status: Status) -> bool:
    """Return whether MLflow lacks anything; a finished run is not set to RUNNING for nothing."""
    if present["logged"].items() - record.get("logged", {}).items():
        return True
    recorded_status = record.get("status")
    return recorded_status != status and (status, recorded_status) != ("RUNNING", "FINISHED")


def _log_missing(
    experiment: Experiment,
    workspace: Workspace,
    client: MlflowClient,
    record: Json,
    present: Json,
    status: Status,
    error: str,
) -> None:
    """Log everything that is newer than the record, recording each thing that is logged.

    The run gets its status even if something could not be logged; the next call logs that.
    """
    from pipeline.tracking.registry import register_product
    from pipeline.tracking.runs import Runs

    runs = Runs(client, experiment, workspace, record, present["models"])
    runs.open(artifact_location(tracking_uri(workspace)))
    curves = {
        models.model_folder("models", job): job
        for job in models.list_workspace_models(workspace, experiment)
    }
    logs = {
        "experiment": runs.log_experiment,
        "folds": runs.log_folds,
        "scores": runs.log_scores,
        "report": runs.log_report,
    }
    try:
        for name, digest in present["logged"].items():
            if runs.logged.get(name) == digest:
                continue
            if name in curves:
                runs.log_curves(curves[name], present["logged"].keys())
            elif name.startswith("models/"):
                register_product(runs, name.removeprefix("models/"), digest)
            else:
                logs[name]()
            runs.keep(name, digest)
    finally:
        runs.close(status, error)


def loggable_digests(experiment: Experiment, workspace: Workspace) -> Json:
    """Return what the workspace has of these settings.

    Returns:
      `logged`, the digest of each thing to log: `experiment`, `folds`,
        `models/{arm}/fold=../seed=..`
      (a training curve), `models/{arm}` (the product of an arm), `scores`, `report`; `models`, the
      identity of the models; `foreign`, whether there is an artefact with other settings.
    """
    settings = experiment.model_dump(mode="json", exclude={"compute"})
    logged = {"experiment": files.sha256_of_json(renamed.with_original_names(settings))}
    digests: dict[str, str] = {}
    foreign = False
    for name in ARTEFACT_CHAIN:
        holder = workspace.prepared(experiment) if name == "cube" else workspace
        artefact = holder.artefact(name)
        manifest = artefact.manifest()
        if manifest is None and name == "models":
            manifest = artefact.begun()
        if manifest is None:
            continue
        own_inputs = schema.identity(experiment, name) if holder is workspace else {}
        own_inputs = schema.as_recorded(own_inputs, manifest["inputs"])
        same = all(manifest["inputs"].get(key) == value for key, value in own_inputs.items())
        if not same or any(manifest["inputs"].get(k, d) != d for k, d in digests.items()):
            foreign = True
            break
        digests[name] = digest_of(manifest)
        if name == "models":
            logged |= _model_digests(experiment, workspace, manifest)
        elif name in MIRRORED:
            logged[name] = files.sha256_of_json([manifest["inputs_sha256"], manifest["created"]])
    return {"logged": logged, "models": digests.get("models"), "foreign": foreign}


def _model_digests(experiment: Experiment, workspace: Workspace, manifest: Json) -> dict[str, str]:
    """Return digests of the curves and, once all models exist, of each arm's product."""
    all_models = models.list_workspace_models(workspace, experiment)
    if "shards" not in manifest:
        unfinished = set(models.unfinished_models(workspace.url("models"), all_models))
        urls = {
            models.model_folder("models", key): key for key in all_models if key not in unfinished
        }
        return {
            url: files.sha256(files.read_bytes(workspace.url(url, "history.parquet")))
            for url in urls
        }
    shards = {f"models/{shard['key']}": shard["sha256"] for shard in manifest["shards"]}
    curves = {
        url: shards[f"{url}/history.parquet"]
        for url in (models.model_folder("models", key) for key in all_models)
    }
    products = {}
    for arm in experiment.arms:
        prefixes = (
            f"models/{arm}/fold={models.fold_name(models.ALL_SITES)}/",
            f"models/{arm}/calibration",
        )
        product_shards = sorted((k, v) for k, v in shards.items() if k.startswith(prefixes))
        products[f"models/{arm}"] = files.sha256_of_json(
            [item for item in product_shards if "history" not in item[0]]
        )
    return curves | products


def tracking_uri(workspace: Workspace) -> str | None:
    """Return MLFLOW_TRACKING_URI, else a file in a local workspace, else None."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if "://" in workspace.root:
        return None
    return f"sqlite:///{Path(files.make_absolute(workspace.root)).parent}/mlflow.db"


def artifact_location(uri: str | None) -> str | None:
    """Return where artifacts are stored: beside our own file; None if the server decides."""
    path = (uri or "").removeprefix("sqlite:///")
    return None if path == uri else str(Path(path).resolve().parent / "mlartifacts")


def without_password(uri: str) -> str:
    """Return a URI that may be shown and stored."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def _connect(uri: str) -> MlflowClient | None:
    """Return a client if the server answers within ANSWER_S seconds, else None.

    MLflow's own retries would take minutes.

    Raises:
      SoilweaveError: If the server asks for another login.
    """
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
    with environment(PROBE_SETTINGS):
        try:
            client.search_experiments(max_results=1)
        except MlflowException as error:
            if error.error_code == "UNAUTHENTICATED":
                remedy = (
                    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; "
                    "the next run logs what is missing"
                )
                problem = "the server refuses the login"
                raise SoilweaveError(without_password(uri), problem, remedy=remedy) from error
            # A server that refuses does answer; its message is shown when a later request fails.
            return (
                None
                if error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
                else client
            )
    return client


@contextlib.contextmanager
def _quiet_mlflow(uri: str) -> Iterator[None]:
    """Keep MLflow from printing and warning, and from using another run in the environment."""
    # Saving a model uses the server of the environment, or else creates a file in this folder.
    own = MLFLOW_SETTINGS | {"MLFLOW_TRACKING_URI": uri} | dict.fromkeys(FOREIGN_RUN_VARIABLES)
    with environment(own), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow  # noqa: F401  # sets the level of its loggers, which is changed below

        loggers = [logging.getLogger(name) for name in SILENCED_LOGGERS]
        before = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables while the block runs; the value None removes a variable."""
    before = {name: os.environ.get(name) for name in values}
    _set_variables(values)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    """Set environment variables; the value None removes a variable."""
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
