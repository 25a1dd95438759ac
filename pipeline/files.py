"""Read, write, list, remove and hash objects at any URL that fsspec supports, or at a local path.

Every write is atomic: a reader sees the old object or the new one, never a part of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from typing import TYPE_CHECKING, Any

import fsspec

from pipeline import failures, local_files
from pipeline.errors import DamagedError, SoilweaveError, StoreError
from pipeline.failures import S3_PREFIXES
from pipeline.local_files import PART

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow.fs


Json = dict[str, Any]

MAX_HTTP_S = 300.0  # for an HTTP request with its answer, however slowly the server sends

# Other processes write to the same folders, so listings must not be cached.
NO_LISTING_CACHE = {"use_listings_cache": False}
HTTP_PREFIXES = ("http://", "https://")
ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # in the order of botocore
HASHED_BYTES = 16 * 2**20  # that are read at a time to hash an object; few are larger
DAMAGED_HINT = "restore it from a backup, or run again with --overwrite to rebuild it"


def join(url: str, *parts: str) -> str:
    """Append path parts to a URL."""
    return "/".join([url.rstrip("/"), *parts])


def make_absolute(url: str) -> str:
    """Make a local path absolute; return a URL unchanged."""
    if "://" in url:
        return url
    return str(fsspec.filesystem("file")._strip_protocol(url))


def exists(url: str) -> bool:
    """Return whether a file or folder exists.

    Raises:
      StoreError: If that cannot be found out.
    """
    with accessing(url):
        return _exists(url, *_open_filesystem(url))


def _exists(url: str, filesystem: Any, path: str) -> bool:
    try:
        # fsspec's `exists` takes whatever fails over HTTP, and forbidden folders, for absence.
        if "file" in protocols(filesystem):
            return bool(os.lstat(path))
        if url.startswith(HTTP_PREFIXES):
            return bool(filesystem.info(path))
        return bool(filesystem.exists(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        if not failures.is_absence(error):
            raise
        return False


def read_bytes(url: str, start: int | None = None, stop: int | None = None) -> bytes:
    """Read an object: all of it, or from one byte to before another.

    Raises:
      FileNotFoundError: If there is no such object.
      StoreError: If the object store does not respond or denies access.
    """
    filesystem, path = _open_filesystem(url)
    with accessing(url):
        return bytes(filesystem.cat_file(path, start=start, end=stop))


def size_of(url: str) -> int:
    """Return the size of an object in bytes; it raises what `read_bytes` raises."""
    filesystem, path = _open_filesystem(url)
    with accessing(url):
        return int(filesystem.info(path)["size"] or 0)


def read_limited(url: str, max_bytes: int) -> bytes:
    """Read a whole object that must be small, without fetching much more than its limit.

    Args:
      url: The object.
      max_bytes: Its largest accepted size.

    Raises:
      FileNotFoundError: If there is no such object.
      StoreError: If the object is larger, access is denied, or the server does not respond.
    """
    filesystem, path = _open_filesystem(url)
    # Over HTTP one request, whose answer is read as it arrives.
    options = {"block_size": 0, "size": 1} if url.startswith(HTTP_PREFIXES) else {}
    data = bytearray()
    with accessing(url), filesystem.open(path, "rb", **options) as file:
        while len(data) <= max_bytes and (part := file.read(max_bytes + 1 - len(data))):
            data += part
    if len(data) > max_bytes:
        problem = f"is larger than {max_bytes:,} bytes, the most that is read"
        raise StoreError(url, problem, remedy="correct the path or URL")
    return bytes(data)


def read_json(url: str, remedy: str = DAMAGED_HINT, max_bytes: int | None = None) -> Json | None:
    """Read a JSON object; return None if there is nothing at the URL.

    A file that exists but cannot be read is an error, never treated as missing.

    Args:
      url: The file.
      remedy: What the user can do if the file is damaged.
      max_bytes: The largest accepted size, for a file that others have written; None for any.

    Raises:
      DamagedError: If the file exists but is not a complete JSON object.
      StoreError: If access is denied or the store does not respond.
    """
    try:
        data = read_bytes(url) if max_bytes is None else read_limited(url, max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if data.lstrip()[:1] == b"<":
        problem = "cannot be read: there is a web page (HTML or XML), not JSON"
        hint = "correct the URL, or AWS_ENDPOINT_URL if the server is meant to be one of S3"
        raise DamagedError(url, problem, remedy=hint)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        problem = f"is damaged: its {len(data)} bytes are not complete JSON ({error})"
        raise DamagedError(url, problem, remedy=remedy) from error
    if not isinstance(value, dict):
        problem = f"is damaged: a JSON {type(value).__name__}; expected an object"
        raise DamagedError(url, problem, remedy=remedy)
    return value


def read_receipt(url: str, *keys: str) -> Json | None:
    """Read the receipt of finished work; return None if it is missing or damaged.

    Ignoring damage is safe for receipts only: work without a readable receipt is repeated, so
    nothing is lost.

    Args:
      url: The receipt, a JSON object.
      keys: The keys that a complete receipt has.
    """
    try:
        receipt = read_json(url)
    except DamagedError:
        return None
    return None if receipt is None or set(keys) - receipt.keys() else receipt


def write_bytes(url: str, data: bytes, **options: Any) -> None:
    """Write an object atomically; local folders are created. A store that is remote gets `options`.

    Raises:
      StoreError: If the object cannot be written.
    """
    filesystem, path = _open_filesystem(url)
    with accessing(url, "written"):
        if "file" not in protocols(filesystem):
            filesystem.pipe_file(path, data, **options)
            return
        with local_files.replacing(path) as part:
            filesystem.pipe_file(part, data)


@contextlib.contextmanager
def written_whole(url: str) -> Iterator[str]:
    """Yield the path of a local file to write, which is at the URL, whole, after the block.

    What was there before stays until then, and also if the block or the upload fails.

    Raises:
      StoreError: If the file cannot be written or uploaded.
    """
    filesystem, path = _open_filesystem(url)
    try:
        if "file" in protocols(filesystem):
            with local_files.replacing(path) as part:
                yield part
            return
        with tempfile.TemporaryDirectory() as folder:
            part = os.path.join(folder, os.path.basename(path))
            yield part
            filesystem.put_file(part, path)
    except failures.storage_exceptions() as error:
        raise failures.store_error(url, "written", error) from error


def write_json(url: str, value: Json) -> None:
    """Write a JSON object atomically."""
    write_bytes(url, json.dumps(value, indent=1, default=str).encode())


def compare_and_swap(url: str, data: bytes, expected: bytes | None) -> bool:
    """Write an object only if its content is still as expected (compare and swap).

    If several processes try at the same time, only one succeeds. On S3 this is a conditional put;
    locally the folder is locked. On other stores only creating an object is exclusive.

    Args:
      url: The object.
      data: The new content. It must differ from any earlier content.
      expected: The present content; None if the object must not exist yet.

    Returns:
      Whether the object was written.

    Raises:
      StoreError: If the object cannot be written.
    """
    filesystem, path = _open_filesystem(url)
    with accessing(url, "written"):
        if "file" in protocols(filesystem):
            return local_files.compare_and_swap(path, data, expected)
        options: Json = {"mode": "create"}
        try:
            if expected is not None:
                info = filesystem.info(path)
                if filesystem.cat_file(path) != expected:
                    return False
                options = {"IfMatch": info["ETag"]} if "s3" in protocols(filesystem) else {}
            filesystem.pipe_file(path, data, **options)
        except FileNotFoundError as error:
            if expected is None or not failures.is_absence(error):
                raise
            return False
        except failures.storage_exceptions() as error:
            try:
                content = filesystem.cat_file(path)
            except failures.storage_exceptions():
                raise error from error.__cause__
            if content == expected:
                raise
            # A retried put is refused if the first attempt succeeded but its response was lost.
            return bool(content == data)
    return True


def check_writable(*urls: str | None) -> None:
    """Check that results can be written to some URLs, before the work starts.

    Args:
      urls: The URLs; None is skipped.

    Raises:
      StoreError: If a URL is a folder or cannot be written.
    """
    for url in map(make_absolute, filter(None, urls)):
        filesystem, path = _open_filesystem(url)
        with accessing(url):
            if filesystem.isdir(path):
                raise StoreError(
                    url, "is a folder; expected a file", remedy="give the name of a file"
                )
        trial = f"{url}.trial-{uuid.uuid4().hex}"
        write_bytes(trial, b"")
        remove(trial)


def copy(source: str, target: str, link: bool = False) -> None:
    """Copy an object within a store, atomically.

    Args:
      source: The object.
      target: The new object.
      link: Whether a local file may become a hard link, because neither will ever change.

    Raises:
      StoreError: If the target cannot be written.
    """
    filesystem, path = _open_filesystem(target)
    if "file" in protocols(filesystem):
        if not (link and local_files.link(_open_filesystem(source)[1], path)):
            write_bytes(target, read_bytes(source))
        return
    with accessing(source, f"copied to {target}"):
        filesystem.cp_file(_open_filesystem(source)[1], path)


def list_folder(url: str) -> list[str]:
    """Return the names in a folder, sorted; an empty list if there is no such folder."""
    filesystem, path = _open_filesystem(url)
    try:
        with accessing(url, "listed"):
            paths = filesystem.ls(path, detail=False, refresh=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(str(each).rstrip("/").rsplit("/", 1)[-1] for each in paths)


def list_objects(url: str) -> dict[str, int]:
    """Return the size in bytes of every object below a folder, by its key relative to the folder.

    The result is empty if there is no such folder. On an object store this takes one request for
    each 1000 objects.
    """
    return {key: int(info.get("size") or 0) for key, info in list_details(url).items()}


def list_details(url: str) -> dict[str, Json]:
    """Return what a listing says of every object below a folder, in the form of fsspec."""
    filesystem, path = _open_filesystem(url)
    folder = f"{path.rstrip('/')}/"
    try:
        with accessing(url, "listed"):
            found = filesystem.find(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {
        str(each).removeprefix(folder): info
        for each, info in found.items()
        if str(each).startswith(folder)
    }


def expand_glob(url: str, **options: Any) -> list[str]:
    """Return the URLs of the files that match a URL with `*`, sorted.

    Without `*` the result is the URL itself, or an empty list if nothing is there. `options` are
    passed to fsspec.
    """
    filesystem, path = _open_filesystem(url, **options)
    if "*" not in url:
        return [url] if filesystem.exists(path) else []
    # Only `*` is a wildcard here, so brackets are escaped.
    paths = sorted(map(str, filesystem.glob(path.replace("[", "[[]"))))
    return [str(filesystem.unstrip_protocol(each)) for each in paths] if "://" in url else paths


def remove(url: str) -> None:
    """Remove an object, or a folder with its content; do nothing if it does not exist."""
    filesystem, path = _open_filesystem(url)
    with accessing(url, "removed"):
        if _exists(url, filesystem, path):
            filesystem.rm(path, recursive=True)


def remove_parts(url: str) -> None:
    """Remove the partial files that killed processes left in a folder.

    No other process may be writing to the folder at the same time.
    """
    for name in filter(lambda name: PART in name, list_folder(url)):
        remove(join(url, name))


def sha256(data: bytes) -> str:
    """Return the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_object(url: str) -> tuple[int, str]:
    """Return the size in bytes and the SHA-256 of an object, without holding all of it in memory.

    Raises:
      FileNotFoundError: If there is no such object.
      StoreError: If the object store does not respond or denies access.
    """
    filesystem, path = _open_filesystem(url)
    digest, size = hashlib.sha256(), 0
    with accessing(url), filesystem.open(path, "rb", block_size=HASHED_BYTES) as file:
        while piece := file.read(HASHED_BYTES):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of a JSON value; the order of keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode())


