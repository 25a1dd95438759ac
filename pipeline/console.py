"""How a verb shows its progress: one line on a terminal, plain lines in a job's log."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Iterator

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
