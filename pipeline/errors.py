"""Errors that a user can mend: where, what was found, what is accepted, what to do."""

from __future__ import annotations

import os
import re

SECRET = re.compile("TOKEN|SECRET|PASSWORD|ACCESS_KEY|API_KEY|CREDENTIAL")
SHORTEST_SECRET = 8  # shorter values would be found in ordinary words


class SoilweaveError(Exception):
    """A problem of the user's making or surroundings; the command line shows it in one line.

    Args:
      place: the file, key, entry or site the problem is at.
      problems: every problem found there, each saying what was found and what is accepted.
      remedy: what to do about it.
    """

    def __init__(self, place: str, *problems: str, remedy: str = "") -> None:
        """Keep the parts; `str()` joins them."""
        self.place, self.problems = bare(place), tuple(map(bare, problems))
        self.remedy = remedy
        super().__init__(self.place, *self.problems)

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the remedy through pickling: errors travel back from Ray workers."""
        return _rebuild, (type(self), self.place, self.problems, self.remedy)

    def __str__(self) -> str:
        """One line for one problem; one indented line each for several."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        if len(self.problems) == 1:
            return f"{self.place}: {self.problems[0]}{remedy}"
        listed = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self.place}: {len(self.problems)} problems{remedy}{listed}"


class ConfigError(SoilweaveError):
    """An experiment, a recipe or a `--set` that cannot be used."""


class DataError(SoilweaveError):
    """A source that is absent, damaged or not as its catalog says."""


class UnreachableError(DataError):
    """A source whose server does not answer at present; the same request may succeed later."""


class StoreError(SoilweaveError):
    """A workspace or an artefact in it that cannot be read, written or continued."""


class DamagedError(StoreError):
    """An object of a workspace that is there but cannot be decoded."""


class TrainingError(SoilweaveError):
    """Models that could not be trained, or that predict nothing."""


def bare(text: str) -> str:
    """A text without secrets: those of the environment, and those that URLs carry.

    A signed URL has them in its query, others before the host's `@`.
    """
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "***")
    text = re.sub(r"(\w+://)[^/\s@'\"]+@", r"\1", text)
    return re.sub(r"(\w+://[^\s?'\"]+)\?[^\s'\"),]+", r"\1", text)


def _rebuild(
    kind: type[SoilweaveError], place: str, problems: tuple[str, ...], remedy: str
) -> SoilweaveError:
    return kind(place, *problems, remedy=remedy)
