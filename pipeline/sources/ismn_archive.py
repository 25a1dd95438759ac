"""Archives of the International Soil Moisture Network: a zip or a folder, read by `ismn`.

An archive holds one .stm text for each sensor, in either of two layouts: CEOP's (position in
every line) and "header values" (in the first line). `ismn`'s own interface would first go through
all of them and write what it learns beside them; here single files are asked for, by their names.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import uuid
import warnings
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import remote
from pipeline.sources.daily import Hours

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

FLAGS = (
    *("G", "M", "C01", "C02", "C03"),
    *("D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D09", "D10"),
    *("too_few_hours", "other"),
)
BITS = {flag: 1 << i for i, flag in enumerate(FLAGS)}
FILL = -999.0  # and all below; -9999 stands for missing
DAMAGES = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)
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


def local(url: str, given: dict[str, Any], login: str | None) -> str:
    """Path of an archive on this machine; one from elsewhere is kept in the user's cache.

    Raises:
      DataError: it is absent, refused, or its server does not answer.
    """
    with remote.answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
        info = filesystem.info(path)
        if "file" in filesystem.protocol:
            return str(path)
        import pooch

        told = {key: str(value) for key, value in info.items() if key in _TOLD}
        name = files.sha256_of([remote.shown(url), told])
        kept = Path(pooch.os_cache("soilweave")) / "ismn" / f"{name}.zip"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = f"{kept}.part-{uuid.uuid4().hex}"
            try:
                filesystem.get_file(path, part)
                os.replace(part, kept)
            finally:
                Path(part).unlink(missing_ok=True)
        return str(kept)


_TOLD = ("size", "ETag", "Last-Modified", "LastModified", "mtime")


def digest(url: str, given: dict[str, Any], login: str | None) -> str:
    """Identifies what the sensors' files hold: the same for a zip, its copy and its folder.

    Raises:
      DataError: there is none, or it is damaged.
    """
    with remote.answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
        if "file" in filesystem.protocol:
            return files.sha256_of(sorted(_members(str(path)).items()))
        with remote.opened(url, given, login) as file:
            return files.sha256_of(sorted(_zipped(file, url).items()))


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
    from ismn.const import VARIABLE_LUT

    unknown = [name for name in variables if name not in VARIABLE_LUT.values()]
    if unknown:
        found = f"no variable {', '.join(unknown)}; it has {', '.join(VARIABLE_LUT.values())}"
        raise DataError(path, found, remedy="correct `from` in the entry's mapping")
    found_here, others, problems = [], set(), []
    for member in sorted(_members(path, content=False)):
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
        try:
            found_here.append(_sensor(path, member))
        except DAMAGES:
            problems.append(f"{member}: cannot be read, truncated or damaged")
    if problems:
        raise DataError(path, *problems, remedy="download the archive again")
    return found_here, sorted(others)


def hours(path: str, member: str) -> Hours:
    """The record of a sensor; flags as sums of `BITS`.

    Raises:
      DataError: the file is absent or damaged, naming its line.
    """
    place = f"{path}: {member}"
    remedy = "download the archive again"
    try:
        with _file(path, member) as file:
            frame = file.read_data()
            header = int(file.file_type == "header_values")
    except DAMAGES as error:
        found = f"cannot be read, truncated or damaged: {str(error).strip().splitlines()[-1:]}"
        raise DataError(place, found, remedy=remedy) from error
    values, told = frame.iloc[:, 0], frame.iloc[:, 1]
    lacking = np.flatnonzero(values.isna() | told.isna() | frame.index.isna())
    if lacking.size:
        found = f"line {lacking[0] + 1 + header}: no value or no flag; cut short?"
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


def _sensor(path: str, member: str) -> Sensor:
    with _file(path, member) as file:
        told = file.metadata
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


@contextlib.contextmanager
def _file(path: str, member: str) -> Iterator[Any]:
    """A sensor's file as `ismn` has it, its first and last line read."""
    from ismn.base import IsmnRoot
    from ismn.filehandlers import DataFile

    with (
        _ONE_AT_A_TIME,
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory(prefix="soilweave-ismn-") as scratch,
        IsmnRoot(path) as root,
    ):
        # ismn 1.5.4 calls pandas in a way that pandas 3.1 says will go.
        warnings.filterwarnings("ignore", "The inplace keyword", DeprecationWarning)
        yield DataFile(root, member, temp_root=scratch)


def _members(path: str, *, content: bool = True) -> dict[str, list[int]]:
    """Size and CRC-32 of each sensor's file, by its path in the archive."""
    if not os.path.isdir(path):
        with open(path, "rb") as file:
            return _zipped(file, path)
    folder = Path(path)
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.stm")}
    if not content:
        return {name: [] for name in found}
    return {
        name: [file.stat().st_size, zlib.crc32(file.read_bytes())] for name, file in found.items()
    }


def _zipped(file: Any, place: str) -> dict[str, list[int]]:
    try:
        with zipfile.ZipFile(file) as archive:
            return {
                entry.filename: [entry.file_size, entry.CRC]
                for entry in archive.infolist()
                if entry.filename.endswith(".stm")
            }
    except zipfile.BadZipFile as error:
        raise DataError(
            remote.shown(place), "no zip, or truncated", remedy="download the archive again"
        ) from error
