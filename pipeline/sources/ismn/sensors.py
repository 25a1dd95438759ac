"""List the sensors of an ISMN archive and read their hourly values.

An archive has one .stm text file per sensor, in one of two layouts: CEOP, which repeats the
position in every line, and "header values", which has it in the first line only. The network and
the station are read from the text, because users unpack archives into folders of any name.

The readers of the `ismn` package are not used: they take the network from the first folder and do
not accept lines that end in a carriage return.
"""

from __future__ import annotations

import functools
import os
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.daily import Hours
from pipeline.sources.ismn import archive, text

if TYPE_CHECKING:
    from collections.abc import Collection

# ISMN's flags: good (G), missing (M), outside a plausible range (C), dubious (D). In older archives
# U means that no check was applied.
FLAGS = (
    *("G", "M", "C01", "C02", "C03"),
    *("D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D09", "D10"),
    *("too_few_hours", "other", "U", "C", "D"),
)
BITS = {flag: 1 << i for i, flag in enumerate(FLAGS)}
FILL = -999.0  # this and all lower values stand for missing values, such as -9999
DAMAGES = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)
REMEDY = "download the archive again"
_NAME = re.compile(r"_([A-Za-z][A-Za-z_-]*)_(-?\d+\.\d+)_(-?\d+\.\d+)_(.+)_\d+_\d+\.stm$")
_TINY = 1e-6  # m


class Sensor(NamedTuple):
    """A sensor, which has one file in the archive.

    Attributes:
      member: Path of the file in the archive.
      variable: ISMN's name of the variable.
      network: Name of the network.
      site: Name of the station.
      instrument: Name of the sensor.
      lat: Latitude, degrees north.
      lon: Longitude, degrees east.
      elevation: Elevation above sea level, m.
      depth_from: Upper depth, m.
      depth_to: Lower depth, m.
      first: First time, UTC.
      last: Last time, UTC.
    """

    member: str
    variable: str
    network: str
    site: str
    instrument: str
    lat: float
    lon: float
    elevation: float
    depth_from: float
    depth_to: float
    first: np.datetime64
    last: np.datetime64


class Named(NamedTuple):
    """The parts of a file name: variable, upper and lower depth in m, and name of the sensor."""

    variable: str
    depth_from: float
    depth_to: float
    instrument: str


def sensors(
    path: str, variables: Collection[str], depth: tuple[float, float]
) -> tuple[list[Sensor], list[str]]:
    """Return the sensors of some variables in a depth range.

    Args:
      path: The archive.
      variables: ISMN's names of the variables.
      depth: Top and bottom of the range, m.

    Returns:
      The sensors, sorted by file name; and what else the archive has, as texts of the form
      "variable, 0.1 to 0.2 m".

    Raises:
      DataError: If the archive or its files are damaged, or ISMN has no such variable.
    """
    known = _variables().values()
    unknown = [name for name in variables if name not in known]
    if unknown:
        problem = f"ISMN has no variable {', '.join(unknown)}; accepted: {', '.join(known)}"
        raise DataError(path, problem, remedy="correct `from` in the entry's mapping")
    matching, others, problems = [], set(), []
    for member in sorted(archive.members(path, content=False)):
        parts = _named(member)
        if parts is None:
            problems.append(
                f"{member}: the file name does not have the form "
                "NETWORK_NETWORK_SITE_VARIABLE_FROM_TO_SENSOR_BEGIN_END.stm"
            )
            continue
        top, bottom = sorted((parts.depth_from, parts.depth_to))
        inside = depth[0] - _TINY <= top and bottom <= depth[1] + _TINY
        if parts.variable not in variables or not inside:
            others.add(f"{parts.variable}, {parts.depth_from:g} to {parts.depth_to:g} m")
            continue
        try:
            matching.append(_sensor(path, member, parts))
        except DAMAGES:
            problems.append(f"{member}: cannot be read, truncated or damaged")
    if problems:
        raise DataError(path, *sorted(problems), remedy=REMEDY)
    return matching, sorted(others)


def hours(path: str, member: str) -> Hours:
    """Read the hourly values of a sensor; flags are sums of `BITS`.

    Args:
      path: The archive.
      member: Path of the sensor's file in it.

    Raises:
      DataError: If the file is missing or damaged; the error names the line.
    """
    place = f"{path}: {member}"
    try:
        data = _content(path, member)
        layout = text.layout(data)
        frame = text.rows(data, layout)
        times = text.times(frame["date"] + " " + frame["time"])
    except DAMAGES as error:
        problem = f"cannot be read, truncated or damaged ({type(error).__name__})"
        raise DataError(place, problem, remedy=REMEDY) from error
    incomplete = np.flatnonzero(frame["value"].isna() | frame["flag"].isna())
    if incomplete.size:
        problem = f"line {incomplete[0] + layout.line} has no value or no flag; is it truncated?"
        raise DataError(place, problem, remedy=REMEDY)
    number = text.numbers(frame["value"])
    if number is None:
        raise DataError(place, "has values that are not numbers", remedy=REMEDY)
    flags, flag_index = np.unique(frame["flag"].to_numpy(str), return_inverse=True)
    return Hours(
        times.to_numpy("datetime64[s]"),
        np.where(number <= FILL, np.float32(np.nan), number),
        np.array([code(flag) for flag in flags], np.int32)[flag_index],
    )


def code(flag: str) -> int:
    """Return the sum of bits of a flag as written in a file, such as `G` or `D03,D05`."""
    return sum(BITS.get(part, BITS["other"]) for part in set(flag.split(",")))


@functools.cache
def _variables() -> dict[str, str]:
    """Return {abbreviation in file names: ISMN's name of the variable}."""
    from ismn.const import VARIABLE_LUT

    return dict(VARIABLE_LUT)


def _named(member: str) -> Named | None:
    """Return the parts of a file name; None if it does not have the form of a sensor's."""
    match = _NAME.search(PurePosixPath(member).name)
    if match is None:
        return None
    # The name of a site may have underscores: in `Site_sm` the variable is `sm`.
    short = match[1].rpartition("_")[2]
    name = _variables().get(short, short.lower().replace("-", "_"))
    return Named(name, float(match[2]), float(match[3]), match[4])


def _sensor(path: str, member: str, parts: Named) -> Sensor:
    """Return a sensor, from its file's name and the file's first and last lines."""
    data = _content(path, member)
    layout = text.layout(data)
    lines = (
        text.lines(data[layout.data_begin : layout.data_begin + text.HEAD])[0],
        text.lines(data.rstrip()[-text.HEAD :])[-1],
    )
    first, last = (text.times(" ".join(text.words(line)[:2])) for line in lines)
    return Sensor(
        member,
        parts.variable,
        layout.network,
        layout.site,
        parts.instrument,
        *layout.position,
        parts.depth_from,
        parts.depth_to,
        first.to_datetime64().astype("datetime64[s]"),
        last.to_datetime64().astype("datetime64[s]"),
    )


def _content(path: str, member: str) -> bytes:
    """Return the content of a file in an archive."""
    if os.path.isdir(path):
        return Path(path, member).read_bytes()
    status = os.stat(path)
    return _zip(path, status.st_mtime_ns, status.st_size).read(member)


@functools.lru_cache(maxsize=1)
def _zip(path: str, changed: int, size: int) -> zipfile.ZipFile:
    """Open a zip and keep it open, because opening a large zip takes longer than reading a file.

    `changed` and `size` make the cache open a zip again that has changed.
    """
    return zipfile.ZipFile(path)
