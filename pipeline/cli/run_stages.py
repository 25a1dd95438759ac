"""Run the stages of a verb in order, and show their progress on a terminal or in a log.

All stages of a verb share one connection to Ray and one lease on the workspace, and are mirrored in
MLflow. The arguments and options that several verbs take are defined here too.
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

from pipeline.catalog import preflight
from pipeline.cli import last_resort
from pipeline.cluster import ray_cluster
from pipeline.errors import ConfigError, redact_secrets
from pipeline.progress import waiting
from pipeline.storage import records
from pipeline.tracking import mirror

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from model.recipe import ModelKey
    from pipeline import progress as progress_module
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


ExperimentArgument = Annotated[
    str,
    typer.Argument(help="The experiment: a preset (see `soilweave ls`), a YAML file or a URL."),
]

WorkspaceOption = Annotated[
    str, typer.Option(help="Folder or URL that holds the artefacts of all experiments.")
]

NameOption = Annotated[
    str | None,
    typer.Option(help="Folder in the workspace; by default the experiment's own name."),
]

OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace artefacts that were made with other settings.")
]

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting of the experiment, such as train.updates=50; repeatable.",
    ),
]

DebugOption = Annotated[
    bool, typer.Option("--debug", help="Show the traceback of an error instead of one line.")
]


class SafeConsole(Console):
    """A console that shows no secrets in texts; what it prints may be kept as a log."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print texts without secrets, and other objects as they are."""
        shown = (redact_secrets(each) if isinstance(each, str) else each for each in objects)
        super().print(*shown, **options)


# Results, errors, and what is said of the progress; `manners` silences the first and the last.
out, err, notes = SafeConsole(), SafeConsole(stderr=True), SafeConsole(stderr=True)
LOG_EVERY_S = 20.0  # seconds between progress lines where there is no terminal
RUN = ("planet", "prepare", "folds", "train", "predict", "evaluate", "report")

STAGES = {
    "run": RUN,
    "prepare": ("planet", "prepare", "folds"),
    "train": ("train",),
    "predict": ("predict",),
    "evaluate": ("evaluate", "report"),
    "update": ("update",),
}


def resolve_named(
    experiment: str, workspace: str, name: str | None, settings: list[str] | None
) -> tuple[Experiment, Workspace]:
    """Return the experiment that the arguments of a verb name, and its folder in the workspace.

    Args:
      experiment: A preset, a YAML file or a URL.
      workspace: Folder or URL that holds the artefacts of all experiments.
      name: Replaces the experiment's own name, if given.
      settings: `key=value` items that override the experiment's settings.

    Raises:
      ConfigError: If the experiment cannot be found, or its settings are not valid.
    """
    from pipeline import files
    from pipeline.experiment import load
    from pipeline.storage import artefacts

    resolved = load.load_experiment(experiment, settings or [], name)
    store = artefacts.Workspace(files.join(files.make_absolute(workspace), resolved.name))
    return store.place(resolved), store


def check_exists(path: str, hint: str) -> None:
    """Check that a local file that an argument names is there.

    Args:
      path: A path; URLs and templates are not checked.
      hint: What to type instead.

    Raises:
      ConfigError: If there is no such file.
    """
    from pipeline import files

    is_template = "://" in path or {*path} & {*"*%{"}
    if not is_template and not files.exists(files.make_absolute(path)):
        raise ConfigError(files.make_absolute(path), "not found", remedy=hint)