def content_digest(url: str, **options: Any) -> str:
    """Return a digest of an object's content: the store's tag, or else the SHA-256 of its bytes.

    If the URL contains `*`, the digest is of the names and contents of all matching files.
    `options` are passed to fsspec.

    Raises:
      FileNotFoundError: If there is no such object.
    """
    if "*" in url:
        urls = expand_glob(url, **options)
        if not urls:
            raise FileNotFoundError(url)
        return sha256_of_json(
            [[each.rsplit("/", 1)[-1], content_digest(each, **options)] for each in urls]
        )
    filesystem, path = _open_filesystem(url, **options)
    info = filesystem.info(path)
    tag = info.get("ETag") or info.get("md5Hash")
    if tag:
        return str(tag).strip('"')
    with filesystem.open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def arrow_filesystem(url: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the pyarrow file system and path of a folder.

    It uses the same endpoint and credentials as all other access.
    """
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    # Ray sends the file system to other nodes, where the endpoint may differ, so it must not
    # contain one.
    filesystem, path = fsspec.core.url_to_fs(url, **NO_LISTING_CACHE, skip_instance_cache=True)
    return PyFileSystem(FSSpecHandler(filesystem)), str(path)


def with_endpoint(url: str, options: Json) -> Json:
    """Return the fsspec options for a URL; for an S3 URL they include the present endpoint.

    s3fs leaves the endpoint in the environment to botocore, and fsspec shares one client between
    all calls with the same options. Without the endpoint among the options, a process whose
    environment changes would keep using the endpoint of its first client.
    """
    endpoint = s3_endpoint(options) if url.startswith(S3_PREFIXES) else None
    return {**options, "endpoint_url": endpoint} if endpoint else options


def s3_endpoint(options: Json) -> str | None:
    """Return the S3 endpoint from fsspec options, fsspec's configuration or the environment.

    None means that none of them sets an endpoint, so requests go to Amazon's own.
    """
    config = fsspec.config.conf
    merged = {**config.get("s3", {}), **config.get("s3a", {}), **options}
    client = merged.get("client_kwargs") or {}
    environment = map(os.environ.get, ENDPOINT_VARIABLES)
    candidates = (merged.get("endpoint_url"), client.get("endpoint_url"), *environment)
    return next(filter(None, candidates), None)


def protocols(filesystem: Any) -> tuple[str, ...]:
    """Return the protocols of an fsspec file system, such as ("file", "local") or ("s3",)."""
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _open_filesystem(url: str, **options: Any) -> tuple[Any, str]:
    if url.startswith(HTTP_PREFIXES):
        import aiohttp

        limits = aiohttp.ClientTimeout(total=MAX_HTTP_S)
        options = {"client_kwargs": {"timeout": limits}} | options
    with accessing(url, "opened"):
        filesystem, path = fsspec.core.url_to_fs(
            url, **NO_LISTING_CACHE, **with_endpoint(url, options)
        )
    return filesystem, str(path)


@contextlib.contextmanager
def accessing(url: str, operation: str = "read") -> Iterator[None]:
    """Raise a StoreError if a file system or a library fails in the block.

    Args:
      url: The object, for the message.
      operation: `opened`, `read`, `listed`, `written`, `removed` or `copied to ...`.

    Raises:
      StoreError: If access is denied, the disk is full, the server does not answer, and so on.
      FileNotFoundError: If there is no such object to be read or listed.
    """
    try:
        yield
    except SoilweaveError:
        raise
    except Exception as error:
        if operation in ("read", "listed", "opened") and failures.is_absence(error):
            raise
        if url.startswith(HTTP_PREFIXES) and isinstance(error, TimeoutError) and not error.errno:
            late = f"cannot be {operation}: the server did not send it within {MAX_HTTP_S:g} s"
            raise StoreError(url, late, remedy=failures.AGAIN) from error
        told = error
        if url.startswith(S3_PREFIXES) and failures.is_silent(error):
            told = failures.ask_s3(error, *_open_filesystem(url))
        raise failures.store_error(url, operation, told) from error
