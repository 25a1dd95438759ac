"""What servers answer when they refuse or are busy: asked again, then said in plain words."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp_retry


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

REMEDIES = {
    "earthdata": "get an Earthdata Login at urs.earthdata.nasa.gov, and give it in ~/.netrc, "
    "or in EARTHDATA_TOKEN",
    "token": "get the provider's personal token, and give it as the entry says",
}


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


def file_name(url: str) -> str:
    """The last part of a URL, without its query, to name a file among others."""
    return shown(url).rstrip("/").rsplit("/", 1)[-1]


async def retrying_client(**kwargs: Any) -> aiohttp_retry.RetryClient:
    """The HTTP client of fsspec, which asks again while a server is busy."""
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
