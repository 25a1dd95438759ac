"""A verb: its stages in order, on one connection to Ray; under one lease, mirrored in MLflow."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

from pipeline import cluster, files, precheck, tracking
from pipeline.errors import SoilweaveError, bare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace

RUN = ("planet", "prepare", "folds", "train", "predict", "evaluate", "report")
STAGES = {
    "run": RUN,
    "prepare": ("planet", "prepare", "folds"),
    "train": ("train",),
    "predict": ("predict",),
    "evaluate": ("evaluate", "report"),
    "update": ("update",),
}


def run(
    stages: Sequence[str],
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    overwrite: bool = False,
    **wishes: Any,
) -> Json | None:
    """Run stages in order; returns the summary of scores, if one of them makes it.

    `wishes` go to every stage.

    Raises:
      SoilweaveError: something a user can mend; what is complete stays as it is.
    """
    summary = None
    with _terminable(), workspace.lease.given_back():
        try:
            precheck.of_verb(experiment, workspace, stages)
            with cluster.session(workspace.root):
                modules = _modules()
                for name in stages:
                    made = modules[name].run(experiment, workspace, progress, overwrite, **wishes)
                    summary = made or summary
                    tracking.mirror(experiment, workspace, progress, "RUNNING")
        except BaseException as error:
            if workspace.lease.held or _left_open(workspace):
                tracking.mirror(experiment, workspace, progress, "FAILED", _told(error))
            raise
        tracking.mirror(experiment, workspace, progress, "FINISHED")
    return summary


def _modules() -> dict[str, Any]:
    """The module of each stage, whose `run` runs it.

    They import PyTorch and more, which a verb waits for only when it runs stages.
    """
    from pipeline import evaluate, folds, planet, predict, prepare, report, train, update

    return {
        "planet": planet,
        "prepare": prepare,
        "folds": folds,
        "train": train,
        "predict": predict,
        "evaluate": evaluate,
        "report": report,
        "update": update,
    }


def _left_open(workspace: Workspace) -> bool:
    """Whether a run in MLflow counts as RUNNING though no driver is at work.

    Stages that find nothing to do open one before a later stage fails; so did a driver that was
    killed.
    """
    try:
        record = files.read_json(workspace.url(tracking.RECORD)) or {}
        return record.get("status") == "RUNNING" and not workspace.lease.held_by_another()
    except SoilweaveError:
        return False  # the workspace does not answer; the verb's own error says so


def _told(error: BaseException) -> str:
    """What ended a verb, in one line without secrets."""
    said = bare(" ".join(str(error).split()))
    return said if isinstance(error, SoilweaveError) else f"{type(error).__name__}: {said}"


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM, by which schedulers and `ray job stop` end a driver, end the block as an error.

    By default it ends the process at once: nothing would be told to MLflow, and the lease be left.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
