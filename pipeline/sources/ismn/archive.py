"""Archives of the International Soil Moisture Network: a zip, or the folder it unpacks to."""

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

_TOLD = ("size", "ETag", "Last-Modified", "LastModified", "mtime")


def local(url: str, given: dict[str, Any], login: str | None) -> str:
    """Path of an archive on this machine; one from elsewhere is kept in the user's cache.

    Raises:
      DataError: it is absent, refused, or its server does not answer.
    """
    with http_errors.answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
        info = filesystem.info(path)
        if "file" in filesystem.protocol:
            return str(path)
        import pooch

        told = {key: str(value) for key, value in info.items() if key in _TOLD}
        name = files.sha256_of([http_errors.shown(url), told])
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


def digest(url: str, given: dict[str, Any], login: str | None) -> str:
    """Identifies what the sensors' files hold: the same for a zip, its copy and its folder.

    Raises:
      DataError: there is none, or it is damaged.
    """
    with http_errors.answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
        if "file" in filesystem.protocol:
            return files.sha256_of(sorted(members(str(path)).items()))
        with remote.opened(url, given, login) as file:
            return files.sha256_of(sorted(_zipped(file, url).items()))


def members(path: str, *, content: bool = True) -> dict[str, list[int]]:
    """Size and CRC-32 of each sensor's file, by its path in the archive.

    Args:
      path: the archive.
      content: without it, the paths alone count.

    Raises:
      DataError: it is no zip, or truncated.
    """
    if not os.path.isdir(path):
        with open(path, "rb") as file:
            return _zipped(file, path)
    folder = Path(path)
    every = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*.stm")}
    found = {name: file for name, file in every.items() if _is_sensor(name)}
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
                if _is_sensor(entry.filename)
            }
    except zipfile.BadZipFile as error:
        raise DataError(
            http_errors.shown(place), "no zip, or truncated", remedy="download the archive again"
        ) from error


def _is_sensor(name: str) -> bool:
    """Whether a file is a sensor's; macOS adds hidden ones of the same ending."""
    file = name.rpartition("/")[2]
    return file.endswith(".stm") and not file.startswith(".")
