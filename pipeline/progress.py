"""The interface through which a stage reports its progress; the command line displays it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from model.recipe import ModelKey


PATIENCE_S = 10.0  # seconds without a word


class Progress(Protocol):
    """Receives the progress of stages, which run one after another."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Start a stage that has `total` units of work; `unit` is their name in the plural."""

    def advance(self, units: int = 1) -> None:
        """Report that more units are done."""

    def finish(self, note: str) -> None:
        """End the stage, with one line on what it wrote or that its artefact was complete."""

    def note(self, text: str) -> None:
        """Show one line of information for the user immediately."""

    def curve(self, key: ModelKey, point: Mapping[str, float]) -> None:
        """Receive a point of a model's training curve, with its `step`, as soon as it is made.

        A point comes again if a worker is lost and another one repeats its updates.
        """


class SilentProgress:
    """A `Progress` that ignores all reports."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Do nothing."""

    def advance(self, units: int = 1) -> None:
        """Do nothing."""

    def finish(self, note: str) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def curve(self, key: ModelKey, point: Mapping[str, float]) -> None:
        """Do nothing."""


@contextlib.contextmanager
def waiting(progress: Progress, what: str) -> Iterator[None]:
    """Say what is waited for if the block takes longer than PATIENCE_S seconds.

    Args:
      progress: Receives the line.
      what: What is waited for, such as "the sources to open".
    """
    timer = threading.Timer(PATIENCE_S, progress.note, (f"waiting for {what}",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
