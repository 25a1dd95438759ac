"""Findings of `doctor`: a failed check, what was found and how to fix it.

Errors of drivers and libraries are turned into findings here as well.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from pipeline import failures
from pipeline.errors import SoilweaveError, redact_secrets

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

MAX_MESSAGE_LENGTH = 300  # characters of a message
_DAMAGED_HINT = "download it again; if it stays unreadable, ask the provider"

# Maps the text of an error's problem to the check it belongs to and a hint. The first pattern that
# matches decides. The patterns follow the wording of the errors that sources raise.
ERROR_PATTERNS = (
    (r"refused|credentials|login", "credentials", ""),
    (
        r"\blat(itude)?: .*at most 90",
        "latitude",
        "latitude and longitude may be exchanged; correct the file",
    ),
    (
        r"units '",
        "units",
        "correct the units in the mapping, or ask the provider what has changed",
    ),
    (r"the file has|no variable of that name", "variables", "correct `from` in the mapping"),
    (
        r"does not answer|asked \d+ times",
        "opening",
        "try again later, and check that this machine is online",
    ),
    (r"cannot be read|truncated", "opening", _DAMAGED_HINT),
    (
        r"not found|no file matches|nothing of",
        "opening",
        "check whether it has moved, and correct the entry",
    ),
    (r"calendar '", "time axis", "convert the file, for example with xarray's convert_calendar"),
    (
        r"\btime\b|\bdays? ",
        "time axis",
        "sort the days of the file and remove duplicates, or ask the provider",
    ),
    (
        r"\b(lat|lon|latitude|longitude)\b",
        "coordinates",
        "correct the coordinates of the file",
    ),
)


class Finding(NamedTuple):
    """One thing that a check has found.

    Attributes:
      check: name of the check, such as `units` or `time axis`.
      message: what was found, and where.
      hint: what to do about it.
    """

    check: str
    message: str
    hint: str


def check_metadata(metadata: Mapping[str, object]) -> list[Finding]:
    """Return a finding that lists the metadata missing from a catalog entry, or nothing."""
    missing = [key for key in METADATA if not str(metadata.get(key, "")).strip()]
    if not missing:
        return []
    hint = "add it to the entry; catalogs/README.md explains each key"
    return [Finding("metadata", f"{', '.join(missing)} missing", hint)]


def findings_from_error(error: Exception) -> list[Finding]:
    """Return a finding for each problem of an error from opening or reading an entry.

    Secrets are removed, and long messages are shortened.
    """
    if not isinstance(error, SoilweaveError):
        found = failures.explain(error)
        if found.known:
            message = _shorten(failures.read_problem(error))
            return [Finding("opening", message, _shorten(found.remedy) or _DAMAGED_HINT)]
        text = " ".join(str(error).split()) or "no details given"
        message = _shorten(f"cannot be read: {type(error).__name__}: {text}")
        check = "time axis" if re.search(r"\btime\b", text) else "opening"
        return [Finding(check, message, _DAMAGED_HINT)]
    place = _shorten(error.place)
    findings = []
    for problem in error.problems:
        check, default_hint = next(
            (
                (check, hint)
                for pattern, check, hint in ERROR_PATTERNS
                if re.search(pattern, problem)
            ),
            ("opening", ""),
        )
        message = _shorten(problem) if place in problem else f"{place}: {_shorten(problem)}"
        # The table above is more specific than an error's general hint to correct the file.
        is_general = error.remedy.startswith("correct the file")
        own_hint = "" if is_general else _shorten(error.remedy)
        hint = own_hint or default_hint or "correct the file or the entry"
        findings.append(Finding(check, message, hint))
    return findings


def _shorten(text: str) -> str:
    """Return the beginning of a text, without secrets."""
    text = redact_secrets(text)
    return text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[: MAX_MESSAGE_LENGTH - 3]}..."
