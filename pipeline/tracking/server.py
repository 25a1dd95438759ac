"""The MLflow server: where it is, whether it answers, and what its errors mean."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline import files
from pipeline.errors import SoilweaveError, redact_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow import MlflowClient

    from pipeline.storage.artefacts import Workspace


DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # their default ports
ANSWER_S, REQUEST_S = 4, 30  # time limits: for a first answer, and for each request
MAX_REASON_LENGTH = 160  # characters of an error that are shown
SILENCED_LOGGERS = ("mlflow", "alembic", "sqlalchemy")
SILENCED_MODULES = r"(mlflow|alembic|sqlalchemy|pydantic|pipeline\.tracking)(\.|$)"

# MLflow reads these at every request; with its own defaults it retries for minutes.
MLFLOW_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(REQUEST_S),
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
}

LOGIN_HINT = (
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; the next run logs what is missing"
)
PROBE_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(ANSWER_S),
}

# With these in the environment, MLflow would log to a run that is not ours.
FOREIGN_RUN_VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")

# Answers that the same request gets again: the server refuses the content, or lacks the function.
REFUSED_CODES = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
FINAL_CODES = (*REFUSED_CODES, "ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")
FINAL_STATUSES = (404, 405, 501)  # of the proxy for artifacts, whose errors have no code


def tracking_uri(workspace: Workspace) -> str | None:
    """Return MLFLOW_TRACKING_URI, else a file in a local workspace, else None."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    if "://" in workspace.root:
        return None
    return f"sqlite:///{Path(files.make_absolute(workspace.root)).parent}/mlflow.db"


def artifact_location(uri: str) -> str | None:
    """Return where artifacts are stored: beside our own file; None if the server decides."""
    path = uri.removeprefix("sqlite:///")
    return None if path == uri else str(Path(path).resolve().parent / "mlartifacts")


def without_password(uri: str) -> str:
    """Return a URI that may be shown and stored."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def page(uri: str, experiment_id: str) -> str:
    """Return the page of an MLflow experiment with its runs, or the URI if it has no pages.

    Without the query, MLflow 3 opens an experiment on its page of traces, whatever its kind.
    """
    if not uri.startswith("http"):
        return without_password(uri)
    root = without_password(uri).rstrip("/")
    return f"{root}/#/experiments/{experiment_id}?workflowType=machine_learning"


def connect(uri: str) -> MlflowClient | None:
    """Return a client if the server answers within ANSWER_S seconds, else None.

    MLflow's own retries would take minutes.

    Raises:
      SoilweaveError: If the server refuses the login.
    """
    parts = urlsplit(uri)
    port = DATABASES.get(parts.scheme.split("+")[0])
    if port and parts.hostname:
        try:
            socket.create_connection((parts.hostname, parts.port or port), ANSWER_S).close()
        except OSError:
            return None
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client if answers(client) else None


def answers(client: MlflowClient) -> bool:
    """Return whether a server answers a small request within ANSWER_S seconds.

    A server that refuses does answer; a gateway that has no server behind it does not.

    Raises:
      SoilweaveError: If the server refuses the login.
    """
    from mlflow.exceptions import MlflowException

    if not client.tracking_uri.startswith("http"):
        return True
    with environment(PROBE_SETTINGS):
        try:
            client.search_experiments(max_results=1)
        except MlflowException as error:
            if error.error_code == "UNAUTHENTICATED":
                problem = "the server refuses the login"
                raise SoilweaveError(
                    without_password(client.tracking_uri), problem, remedy=LOGIN_HINT
                ) from error
            return error.error_code not in (
                "INTERNAL_ERROR",
                "TEMPORARILY_UNAVAILABLE",
                "ENDPOINT_NOT_FOUND",
            )
    return True


def is_final(error: Exception) -> bool:
    """Return whether a server that gave this error will never take the item."""
    code = getattr(error, "error_code", None)
    status = getattr(getattr(error, "response", None), "status_code", None)
    return code in FINAL_CODES or status in FINAL_STATUSES


def describe(error: Exception, uri: str) -> str:
    """Return an error in one short line without secrets, and without the address of the request.

    So the same error is the same text for all items that have it.
    """
    text = " ".join(str(error).replace(uri, without_password(uri)).split())
    if caused := re.search(r"\(Caused by (.+)\)", text):
        text = caused[1]
    text = re.sub(r" for url: .*|\. Response (body|text): .*", "", text)
    return redact_secrets(text or type(error).__name__)[:MAX_REASON_LENGTH]


@contextlib.contextmanager
def quiet_mlflow(uri: str) -> Iterator[None]:
    """Keep MLflow from printing and warning, and from using another run in the environment."""
    # Saving a model uses the server of the environment, or else creates a file in this folder.
    own = MLFLOW_SETTINGS | {"MLFLOW_TRACKING_URI": uri} | dict.fromkeys(FOREIGN_RUN_VARIABLES)
    # By module and for good: other threads, whose warnings are to be seen, work at the same time.
    warnings.filterwarnings("ignore", module=SILENCED_MODULES)
    with environment(own):
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
