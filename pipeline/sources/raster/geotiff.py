"""Rasters opened by GDAL where they lie, with retries and keys; their refusals in plain words."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    import rasterio

TIMEOUT_S = 60
PREFIXES = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/"}
LOGGERS = ("rasterio._env", "rasterio._err", "rasterio._io", "rasterio._base")


class Absent(DataError):
    """There is no such raster: of a tile or a day this may be as it should."""


@contextlib.contextmanager
def opened(
    url: str, given: dict[str, Any], login: str | None = None, origin: str | None = None
) -> Iterator[rasterio.DatasetReader]:
    """A raster, open until the block ends, its parts read as they are asked for.

    Args:
      url: the file, a path, or a URL of HTTP, S3 or GCS.
      given: the entry's own `storage_options`, as fsspec takes them.
      login: `earthdata`, where the provider wants to know who reads.
      origin: where to get the file, for the error.

    Raises:
      Absent: there is none.
      DataError: it is refused, cannot be read, or has no place on Earth; also of what is read
        from it in the block.
    """
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile
    from rasterio.session import DummySession

    for name in LOGGERS:
        logging.getLogger(name).addFilter(_without_queries)
    try:
        # GDAL looks for keys by itself: no session of another client.
        env = rasterio.Env(session=DummySession(), **settings(url, given, login))
        with env, contextlib.ExitStack() as stack:
            with warnings.catch_warnings():
                warnings.simplefilter("error", NotGeoreferencedWarning)
                if _in_parts(url, given, login):
                    dataset = rasterio.open(_path(url))
                else:
                    held = stack.enter_context(MemoryFile(remote.whole(url, given, login)))
                    dataset = held.open()
            with dataset:
                yield dataset
    except NotGeoreferencedWarning:
        found = "has no place on Earth: neither a transform nor a CRS"
        raise DataError(remote.shown(url), found, remedy="get the whole file") from None
    except RasterioError:
        # Its message may hold the URL with a signature, or nothing: fsspec is asked in its place.
        raise _reason(url, given, login, origin) from None


def _in_parts(url: str, given: dict[str, Any], login: str | None) -> bool:
    """Whether GDAL can read parts of a file; where that cannot be told it fails, and says why."""
    if not url.startswith(("http://", "https://")):
        return True
    try:
        return remote.sends_parts(url, given, login)
    except DataError:
        return True


def settings(url: str, given: dict[str, Any], login: str | None = None) -> dict[str, Any]:
    """Options of GDAL for a URL, from those of fsspec; what they leave open, the environment says.

    Raises:
      DataError: there are no credentials for this login.
    """
    scheme = urlsplit(url).scheme
    if scheme not in PREFIXES:
        return {}
    # A VRT may have overviews beside it; looking for those of a COG costs requests.
    made: dict[str, Any] = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if url.endswith(".vrt") else "EMPTY_DIR",
        "GDAL_HTTP_MAX_RETRY": remote.ATTEMPTS - 1,
        "GDAL_HTTP_RETRY_DELAY": remote.FIRST_WAIT_S,
        "GDAL_HTTP_CONNECTTIMEOUT": TIMEOUT_S,
        "GDAL_HTTP_LOW_SPEED_TIME": TIMEOUT_S,
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
        # What was once not there, or another file, is asked for again.
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/",
    }
    if scheme == "s3":
        return made | _s3(remote.options(url, given, login))
    if scheme == "gs" and given.get("token") == "anon":
        return made | {"GS_NO_SIGN_REQUEST": "YES"}
    headers = remote.options(url, given, login).get("headers", {})
    if headers:
        made["GDAL_HTTP_HEADERS"] = "\r\n".join(f"{k}: {v}" for k, v in headers.items())
    return made


def _without_queries(record: logging.LogRecord) -> bool:
    """Take what may be a signature or a password out of the URLs that GDAL tells of."""
    told = re.sub(r"\?[^\s'\"]+", "", record.getMessage())
    record.msg, record.args = re.sub(r"://[^/@\s]+@", "://", told), ()
    return True


def _s3(given: dict[str, Any]) -> dict[str, Any]:
    client = given.get("client_kwargs") or {}
    endpoint = files.s3_endpoint(given)
    made: dict[str, Any] = {"AWS_NO_SIGN_REQUEST": "YES"} if given.get("anon") else {}
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
    names |= {"token": "AWS_SESSION_TOKEN"}
    made |= {ours: given[theirs] for theirs, ours in names.items() if given.get(theirs)}
    if client.get("region_name"):
        made["AWS_REGION"] = client["region_name"]
    if endpoint:
        parts = urlsplit(endpoint)
        made |= {"AWS_S3_ENDPOINT": parts.netloc, "AWS_VIRTUAL_HOSTING": "FALSE"}
        made["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
    return made


def _path(url: str) -> str:
    """A URL as GDAL's file systems spell it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    if scheme == "file":
        return rest
    return PREFIXES[scheme] + (remote.routed(url) if scheme in ("http", "https") else rest)


def _reason(url: str, given: dict[str, Any], login: str | None, origin: str | None) -> DataError:
    """Why GDAL could not open or read a raster: the error that says so."""
    place = remote.shown(url)
    try:
        with remote.answering(url, login, origin):
            filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
            try:
                filesystem.cat_file(path, start=0, end=1)
            except FileNotFoundError:
                remedy = f"get it from {origin}" if origin else "has it moved? correct the urlpath"
                return Absent(place, "not found", remedy=remedy)
    except DataError as error:
        return error
    found = "cannot be read: truncated, or no raster that GDAL knows"
    return DataError(place, found, remedy="fetch it again")
