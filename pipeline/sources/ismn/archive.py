"""Parse the text file of an ISMN sensor: detect its layout and read its columns.

Find the files of an ISMN archive, which is a zip or the folder it unpacks to.

List the sensors of an ISMN archive and read their hourly values.

An archive has one .stm text file per sensor, in one of two layouts: CEOP, which repeats the
position in every line, and "header values", which has it in the first line only. The network and
the station are read from the text, because users unpack archives into folders of any name.

The readers of the `ismn` package are not used: they take the network from the first folder and do
not accept lines that end in a carriage return.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import re
import uuid
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import numpy as np

from pipeline import failures, files
from pipeline.errors import DataError
from pipeline.sources.shared import access, http_errors
from pipeline.sources.shared.time_steps import SensorRecord

if TYPE_CHECKING:
    from collections.abc import Collection

    import pandas as pd
    from numpy.typing import NDArray


# Of a sensor's file: a century of hours has about 90 MB.
MAX_MEMBER_BYTES = 256 * 2**20
# Largest size of the files to that of their zip. Texts of sensors have about 20, made-up zips 1000.
MAX_EXPANSION = 200
HEAD_BYTES = 4096  # bytes; a line is shorter than this
TIME_FORMAT = "%Y/%m/%d %H:%M"
DOWNLOAD_AGAIN = "download the archive again"
_DATE_PATTERN = re.compile(r"\d{4}/\d{2}/\d{2}$")


class Layout(NamedTuple):
    """The layout of a file and the description of the site, both from its first line.

    Attributes:
      network: Name of the network.
      site: Name of the station, with hyphens instead of blanks.
      position: Latitude and longitude in degrees, elevation in m.
      columns: Indices of the columns with the date, the time, the value and the flag.
      data_begin: Byte at which the values begin.
      line: Number of the first line with values, from 1.
    """

    network: str
    site: str
    position: tuple[float, float, float]
    columns: tuple[int, int, int, int]
    data_begin: int
    line: int


def line_layout(data: bytes) -> Layout:
    """Return the layout of a file.

    Args:
      data: Content of the file.

    Raises:
      ValueError: If the first line fits neither layout.
      LookupError: If the file has no line.
    """
    first = data_lines(data[:HEAD_BYTES])[0]
    cells = split_words(first)
    is_ceop = _DATE_PATTERN.match(cells[0]) is not None
    start = 4 if is_ceop else 0  # CEOP begins with the date and time, nominal and actual
    lat = _find_position(cells, start + 3)
    network, site = cells[start + 1], "-".join(cells[start + 2 : lat])
    position = (float(cells[lat]), float(cells[lat + 1]), float(cells[lat + 2]))
    if is_ceop:
        return Layout(network, site, position, (0, 1, lat + 5, lat + 6), data_begin=0, line=1)
    data_begin = data.index(first) + len(first)
    return Layout(network, site, position, (0, 1, 2, 3), data_begin, line=2)


def _find_position(cells: list[str], start: int) -> int:
    """Return the index of the latitude.

    The name of the station before it may have several words, and words that are numbers. Hence the
    latitude is the first of five numbers in a row: latitude, longitude, elevation and two depths.

    Raises:
      ValueError: If there are no such numbers.
    """
    number = re.compile(r"[-+]?\d+\.?\d*|nan", re.IGNORECASE)
    is_number = [number.fullmatch(cell) is not None for cell in cells]
    for i in range(start, len(cells) - 4):
        if all(is_number[i : i + 5]) and abs(float(cells[i])) <= 90:
            return i
    raise ValueError("the first line has no position")


def read_columns(data: bytes, layout: Layout) -> pd.DataFrame:
    """Return the columns date, time, value and flag as text; NaN where a line is too short."""
    import pandas as pd

    return pd.read_csv(
        io.BytesIO(data[layout.data_begin :]),
        sep=r"\s+",
        header=None,
        names=["date", "time", "value", "flag"],
        usecols=list(layout.columns),
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        quoting=csv.QUOTE_NONE,
        encoding="latin-1",  # accepts any byte: names of stations may have accents
    )


def parse_numbers(text: pd.Series) -> NDArray[np.float32] | None:
    """Return (hour,) float32 numbers from text; None if a text is not a number."""
    import pandas as pd

    values = pd.to_numeric(text, errors="coerce")
    if (values.isna() & (text.str.lower() != "nan")).any():
        return None
    array: NDArray[np.float32] = values.to_numpy(np.float32)
    return array


def line_times(text: Any) -> Any:
    """Return the UTC time stamps of a text or of a column of texts.

    Raises:
      ValueError: If a text is not a date and time such as 2024/02/28 13:00.
    """
    import pandas as pd

    return pd.to_datetime(text, format=TIME_FORMAT)


def data_lines(data: bytes) -> list[bytes]:
    """Return the lines that are not blank; lines may end in CR, LF or both."""
    return [line for line in data.splitlines() if line.strip()]


def split_words(line: bytes) -> list[str]:
    """Return the words of a line, which may be in UTF-8 or Latin-1."""
    try:
        return line.decode("utf-8-sig").split()
    except UnicodeDecodeError:
        return line.decode("latin-1").split()


# What a file system may tell of a file that changes with its content.
_VERSION_KEYS = ("size", "ETag", "Last-Modified", "LastModified", "mtime")


def local_archive(url: str, given: dict[str, Any], login: str | None) -> str:
    """Return the path of an archive on this machine, after copying a remote one to the cache.

    Args:
      url: The archive.
      given: Storage options of the entry.
      login: As in `Source`.

    Raises:
      DataError: If the archive is missing, access is refused or its server does not answer.
    """
    with http_errors.plain_http_errors(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **access.fsspec_options(url, given, login))
        info = filesystem.info(path)
        if "file" in filesystem.protocol:
            return str(path)
        import pooch

        version = {key: str(value) for key, value in info.items() if key in _VERSION_KEYS}
        name = files.sha256_of_json([http_errors.format_url(url), version])
        cached = Path(pooch.os_cache("soilweave")) / "ismn" / f"{name}.zip"
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            part = f"{cached}.part-{uuid.uuid4().hex}"
            try:
                filesystem.get_file(path, part)
                os.replace(part, cached)
            finally:
                Path(part).unlink(missing_ok=True)
        return str(cached)


def archive_digest(url: str, given: dict[str, Any], login: str | None) -> str:
    """Return a digest of the sensors' files, the same for a zip, its copy and its folder.

    Args:
      url: The archive.
      given: Storage options of the entry.
      login: As in `Source`.

    Raises:
      DataError: If the archive is missing or damaged.
    """
    with http_errors.plain_http_errors(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **access.fsspec_options(url, given, login))
        if "file" in filesystem.protocol:
            return files.sha256_of_json(sorted(list_members(str(path)).items()))
        with access.open_file(url, given, login) as file:
            return files.sha256_of_json(sorted(_list_zip(file, url).items()))


def list_members(path: str, *, content: bool = True) -> dict[str, list[int]]:
    """Return the size and CRC-32 of each sensor's file, by its path in the archive.

    Args:
      path: The archive.
      content: Whether to read the files of a folder to compute their size and CRC-32. If False,
        only the paths are meaningful.

    Raises:
      DataError: If the file is not a zip, or is truncated.
    """
    if not os.path.isdir(path):
        with open(path, "rb") as file:
            return _list_zip(file, path)
    folder = Path(path)
    paths = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.stm")}
    sensor_files = {name: file for name, file in paths.items() if _is_sensor_file(name)}
    if not content:
        return {name: [] for name in sensor_files}
    return {
        name: [file.stat().st_size, zlib.crc32(file.read_bytes())]
        for name, file in sensor_files.items()
    }


def _list_zip(file: Any, place: str) -> dict[str, list[int]]:
    """Return the size and CRC-32 of each sensor's file in a zip."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = [e for e in archive.infolist() if _is_sensor_file(e.filename)]
    except zipfile.BadZipFile as error:
        problem = "cannot be read as a zip file; it may be truncated"
        hint = "download the archive again"
        raise DataError(http_errors.format_url(place), problem, remedy=hint) from error
    problems = [
        f"{entry.filename}: unpacks to {entry.file_size:,} bytes; at most {MAX_MEMBER_BYTES:,}"
        for entry in entries
        if entry.file_size > MAX_MEMBER_BYTES
    ]
    packed = file.seek(0, os.SEEK_END)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_EXPANSION * packed:
        problem = f"its {packed:,} bytes unpack to {unpacked:,}, more than {MAX_EXPANSION} times"
        problems = [f"{problem} as many"]
    if problems:
        raise DataError(http_errors.format_url(place), *problems[:8], remedy=DOWNLOAD_AGAIN)
    return {entry.filename: [entry.file_size, entry.CRC] for entry in entries}


