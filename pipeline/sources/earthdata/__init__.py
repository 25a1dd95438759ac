"""Earthdata Login: credentials that are asked of nobody, shown to nobody else, and refresh.

They come from EARTHDATA_TOKEN, from EARTHDATA_USERNAME and EARTHDATA_PASSWORD, or from ~/.netrc.
"""

from __future__ import annotations

import functools
import os
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import DataError
from pipeline.sources import remote
from pipeline.sources.earthdata import keys

# A token is sent to these alone, and to a server on this machine: a catalog is anybody's text.
HOSTS = (".earthdata.nasa.gov", ".earthdatacloud.nasa.gov", ".eosdis.nasa.gov")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
REGION = "us-west-2"  # the buckets answer from within this region only
ENDPOINTS = {
    "nsidc-cumulus-prod-protected": "https://data.nsidc.earthdatacloud.nasa.gov/s3credentials",
    "gesdisc-cumulus-prod-protected": "https://data.gesdisc.earthdata.nasa.gov/s3credentials",
    "ornl-cumulus-prod-protected": "https://data.ornldaac.earthdata.nasa.gov/s3credentials",
    "lp-prod-protected": "https://data.lpdaac.earthdatacloud.nasa.gov/s3credentials",
    "prod-giovanni-cache": "https://api.giovanni.earthdata.nasa.gov/s3credentials",
}
_PLACE = "Earthdata Login"


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
        raise DataError(remote.shown(url), found, remedy=remedy)
    return {
        "session": keys.session(ENDPOINTS[bucket]),
        "client_kwargs": {"region_name": REGION},
    }


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
    raise DataError(remote.shown(url), found, remedy=remedy)


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

    remedy = remote.REMEDIES["earthdata"]
    for strategy in ("environment", "netrc"):
        auth = Auth()
        try:
            with remote.answering("https://urs.earthdata.nasa.gov", "earthdata"):
                auth.login(strategy=strategy)
        except LoginStrategyUnavailable:
            continue
        except LoginAttemptFailure:  # its text is the server's answer
            raise DataError(_PLACE, "refuses this name and password", remedy=remedy) from None
        if auth.authenticated and auth.token:
            return auth
    raise DataError(_PLACE, "no credentials, and this entry needs them", remedy=remedy)
