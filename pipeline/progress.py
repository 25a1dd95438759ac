"""The interface through which a stage reports its progress; the command line displays it."""

from __future__ import annotations

from typing import Protocol


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