def _is_sensor_file(name: str) -> bool:
    """Return whether a file is a sensor's; macOS adds hidden files with the same suffix."""
    file = name.rpartition("/")[2]
    return file.endswith(".stm") and not file.startswith(".")


# ISMN's flags: good (G), missing (M), outside a plausible range (C), dubious (D). In older archives
# U means that no check was applied.
FLAGS = (
    *("G", "M", "C01", "C02", "C03"),
    *("D01", "D02", "D03", "D04", "D05", "D06", "D07", "D08", "D09", "D10"),
    *("too_few_hours", "other", "U", "C", "D"),
)

BITS = {flag: 1 << i for i, flag in enumerate(FLAGS)}
HIGHEST_FILL = -999.0  # this and all lower values stand for missing values, such as -9999
READ_ERRORS = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error)
_NAME_PATTERN = re.compile(r"_([A-Za-z][A-Za-z_-]*)_(-?\d+\.\d+)_(-?\d+\.\d+)_(.+)_\d+_\d+\.stm$")
_DEPTH_TOLERANCE = 1e-6  # m


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


class NameParts(NamedTuple):
    """The parts of a file name: variable, upper and lower depth in m, and name of the sensor."""

    variable: str
    depth_from: float
    depth_to: float
    instrument: str


def find_sensors(
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
    known = _variable_names().values()
    unknown = [name for name in variables if name not in known]
    if unknown:
        problem = f"ISMN has no variable {', '.join(unknown)}; accepted: {', '.join(known)}"
        raise DataError(path, problem, remedy="correct `from` in the entry's mapping")
    matching, others, problems = [], set(), []
    for member in sorted(list_members(path, content=False)):
        parts = _parse_name(member)
        if parts is None:
            problems.append(
                f"{member}: the file name does not have the form "
                "NETWORK_NETWORK_SITE_VARIABLE_FROM_TO_SENSOR_BEGIN_END.stm"
            )
            continue
        top, bottom = sorted((parts.depth_from, parts.depth_to))
        inside = depth[0] - _DEPTH_TOLERANCE <= top and bottom <= depth[1] + _DEPTH_TOLERANCE
        if parts.variable not in variables or not inside:
            others.add(f"{parts.variable}, {parts.depth_from:g} to {parts.depth_to:g} m")
            continue
        try:
            matching.append(_read_sensor(path, member, parts))
        except READ_ERRORS as error:
            problems.append(f"{member}: {failures.read_problem(error)}")
    if problems:
        raise DataError(path, *sorted(problems), remedy=DOWNLOAD_AGAIN)
    return matching, sorted(others)


def read_hours(path: str, member: str) -> SensorRecord:
    """Read the hourly values of a sensor; flags are sums of `BITS`.

    Args:
      path: The archive.
      member: Path of the sensor's file in it.

    Raises:
      DataError: If the file is missing or damaged; the error names the line.
    """
    place = f"{path}: {member}"
    try:
        data = _read_member(path, member)
        layout = line_layout(data)
        frame = read_columns(data, layout)
        times = line_times(frame["date"] + " " + frame["time"])
    except READ_ERRORS as error:
        problem = failures.read_problem(error)
        raise DataError(place, problem, remedy=DOWNLOAD_AGAIN) from error
    incomplete = np.flatnonzero(frame["value"].isna() | frame["flag"].isna())
    if incomplete.size:
        problem = f"line {incomplete[0] + layout.line} has no value or no flag; is it truncated?"
        raise DataError(place, problem, remedy=DOWNLOAD_AGAIN)
    number = parse_numbers(frame["value"])
    if number is None:
        raise DataError(place, "has values that are not numbers", remedy=DOWNLOAD_AGAIN)
    flags, flag_index = np.unique(frame["flag"].to_numpy(str), return_inverse=True)
    return SensorRecord(
        times.to_numpy("datetime64[s]"),
        np.where(number <= HIGHEST_FILL, np.float32(np.nan), number),
        np.array([flag_bits(flag) for flag in flags], np.int32)[flag_index],
    )


def flag_bits(flag: str) -> int:
    """Return the sum of bits of a flag as written in a file, such as `G` or `D03,D05`."""
    return sum(BITS.get(part, BITS["other"]) for part in set(flag.split(",")))


@functools.cache
def _variable_names() -> dict[str, str]:
    """Return {abbreviation in file names: ISMN's name of the variable}."""
    from ismn.const import VARIABLE_LUT

    return dict(VARIABLE_LUT)


def _parse_name(member: str) -> NameParts | None:
    """Return the parts of a file name; None if it does not have the form of a sensor's."""
    match = _NAME_PATTERN.search(PurePosixPath(member).name)
    if match is None:
        return None
    # The name of a site may have underscores: in `Site_sm` the variable is `sm`.
    short = match[1].rpartition("_")[2]
    name = _variable_names().get(short, short.lower().replace("-", "_"))
    return NameParts(name, float(match[2]), float(match[3]), match[4])


def _read_sensor(path: str, member: str, parts: NameParts) -> Sensor:
    """Return a sensor, from its file's name and the file's first and last lines."""
    data = _read_member(path, member)
    layout = line_layout(data)
    lines = (
        data_lines(data[layout.data_begin : layout.data_begin + HEAD_BYTES])[0],
        data_lines(data.rstrip()[-HEAD_BYTES:])[-1],
    )
    first, last = (line_times(" ".join(split_words(line)[:2])) for line in lines)
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


def _read_member(path: str, member: str) -> bytes:
    """Return the content of a file in an archive.

    Raises:
      DataError: If the file is larger than MAX_MEMBER_BYTES.
    """
    status = os.stat(path)
    folder = os.path.isdir(path)
    archive = None if folder else _open_zip(path, status.st_mtime_ns, status.st_size)
    with archive.open(member) if archive else Path(path, member).open("rb") as file:
        data: bytes = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        problem = f"is larger than {MAX_MEMBER_BYTES:,} bytes"
        raise DataError(f"{path}: {member}", problem, remedy=DOWNLOAD_AGAIN)
    return data


@functools.lru_cache(maxsize=1)
def _open_zip(path: str, changed: int, size: int) -> zipfile.ZipFile:
    """Open a zip and keep it open, because opening a large zip takes longer than reading a file.

    `changed` and `size` make the cache open a zip again that has changed.
    """
    return zipfile.ZipFile(path)
