"""What is wrong with a source: a check, what it has found, a remedy; and what errors tell."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import SoilweaveError, bare

if TYPE_CHECKING:
    from collections.abc import Mapping

METADATA = (
    "license",
    "doi",
    "auth",
    "region",
    "native_units",
    "native_grid",
    "time_convention",
    "period",
    "support",
)
LONGEST = 300  # characters of what is told
_DAMAGED = "fetch it again, or ask the provider: is it damaged there?"
# What a problem is called, by what its text holds; the first that fits.
KINDS = (
    (r"refused|credentials|login", "credentials", ""),
    (
        r"\blat(itude)?: .*at most 90",
        "latitude",
        "are latitude and longitude exchanged? correct the file",
    ),
    (r"units '", "units", "correct the mapping's units, or ask the provider what has changed"),
    (r"the file has|no variable of that name", "variables", "correct `from` in the mapping"),
    (r"does not answer|asked \d+ times", "opening", "try again later; is this machine online?"),
    (r"cannot be read|truncated", "opening", _DAMAGED),
    (r"not found|no file matches|nothing of", "opening", "has it moved? correct the entry"),
    (r"calendar '", "time axis", "convert the file, as xarray's convert_calendar does"),
    (r"\btime\b|\bdays? ", "time axis", "sort the file's days, each once, or ask the provider"),
    (r"\b(lat|lon|latitude|longitude)\b", "coordinates", "correct the file's coordinates"),
)


class Symptom(NamedTuple):
    """What a check has found, and what to do about it."""

    check: str
    found: str
    remedy: str


def of_metadata(metadata: Mapping[str, object]) -> list[Symptom]:
    """What a catalog does not say of an entry."""
    lacking = [key for key in METADATA if not str(metadata.get(key, "")).strip()]
    if not lacking:
        return []
    remedy = "add it to the entry; catalogs/README.md tells what is meant"
    return [Symptom("metadata", f"{', '.join(lacking)} missing", remedy)]


def of_error(error: Exception) -> list[Symptom]:
    """What an error in opening or reading tells, without secrets."""
    if not isinstance(error, SoilweaveError):
        told = " ".join(str(error).split()) or "no more is told"
        found = _short(f"cannot be read: {type(error).__name__}: {told}")
        check = "time axis" if re.search(r"\btime\b", told) else "opening"
        return [Symptom(check, found, _DAMAGED)]
    place = _short(error.place)
    made = []
    for problem in error.problems:
        check, remedy = next(
            ((check, what) for sign, check, what in KINDS if re.search(sign, problem)),
            ("opening", ""),
        )
        found = _short(problem) if place in problem else f"{place}: {_short(problem)}"
        mended = "" if error.remedy.startswith("correct the file") else _short(error.remedy)
        made.append(Symptom(check, found, mended or remedy or "correct the file or the entry"))
    return made


def _short(text: str) -> str:
    """The beginning of a text, without secrets."""
    shown = bare(text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."
