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
import re
import warnings
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import fsspec
import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.shared import access, http_errors

if TYPE_CHECKING:
    from collections.abc import Iterator


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


PRODUCTION = re.compile(r"_([A-Z])[A-Za-z0-9]*_\d{3}\.\w+$")


STAMP = re.compile(r"_(\d{8})(?:T(\d{6}))?_")


class Granule(NamedTuple):
    """One file of a collection.

    Attributes:
      name: the provider's file name.
      url: where it is.
      size: its bytes, None where that is not known.
      made: when it was produced; of two for the same time the greater is the later one.
    """

    name: str
    url: str
    size: int | None
    made: tuple[str, ...]

    @property
    def rank(self) -> tuple[bool, tuple[str, ...]]:
        """Of two for the same time the one with the greater rank is used.

        Test productions, whose identifier begins with T, come before all others, which begin with
        R (reprocessed or forward) or V (validated).
        """
        told = PRODUCTION.search(self.name)
        return not (told and told[1] == "T"), self.made


def listed(urlpath: str | list[str], given: dict[str, Any], login: str | None) -> list[Granule]:
    """The files of a URL, of one with `*` in it, or of a list of URLs.

    Args:
      urlpath: the URLs.
      given: the entry's own `storage_options`.
      login: `earthdata`, where the provider wants to know who reads.

    Raises:
      DataError: a URL of HTTP has `*` in it; the place cannot be listed.
    """
    found = []
    for url in [urlpath] if isinstance(urlpath, str) else map(str, urlpath):
        if "*" not in url:
            name = url.partition("?")[0].rsplit("/", 1)[-1]
            found.append(Granule(name, url, None, (name,)))
        elif url.startswith("http"):
            remedy = "give the URLs of the files, or `collection` to find them through CMR"
            raise DataError(http_errors.shown(url), "HTTP cannot be listed", remedy=remedy)
        else:
            found += _matching(url, given, login)
    return found


def _matching(url: str, given: dict[str, Any], login: str | None) -> list[Granule]:
    with http_errors.answering(url, login):
        options = access.options(url, given, login) | files.FRESH
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        found = filesystem.glob(path.replace("[", "[[]"), detail=True)
    made = []
    for place, info in found.items():
        name = place.rsplit("/", 1)[-1]
        full = str(filesystem.unstrip_protocol(place)) if "://" in url else str(place)
        made.append(Granule(name, full, info["size"], (name,)))
    return made


def stamp(granule: Granule) -> np.datetime64:
    """The time that a file's name tells, in seconds.

    Raises:
      DataError: it tells none.
    """
    told = STAMP.search(granule.name)
    try:
        if told is None:
            raise ValueError
        day, clock = told[1], told[2] or "000000"
        text = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        return np.datetime64(text, "s")
    except ValueError:
        found = "its name tells no date, as SMAP_L3_SM_P_20150401_R19240_001.h5 does"
        remedy = "keep the provider's names"
        raise DataError(http_errors.shown(granule.url), found, remedy=remedy) from None


CMR = "https://cmr.earthdata.nasa.gov"


BEGIN = date(2015, 3, 31)  # SMAP's first day, of which is asked where no period is given


MOST = 1_000_000  # granules of a year


LINKS = {False: "GET DATA", True: "GET DATA VIA DIRECT ACCESS"}


def search(
    collection: dict[str, str],
    period: tuple[date, date] | None,
    region: tuple[float, float, float, float] | None = None,
    *,
    cmr: str = CMR,
    direct: bool = False,
) -> list[Granule]:
    """Every granule of a collection that has to do with a period; no credentials are sent.

    Args:
      collection: its `short_name` and `version`, as "009".
      period: first and last day, None for all since SMAP began.
      region: west, south, east, north in degrees.
      cmr: the repository.
      direct: S3 URLs, which are open within the region of the bucket only, instead of HTTPS.

    Raises:
      DataError: the repository does not answer, or a granule of its has no such URL.
    """
    from earthaccess.search import DataGranules

    first, last = period or (BEGIN, date.today())
    found = []
    for begin, end in _years(first, last):  # an answer of a year at a time is kept small
        query = DataGranules()
        query.mode(f"{cmr.rstrip('/')}/search/")
        patient(query.session)
        query.short_name(collection["short_name"]).version(collection["version"])
        query.temporal(begin, end)
        if region is not None:
            query.bounding_box(*region)
        with http_errors.answering(cmr), query.session, warnings.catch_warnings():
            # Of earthaccess 0.17, for every granule that it makes, about itself.
            warnings.filterwarnings("ignore", "As of version 1.0", FutureWarning)
            found += [_granule(item, direct=direct) for item in query.get(MOST)]
    return list({(granule.name, granule.made): granule for granule in found}.values())


def _years(first: date, last: date) -> Iterator[tuple[date, date]]:
    for year in range(first.year, last.year + 1):
        yield max(first, date(year, 1, 1)), min(last, date(year, 12, 31))


def _granule(item: Any, *, direct: bool) -> Granule:
    """What counts of an item of CMR's answer in UMM-JSON."""
    meta, umm = item["meta"], item["umm"]
    links = [
        link["URL"] for link in umm.get("RelatedUrls", []) if link.get("Type") == LINKS[direct]
    ]
    url = next((link for link in links if link.endswith((".h5", ".nc", ".nc4", ".hdf"))), None)
    if url is None:
        found = f"has no link of type {LINKS[direct]}"
        remedy = "leave `direct` out of the entry" if direct else "tell the provider"
        raise DataError(f"granule {umm.get('GranuleUR')} in CMR", found, remedy=remedy)
    name = url.rsplit("/", 1)[-1]
    told = umm.get("DataGranule", {})
    archived = told.get("ArchiveAndDistributionInformation", [])
    size = next((part.get("SizeInBytes") for part in archived if part.get("Name") == name), None)
    produced = told.get("ProductionDateTime", "")
    return Granule(name, url, size, (produced, meta.get("revision-date", ""), name))
