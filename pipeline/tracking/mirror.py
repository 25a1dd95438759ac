"""Mirror a workspace in MLflow: one run per experiment and settings.

A run has one child run per arm and fold, and there is one registered model per arm. Only the driver
talks to MLflow, in a thread of its own, so that no stage waits for a server. The workspace remains
the record of results: whatever MLflow has can be logged again from it, and a server that was away
is brought up to date at the next call.

mlflow.json in the workspace keeps what was logged:
  uri: tracking URI, without a password.
  workspace: URL of the workspace; a copy at another URL gets runs of its own.
  settings: digest of the experiment's settings.
  models: identity of the models that were logged.
  experiment, parent, children: MLflow's ids.
  versions: version of each registered model.
  status: status of the run.
  logged: digest of each item that MLflow has, by name (see `contents`).
  refused: digest of each item that the server will never take, by name.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pipeline.errors import SoilweaveError
from pipeline.progress import waiting
from pipeline.tracking.worker import LiveValues, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from model.recipe import ModelKey
    from pipeline.experiment.config import Experiment
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace
    from pipeline.tracking.worker import Status


LIVE_EVERY_S = 2.0  # seconds between requests with new points of curves and progress
END_S = 60.0  # seconds that the end of a verb waits for what is not logged yet
LAST_ANSWER_S = 5.0  # seconds more for the answer to the request that is under way then


class Mirror:
    """The progress of one verb, shown to the user and mirrored in MLflow while stages work.

    It is the `Progress` that stages receive. An error of MLflow never stops a verb: it is reported
    in one line when the verb ends. If MLflow lacks nothing, it is not even imported.
    """

    def __init__(self, experiment: Experiment, workspace: Workspace, shown: Progress) -> None:
        """Prepare a verb; nothing is asked or written yet.

        Args:
          experiment: The experiment.
          workspace: The experiment's folder in the workspace.
          shown: Shows the progress to the user, and one line when the verb ends.
        """
        self.workspace, self.shown = workspace, shown
        self._metric, self._total, self._done = "", 0, 0
        self._news = threading.Condition()
        self._live, self._updated = LiveValues(), False
        self._ending: tuple[Status, str] | None = None
        self._worker = Worker(experiment, workspace, shown.note)
        self._thread: threading.Thread | None = None

    def start(self, stage: str, total: int, unit: str) -> None:
        """Start a stage of `total` units."""
        self.shown.start(stage, total, unit)
        self._metric = f"progress/{stage}/{unit.replace(' ', '_')}"
        self._total, self._done = total, 0
        self._worker.stage_changed = True

    def advance(self, units: int = 1) -> None:
        """Count more units as done."""
        self.shown.advance(units)
        with self._news:
            if not self._done:
                self._live.progress[f"{self._metric}_total"] = self._total
            self._done += units
            self._live.progress[f"{self._metric}_done"] = self._done
            self._begin()

    def finish(self, note: str) -> None:
        """End the stage, with one line."""
        self.shown.finish(note)

    def note(self, text: str) -> None:
        """Show one line."""
        self.shown.note(text)

    def curve(self, key: ModelKey, point: Mapping[str, float]) -> None:
        """Log a point of a training curve soon."""
        self.shown.curve(key, point)
        with self._news:
            self._live.curves.setdefault(key, []).append(point)
            self._begin()

    def update(self) -> None:
        """Log what a stage has added to the workspace; return at once."""
        with self._news:
            self._updated = True
            self._begin()
            self._news.notify()

    def end(self, status: Status, error: str = "") -> None:
        """End the run, log what is missing, and say in one line what became of it.

        What is still missing after END_S seconds is left to the next run. A run for which nothing
        was done or logged is not marked as FAILED. A verb that failed while another driver holds
        the lease can log nothing, so it ends at once.

        Args:
          status: FINISHED or FAILED; RUNNING leaves the run open.
          error: The error that ended the verb, shown as the run's tag `error`.
        """
        worker = self._worker
        can_log = status != "FAILED" or not self._is_held_by_another()
        with self._news:
            self._ending = status, error
            worker.end_by(END_S)
            thread = self._begin()
            self._news.notify()
        try:
            with waiting(self.shown, f"MLflow, for at most {END_S:.0f} s"):
                thread.join(END_S + LAST_ANSWER_S if can_log else 0)
        finally:
            worker.abandoned.set()
            if worker.took_lease:
                self.workspace.lease.release()
        note = worker.unfinished_line() if can_log and thread.is_alive() else worker.note
        if note and status != "RUNNING":
            self.shown.start("mlflow", 0, "runs")
            self.shown.finish(note)

    def _is_held_by_another(self) -> bool:
        """Return whether another driver may be working in the workspace."""
        try:
            return self.workspace.lease.held_by_another()
        except SoilweaveError:
            return False  # the workspace cannot be read, which the verb's own error already says

    def _begin(self) -> threading.Thread:
        """Start the thread if it does not run yet, and return it; called with `_news` held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
        return self._thread

    def _work(self) -> None:
        """Log what comes, until the verb ends."""
        with self._worker as worker:
            while True:
                with self._news:
                    if not (self._updated or self._ending):
                        self._news.wait(LIVE_EVERY_S)
                    live, self._live = self._live, LiveValues()
                    updated, self._updated = self._updated, False
                    ending = self._ending
                if ending:
                    worker.log_end(live, updated, *ending)
                    return
                worker.log_meanwhile(live, updated)
                with self._news:  # what could not be logged is tried again
                    live.add(self._live)
                    self._live = live
