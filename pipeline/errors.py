"""Errors for the user: where the problem is, what was found, what is accepted, and what to do.

The command line prints a `SoilweaveError` without a traceback. Any other exception is a bug.
"""

from __future__ import annotations

import os
import re
from typing import Any

SECRET_NAMES = re.compile("TOKEN|SECRET|PASSWORD|ACCESS_KEY|API_KEY|CREDENTIAL")
MIN_SECRET_LENGTH = 8  # characters; a shorter value could occur in ordinary text by chance


class SoilweaveError(Exception):
    """A problem in the user's settings, data or environment that the user can solve.

    Args:
      place: The file, setting, catalog entry or site that has the problem.
      problems: All problems found there. Each says what was found and what is accepted.
      remedy: What the user can do about it.
    """

    def __init__(self, place: str, *problems: str, remedy: str = "") -> None:
        """Store the parts, without secrets; `str()` joins them."""
        self.place, self.problems = redact_secrets(place), tuple(map(redact_secrets, problems))
        self.remedy = remedy
        super().__init__(self.place, *self.problems)

    def __reduce__(self) -> tuple[object, ...]:
        """Include the keyword argument: Ray workers send errors back to the driver by pickle."""
        return _rebuild, (type(self), self.place, self.problems, self.remedy)

    def __str__(self) -> str:
        """Return one line for one problem, and one more indented line each for several."""
        remedy = f"; {self.remedy}" if self.remedy else ""
        if len(self.problems) == 1:
            return f"{self.place}: {self.problems[0]}{remedy}"
        lines = "".join(f"\n  {problem}" for problem in self.problems)
        return f"{self.place}: {len(self.problems)} problems{remedy}{lines}"


class ConfigError(SoilweaveError):
    """An invalid experiment, recipe or `--set` option."""


class DataError(SoilweaveError):
    """A data source that is missing, damaged or not as its catalog entry describes it."""


class UnreachableError(DataError):
    """A data source whose server does not respond; the same request may succeed later."""


class StoreError(SoilweaveError):
    """A workspace, or an artefact in it, that cannot be read, written or resumed."""


class UnwritableError(StoreError):
    """An object that could not be written: access is denied, the disk is full, and so on."""


class HeldError(StoreError):
    """A lease that another process, which is alive, holds."""


class DamagedError(StoreError):
    """An object in a workspace that exists but cannot be decoded."""


class ClusterError(SoilweaveError):
    """A Ray cluster that cannot run the tasks of a stage."""


class TrainingError(SoilweaveError):
    """Models that cannot be trained, or that predict no values."""


def redact_secrets(text: str) -> str:
    """Return a text without the secrets of the environment, in URLs and after `Bearer`.

    The values of environment variables whose names look secret become `***`; see also
    `redact_urls`.
    """
    for name, value in os.environ.items():
        if SECRET_NAMES.search(name) and len(value) >= MIN_SECRET_LENGTH:
            text = text.replace(value, "***")
    text = re.sub(r"\b(Bearer|Authorization:\s*\w+)\s+[\w.~+/=-]{8,}", r"\1 ***", text)
    return redact_urls(text)


def redact_urls(text: str) -> str:
    """Return a text whose URLs have no secrets.

    They lose the user and password before the host, their query, where signed URLs have their
    signature, and a fragment such as `#access_token=...`.
    """
    # Each takes the whole of a URL or word, so that hostile texts take no more time than others.
    text = re.sub(r"\b(\w+://)[^/?#\s'\"]+@", r"\1", text)
    text = re.sub(r"\b(\w+://[^\s?#'\"]+)(?:#[^\s#'\"),=]*=[^\s'\"),]+)?", r"\1", text)
    return re.sub(r"\b(\w+://[^\s?'\"]+)(?:\?[^\s'\"),]+)?", r"\1", text)


def redact_tree(tree: Any) -> Any:
    """Return settings, such as those of an experiment, with `redact_urls` of every text."""
    if isinstance(tree, dict):
        return {key: redact_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [redact_tree(value) for value in tree]
    return redact_urls(tree) if isinstance(tree, str) else tree


def _rebuild(
    kind: type[SoilweaveError], place: str, problems: tuple[str, ...], remedy: str
) -> SoilweaveError:
    return kind(place, *problems, remedy=remedy)
