"""The reader's login at Earthdata, and which servers may be sent its token.

Sessions of requests, for the libraries that ask with them.

Earthdata Login: credentials that are asked of nobody, shown to nobody else, and refresh.

They come from EARTHDATA_TOKEN, from EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or from ~/.netrc.

Keys of an hour for the buckets of Earthdata, renewed before they end.

S3fs is given a session of aiobotocore that asks for keys where it has none, and anew when they
are about to end: whoever reads for days needs not care.

Files that tell by their names what time they hold, and which production they are of.

The Common Metadata Repository: the exact names of granules, which cannot be made up.

The version of the production (CRID) and the suffix _001 to _005 vary from day to day, the folders
from collection to collection, and the buckets cannot be listed.
"""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import DataError
from pipeline.sources.shared import http_errors

# A token is sent to these alone, and to a server on this machine: a catalog is anybody's text.
HOSTS = (".earthdata.nasa.gov", ".earthdatacloud.nasa.gov", ".eosdis.nasa.gov")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PLACE = "Earthdata Login"


def check_host(url: str) -> None:
    """Refuse to send a token to anybody but Earthdata.

    Raises:
      DataError: the URL is of another host, or not encrypted.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in LOOPBACK or (parts.scheme == "https" and f".{host}".endswith(HOSTS)):
        return
    found = f"{parts.scheme}://{host} is no place of Earthdata; your token is not sent there"
    remedy = "correct the entry, or leave `login: earthdata` out of it"
    raise DataError(http_errors.shown(url), found, remedy=remedy)


def login() -> Any:
    """The reader's `earthaccess.Auth`, logged in.

    Raises:
      DataError: there are no credentials, or they are refused.
    """
    names = ("EARTHDATA_TOKEN", "EARTHDATA_USERNAME", "EARTHDATA_PASSWORD", "NETRC", "HOME")
    return _login(*(os.environ.get(name) or None for name in names))


@functools.lru_cache(maxsize=1)
def _login(*told: str | None) -> Any:
    from earthaccess import Auth
    from earthaccess.exceptions import LoginAttemptFailure, LoginStrategyUnavailable

    remedy = http_errors.REMEDIES["earthdata"]
    for strategy in ("environment", "netrc"):
        auth = Auth()
        try:
            with http_errors.answering("https://urs.earthdata.nasa.gov", "earthdata"):
                auth.login(strategy=strategy)
        except LoginStrategyUnavailable:
            continue
        except LoginAttemptFailure:  # its text is the server's answer
            raise DataError(_PLACE, "refuses this name and password", remedy=remedy) from None
        if auth.authenticated and auth.token:
            return auth
    raise DataError(_PLACE, "no credentials, and this entry needs them", remedy=remedy)


def patient(session: Any) -> None:
    """Let a session of requests ask again while a server is busy.

    And let it tell no name and password of ~/.netrc to whom it asks, but to Earthdata Login.
    """
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    waits = Retry(
        total=http_errors.ATTEMPTS - 1,
        backoff_factor=http_errors.FIRST_WAIT_S,
        backoff_max=http_errors.LONGEST_WAIT_S,
        status_forcelist=http_errors.BUSY,
        raise_on_status=False,
    )
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=waits))
    session.auth = _as_it_is


def _as_it_is(request: Any) -> Any:
    return request


REGION = "us-west-2"  # the buckets answer from within this region only

ENDPOINTS = {
    "nsidc-cumulus-prod-protected": "https://data.nsidc.earthdatacloud.nasa.gov/s3credentials",
    "gesdisc-cumulus-prod-protected": "https://data.gesdisc.earthdata.nasa.gov/s3credentials",
    "ornl-cumulus-prod-protected": "https://data.ornldaac.earthdata.nasa.gov/s3credentials",
    "lp-prod-protected": "https://data.lpdaac.earthdatacloud.nasa.gov/s3credentials",
    "prod-giovanni-cache": "https://api.giovanni.earthdata.nasa.gov/s3credentials",
}


def headers(url: str) -> dict[str, str]:
    """Headers of HTTPS requests for a file of Earthdata: the token of its reader.

    Raises:
      DataError: the URL is of no host of Earthdata; there are no credentials, or no valid ones.
    """
    check_host(url)
    return {"Authorization": f"Bearer {str(login().token['access_token']).strip()}"}


def s3_options(url: str) -> dict[str, Any]:
    """Options of s3fs for a bucket of Earthdata, with keys that are renewed before they end.

    Raises:
      DataError: the bucket is none of Earthdata's.
    """
    bucket = url.partition("://")[2].partition("/")[0]
    if bucket not in ENDPOINTS:
        found = (
            f"bucket {bucket} gives no keys to an Earthdata Login; known: {', '.join(ENDPOINTS)}"
        )
        remedy = "leave `login: earthdata` out of the entry where the bucket is your own"
        raise DataError(http_errors.shown(url), found, remedy=remedy)
    return {
        "session": session(ENDPOINTS[bucket]),
        "client_kwargs": {"region_name": REGION},
    }


_TIMEOUT_S = 60


@functools.lru_cache
def session(endpoint: str) -> Any:
    """A session of aiobotocore whose keys come from an endpoint of Earthdata, anew in time."""
    from aiobotocore import credentials  # type: ignore[import-untyped]
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]
    from botocore.credentials import CredentialProvider  # type: ignore[import-untyped]

    async def renewed() -> dict[str, str]:
        return await asyncio.to_thread(_keys, endpoint)

    class Provider(CredentialProvider):  # type: ignore[misc]
        METHOD = CANONICAL_NAME = "earthdata"

        async def load(self) -> Any:
            return credentials.AioDeferredRefreshableCredentials(renewed, self.METHOD)

    made = AioSession()
    made.register_component("credential_provider", credentials.AioCredentialResolver([Provider()]))
    return made


def _keys(endpoint: str) -> dict[str, str]:
    """Keys of an hour, in botocore's words.

    Raises:
      DataError: they are refused, or the answer is something else.
    """
    check_host(endpoint)
    auth = login()
    with http_errors.answering(endpoint, "earthdata"), auth.get_session() as asking:
        patient(asking)
        answer = asking.get(endpoint, timeout=_TIMEOUT_S)
        answer.raise_for_status()
    try:
        told = answer.json()
        names = ("accessKeyId", "secretAccessKey", "sessionToken", "expiration")
        values = [told[name] for name in names]
    except (ValueError, KeyError, TypeError):
        found = "answers something else than keys, as it does where the login is not accepted"
        raise DataError(endpoint, found, remedy=http_errors.REMEDIES["earthdata"]) from None
    return dict(zip(("access_key", "secret_key", "token", "expiry_time"), values, strict=True))
