"""What an export consists of: pieces, of which each is written whole and recorded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pipeline.files import Json

    Advance = Callable[[int], None]


@dataclass(frozen=True)
class Piece:
    """One or more files that are written together.

    Attributes:
      names: Names of the files.
      days: The days in them, as positions on the time axis of the maps.
      made_from: What the files depend on beside the maps: the options.
      write: Writes the files below a URL; it is given the URL and a function to be called with the
        number of days done. Gives the size and SHA-256 of each file by its name.
    """

    names: tuple[str, ...]
    days: range
    made_from: Json
    write: Callable[[str, Advance], dict[str, Json]]


def split_days(days: NDArray[np.datetime64], part: range, unit: str) -> Iterator[tuple[str, range]]:
    """Split days by calendar.

    Args:
      days: (time,) the days of the axis, in order.
      part: The positions of those to split.
      unit: "D" for single days, "M" for months, "Y" for years.

    Yields:
      The ISO date of the day, month or year, and the positions of its days.
    """
    labels = days[part.start : part.stop].astype(f"datetime64[{unit}]")
    starts = [0, *(np.flatnonzero(labels[1:] != labels[:-1]) + 1).tolist(), len(labels)]
    for begin, end in itertools.pairwise(starts):
        yield str(labels[begin]), range(part.start + begin, part.start + end)


def write_bytes(url: str, name: str, data: bytes) -> dict[str, Json]:
    """Write a file that is in memory; return its record by its name."""
    files.write_bytes(files.join(url, name), data)
    return {name: {"size": len(data), "sha256": files.sha256(data)}}


def record_of(name: str, path: str) -> dict[str, Any]:
    """Return the record of a file that is written locally, by its name."""
    size, digest = files.sha256_of_object(path)
    return {name: {"size": size, "sha256": digest}}
