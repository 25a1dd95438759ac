"""Repeat requests while a server is busy, and turn failed requests into plain errors."""

from __future__ import annotations

import contextlib
import errno
import functools
from typing import TYPE_CHECKING, Any

import fsspec

from pipeline import failures, files
from pipeline.errors import DataError, SoilweaveError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp_retry


BUSY_STATUS = {408, 429, 500, 502, 503, 504}  # HTTP status codes
ATTEMPTS, FIRST_WAIT_S, LONGEST_WAIT_S = 5, 0.5, 30.0
MAX_RESPONSE_BYTES = 2 * 2**30  # of one answer, after decompression; a server may send for ever

# Error codes of S3 for keys that a server has checked and found invalid.
WRONG_KEYS = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}

# Login of an entry -> hint if its credentials are missing or refused.
LOGIN_HINTS = {
    "earthdata": "get an Earthdata Login at urs.earthdata.nasa.gov, and store it in ~/.netrc "
    "or in EARTHDATA_TOKEN",
    "token": "get a personal token from the provider, and store it where the entry's `auth` says",
}


@contextlib.contextmanager
def plain_http_errors(
    url: str,
    login: str | None = None,
    origin: str | None = None,
    options: dict[str, Any] | None = None,
) -> Iterator[None]:
    """Turn errors of fsspec and its file systems into a `DataError` without secrets.

    Secrets may be in the URL and in the server's answer.

    Args:
      url: The file.
      login: `earthdata` or `token`, the login that the provider requires.
      origin: Where the file can be obtained, for the hint if it is not found.
      options: Storage options of the entry. With them, S3 is asked why it refuses a request.

    Raises:
      DataError: If the file does not exist or is refused, or a package is missing; an
        `UnreachableError` if the server is busy or does not answer. Errors of other kinds are not
        changed.
    """
    place = format_url(url)
    try:
        yield
    except SoilweaveError:
        raise
    except Exception as error:
        told = _told_by_s3(url, error, options)
        status = _http_status(told)
        if failures.is_absence(error) and status in (None, 404, 410):
            hint = "has it moved? correct the entry's urlpath"
            hint = f"get it from {origin}" if origin else hint
            raise DataError(place, "not found", remedy=hint) from error
        found = failures.explain(told, url)
        if isinstance(told, ImportError):
            raise DataError(place, found.reason, remedy=found.remedy) from error
        if _s3_error_code(told) == "RequestTimeTooSkewed" or _is_other_region(told):
            raise DataError(place, f"refused: {found.reason}", remedy=found.remedy) from None
        if status in (401, 403) or _s3_error_code(told) in WRONG_KEYS or _is_refusal(told):
            raise _refusal_error(place, told, status, login) from None
        if status is not None or _is_network_error(told):
            raise _unreachable(place, told, status, found) from None
        raise


def _unreachable(
    place: str, error: Exception, status: int | None, found: failures.Explanation
) -> DataError:
    """Return the error for a server that fails, or for a file that the system cannot read."""
    name = type(error).__name__
    if status:
        problem = f"the server answers {status}"
        problem += f", asked {ATTEMPTS} times" if status in BUSY_STATUS else ""
    elif name in ("TimeoutError", "FSTimeoutError"):
        problem = late_answer()
    elif "://" not in place or not found.passing:
        kind = UnreachableError if "://" not in place or not found.known else DataError
        return kind(place, f"cannot be read: {found.reason}", remedy=found.remedy or "try again")
    else:
        problem = f"the server does not answer ({found.reason})"
    return UnreachableError(place, problem, remedy="try again later")


def _told_by_s3(url: str, error: Exception, options: dict[str, Any] | None) -> Exception:
    """Return the error of S3 that says why it refuses, which its answers to HEAD do not."""
    if options is None or not url.startswith(failures.S3_PREFIXES) or not failures.is_silent(error):
        return error
    filesystem, path = fsspec.core.url_to_fs(url, **files.with_endpoint(url, options))
    return failures.ask_s3(error, filesystem, path)


def _is_other_region(error: Exception) -> bool:
    return failures.explain(error).remedy == failures.REGION


def _is_refusal(error: Exception) -> bool:
    """Return whether access was denied, by a server or by the permissions of a file."""
    return isinstance(error, PermissionError) and getattr(error, "errno", None) != errno.EROFS


