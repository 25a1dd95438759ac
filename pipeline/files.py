"""URLs through fsspec: read, write in one piece, list, remove, digest."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

import fsspec

from pipeline.errors import StoreError

Json = dict[str, Any]


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
    return bool(filesystem.exists(path))


def read_bytes(url: str) -> bytes:
    """The whole object.

    Raises:
      FileNotFoundError: there is none.
    """
    filesystem, path = _open(url)
    return bytes(filesystem.cat_file(path))


def write_bytes(url: str, data: bytes) -> None:
    """Write an object in one piece: a reader sees the old one or the new one, never a part.

    Raises:
      StoreError: the place cannot be written.
    """
    filesystem, path = _open(url)
    try:
        if "file" in _protocols(filesystem):
            filesystem.makedirs(filesystem._parent(path), exist_ok=True)
            part = f"{path}.part-{uuid.uuid4().hex}"
            try:
                filesystem.pipe_file(part, data)
                filesystem.mv(part, path)
            except OSError:
                remove(part)
                raise
        else:
            filesystem.pipe_file(path, data)
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "give a workspace that can be written with --workspace"
        raise StoreError(url, f"cannot be written: {reason}", remedy=remedy) from error


def read_json(url: str) -> Json | None:
    """The object as JSON; None where there is none or it is no JSON."""
    try:
        return dict(json.loads(read_bytes(url)))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def write_json(url: str, value: Json) -> None:
    """Write JSON in one piece."""
    write_bytes(url, json.dumps(value, indent=1, default=str).encode())


def listing(url: str) -> list[str]:
    """Names in a folder, sorted; empty where there is none."""
    filesystem, path = _open(url)
    try:
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


def sha256(data: bytes) -> str:
    """Digest of bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of(value: Any) -> str:
    """Digest of a JSON value, whatever the order of its keys."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode())


def digest(url: str) -> str:
    """What identifies an object's content: the store's own tag, else the SHA-256 of its bytes.

    With `*` in the URL: of the names and contents of all files it matches.

    Raises:
      FileNotFoundError: there is none.
    """
    if "*" in url:
        found = matching(url)
        if not found:
            raise FileNotFoundError(url)
        return sha256_of([[part.rsplit("/", 1)[-1], digest(part)] for part in found])
    filesystem, path = _open(url)
    info = filesystem.info(path)
    tag = info.get("ETag") or info.get("md5Hash")
    if tag:
        return str(tag).strip('"')
    with filesystem.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(url: str, **options: Any) -> tuple[Any, str]:
    filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False, **options)
    return filesystem, str(path)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
