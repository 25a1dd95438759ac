"""Files of the 412-cell set: tables of numbers, and lists of days."""

from __future__ import annotations

import functools
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import http_errors, remote

if TYPE_CHECKING:
    from numpy.typing import NDArray

MISSING = -9999.0


@functools.lru_cache(maxsize=64)
def table(url: str, options: str = "{}") -> NDArray[np.float64]:
    """A file of numbers, (row, column), as it is.

    Raises:
      DataError: it is absent, or truncated: rows of several lengths, or no numbers.
    """
    text = remote.read(url, json.loads(options)).decode()
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    except ValueError as error:
        found = f"no table of numbers, truncated or damaged: {error}"
        raise DataError(http_errors.shown(url), found, remedy="fetch it again") from error


def converted(
    url: str,
    options: str,
    shape: tuple[int, int],
    factors: tuple[float, float],
    fills: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    """A file of (cell, day) float32, NaN where missing, after slope and offset.

    Missing are MISSING, as in every file of this set, and the fills of the entry.

    Raises:
      DataError: as of `table`, or it has other rows and columns than expected.
    """
    values = table(url, options)
    if values.shape != shape:
        table.cache_clear()  # a damaged file may be mended
        found = f"{values.shape[0]} x {values.shape[1]} numbers, expected {shape[0]} x {shape[1]}"
        raise DataError(http_errors.shown(url), found, remedy="fetch it again")
    raw = np.where(np.isin(values, (MISSING, *fills)), np.nan, values).astype("float32")
    return (raw * factors[0] + factors[1]).astype("float32") if factors != (1.0, 0.0) else raw


def days(url: str, options: dict[str, Any]) -> NDArray[np.datetime64]:
    """The days of a list of them.

    Raises:
      DataError: it is absent, or its days do not follow one another.
    """
    text = remote.read(url, options).decode()
    try:
        found = np.array(text.split(), "datetime64[D]")
    except ValueError as error:
        raise DataError(
            http_errors.shown(url), f"no days: {error}", remedy="fetch it again"
        ) from error
    steps = np.diff(found).astype(int)
    if not found.size or (steps != 1).any():
        at = found[1:][steps != 1]
        told = f"days do not follow one another at {at[0]}" if at.size else "no days"
        raise DataError(http_errors.shown(url), told, remedy="fetch it again")
    return found
