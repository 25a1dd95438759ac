"""Open local and remote rasters with GDAL, with retries and credentials, and explain failures."""

from __future__ import annotations

import contextlib
import logging
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import http_errors, remote

if TYPE_CHECKING:
    from collections.abc import Iterator

    import rasterio

TIMEOUT_S = 60  # for a connection, and for a transfer that stalls
PREFIXES = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/"}
LOGGERS = ("rasterio._env", "rasterio._err", "rasterio._io", "rasterio._base")


class Absent(DataError):
    """A raster that does not exist, which may be normal for a tile or a day."""


@contextlib.contextmanager
def opened(
    url: str, given: dict[str, Any], login: str | None = None, origin: str | None = None
) -> Iterator[rasterio.DatasetReader]:
    """Open a raster until the end of the block.

    Parts of the file are read on demand, except from an HTTP server that sends only whole files.

    Args:
      url: Path or HTTP, S3 or GCS URL of the file.
      given: Storage options of the entry, for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.
      origin: Where users get the file, for the error.

    Yields:
      The open raster.

    Raises:
      Absent: If the file does not exist.
      DataError: If access is refused, the file cannot be read, or it has no georeference. Errors
        of reading inside the block are converted too.
    """
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile
    from rasterio.session import DummySession

    for name in LOGGERS:
        logging.getLogger(name).addFilter(_without_queries)
    try:
        # With a dummy session, rasterio leaves credentials to GDAL, instead of asking boto3.
        env = rasterio.Env(session=DummySession(), **settings(url, given, login))
        with env, contextlib.ExitStack() as stack:
            with warnings.catch_warnings():
                warnings.simplefilter("error", NotGeoreferencedWarning)
                if _in_parts(url, given, login):
                    dataset = rasterio.open(_path(url))
                else:
                    file = stack.enter_context(MemoryFile(remote.whole(url, given, login)))
                    dataset = file.open()
            with dataset:
                yield dataset
    except NotGeoreferencedWarning:
        problem = "has no georeference, neither a transform nor a CRS"
        raise DataError(http_errors.shown(url), problem, remedy="get the complete file") from None
    except RasterioError:
        # GDAL's message may contain a signed URL, or nothing; fsspec finds out the reason instead.
        raise _reason(url, given, login, origin) from None


def _in_parts(url: str, given: dict[str, Any], login: str | None) -> bool:
    """Return whether GDAL can read parts of a file.

    If that cannot be determined, the result is True, and opening the file gives the error.
    """
    if not url.startswith(("http://", "https://")):
        return True
    try:
        return remote.sends_parts(url, given, login)
    except DataError:
        return True


def settings(url: str, given: dict[str, Any], login: str | None = None) -> dict[str, Any]:
    """Return GDAL's options for a URL.

    GDAL takes options that are not set here from the environment.

    Args:
      url: The file.
      given: Storage options of the entry, for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If there are no credentials for the login.
    """
    scheme = urlsplit(url).scheme
    if scheme not in PREFIXES:
        return {}
    # A VRT may have overviews in a file beside it. For COGs the search only costs requests.
    options: dict[str, Any] = {
        "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE" if url.endswith(".vrt") else "EMPTY_DIR",
        "GDAL_HTTP_MAX_RETRY": http_errors.ATTEMPTS - 1,
        "GDAL_HTTP_RETRY_DELAY": http_errors.FIRST_WAIT_S,
        "GDAL_HTTP_CONNECTTIMEOUT": TIMEOUT_S,
        "GDAL_HTTP_LOW_SPEED_TIME": TIMEOUT_S,
        "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
        # Files that were missing or have changed are requested again.
        "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/:/vsigs/",
    }
    if scheme == "s3":
        return options | _s3(remote.options(url, given, login))
    if scheme == "gs" and given.get("token") == "anon":
        return options | {"GS_NO_SIGN_REQUEST": "YES"}
    headers = remote.options(url, given, login).get("headers", {})
    if headers:
        options["GDAL_HTTP_HEADERS"] = "\r\n".join(f"{k}: {v}" for k, v in headers.items())
    return options


def _without_queries(record: logging.LogRecord) -> bool:
    """Remove signatures and passwords from the URLs in a log record of GDAL; keep the record."""
    message = re.sub(r"\?[^\s'\"]+", "", record.getMessage())
    record.msg, record.args = re.sub(r"://[^/@\s]+@", "://", message), ()
    return True


def _s3(given: dict[str, Any]) -> dict[str, Any]:
    """Return GDAL's options for S3 that correspond to storage options of fsspec."""
    client = given.get("client_kwargs") or {}
    endpoint = files.s3_endpoint(given)
    options: dict[str, Any] = {"AWS_NO_SIGN_REQUEST": "YES"} if given.get("anon") else {}
    names = {"key": "AWS_ACCESS_KEY_ID", "secret": "AWS_SECRET_ACCESS_KEY"}
    names |= {"token": "AWS_SESSION_TOKEN"}
    options |= {option: given[key] for key, option in names.items() if given.get(key)}
    if client.get("region_name"):
        options["AWS_REGION"] = client["region_name"]
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"AWS_S3_ENDPOINT": parts.netloc, "AWS_VIRTUAL_HOSTING": "FALSE"}
        options["AWS_HTTPS"] = "YES" if parts.scheme == "https" else "NO"
    return options


def _path(url: str) -> str:
    """Return the path of a URL in GDAL's virtual file systems."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    if scheme == "file":
        return rest
    return PREFIXES[scheme] + (remote.routed(url) if scheme in ("http", "https") else rest)


def _reason(url: str, given: dict[str, Any], login: str | None, origin: str | None) -> DataError:
    """Return the error that says why GDAL could not open or read a raster."""
    place = http_errors.shown(url)
    try:
        with http_errors.answering(url, login, origin):
            filesystem, path = fsspec.core.url_to_fs(url, **remote.options(url, given, login))
            try:
                filesystem.cat_file(path, start=0, end=1)
            except FileNotFoundError:
                hint = f"get it from {origin}" if origin else "has it moved? correct the urlpath"
                return Absent(place, "not found", remedy=hint)
    except DataError as error:
        return error
    problem = "cannot be read: truncated, or not a raster format that GDAL reads"
    return DataError(place, problem, remedy="fetch it again")
