"""The reader's login at Earthdata, and which servers may be sent its token."""

from __future__ import annotations

import functools
import os
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import DataError
from pipeline.sources import http_errors

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
