"""Arguments and options that verbs share, and what they name.

How a verb shows its progress: one line on a terminal, plain lines in a job's log.

A verb: its stages in order, on one connection to Ray; under one lease, mirrored in MLflow.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline import files
from pipeline.catalog import preflight
from pipeline.cluster import ray_cluster
from pipeline.errors import SoilweaveError, bare
from pipeline.tracking import mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pipeline.experiment.config import Experiment as Resolved
    from pipeline.files import Json
    from pipeline.progress import Progress as progress_progress
    from pipeline.storage.artefacts import Workspace as Place


Experiment = Annotated[
    str, typer.Argument(help="An experiment: a preset (see `soilweave ls`), a file.yaml or a URL.")
]

Workspace = Annotated[
    str, typer.Option(help="Folder or URL that holds every experiment's artefacts.")
]

Name = Annotated[
    str | None, typer.Option(help="Folder in the workspace, instead of the experiment's own name.")
]

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace artefacts that were made with other settings.")
]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value over the experiment, such as train.updates=50."),
]

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def resolve_named(
    experiment: str, workspace: str, name: str | None, settings: list[str] | None
) -> tuple[Resolved, Place]:
    """The experiment that a verb is given, and its place in the workspace."""
    from pipeline import files
    from pipeline.experiment import load
    from pipeline.storage import artefacts

    resolved = load.experiment(experiment, settings or [], name)
    place = artefacts.Workspace(files.join(files.absolute(workspace), resolved.name))
    return place.place(resolved), place


out, err = Console(), Console(stderr=True)
LOG_EVERY_S = 20.0


@contextlib.contextmanager
def progress() -> Iterator[Line]:
    """One line per stage, with rate and remaining time."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        transient=True,
        disable=not err.is_terminal,
    )
    with bar:
        yield Line(bar)


class Line:
    """The progress of one stage after the other: a bar, or a line of log now and then."""

    def __init__(self, bar: Progress) -> None:
        """Nothing is shown yet."""
        self.bar, self.stage, self.task = bar, "", TaskID(0)
        self._logged = 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins."""
        self.stage = stage
        self.task = self.bar.add_task(stage, total=total, unit=unit, rate="")
        self._logged = time.monotonic()

    def advance(self, units: int = 1) -> None:
        """So many units are done."""
        self.bar.advance(self.task, units)
        task = self.bar.tasks[-1]
        rate = f"{task.speed:.3g}/s" if task.speed else ""
        self.bar.update(self.task, rate=rate)
        if self.bar.disable and time.monotonic() - self._logged > LOG_EVERY_S:
            self._logged = time.monotonic()
            done = f"{task.completed:.0f} of {task.total:.0f} {task.fields['unit']}"
            left = f"{task.time_remaining:.0f} s left" if task.time_remaining else ""
            self.note(", ".join(filter(None, (done, rate, left))))

    def finish(self, note: str) -> None:
        """The stage is over."""
        self.bar.remove_task(self.task)
        self.note(note)

    def note(self, text: str) -> None:
        """A line that stays."""
        err.print(f"{self.stage}: {text}", highlight=False, soft_wrap=True, markup=False)


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
    experiment: Resolved,
    workspace: Place,
    progress: progress_progress,
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
            preflight.check_verb(experiment, workspace, stages)
            with ray_cluster.session(workspace.root):
                modules = _modules()
                for name in stages:
                    made = modules[name].run(experiment, workspace, progress, overwrite, **wishes)
                    summary = made or summary
                    mirror.mirror(experiment, workspace, progress, "RUNNING")
        except BaseException as error:
            if workspace.lease.held or _left_open(workspace):
                mirror.mirror(experiment, workspace, progress, "FAILED", _told(error))
            raise
        mirror.mirror(experiment, workspace, progress, "FINISHED")
    return summary


def _modules() -> dict[str, Any]:
    """The module of each stage, whose `run` runs it.

    They import PyTorch and more, which a verb waits for only when it runs stages.
    """
    from pipeline import evaluate, planet, predict, prepare, train
    from pipeline.cli import update
    from pipeline.evaluate import report
    from pipeline.prepare import folds

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


def _left_open(workspace: Place) -> bool:
    """Whether a run in MLflow counts as RUNNING though no driver is at work.

    Stages that find nothing to do open one before a later stage fails; so did a driver that was
    killed.
    """
    try:
        record = files.read_json(workspace.url(mirror.RECORD)) or {}
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