def late_answer() -> str:
    """Return the problem of a server that sends too slowly."""
    return f"the server did not send its answer within {files.MAX_HTTP_S:g} s"


def _refusal_error(
    place: str, error: Exception, status: int | None, login: str | None
) -> DataError:
    """Return the error for a refused request.

    It does not say more than is certain: some servers answer 403 for files that do not exist.
    """
    problem = f"refused ({status})" if status else "refused"
    hint = LOGIN_HINTS.get(login or "", "check the credentials that the entry's `auth` describes")
    code = _s3_error_code(error)
    if status == 401 or code in WRONG_KEYS:
        code_text = f" ({code})" if code else ""
        problem += f": missing, wrong or expired credentials{code_text}"
        return DataError(place, problem, remedy=hint)
    if status is None and "://" not in place:
        problem += ": no permission to read it"
        return DataError(place, problem, remedy="change its permissions")
    problem += ": either it does not exist, or it needs other credentials"
    return DataError(place, problem, remedy=f"check the entry's urlpath; {hint}")


def format_url(url: str) -> str:
    """Return a URL as it may be shown: without its query, user name and password."""
    without_query = url.partition("?")[0]
    scheme, separator, rest = without_query.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}" if separator else without_query


def file_name(url: str) -> str:
    """Return the last part of a URL without its query, to name a file among others."""
    return format_url(url).rstrip("/").rsplit("/", 1)[-1]


async def retrying_client(**kwargs: Any) -> aiohttp_retry.RetryClient:
    """Return an HTTP client for fsspec that repeats requests while a server is busy.

    An answer that takes longer than `files.MAX_HTTP_S` or is larger than MAX_RESPONSE_BYTES is an
    error.
    """
    import aiohttp
    import aiohttp_retry
    from fsspec.implementations.http import get_client

    retry_options = aiohttp_retry.ExponentialRetry(
        attempts=ATTEMPTS,
        start_timeout=FIRST_WAIT_S,
        max_timeout=LONGEST_WAIT_S,
        statuses=BUSY_STATUS,
        retry_all_server_errors=False,
        # An answer that was too slow is not asked for again at once.
        exceptions={aiohttp.ClientConnectionError, aiohttp.ClientPayloadError},
    )
    limits = {
        "timeout": aiohttp.ClientTimeout(total=files.MAX_HTTP_S, sock_connect=30),
        "response_class": _bounded_response(),
    }
    client = await get_client(**{**limits, **kwargs})
    return aiohttp_retry.RetryClient(client, retry_options=retry_options)


@functools.cache
def _bounded_response() -> Any:
    """Return a class of answers of aiohttp that read no more than MAX_RESPONSE_BYTES."""
    import aiohttp

    class BoundedResponse(aiohttp.ClientResponse):
        """An answer of limited size."""

        async def read(self) -> bytes:
            if self._body is None:
                parts, size = [], 0
                async for part in self.content.iter_any():
                    parts.append(part)
                    size += len(part)
                    if size > MAX_RESPONSE_BYTES:
                        self.close()
                        problem = f"the answer is larger than {MAX_RESPONSE_BYTES:,} bytes"
                        hint = "download the file and set the entry's urlpath to the copy"
                        raise DataError(format_url(str(self.url)), problem, remedy=hint)
                self._body = b"".join(parts)
            return await super().read()

    return BoundedResponse


@functools.cache
def _network_errors() -> tuple[type[Exception], ...]:
    """Return the errors of aiohttp for connections that fail."""
    import aiohttp

    return (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError)


def _is_network_error(error: Exception) -> bool:
    """Return whether an error is one of a connection or of a file system."""
    return isinstance(error, (OSError, *_network_errors())) or type(error).__module__.startswith(
        ("aiohttp", "botocore")
    )


def _s3_error_code(error: Exception) -> str:
    """Return the code of an S3 server's answer, such as AccessDenied; "" if there is none."""
    cause: BaseException | None = error
    while cause is not None:
        answer = getattr(cause, "response", None)
        if isinstance(answer, dict):
            return str(answer.get("Error", {}).get("Code", ""))
        cause = cause.__cause__
    return ""


def _http_status(error: Exception) -> int | None:
    """Return the HTTP status in an error of a client library, or in its causes."""
    statuses = map(failures.http_status, failures.chain(error))
    return next(filter(None, statuses), None)