@contextlib.contextmanager
def show_progress() -> Iterator[StageProgress]:
    """Show one progress bar per stage, with rate and remaining time, while the block runs."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=notes,
        transient=True,
        disable=notes.quiet or not notes.is_terminal,
    )
    with bar:
        yield StageProgress(bar)


class StageProgress:
    """Progress of one stage after the other: a bar on a terminal, otherwise occasional lines."""

    def __init__(self, bar: Progress) -> None:
        """Show the progress in `bar`."""
        self.bar, self.stage, self.task = bar, "", TaskID(0)
        self._logged = 0.0

    def start(self, stage: str, total: int, unit: str) -> None:
        """Begin a stage of `total` units."""
        self.stage = stage
        self.task = self.bar.add_task(stage, total=total, unit=unit, rate="")
        self._logged = time.monotonic()

    def advance(self, units: int = 1) -> None:
        """Count more units of the stage as done."""
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
        """End the stage and print a line about its result."""
        self.bar.remove_task(self.task)
        self.note(note)

    def note(self, text: str) -> None:
        """Print a line that stays above the bar."""
        line = f"{self.stage}: {text}" if self.stage else text
        notes.print(line, highlight=False, soft_wrap=True, markup=False)

    def curve(self, key: ModelKey, point: Mapping[str, float]) -> None:
        """Do nothing: curves are seen in MLflow."""


def run(
    stages: Sequence[str],
    experiment: Experiment,
    workspace: Workspace,
    progress: progress_module.Progress,
    overwrite: bool = False,
    **options: Any,
) -> Json | None:
    """Run stages in order.

    Args:
      stages: Names of the stages.
      experiment: The experiment to run.
      workspace: The experiment's folder in the workspace.
      progress: Receives the progress of every stage.
      overwrite: Replace artefacts that were made with other settings.
      **options: Further keyword arguments of every stage's `run`.

    Returns:
      The summary of scores, or None if no stage computes one.

    Raises:
      SoilweaveError: If something fails that a user can correct; complete artefacts are kept.
    """
    summary, log = None, mirror.Mirror(experiment, workspace, progress)
    with signals_as_exit(), workspace.lease.given_back(), records.check_once():
        try:
            preflight.check_verb(experiment, workspace, stages)
            with contextlib.ExitStack() as session:
                with waiting(progress, "the Ray cluster, and its nodes to read the workspace"):
                    session.enter_context(ray_cluster.session(workspace.root))
                modules = stage_modules()
                for name in stages:
                    result = modules[name].run(experiment, workspace, log, overwrite, **options)
                    summary = result or summary
                    log.update()
        except BaseException as error:
            if isinstance(error, (KeyboardInterrupt, SystemExit)) and not workspace.lease.lost:
                message = "interrupted; what is complete is kept, and the same command continues"
                err.print(message, highlight=False, soft_wrap=True, markup=False)
            log.end("FAILED", _error_line(error))
            raise
        log.end("FINISHED")
    return summary


def stage_modules() -> dict[str, Any]:
    """Return the module of each stage; its function `run` runs the stage.

    They are imported here because they load PyTorch and other large packages, which only a verb
    that runs stages should wait for.
    """
    from pipeline import evaluate, planet, predict, prepare, train
    from pipeline.cli import update
    from pipeline.evaluate import report
    from pipeline.prepare import copy_sources, folds

    return {
        "planet": planet,
        "stage": copy_sources,
        "prepare": prepare,
        "folds": folds,
        "train": train,
        "predict": predict,
        "evaluate": evaluate,
        "report": report,
        "update": update,
    }


def _error_line(error: BaseException) -> str:
    """Return the error that ended a verb, in one line without secrets."""
    told = last_resort.as_correctable(error)
    if told is not None:
        return redact_secrets(" ".join(str(told).split()))
    message = redact_secrets(" ".join(str(error).split()))
    return f"{type(error).__name__}: {message}".rstrip(": ")


@contextlib.contextmanager
def signals_as_exit() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit.

    Schedulers and `ray job stop` end a driver with SIGTERM, and a terminal that is closed sends
    SIGHUP. By default both end the process at once: MLflow would show the run as RUNNING for ever,
    and the lease would not be released. A signal that is ignored stays ignored, as SIGHUP below
    `nohup`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(128 + number)
        raise SystemExit(received[0])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    except SystemExit as error:
        if received:  # Ray raises SystemExit(1) if the signal has interrupted its own code
            raise SystemExit(received[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
