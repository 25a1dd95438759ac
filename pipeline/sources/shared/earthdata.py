"""Earthdata Login: tokens for HTTPS requests, and temporary keys for Earthdata's S3 buckets.

Credentials come from EARTHDATA_TOKEN, from EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or from
~/.netrc. They are sent to Earthdata only. Keys for buckets are valid for an hour and are renewed
before they expire, so that long-running reads never see expired keys.
"""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import DataError
from pipeline.sources.shared import http_errors

# A catalog may come from anyone, so the token is sent to these hosts and to this machine only.
EARTHDATA_HOSTS = (".earthdata.nasa.gov", ".earthdatacloud.nasa.gov", ".eosdis.nasa.gov")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
BUCKET_REGION = "us-west-2"  # the buckets only answer requests from within this region

# Bucket -> URL from which its keys are requested.
KEY_ENDPOINTS = {
    "nsidc-cumulus-prod-protected": "https://data.nsidc.earthdatacloud.nasa.gov/s3credentials",
    "gesdisc-cumulus-prod-protected": "https://data.gesdisc.earthdata.nasa.gov/s3credentials",
    "ornl-cumulus-prod-protected": "https://data.ornldaac.earthdata.nasa.gov/s3credentials",
    "lp-prod-protected": "https://data.lpdaac.earthdatacloud.nasa.gov/s3credentials",
    "prod-giovanni-cache": "https://api.giovanni.earthdata.nasa.gov/s3credentials",
}

_PLACE = "Earthdata Login"
_TIMEOUT_S = 60  # for a request of keys


def check_host(url: str) -> None:
    """Check that a token may be sent to a URL.

    Raises:
      DataError: If the host is not one of Earthdata's, or the URL is not encrypted.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK_HOSTS or (parts.scheme == "https" and f".{host}".endswith(EARTHDATA_HOSTS)):
        return
    problem = f"{parts.scheme}://{host} is not an HTTPS host of Earthdata; your token is not sent"
    hint = "correct the entry's URL, or remove `login: earthdata` from the entry"
    raise DataError(http_errors.format_url(url), problem, remedy=hint)


def login() -> Any:
    """Return the user's `earthaccess.Auth`, logged in.

    The login is kept in the process until the environment variables that it depends on change.

    Raises:
      DataError: If there are no credentials, or they are refused.
    """
    names = ("EARTHDATA_TOKEN", "EARTHDATA_USERNAME", "EARTHDATA_PASSWORD", "NETRC", "HOME")
    return _cached_login(*(os.environ.get(name) or None for name in names))


@functools.lru_cache(maxsize=1)
def _cached_login(*environment: str | None) -> Any:
    """Log in; the arguments are only the key of the cache."""
    from earthaccess import Auth
    from earthaccess.exceptions import LoginAttemptFailure, LoginStrategyUnavailable

    hint = http_errors.LOGIN_HINTS["earthdata"]
    for strategy in ("environment", "netrc"):
        auth = Auth()
        try:
            with http_errors.plain_http_errors("https://urs.earthdata.nasa.gov", "earthdata"):
                auth.login(strategy=strategy)
        except LoginStrategyUnavailable:
            continue
        except LoginAttemptFailure:
            # The text of this error is the server's answer, which may hold secrets.
            problem = "the user name and password are refused"
            raise DataError(_PLACE, problem, remedy=hint) from None
        if auth.authenticated and auth.token:
            return auth
    raise DataError(_PLACE, "no credentials, but the entry requires them", remedy=hint)


def configure_session(session: Any) -> None:
    """Let a session of the library requests repeat requests while a server is busy.

    The session also stops sending names and passwords from ~/.netrc to the servers it calls.
    """
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retry = Retry(
        total=http_errors.ATTEMPTS - 1,
        backoff_factor=http_errors.FIRST_WAIT_S,
        backoff_max=http_errors.LONGEST_WAIT_S,
        status_forcelist=http_errors.BUSY_STATUS,
        raise_on_status=False,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    session.auth = _leave_unchanged


def _leave_unchanged(request: Any) -> Any:
    """Return a request unchanged. As `auth` of a session, it replaces the use of ~/.netrc."""
    return request


def authorization_headers(url: str) -> dict[str, str]:
    """Return the headers of an HTTPS request for a file of Earthdata, with the user's token.

    Raises:
      DataError: If the host is not one of Earthdata's, or there are no valid credentials.
    """
    check_host(url)
    return {"Authorization": f"Bearer {str(login().token['access_token']).strip()}"}


def s3_options(url: str) -> dict[str, Any]:
    """Return options of s3fs for a bucket of Earthdata, with keys that are renewed in time.

    Raises:
      DataError: If the bucket is not one of Earthdata's.
    """
    bucket = url.partition("://")[2].partition("/")[0]
    if bucket not in KEY_ENDPOINTS:
        problem = (
            f"bucket {bucket} is not known to accept an Earthdata Login; "
            f"expected one of {', '.join(KEY_ENDPOINTS)}"
        )
        hint = "if it is your own bucket, remove `login: earthdata` from the entry"
        raise DataError(http_errors.format_url(url), problem, remedy=hint)
    return {
        "session": s3_session(KEY_ENDPOINTS[bucket]),
        "client_kwargs": {"region_name": BUCKET_REGION},
    }


@functools.lru_cache
def s3_session(endpoint: str) -> Any:
    """Return a session of aiobotocore that requests keys from an endpoint and renews them."""
    from aiobotocore import credentials  # type: ignore[import-untyped]
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]
    from botocore.credentials import CredentialProvider  # type: ignore[import-untyped]

    async def refresh() -> dict[str, str]:
        return await asyncio.to_thread(_request_keys, endpoint)

    class Provider(CredentialProvider):  # type: ignore[misc]
        METHOD = CANONICAL_NAME = "earthdata"

        async def load(self) -> Any:
            return credentials.AioDeferredRefreshableCredentials(refresh, self.METHOD)

    result = AioSession()
    resolver = credentials.AioCredentialResolver([Provider()])
    result.register_component("credential_provider", resolver)
    return result


def _request_keys(endpoint: str) -> dict[str, str]:
    """Request keys for an hour, and return them under botocore's names.

    Raises:
      DataError: If the request is refused, or the answer has no keys.
    """
    check_host(endpoint)
    auth = login()
    with http_errors.plain_http_errors(endpoint, "earthdata"), auth.get_session() as web_session:
        configure_session(web_session)
        response = web_session.get(endpoint, timeout=_TIMEOUT_S)
        response.raise_for_status()
    try:
        answer = response.json()
        names = ("accessKeyId", "secretAccessKey", "sessionToken", "expiration")
        values = [answer[name] for name in names]
    except (ValueError, KeyError, TypeError):
        # Earthdata answers with a page to log in if it does not accept the login.
        problem = "the answer has no keys; the login may not be accepted"
        raise DataError(endpoint, problem, remedy=http_errors.LOGIN_HINTS["earthdata"]) from None
    return dict(zip(("access_key", "secret_key", "token", "expiry_time"), values, strict=True))
