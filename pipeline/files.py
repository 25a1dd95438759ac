"""URLs through fsspec: read, write in one piece, list, remove, digest."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import uuid
from typing import TYPE_CHECKING, Any

import fsspec

from pipeline.errors import DamagedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow.fs


Json = dict[str, Any]

# Other processes write into the same folders, so a listing is never remembered.
FRESH = {"use_listings_cache": False}
S3 = ("s3://", "s3a://")
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # the first that is set, as in botocore
PART = ".part-"  # in the name of a local file that is being written
DAMAGED = "restore it from a backup, or run again with --overwrite to make its artefact anew"
KEYS = "endpoint and keys come from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"


def join(url: str, *parts: str) -> str:
    """A URL with path parts appended."""
    return "/".join([url.rstrip("/"), *parts])


def absolute(url: str) -> str:
    """A local path made absolute; a URL as it is."""
    if "://" in url:
        return url
    return str(fsspec.filesystem("file")._strip_protocol(url))


def exists(url: str) -> bool:
    """Whether there is a file or a folder."""
    filesystem, path = _open(url)
    with _answering(url):
        return bool(filesystem.exists(path))


def read_bytes(url: str) -> bytes:
    """The whole object.

    Raises:
      FileNotFoundError: there is none.
      StoreError: the store of a URL does not answer, or refuses.
    """
    filesystem, path = _open(url)
    with _answering(url):
        return bytes(filesystem.cat_file(path))


def write_bytes(url: str, data: bytes) -> None:
    """Write an object in one piece: a reader sees the old one or the new one, never a part.

    Raises:
      StoreError: the place cannot be written.
    """
    filesystem, path = _open(url)
    try:
        if "file" in protocols(filesystem):
            filesystem.makedirs(filesystem._parent(path), exist_ok=True)
            part = f"{path}{PART}{uuid.uuid4().hex}"
            try:
                filesystem.pipe_file(part, data)
                filesystem.mv(part, path)
            except OSError:
                remove(part)
                raise
        else:
            filesystem.pipe_file(path, data)
    except failures() as error:
        raise _unwritable(url, error) from error


def check_writable(*urls: str | None) -> None:
    """Check that objects can be written, before the work whose results they are to hold.

    Args:
      urls: of the objects; None for one that is not wanted.

    Raises:
      StoreError: one is a folder, or its place cannot be written.
    """
    for url in map(absolute, filter(None, urls)):
        filesystem, path = _open(url)
        with _answering(url):
            if filesystem.isdir(path):
                raise StoreError(url, "is a folder", remedy="give the name of a file")
        trial = f"{url}.trial-{uuid.uuid4().hex}"
        write_bytes(trial, b"")
        remove(trial)


def swap(url: str, data: bytes, expected: bytes | None) -> bool:
    """Write an object if it still is what was expected: of several who try, one succeeds.

    On S3 by a conditional put, locally under a lock of the folder; elsewhere only the creation is
    exclusive.

    Args:
      url: the object.
      data: its new content, unlike any before.
      expected: its content now, None where there must be none.

    Raises:
      StoreError: the place cannot be written.
    """
    filesystem, path = _open(url)
    try:
        if "file" in protocols(filesystem):
            return _swap_file(url, path, data, expected)
        options: Json = {"mode": "create"}
        if expected is not None:
            info = filesystem.info(path)
            if filesystem.cat_file(path) != expected:
                return False
            options = {"IfMatch": info["ETag"]} if "s3" in protocols(filesystem) else {}
        filesystem.pipe_file(path, data, **options)
    except FileNotFoundError as error:
        if expected is None:
            raise _unwritable(url, error) from error
        return False
    except failures() as error:
        try:
            found = filesystem.cat_file(path)
        except failures():
            raise _unwritable(url, error) from error
        return bool(found == data)  # a put that was answered twice, or somebody else's
    return True


def _swap_file(url: str, path: str, data: bytes, expected: bytes | None) -> bool:
    import fcntl

    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = read_bytes(url) if os.path.exists(path) else None
        if found != expected:
            return False
        write_bytes(url, data)
        return True
    finally:
        os.close(lock)


def failures() -> tuple[type[Exception], ...]:
    """What a place that cannot be reached, read or written raises, by its file system."""
    botocore = sys.modules.get("botocore.exceptions")  # there once s3fs is
    return (OSError, botocore.BotoCoreError) if botocore else (OSError,)


def arrow(url: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """A folder as libraries on Arrow want it: with the endpoint and credentials of all others."""
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    # Ray sends it to other nodes, where the endpoint may be another: so it names none.
    filesystem, path = fsspec.core.url_to_fs(url, **FRESH, skip_instance_cache=True)
    return PyFileSystem(FSSpecHandler(filesystem)), str(path)


@contextlib.contextmanager
def _answering(url: str) -> Iterator[None]:
    """An object store that is away or refuses is told as such; what is not there is not."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise
    except failures() as error:
        if "://" not in url:
            raise
        raise StoreError(url, f"cannot be read: {_reason(error)}", remedy=KEYS) from error


def _unwritable(url: str, error: Exception) -> StoreError:
    remedy = "give a workspace that can be written with --workspace"
    if "://" in url:
        remedy += f"; {KEYS}"
    return StoreError(url, f"cannot be written: {_reason(error)}", remedy=remedy)


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(reason.split())


