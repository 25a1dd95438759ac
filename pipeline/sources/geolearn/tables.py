"""Read the files of the 412-cell data set: tables of numbers and lists of days."""

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

MISSING = -9999.0  # the fill value of every file of the data set


@functools.lru_cache(maxsize=64)
def table(url: str, options: str = "{}") -> NDArray[np.float64]:
    """Read a file of numbers without conversion.

    Args:
      url: The file.
      options: Storage options of fsspec as JSON, so that results can be cached.

    Returns:
      (row, column) the numbers.

    Raises:
      DataError: If the file is missing, has rows of different lengths, or contains anything but
        numbers.
    """
    text = remote.read(url, json.loads(options)).decode()
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    except ValueError as error:
        problem = f"expected a table of numbers; the file is truncated or damaged: {error}"
        raise DataError(http_errors.shown(url), problem, remedy="fetch it again") from error


def converted(
    url: str,
    options: str,
    shape: tuple[int, int],
    factors: tuple[float, float],
    fills: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    """Read a file and convert its units.

    Args:
      url: The file.
      options: Storage options of fsspec as JSON.
      shape: Expected numbers of cells and days.
      factors: Slope and offset of the conversion.
      fills: Values that stand for missing values, in addition to -9999.

    Returns:
      (cell, day) float32 values, NaN where missing.

    Raises:
      DataError: If the file cannot be read as a table, or has another shape.
    """
    values = table(url, options)
    if values.shape != shape:
        table.cache_clear()  # so that a repaired file is read again
        problem = f"{values.shape[0]} x {values.shape[1]} numbers, expected {shape[0]} x {shape[1]}"
        raise DataError(http_errors.shown(url), problem, remedy="fetch it again")
    raw = np.where(np.isin(values, (MISSING, *fills)), np.nan, values).astype("float32")
    return (raw * factors[0] + factors[1]).astype("float32") if factors != (1.0, 0.0) else raw


def days(url: str, options: dict[str, Any]) -> NDArray[np.datetime64]:
    """Read a file that lists days.

    Args:
      url: The file.
      options: Storage options of fsspec.

    Returns:
      (day,) the days.

    Raises:
      DataError: If the file is missing, has no days, or its days are not consecutive.
    """
    text = remote.read(url, options).decode()
    try:
        days = np.array(text.split(), "datetime64[D]")
    except ValueError as error:
        problem = f"expected a list of days such as 2015-04-01: {error}"
        raise DataError(http_errors.shown(url), problem, remedy="fetch it again") from error
    steps = np.diff(days).astype(int)
    if not days.size or (steps != 1).any():
        after_gap = days[1:][steps != 1]
        problem = "the file lists no days"
        if after_gap.size:
            problem = f"days are not consecutive: day {after_gap[0]} does not follow the day before"
        raise DataError(http_errors.shown(url), problem, remedy="fetch it again")
    return days
