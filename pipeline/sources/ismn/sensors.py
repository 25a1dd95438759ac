"""Sensors of an ISMN archive: where they are, and their hourly values.

An archive holds one .stm text for each sensor, in either of two layouts: CEOP (the position stands
in every line) and "header values" (it stands in the first line). Network and station are read from
the text, since archives are unpacked into folders of any name. Lines may end in any way. The texts
are read here and not by the readers of `ismn`, which take the network from the first folder and
know no lines that end in a carriage return.
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

# The flags of ISMN: good, missing, outside a plausible range (C), dubious (D); U of older archives
# means that no check was applied.
FLAGS = (
    *("G", "M", "C01", "C02", "C03"),
    *("D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D09", "D10"),
    *("too_few_hours", "other", "U", "C", "D"),
)
BITS = {flag: 1 << i for i, flag in enumerate(FLAGS)}
FILL = -999.0  # and all below; -9999 stands for missing
DAMAGES = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)
REMEDY = "download the archive again"
_NAME = re.compile(r"_([A-Za-z][A-Za-z_-]*)_(-?\d+\.\d+)_(-?\d+\.\d+)_(.+)_\d+_\d+\.stm$")
_TINY = 1e-6  # m


class Sensor(NamedTuple):
    """One file: the sensor it is of, where it is, and when it begins and ends (UTC)."""

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
    """What the name of a file says: variable, depths in m, and the sensor."""

    variable: str
    depth_from: float
    depth_to: float
    instrument: str


def sensors(
    path: str, variables: Collection[str], depth: tuple[float, float]
) -> tuple[list[Sensor], list[str]]:
    """Sensors of some variables whose depths lie in a class, by their files' names.

    Args:
      path: the archive.
      variables: as `ismn` calls them.
      depth: top and bottom, m.

    Returns:
      The sensors, and what the archive has besides, as "variable, from to to m".

    Raises:
      DataError: the archive or files are damaged, or it knows no such variable.
    """
    known = _variables().values()
    unknown = [name for name in variables if name not in known]
    if unknown:
        found = f"no variable {', '.join(unknown)}; it has {', '.join(known)}"
        raise DataError(path, found, remedy="correct `from` in the entry's mapping")
    found_here, others, problems = [], set(), []
    for member in sorted(archive.members(path, content=False)):
        named = _named(member)
        if named is None:
            problems.append(f"{member}: named unlike NETWORK_NETWORK_SITE_VARIABLE_FROM_TO_...")
            continue
        top, bottom = sorted((named.depth_from, named.depth_to))
        inside = depth[0] - _TINY <= top and bottom <= depth[1] + _TINY
        if named.variable not in variables or not inside:
            others.add(f"{named.variable}, {named.depth_from:g} to {named.depth_to:g} m")
            continue
        try:
            found_here.append(_sensor(path, member, named))
        except DAMAGES:
            problems.append(f"{member}: cannot be read, truncated or damaged")
    if problems:
        raise DataError(path, *sorted(problems), remedy=REMEDY)
    return found_here, sorted(others)


def hours(path: str, member: str) -> Hours:
    """The record of a sensor; flags as sums of `BITS`.

    Raises:
      DataError: the file is absent or damaged, naming its line.
    """
    place = f"{path}: {member}"
    try:
        data = _content(path, member)
        layout = text.layout(data)
        frame = text.rows(data, layout)
        times = text.times(frame["date"] + " " + frame["time"])
    except DAMAGES as error:
        found = f"cannot be read, truncated or damaged ({type(error).__name__})"
        raise DataError(place, found, remedy=REMEDY) from error
    lacking = np.flatnonzero(frame["value"].isna() | frame["flag"].isna())
    if lacking.size:
        found = f"line {lacking[0] + layout.line}: no value or no flag; cut short?"
        raise DataError(place, found, remedy=REMEDY)
    number = text.numbers(frame["value"])
    if number is None:
        raise DataError(place, "values that are no numbers", remedy=REMEDY)
    kinds, which = np.unique(frame["flag"].to_numpy(str), return_inverse=True)
    return Hours(
        times.to_numpy("datetime64[s]"),
        np.where(number <= FILL, np.float32(np.nan), number),
        np.array([code(kind) for kind in kinds], np.int32)[which],
    )


def code(flag: str) -> int:
    """A flag as it stands in a file, such as `G` or `D03,D05`, as sum of bits."""
    return sum(BITS.get(part, BITS["other"]) for part in set(flag.split(",")))


@functools.cache
def _variables() -> dict[str, str]:
    """ISMN's name of a variable, by the short one that files have."""
    from ismn.const import VARIABLE_LUT

    return dict(VARIABLE_LUT)


def _named(member: str) -> Named | None:
    """What a file's name says; None where it is no name of a sensor's file."""
    match = _NAME.search(PurePosixPath(member).name)
    if match is None:
        return None
    # A site's name may have an underscore: of `Site_sm` the variable is `sm`.
    short = match[1].rpartition("_")[2]
    name = _variables().get(short, short.lower().replace("-", "_"))
    return Named(name, float(match[2]), float(match[3]), match[4])


def _sensor(path: str, member: str, named: Named) -> Sensor:
    data = _content(path, member)
    layout = text.layout(data)
    lines = (
        text.lines(data[layout.begin : layout.begin + text.HEAD])[0],
        text.lines(data.rstrip()[-text.HEAD :])[-1],
    )
    first, last = (text.times(" ".join(text.words(line)[:2])) for line in lines)
    return Sensor(
        member,
        named.variable,
        layout.network,
        layout.site,
        named.instrument,
        *layout.position,
        named.depth_from,
        named.depth_to,
        first.to_datetime64().astype("datetime64[s]"),
        last.to_datetime64().astype("datetime64[s]"),
    )


def _content(path: str, member: str) -> bytes:
    """The bytes of a file of an archive."""
    if os.path.isdir(path):
        return Path(path, member).read_bytes()
    held = os.stat(path)
    return _zip(path, held.st_mtime_ns, held.st_size).read(member)


@functools.lru_cache(maxsize=1)
def _zip(path: str, changed: int, size: int) -> zipfile.ZipFile:
    """A zip, kept open: to open one of many files takes longer than to read one of them."""
    return zipfile.ZipFile(path)
