"""Keys of an hour for the buckets of Earthdata, renewed before they end.

S3fs is given a session of aiobotocore that asks for keys where it has none, and anew when they
are about to end: whoever reads for days needs not care.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from pipeline.errors import DataError
from pipeline.sources import http_errors
from pipeline.sources.earthdata import sessions
from pipeline.sources.earthdata.credentials import check_host, login

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
        sessions.patient(asking)
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
