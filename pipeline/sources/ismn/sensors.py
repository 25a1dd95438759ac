"""Sensors of an archive of the ISMN, read by `ismn`: where they are, and their hours.

An archive holds one .stm text for each sensor, in either of two layouts: CEOP's (position in
every line) and "header values" (in the first line). `ismn`'s own interface would first go through
all of them and write what it learns beside them; here single files are asked for, by their names.
"""

from __future__ import annotations

import functools
import os
import tempfile
import threading
import warnings
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.daily import Hours
from pipeline.sources.ismn import archive

if TYPE_CHECKING:
    from collections.abc import Collection

FLAGS = (
    *("G", "M", "C01", "C02", "C03"),
    *("D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D09", "D10"),
    *("too_few_hours", "other"),
)
BITS = {flag: 1 << i for i, flag in enumerate(FLAGS)}
FILL = -999.0  # and all below; -9999 stands for missing
DAMAGES = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)
CEOP_COLUMNS = 15
HEAD = 4096  # bytes; its first two lines tell what a file is
_TINY = 1e-6  # m
# What hides a warning hides it in all threads, until the first of them is done.
_ONE_AT_A_TIME = threading.Lock()


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
    from ismn.base import IsmnRoot
    from ismn.const import VARIABLE_LUT

    unknown = [name for name in variables if name not in VARIABLE_LUT.values()]
    if unknown:
        found = f"no variable {', '.join(unknown)}; it has {', '.join(VARIABLE_LUT.values())}"
        raise DataError(path, found, remedy="correct `from` in the entry's mapping")
    wanted, others, problems = [], set(), []
    for member in sorted(archive.members(path, content=False)):
        parts = PurePosixPath(member).name.split("_")
        try:
            name, top, bottom = VARIABLE_LUT.get(parts[3], parts[3]), *map(float, parts[4:6])
        except (IndexError, ValueError):
            problems.append(f"{member}: named unlike NETWORK_NETWORK_SITE_VARIABLE_FROM_TO_...")
            continue
        if (
            name not in variables
            or not depth[0] - _TINY <= min(top, bottom)
            or not (max(top, bottom) <= depth[1] + _TINY)
        ):
            others.add(f"{name}, {top:g} to {bottom:g} m")
            continue
        wanted.append(member)
    found_here = []
    with IsmnRoot(path) as root:
        for member in wanted:
            try:
                found_here.append(_sensor(root, member))
            except DAMAGES:
                problems.append(f"{member}: cannot be read, truncated or damaged")
    if problems:
        raise DataError(path, *sorted(problems), remedy="download the archive again")
    return found_here, sorted(others)


def hours(path: str, member: str) -> Hours:
    """The record of a sensor; flags as sums of `BITS`.

    Raises:
      DataError: the file is absent or damaged, naming its line.
    """
    place = f"{path}: {member}"
    remedy = "download the archive again"
    try:
        with (
            _ONE_AT_A_TIME,
            warnings.catch_warnings(),
            tempfile.TemporaryDirectory(prefix="soilweave-ismn-") as scratch,
        ):
            held = os.stat(path)
            root = _root(path, held.st_mtime_ns, held.st_size)
            # ismn 1.5.4 calls pandas in a way that pandas 3.1 says will go.
            warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
            file = _described(root, member, scratch)
            frame = file.read_data()
    except DAMAGES as error:
        found = f"cannot be read, truncated or damaged ({type(error).__name__})"
        raise DataError(place, found, remedy=remedy) from error
    values, told = frame.iloc[:, 0], frame.iloc[:, 1]
    lacking = np.flatnonzero(values.isna() | told.isna() | frame.index.isna())
    if lacking.size:
        line = lacking[0] + 1 + (file.file_type == "header_values")
        found = f"line {line}: no value or no flag; cut short?"
        raise DataError(place, found, remedy=remedy)
    if values.dtype.kind not in "fi":
        raise DataError(place, "values that are no numbers", remedy=remedy)
    kinds, which = np.unique(told.to_numpy(str), return_inverse=True)
    number = values.to_numpy(np.float32)
    return Hours(
        frame.index.to_numpy("datetime64[s]"),
        np.where(number <= FILL, np.float32(np.nan), number),
        np.array([code(kind) for kind in kinds], np.int32)[which],
    )


def code(flag: str) -> int:
    """A flag as it stands in a file, such as `G` or `D03,D05`, as sum of bits."""
    return sum(BITS.get(part, BITS["other"]) for part in set(flag.split(",")))


@functools.lru_cache(maxsize=1)
def _root(path: str, changed: int, size: int) -> Any:
    """An archive, kept open: to open a zip of many files takes longer than to read one of them."""
    from ismn.base import IsmnRoot

    return IsmnRoot(path)


def _described(root: Any, member: str, scratch: str = ".") -> Any:
    """A sensor's file as `ismn` has it, described by its name, first lines and last line."""
    from ismn.filehandlers import DataFile

    data = root.zip.read(member) if root.zip else (root.path / member).read_bytes()
    first = [line for line in data[:HEAD].splitlines() if line.strip()]
    lines = [first[0], first[min(1, len(first) - 1)], data.rstrip().rsplit(b"\n", 1)[-1]]
    file = DataFile(
        *(root, PurePosixPath(member)),
        load_metadata=False,
        temp_root=scratch,
        verify_filepath=False,
        verify_temp_root=False,
    )
    told: dict[str, list[str]] = {"fname": PurePosixPath(member).name.split("_")}
    for part, line in zip(("headr", "scnd", "last"), lines, strict=True):
        told[part] = line.decode("ascii").split()
    if len(told["headr"]) == len(told["scnd"]) == CEOP_COLUMNS:
        file.file_type, (file.metadata, _) = "ceop_sep", file.get_metadata_ceop_sep(told)
    else:
        file.file_type, (file.metadata, _) = "header_values", file.get_metadata_header_values(told)
    return file


def _sensor(root: Any, member: str) -> Sensor:
    told = _described(root, member).metadata
    depth = told["instrument"].depth
    return Sensor(
        member,
        told["variable"].val,
        PurePosixPath(member).parts[0],
        told["station"].val,
        told["instrument"].val,
        float(told["latitude"].val),
        float(told["longitude"].val),
        float(told["elevation"].val),
        float(depth.start),
        float(depth.end),
        np.datetime64(told["timerange_from"].val, "s"),
        np.datetime64(told["timerange_to"].val, "s"),
    )
