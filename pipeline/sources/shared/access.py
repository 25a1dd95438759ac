"""Open and read providers' files with retries and credentials."""

from __future__ import annotations

import io
import logging
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from pipeline import failures, files
from pipeline.errors import DataError, UnreachableError, redact_secrets
from pipeline.sources.shared import earthdata
from pipeline.sources.shared.http_errors import format_url, plain_http_errors, retrying_client

if TYPE_CHECKING:
    from collections.abc import Callable


log = logging.getLogger(__name__)
T = TypeVar("T")
WAITS_S = (2.0, 8.0)  # before each repetition of a read that failed

# Returns the URL to request instead of a given one. Recording and replay set it to redirect
# libraries that have their own HTTP client.
ROUTE: Callable[..., str] | None = None
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = (
    206,
    416,
)  # HTTP status of a part of a file, and of a range beyond the file's end
MAX_BYTES_WITHOUT_RANGES = (
    2 * 2**30
)  # bytes; limit for reading a whole file if a server sends no parts
# The file systems that fsspec may be asked for. Others run code, such as `reference`, whose files
# have templates of their own, or write files, such as `simplecache`.
PROTOCOLS = frozenset(
    {
        *("file", "local", "memory", "http", "https", "ftp", "sftp", "ssh", "s3", "s3a", "gs"),
        *("gcs", "az", "abfs", "abfss", "adl", "hdfs", "webhdfs", "hf", "github", "zip", "tar"),
    }
)
_PROTOCOL = re.compile(r"[A-Za-z0-9+.-]*$")
_supports_ranges: dict[str, bool] = {}  # host -> whether it sends parts of files


def protocol_problems(url: str) -> list[str]:
    """Return messages about protocols in a URL that are not accepted."""
    *outer, last = url.split("::")  # as in zip://a.nc::s3://bucket/a.zip
    texts = [part.partition("://")[0] for part in [*outer, *([last] if "://" in last else [])]]
    found = [match[0] for text in texts if (match := _PROTOCOL.search(text))]
    unknown = {protocol for protocol in found if protocol.lower() not in PROTOCOLS}
    accepted = ", ".join(sorted(PROTOCOLS))
    return [f"protocol '{protocol}'; accepted: {accepted}" for protocol in sorted(unknown)]


def fsspec_options(
    url: str, storage_options: dict[str, Any], login: str | None = None
) -> dict[str, Any]:
    """Return the options with which fsspec opens a URL.

    Args:
      url: The file.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If the URL has a protocol that is not accepted, or there are no credentials for
        this login.
    """
    if problems := protocol_problems(url):
        raise DataError(format_url(url), *problems, remedy="correct the entry's urlpath")
    result = dict(storage_options)
    if url.startswith(("http://", "https://")):
        result.setdefault("get_client", retrying_client)
        if login == "earthdata":
            result["headers"] = {
                **result.get("headers", {}),
                **earthdata.authorization_headers(url),
            }
    elif url.startswith("s3://") and login == "earthdata":
        result |= earthdata.s3_options(url)
    return files.with_endpoint(url, result)


def route_url(url: str) -> str:
    """Return the URL that a library with its own HTTP client (GDAL, Icechunk) must request."""
    return url if ROUTE is None else ROUTE(url, follow=True)


def read_file(
    url: str, storage_options: dict[str, Any] | None = None, login: str | None = None
) -> bytes:
    """Read a whole file.

    Args:
      url: The file.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If the file does not exist or is refused, or its server does not answer.
    """
    with plain_http_errors(url, login, options=storage_options or {}):
        filesystem, path = fsspec.core.url_to_fs(
            url, **fsspec_options(url, storage_options or {}, login)
        )
        return bytes(filesystem.cat_file(path))


def open_file(
    url: str, storage_options: dict[str, Any] | None = None, login: str | None = None
) -> Any:
    """Open a file as a file-like object that fetches only the parts that are read.

    If an HTTP server does not send parts of files (it does not support `Range`), the file is read
    as a whole.

    Args:
      url: The file.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If the file does not exist or is refused, its server does not answer, or its
        server sends no parts and the file is larger than 2 GiB.
    """
    with plain_http_errors(url, login, options=storage_options or {}):
        if url.startswith(("http://", "https://")) and not supports_ranges(
            url, storage_options, login
        ):
            return io.BytesIO(read_without_ranges(url, storage_options, login))
        return fsspec.open(url, **fsspec_options(url, storage_options or {}, login)).open()


def read_without_ranges(
    url: str, storage_options: dict[str, Any] | None = None, login: str | None = None
) -> bytes:
    """Read a file from a server that does not send parts of files.

    Args:
      url: The file.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If the file does not exist, is refused, or is larger than 2 GiB.
    """
    with plain_http_errors(url, login, options=storage_options or {}):
        filesystem, path = fsspec.core.url_to_fs(
            url, **fsspec_options(url, storage_options or {}, login)
        )
        size = int(filesystem.info(path).get("size") or 0)
    if size > MAX_BYTES_WITHOUT_RANGES:
        problem = (
            f"the file has {size / 2**30:.1f} GiB, and its server sends no parts of files; "
            f"such files are read up to {MAX_BYTES_WITHOUT_RANGES / 2**30:g} GiB"
        )
        hint = "download the file and set the entry's urlpath to the copy"
        raise DataError(format_url(url), problem, remedy=hint)
    return read_file(url, storage_options, login)


def supports_ranges(
    url: str, storage_options: dict[str, Any] | None = None, login: str | None = None
) -> bool:
    """Return whether an HTTP server sends parts of files. A process asks each server once.

    Args:
      url: A file on the server.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If the file does not exist or is refused, or the server does not answer.
    """
    host = url.split("/", 3)[2]
    if host not in _supports_ranges:
        with plain_http_errors(url, login, options=storage_options or {}):
            filesystem, path = fsspec.core.url_to_fs(
                url, **fsspec_options(url, storage_options or {}, login)
            )
            _supports_ranges[host] = bool(
                fsspec.asyn.sync(filesystem.loop, _request_first_byte, filesystem, path)
            )
    return _supports_ranges[host]


async def _request_first_byte(filesystem: Any, path: str) -> bool:
    """Return whether a request for the first byte is answered with that byte alone."""
    session = await filesystem.set_session()
    kwargs = dict(filesystem.kwargs)
    headers = {**kwargs.pop("headers", {}), "Range": "bytes=0-0"}
    async with session.get(filesystem.encode_url(path), headers=headers, **kwargs) as response:
        if response.status == RANGE_NOT_SATISFIABLE:
            return True
        filesystem._raise_not_found_for_status(response, path)
        return bool(response.status == PARTIAL_CONTENT)


def retry_read(read: Callable[[], T]) -> T:
    """Call a function that reads a source; wait and call it again if the read fails.

    HTTP clients repeat single requests for some seconds; this function waits for a longer outage
    to pass.

    Args:
      read: The function. It may be called several times.

    Returns:
      The result of the function.

    Raises:
      UnreachableError: If the server still does not answer.
      OSError: If a file still cannot be read.
    """
    for wait in WAITS_S:
        try:
            return read()
        except failures.storage_exceptions(UnreachableError) as error:
            log.warning("reading again in %g s: %s", wait, redact_secrets(str(error)))
            time.sleep(wait)
    return read()
