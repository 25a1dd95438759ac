"""Sessions of requests, for the libraries that ask with them."""

from __future__ import annotations

from typing import Any

from pipeline.sources import http_errors


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
