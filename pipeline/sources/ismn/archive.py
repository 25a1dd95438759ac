"""Find the files of an ISMN archive, which is a zip or the folder it unpacks to."""

from __future__ import annotations

import os
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any

import fsspec

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import http_errors, remote

# What a file system may tell of a file that changes with its content.
_TOLD = ("size", "ETag", "Last-Modified", "LastModified", "mtime")


def local(url: str, given: dict[str, Any], login: str | None) -> str:
    """Return the path of an archive on this machine, after copying a remote one to the cache.

    Args:
      url: The archive.
      given: Storage options of the entry.
      login: As in `Source`.

    Raises:
      DataError: If the archive is missing, access is refused or its server does not answer.
    """
    with http_errors.answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
        info = filesystem.info(path)
        if "file" in filesystem.protocol:
            return str(path)
        import pooch

        version = {key: str(value) for key, value in info.items() if key in _TOLD}
        name = files.sha256_of([http_errors.shown(url), version])
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


def digest(url: str, given: dict[str, Any], login: str | None) -> str:
    """Return a digest of the sensors' files, the same for a zip, its copy and its folder.

    Args:
      url: The archive.
      given: Storage options of the entry.
      login: As in `Source`.

    Raises:
      DataError: If the archive is missing or damaged.
    """
    with http_errors.answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
        if "file" in filesystem.protocol:
            return files.sha256_of(sorted(members(str(path)).items()))
        with remote.opened(url, given, login) as file:
            return files.sha256_of(sorted(_zipped(file, url).items()))


def members(path: str, *, content: bool = True) -> dict[str, list[int]]:
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
            return _zipped(file, path)
    folder = Path(path)
    paths = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.stm")}
    sensor_files = {name: file for name, file in paths.items() if _is_sensor(name)}
    if not content:
        return {name: [] for name in sensor_files}
    return {
        name: [file.stat().st_size, zlib.crc32(file.read_bytes())]
        for name, file in sensor_files.items()
    }


def _zipped(file: Any, place: str) -> dict[str, list[int]]:
    """Return the size and CRC-32 of each sensor's file in a zip."""
    try:
        with zipfile.ZipFile(file) as archive:
            return {
                entry.filename: [entry.file_size, entry.CRC]
                for entry in archive.infolist()
                if _is_sensor(entry.filename)
            }
    except zipfile.BadZipFile as error:
        problem = "cannot be read as a zip file; it may be truncated"
        hint = "download the archive again"
        raise DataError(http_errors.shown(place), problem, remedy=hint) from error


def _is_sensor(name: str) -> bool:
    """Return whether a file is a sensor's; macOS adds hidden files with the same suffix."""
    file = name.rpartition("/")[2]
    return file.endswith(".stm") and not file.startswith(".")
