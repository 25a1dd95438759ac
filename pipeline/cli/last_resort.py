"""What the command line says of an exception that no other place has translated.

A package that cannot be imported, a full disk or a cluster that has failed is a problem of the
environment. Everything else is a fault of soilweave: its traceback is kept in a file.
"""

from __future__ import annotations

import logging
import tempfile
import traceback
from typing import TYPE_CHECKING

from pipeline import failures
from pipeline.errors import ClusterError, SoilweaveError, redact_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator


CORRECTABLE, FAULT = 2, 70  # exit status; 70 is EX_SOFTWARE of sysexits.h
OWN_PACKAGES = ("pipeline", "model", "catalogs")

# Libraries that log tracebacks of what they raise as well. They stay silent where nobody has set
# up logging.
LOGGERS = ("asyncio", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs", "urllib3")


def keep_libraries_quiet() -> None:
    """Let libraries log nothing to the terminal, where logging is not set up."""
    for name in LOGGERS:
        logging.getLogger(name).addHandler(logging.NullHandler())


def describe(error: Exception) -> tuple[str, int]:
    """Return one line for an exception, and the exit status of the command.

    The traceback of a fault of soilweave is written to a temporary file.
    """
    correctable = as_correctable(error)
    if correctable is not None:
        return str(correctable), CORRECTABLE
    origin = _innermost(error)
    what = redact_secrets(failures.own_text(origin))
    name = type(origin).__name__
    what = what if what.startswith(name) else f"{name}: {what}"
    return f"this is a fault of soilweave ({what}); {_keep_traceback(error)}", FAULT


def as_correctable(error: BaseException) -> SoilweaveError | None:
    """Return an exception as an error that a user can correct, or None if it is a fault."""
    origin = _innermost(error)
    for link in _causes(origin):
        if isinstance(link, SoilweaveError):
            return link
    if isinstance(origin, ImportError) and str(origin.name).partition(".")[0] in OWN_PACKAGES:
        return None
    found = failures.explain(origin)
    if isinstance(origin, failures.storage_exceptions(ImportError, MemoryError)) and found.known:
        filename = getattr(origin, "filename", None)
        named = filename if isinstance(filename, str) and filename not in found.reason else ""
        return SoilweaveError(named or "this machine", found.reason, remedy=found.remedy)
    if type(origin).__module__.startswith("ray."):
        reason = failures.own_text(origin)
        hint = "run again to continue; `ray status` and the logs of the cluster say more"
        return ClusterError("Ray", reason, remedy=hint)
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, and those that it was raised from."""
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__


def _innermost(error: BaseException) -> BaseException:
    """Return the exception that a task of Ray raised, or else the exception itself.

    Ray's own is an instance of the same class, but its text is the worker's traceback.
    """
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


def _keep_traceback(error: Exception) -> str:
    """Write a traceback to a file, and return where it is."""
    text = redact_secrets("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="soilweave-", suffix=".txt", delete=False, encoding="utf-8"
        ) as file:
            file.write(text)
    except OSError:
        return "please report it with its traceback, which --debug shows"
    return f"please report it with its traceback, which is in {file.name}"
