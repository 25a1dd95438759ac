"""Errors that a user can mend: where, what was found, what is accepted, what to do."""

from __future__ import annotations


class SoilweaveError(Exception):
    """A problem of the user's making or surroundings; the command line shows it in one line.

    Args:
      place: the file, key, entry or site the problem is at.
      problems: every problem found there, each saying what was found and what is accepted.
      remedy: what to do about it.
    """

    def __init__(self, place: str, *problems: str, remedy: str = "") -> None:
        """Keep the parts; `str()` joins them."""
        self.place, self.problems, self.remedy = place, problems, remedy
        super().__init__(place, *problems)

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


class StoreError(SoilweaveError):
    """A workspace or an artefact in it that cannot be read, written or continued."""


def _rebuild(
    kind: type[SoilweaveError], place: str, problems: tuple[str, ...], remedy: str
) -> SoilweaveError:
    return kind(place, *problems, remedy=remedy)
