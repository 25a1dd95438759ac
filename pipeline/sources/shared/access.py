"""Files of providers: opened with retries and credentials."""

from __future__ import annotations

import io
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from pipeline import files
from pipeline.errors import DataError, UnreachableError, bare
from pipeline.sources.shared import earthdata
from pipeline.sources.shared.http_errors import answering, retrying_client, shown

if TYPE_CHECKING:
    from collections.abc import Callable


log = logging.getLogger(__name__)
T = TypeVar("T")
WAITS_S = (2.0, 8.0)  # before a read that failed is tried again

# Where a URL is really asked for: a recording sends libraries with a client of their own elsewhere.
ROUTE: Callable[..., str] | None = None
PART, EMPTY = 206, 416  # statuses of a part of a file, and of one beyond its end
LARGEST_WHOLE = 2 * 2**30  # bytes of a file that is read whole, from servers that send no parts


def options(url: str, given: dict[str, Any], login: str | None = None) -> dict[str, Any]:
    """Options of fsspec for a URL.

    Args:
      url: the file.
      given: the entry's own `storage_options`.
      login: `earthdata`, where the provider wants to know who reads.

    Raises:
      DataError: there are no credentials for this login.
    """
    made = dict(given)
    if url.startswith(("http://", "https://")):
        made.setdefault("get_client", retrying_client)
        if login == "earthdata":
            made["headers"] = {**made.get("headers", {}), **earthdata.headers(url)}
    elif url.startswith("s3://") and login == "earthdata":
        made |= earthdata.s3_options(url)
    return files.with_endpoint(url, made)


def routed(url: str) -> str:
    """A URL of HTTP for a library that fsspec does not read for (GDAL, Icechunk)."""
    return url if ROUTE is None else ROUTE(url, follow=True)


def read(url: str, given: dict[str, Any] | None = None, login: str | None = None) -> bytes:
    """The whole file.

    Raises:
      DataError: it is absent, refused, or its server does not answer.
    """
    with answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **options(url, given or {}, login))
        return bytes(filesystem.cat_file(path))


def opened(url: str, given: dict[str, Any] | None = None, login: str | None = None) -> Any:
    """A file-like object that reads the parts it is asked for.

    From an HTTP server that sends no parts of files (no support of `Range`) the file is read whole.

    Raises:
      DataError: it is absent, refused, or its server does not answer; or it sends no parts, and
        the file is larger than LARGEST_WHOLE.
    """
    with answering(url, login):
        if url.startswith(("http://", "https://")) and not sends_parts(url, given, login):
            return io.BytesIO(whole(url, given, login))
        return fsspec.open(url, **options(url, given or {}, login)).open()


def whole(url: str, given: dict[str, Any] | None = None, login: str | None = None) -> bytes:
    """A file of a server that sends no parts of files.

    Raises:
      DataError: it is absent or refused, or larger than LARGEST_WHOLE.
    """
    with answering(url, login):
        filesystem, path = fsspec.core.url_to_fs(url, **options(url, given or {}, login))
        size = int(filesystem.info(path).get("size") or 0)
    if size > LARGEST_WHOLE:
        found = f"its server sends no parts of files, and this one has {size / 2**30:.1f} GiB"
        raise DataError(shown(url), found, remedy="download it, and name the copy in the entry")
    return read(url, given, login)


def sends_parts(url: str, given: dict[str, Any] | None = None, login: str | None = None) -> bool:
    """Whether an HTTP server sends parts of files; each server is asked once in a process.

    Raises:
      DataError: the file is absent, refused, or its server does not answer.
    """
    host = url.split("/", 3)[2]
    if host not in _PARTS:
        with answering(url, login):
            filesystem, path = fsspec.core.url_to_fs(url, **options(url, given or {}, login))
            _PARTS[host] = bool(fsspec.asyn.sync(filesystem.loop, _partial, filesystem, path))
    return _PARTS[host]


_PARTS: dict[str, bool] = {}  # by host


async def _partial(filesystem: Any, path: str) -> bool:
    """Whether the answer to a request for the first byte is that byte and not the whole file."""
    session = await filesystem.set_session()
    given = dict(filesystem.kwargs)
    headers = {**given.pop("headers", {}), "Range": "bytes=0-0"}
    async with session.get(filesystem.encode_url(path), headers=headers, **given) as answer:
        if answer.status == EMPTY:
            return True
        filesystem._raise_not_found_for_status(answer, path)
        return bool(answer.status == PART)


def patiently(read: Callable[[], T]) -> T:
    """The result of reading a source, tried again while its server does not answer.

    Clients repeat single requests for some seconds; this waits for a longer outage to pass.

    Args:
      read: reads the source and may be called several times.

    Raises:
      UnreachableError: if the server still does not answer.
      OSError: if a file still cannot be read.
    """
    for wait in WAITS_S:
        try:
            return read()
        except (UnreachableError, OSError) as error:
            log.warning("reading again in %g s: %s", wait, bare(str(error)))
            time.sleep(wait)
    return read()
