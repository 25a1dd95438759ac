"""What a stage tells while it works; the command line decides how it is shown."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the progress of one stage after the other."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins; `total` units of work lie before it."""

    def advance(self, units: int = 1) -> None:
        """So many units are done."""

    def finish(self, note: str) -> None:
        """The stage is over; the note is one line of what was made, or that it was there."""

    def note(self, text: str) -> None:
        """Something a person should know now, in one line."""


class Silent:
    """Tells nobody."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """Say nothing."""

    def advance(self, units: int = 1) -> None:
        """Say nothing."""

    def finish(self, note: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""
