"""Files of providers: opened with retries and credentials; their refusals in plain words."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

import fsspec

from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import aiohttp_retry

# Where a URL is really asked for: a recording sends libraries with a client of their own elsewhere.
ROUTE: Callable[..., str] | None = None
BUSY = {408, 429, 500, 502, 503, 504}
ATTEMPTS, FIRST_WAIT_S, LONGEST_WAIT_S = 5, 0.5, 30.0
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
    return made


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

    Raises:
      DataError: it is absent, refused, or its server does not answer.
    """
    with answering(url, login):
        return fsspec.open(url, **options(url, given or {}, login)).open()


@contextlib.contextmanager
def answering(url: str, login: str | None = None, origin: str | None = None) -> Iterator[None]:
    """Say in plain words, and without what a URL or an answer may hold of secrets, what fails.

    Raises:
      DataError: instead of what fsspec and its file systems raise.
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
            found = f"refused ({status})" if status else "refused"
            remedy = REMEDIES.get(login or "", "check the credentials that the entry's auth names")
            raise DataError(
                place, f"{found}: no, wrong or expired credentials", remedy=remedy
            ) from None
        if status is not None or _is_network(error):
            told = f"answers {status}" if status else f"does not answer ({type(error).__name__})"
            found = f"{told}, asked {ATTEMPTS} times" if status in BUSY else told
            raise DataError(place, found, remedy="try again later") from None
        raise


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
