"""Files of providers: opened with retries and credentials; their refusals in plain words."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import time
from typing import TYPE_CHECKING, Any, TypeVar

import fsspec

from pipeline import files
from pipeline.errors import DataError, UnreachableError, bare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import aiohttp_retry

log = logging.getLogger(__name__)
T = TypeVar("T")

WAITS_S = (2.0, 8.0)  # before a read that failed is tried again
# Where a URL is really asked for: a recording sends libraries with a client of their own elsewhere.
ROUTE: Callable[..., str] | None = None
BUSY = {408, 429, 500, 502, 503, 504}
ATTEMPTS, FIRST_WAIT_S, LONGEST_WAIT_S = 5, 0.5, 30.0
# Codes of S3 with which a server says that it has looked at the keys, and that they are not valid.
WRONG_KEYS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
PART, EMPTY = 206, 416  # statuses of a part of a file, and of one beyond its end
LARGEST_WHOLE = 2 * 2**30  # bytes of a file that is read whole, from servers that send no parts
REMEDIES = {
    "earthdata": "get an Earthdata Login at urs.earthdata.nasa.gov, and give it in ~/.netrc, "
    "or in EARTHDATA_TOKEN",
    "token": "get the provider's personal token, and give it as the entry says",
}


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
        made.setdefault("get_client", _client)
        if login == "earthdata":
            from pipeline.sources import earthdata

            made["headers"] = {**made.get("headers", {}), **earthdata.headers(url)}
    elif url.startswith("s3://") and login == "earthdata":
        from pipeline.sources import earthdata

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


@contextlib.contextmanager
def answering(url: str, login: str | None = None, origin: str | None = None) -> Iterator[None]:
    """Say in plain words, and without what a URL or an answer may hold of secrets, what fails.

    Raises:
      DataError: instead of what fsspec and its file systems raise; an `UnreachableError` where the
        server is busy or does not answer.
    """
    place = shown(url)
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        status = _status(error)  # fsspec 2026 calls a file not found whatever it is answered
        absent = isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError))
        if absent and status in (None, 404, 410):
            remedy = "has it moved? correct the entry's urlpath"
            remedy = f"get it from {origin}" if origin else remedy
            raise DataError(place, "not found", remedy=remedy) from error
        if status in (401, 403) or isinstance(error, PermissionError):
            raise _refusal(place, error, status, login) from None
        if status is not None or _is_network(error):
            told = f"answers {status}" if status else f"does not answer ({type(error).__name__})"
            found = f"{told}, asked {ATTEMPTS} times" if status in BUSY else told
            raise UnreachableError(place, found, remedy="try again later") from None
        raise


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


def _refusal(place: str, error: Exception, status: int | None, login: str | None) -> DataError:
    """What a refusal says for certain: 403 may be of a file that is not there."""
    found = f"refused ({status})" if status else "refused"
    remedy = REMEDIES.get(login or "", "check the credentials that the entry's auth names")
    code = _code(error)
    if status == 401 or code in WRONG_KEYS:
        told = f" ({code})" if code else ""
        return DataError(place, f"{found}: no, wrong or expired credentials{told}", remedy=remedy)
    if status is None and "://" not in place:
        return DataError(
            place, f"{found}: no permission to read it", remedy="change its permissions"
        )
    found += ": either it is not there, or it may not be read with these credentials, or without"
    return DataError(place, found, remedy=f"check the entry's urlpath; {remedy}")


def shown(url: str) -> str:
    """A URL as it may be shown: without its query, or a name and password in it."""
    bare = url.partition("?")[0]
    scheme, separator, rest = bare.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if separator else bare


async def _client(**kwargs: Any) -> aiohttp_retry.RetryClient:
    """Fsspec's client of HTTP that asks again while a server is busy."""
    import aiohttp_retry
    from fsspec.implementations.http import get_client

    waits = aiohttp_retry.ExponentialRetry(
        attempts=ATTEMPTS,
        start_timeout=FIRST_WAIT_S,
        max_timeout=LONGEST_WAIT_S,
        statuses=BUSY,
        retry_all_server_errors=False,
        exceptions=set(_network()),
    )
    return aiohttp_retry.RetryClient(await get_client(**kwargs), retry_options=waits)


@functools.cache
def _network() -> tuple[type[Exception], ...]:
    import aiohttp

    return (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


def _is_network(error: Exception) -> bool:
    return isinstance(error, (OSError, *_network())) or type(error).__module__.startswith(
        ("aiohttp", "botocore")
    )


def _code(error: Exception) -> str:
    """The code of an S3 server's answer, such as AccessDenied; "" where there is none."""
    seen: BaseException | None = error
    while seen is not None:
        answer = getattr(seen, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        seen = seen.__cause__
    return ""


def _status(error: Exception) -> int | None:
    """The HTTP status in an error of aiohttp, of botocore or of what was raised from them."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(seen, "status", None)
        if isinstance(status, int):
            return status
        answer = getattr(seen, "response", None)
        if isinstance(answer, dict):
            return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)) or None
        code = getattr(answer, "status_code", None)
        if isinstance(code, int):
            return code
        seen = seen.__cause__
    return None
