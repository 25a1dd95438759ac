"""Log to MLflow what it lacks, each item by itself; used by the thread of a `Mirror`."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from pipeline import failures, files
from pipeline.errors import SoilweaveError, redact_urls
from pipeline.tracking import server
from pipeline.tracking.contents import loggable_digests
from pipeline.tracking.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from model.recipe import ModelKey
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace
    from pipeline.tracking.runs import Runs


Status = Literal["RUNNING", "FINISHED", "FAILED"]
RECORD_FILE = "mlflow.json"
RETRY_S = 30.0  # seconds after which values that could not be logged are tried again


@dataclass
class LiveValues:
    """What stages have reported and MLflow does not have yet.

    Attributes:
      curves: Points of training curves, by model.
      progress: Units done by the stages, and their totals, by the name of the metric.
    """

    curves: dict[ModelKey, list[Mapping[str, float]]] = field(default_factory=dict)
    progress: dict[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether there is any value."""
        return bool(self.curves or self.progress)

    def add(self, newer: LiveValues) -> None:
        """Add values that were reported after these."""
        for key, points in newer.curves.items():
            self.curves.setdefault(key, []).extend(points)
        self.progress |= newer.progress


class Worker:
    """Brings MLflow up to date while a verb works, and when it ends.

    Attributes:
      note: The line for the user on what became of it; empty if there is nothing to say.
      took_lease: Whether it took the lease of the workspace, which no stage had taken.
      stage_changed: Whether a stage has started since the workspace was examined.
      abandoned: Set once nobody waits for it any more; it then writes nothing.
    """

    def __init__(
        self, experiment: Experiment, workspace: Workspace, say: Callable[[str], None]
    ) -> None:
        """Prepare to log; nothing is read or asked yet.

        Args:
          experiment: The experiment.
          workspace: The experiment's folder in the workspace.
          say: Shows a line to the user while the verb works.
        """
        self.experiment, self.workspace, self._say = experiment, workspace, say
        self.note, self.took_lease, self.stage_changed = "", False, False
        self.abandoned, self._ending = threading.Event(), threading.Event()
        self._uri = server.tracking_uri(workspace)
        self._outcome = Outcome(server.without_password(self._uri or ""))
        self._runs: Runs | None = None
        self._stack = contextlib.ExitStack()
        self._deadline, self._limit_s, self._retry_at = float("inf"), 0.0, 0.0

    def __enter__(self) -> Self:
        """Return this worker; nothing is changed for MLflow yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the environment and the loggers that were changed for MLflow."""
        self._stack.close()

    def end_by(self, seconds: float) -> None:
        """Let all work end within so many seconds."""
        self._limit_s, self._deadline = seconds, time.monotonic() + seconds
        self._ending.set()

    def unfinished_line(self) -> str:
        """Return the line for the user if the work did not end in time."""
        self._outcome.stopped = f"took more than {self._limit_s:.0f} s at the end"
        return self._outcome.line()

    def log_meanwhile(self, live: LiveValues, updated: bool) -> None:
        """Log while stages work.

        Args:
          live: What they have reported; what was logged is removed from it.
          updated: Whether a stage has ended, so that the workspace may have something new.
        """
        if self._uri is None or not (updated or live):
            return
        if updated:
            self._guard(self._log_added)
        if live and time.monotonic() >= self._retry_at:
            self._guard(partial(self._log_live, live))

    def log_end(self, live: LiveValues, updated: bool, status: Status, error: str) -> None:
        """Log what the stages have reported last, end the run, and log all that is missing.

        Args:
          live: What stages have reported since the last call.
          updated: Whether a stage has ended since the last call.
          status: FINISHED, FAILED, or RUNNING to leave the run open.
          error: The error that ended the verb, if any.
        """
        worked = status != "FAILED" or self._runs is not None or self.workspace.lease.held
        if self._uri is None:
            hint = "nothing is logged; set MLFLOW_TRACKING_URI to a server"
            self.note = hint if worked else ""
            return
        if live:
            self._guard(partial(self._log_live, live))
        self.note = ""
        self._guard(partial(self._log_end, updated, status, error))
        if not worked and self._runs is None:
            self.note = ""  # the verb's own error says what is wrong

    def _guard(self, log: Callable[[], None]) -> None:
        """Call a function; if it raises, keep the reason as the line for the user."""
        try:
            log()
        except Exception as failure:  # noqa: BLE001  # errors of MLflow, its database, a file system
            self._runs = None
            self._retry_at = time.monotonic() + RETRY_S
            if isinstance(failure, (SoilweaveError, *failures.storage_exceptions())):
                self.note = f"not logged: {failure}"
                return
            uri = str(self._uri)
            reason = f"{server.without_password(uri)}: {server.describe(failure, uri)}"
            final = server.is_final(failure)
            self.note = f"{reason}; " + (
                "nothing can be logged there" if final else "the next run logs what is missing"
            )

    def _log_end(self, updated: bool, status: Status, error: str) -> None:
        worked = status != "FAILED" or self._runs is not None or self.workspace.lease.held
        if not (worked or updated or self._is_stale()):
            return
        present = loggable_digests(self.experiment, self.workspace)
        record, ours = self._record(present)
        worked = worked or self._is_stale() or _is_behind(record, present, "RUNNING")
        if not (worked and ours and _is_behind(record, present, status)):
            return
        runs = self._open(present)
        if runs is None:
            return
        # The run has its status first, so that it has one even if the rest takes too long.
        unclosed = self._close(runs, status, error)
        self._log_items(runs, present)
        self._outcome.failed |= unclosed
        self.note = self._outcome.line()

    def _close(self, runs: Runs, status: Status, error: str) -> dict[str, str]:
        """Give the run its status; return the failure, by `status`, if there is one."""
        try:
            if status != "RUNNING":
                runs.close(status, error)
        except Exception as failure:  # noqa: BLE001  # errors of MLflow
            return {"status": server.describe(failure, str(self._uri))}
        return {}

    def _log_added(self) -> None:
        """Log what a stage has added to the workspace, until the verb ends."""
        present = loggable_digests(self.experiment, self.workspace)
        record, ours = self._record(present)
        if ours and _is_behind(record, present, "RUNNING"):
            runs = self._open(present)
            if runs is not None:
                self._log_items(runs, present, self._ending)

    def _log_live(self, live: LiveValues) -> None:
        """Log points of curves and progress; what was logged is removed from `live`."""
        runs = self._runs
        if runs is None or (live.curves and self.stage_changed):
            self.stage_changed = False
            runs = self._open(loggable_digests(self.experiment, self.workspace))
        if runs is None:
            return
        if live.progress:
            values, live.progress = live.progress, {}
            self._try_live(partial(runs.log_progress, values))
        if runs.trained is None:
            return  # models that are not in the workspace yet
        for key in [*live.curves]:
            if self._try_live(partial(runs.log_new_points, key, live.curves[key])):
                del live.curves[key]

    def _try_live(self, log: Callable[[], None]) -> bool:
        """Call a function; return whether it need not be called again."""
        if self._runs is None or time.monotonic() > self._deadline:
            return False
        try:
            log()
        except Exception as failure:  # noqa: BLE001
            self._retry_at = time.monotonic() + RETRY_S
            if not server.answers(self._runs.client):
                self._runs = None
            return server.is_final(failure)
        return True

    def _record(self, present: Json) -> tuple[Json, bool]:
        """Return what was logged, and whether what is in the workspace may be logged.

        The latter is False if artefacts with other settings are there and nothing was logged with
        these: the next stage refuses these settings, or replaces the artefacts.
        """
        if self._runs is not None:
            return self._runs.record, True
        hint = "delete it, and the next run logs everything to MLflow again"
        found = files.read_json(self.workspace.url(RECORD_FILE), hint) or {}
        root = redact_urls(files.make_absolute(self.workspace.root))
        own = {
            "uri": server.without_password(str(self._uri)),
            "workspace": root,
            "settings": present["logged"]["experiment"],
        }
        if {"workspace": root} | {key: found.get(key, root) for key in own} == own:
            return found | own, True
        return own, not present["foreign"]

    def _is_stale(self) -> bool:
        """Return whether MLflow shows a run of this workspace as RUNNING though no driver works.

        That happens after a driver was killed.
        """
        record = files.read_json(self.workspace.url(RECORD_FILE)) or {}
        return record.get("status") == "RUNNING" and not self.workspace.lease.held_by_another()

    def _open(self, present: Json) -> Runs | None:
        """Return the runs, opened on the server; None if it does not answer.

        Raises:
          SoilweaveError: If the workspace cannot be written, or another driver holds its lease.
          Exception: If the server refuses to open a run.
        """
        if self._runs is None:
            runs = self._open_anew(present)
            if runs is None:
                self._retry_at = time.monotonic() + RETRY_S
                shown = server.without_password(str(self._uri))
                self.note = f"{shown} does not answer; the next run logs what is missing"
                return None
            self._runs = runs
        self._runs.use_models(present["models"])
        return self._runs

    def _open_anew(self, present: Json) -> Runs | None:
        uri = str(self._uri)
        self._stack.close()
        self._stack.enter_context(server.quiet_mlflow(uri))
        client = server.connect(uri)
        if client is None or self.abandoned.is_set():
            return None
        from pipeline.tracking.runs import Runs

        lease = self.workspace.lease
        if not lease.held:
            lease.take(self._say)
            self.took_lease = True
        runs = Runs(client, self.experiment, self.workspace, self._record(present)[0])
        runs.abandoned = self.abandoned
        runs.use_models(present["models"])
        runs.open(server.artifact_location(uri))
        page = server.page(uri, runs.record["experiment"])
        if page != self._outcome.page and not self._ending.is_set():
            self._say(f"MLflow shows this run at {page}")
        self._outcome.page = page
        return runs

    def _log_items(self, runs: Runs, present: Json, stop: threading.Event | None = None) -> None:
        """Log everything that is newer than the record, recording each item that is logged.

        An item that fails does not keep the others from being logged.

        Args:
          runs: The runs, opened.
          present: What the workspace has.
          stop: Once it is set, the rest is left to the next call.
        """
        outcome, missing = self._outcome, _missing(runs.record, present)
        outcome.failed, outcome.stopped = {}, ""
        for i, name in enumerate(missing):
            outcome.remaining = missing[i:]
            if (stop or self.abandoned).is_set():
                return
            if time.monotonic() > self._deadline:
                outcome.stopped = f"took more than {self._limit_s:.0f} s at the end"
                return
            try:
                self._log_item(runs, name, present)
            except Exception as failure:  # noqa: BLE001  # errors of MLflow, or of a store
                if not server.answers(runs.client):
                    outcome.stopped, self._runs = "does not answer any more", None
                    return
                self._keep_failure(runs, name, present["logged"][name], failure)
            outcome.refused_keys |= runs.refused_keys
        outcome.remaining = []

    def _keep_failure(self, runs: Runs, name: str, digest: str, failure: Exception) -> None:
        """Note an item that was not logged; one that the server will never take is recorded."""
        reason = server.describe(failure, str(self._uri))
        if server.is_final(failure):
            self._outcome.refused[name] = reason
            runs.record["refused"][name] = digest
            runs.keep()
        else:
            self._outcome.failed[name] = reason

    def _log_item(self, runs: Runs, name: str, present: Json) -> None:
        """Log one item and record that it was logged."""
        logs: dict[str, Callable[[], Any]] = {
            "experiment kind": runs.log_kind,
            "experiment": runs.log_settings,
            "experiment.yaml": runs.upload_settings,
            "folds": partial(runs.upload, "folds.geojson"),
            "scores": runs.log_scores,
            "summary.json": partial(runs.upload, "summary.json"),
            "scores.parquet": partial(runs.upload, "scores.parquet"),
            "report": partial(runs.upload, "report.html"),
        }
        logged = present["logged"]
        if name in logs:
            logs[name]()
        elif "/fold=" in name:
            runs.log_curves(present["curves"][name], logged.keys())
        else:
            from pipeline.tracking.registry import register_product

            arm = name.removeprefix("models/")
            register_product(runs, arm, present["products"][arm], "scores" in logged)
        runs.keep(name, logged[name])


def _missing(record: Json, present: Json) -> list[str]:
    """Return the names of items that MLflow lacks and may take."""
    logged, refused = record.get("logged", {}), record.get("refused", {})
    return [
        name
        for name, digest in present["logged"].items()
        if digest not in (logged.get(name), refused.get(name))
    ]


def _is_behind(record: Json, present: Json, status: Status) -> bool:
    """Return whether MLflow lacks anything; a finished run is not set to RUNNING for nothing."""
    if _missing(record, present):
        return True
    recorded_status = record.get("status")
    return recorded_status != status and (status, recorded_status) != ("RUNNING", "FINISHED")