def read_json(url: str, remedy: str = DAMAGED) -> Json | None:
    """The JSON object at a URL; None where there is none.

    An object that is there but cannot be read is never taken for an absent one.

    Args:
      url: the object.
      remedy: what a user can do about an unreadable one.

    Raises:
      DamagedError: if it is there and is not a whole JSON object.
      StoreError: if it may not be read, or its store does not answer.
    """
    try:
        data = read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:  # of a local file
        problem = f"cannot be read: {_reason(error)}"
        raise StoreError(url, problem, remedy="correct that, and run again") from error
    try:
        found = json.loads(data)
    except ValueError as error:  # not JSON, or not UTF-8
        problem = f"is damaged: {len(data)} bytes that are not whole JSON ({error})"
        raise DamagedError(url, problem, remedy=remedy) from error
    if not isinstance(found, dict):
        problem = f"is damaged: a JSON {type(found).__name__}, expected an object"
        raise DamagedError(url, problem, remedy=remedy)
    return found


def read_receipt(url: str, *keys: str) -> Json | None:
    """The JSON object that records finished work; None where it is absent or damaged.

    Only for receipts: work without a readable receipt is done again, and nothing is lost.

    Args:
      url: the receipt.
      keys: that a whole one has.
    """
    try:
        found = read_json(url)
    except DamagedError:
        return None
    return None if found is None or set(keys) - found.keys() else found


def write_json(url: str, value: Json) -> None:
    """Write JSON in one piece."""
    write_bytes(url, json.dumps(value, indent=1, default=str).encode())


def copy(source: str, target: str) -> None:
    """Copy an object of the same store, in one piece: a reader sees the old one or the new one.

    Raises:
      StoreError: the place cannot be written.
    """
    filesystem, path = _open(target)
    if "file" in protocols(filesystem):
        write_bytes(target, read_bytes(source))
        return
    try:
        filesystem.cp_file(_open(source)[1], path)
    except failures() as error:
        raise _unwritable(target, error) from error


def listing(url: str) -> list[str]:
    """Names in a folder, sorted; empty where there is none."""
    filesystem, path = _open(url)
    try:
        with _answering(url):
            entries = filesystem.ls(path, detail=False, refresh=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)


def matching(url: str, **options: Any) -> list[str]:
    """URLs of the files that a URL with `*` matches, sorted; without `*` itself, if it is there.

    `options` go to fsspec.
    """
    filesystem, path = _open(url, **options)
    if "*" not in url:
        return [url] if filesystem.exists(path) else []
    found = sorted(map(str, filesystem.glob(path.replace("[", "[[]"))))
    return [str(filesystem.unstrip_protocol(f)) for f in found] if "://" in url else found


def remove(url: str) -> None:
    """Remove an object or a folder with all that is in it; nothing where there is none."""
    filesystem, path = _open(url)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def remove_parts(url: str) -> None:
    """Remove what killed processes have left of their writes to a folder.

    Nobody may be writing to the folder meanwhile.
    """
    for name in listing(url):
        if PART in name:
            remove(join(url, name))


def sha256(data: bytes) -> str:
    """Digest of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(value: Any) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode())


def digest(url: str, **options: Any) -> str:
    """What identifies an object's content: the store's own tag, else the SHA-256 of its bytes.

    With `*` in the URL: of the names and contents of all files it matches.

    `options` go to fsspec.

    Raises:
      FileNotFoundError: there is none.
    """
    if "*" in url:
        found = matching(url, **options)
        if not found:
            raise FileNotFoundError(url)
        return sha256_of([[part.rsplit("/", 1)[-1], digest(part, **options)] for part in found])
    filesystem, path = _open(url, **options)
    info = filesystem.info(path)
    tag = info.get("ETag") or info.get("md5Hash")
    if tag:
        return str(tag).strip('"')
    with filesystem.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(url: str, **options: Any) -> tuple[Any, str]:
    filesystem, path = fsspec.core.url_to_fs(url, **FRESH, **with_endpoint(url, options))
    return filesystem, str(path)


def with_endpoint(url: str, options: Json) -> Json:
    """Options of fsspec for a URL, which for a URL of S3 hold the endpoint that applies now.

    s3fs leaves the endpoint of the environment to botocore, and fsspec gives one client to all who
    ask with the same options. Without the endpoint among them, a process whose environment changes
    would stay with the endpoint of its first client.
    """
    endpoint = s3_endpoint(options) if url.startswith(S3) else None
    return {**options, "endpoint_url": endpoint} if endpoint else options


def s3_endpoint(options: Json) -> str | None:
    """The endpoint of S3 in options of fsspec, in its configuration, or in the environment.

    None where none of them names one, which stands for Amazon's own.
    """
    held = {**fsspec.config.conf.get("s3", {}), **fsspec.config.conf.get("s3a", {}), **options}
    client = held.get("client_kwargs") or {}
    places = (held.get("endpoint_url"), client.get("endpoint_url"), *map(os.environ.get, ENDPOINTS))
    return next(filter(None, places), None)


def protocols(filesystem: Any) -> tuple[str, ...]:
    """The protocols that a file system of fsspec speaks, such as ("file", "local") or ("s3",)."""
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
