"""Open local and remote rasters with GDAL, with retries and credentials, and explain failures.

Read blocks of rasters lazily.
"""

from __future__ import annotations

import contextlib
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import fsspec
import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.raster import mosaic
from pipeline.sources.raster.mosaic import Corner, Tiles, url_fields
from pipeline.sources.shared import access, dates, http_errors
from pipeline.sources.shared.driver import CORRECT_FILE_HINT

if TYPE_CHECKING:
    import datetime
    from collections.abc import Iterator

    import dask.array
    import rasterio
    from numpy.typing import NDArray
    from rasterio.windows import Window

    from pipeline.sources.raster.layers import Layer


TIMEOUT_S = 60  # for a connection, and for a transfer that stalls
GDAL_PREFIXES = {"http": "/vsicurl/", "https": "/vsicurl/", "s3": "/vsis3/", "gs": "/vsigs/"}
LOGGERS = ("rasterio._env", "rasterio._err", "rasterio._io", "rasterio._base")


class MissingRasterError(DataError):
    """A raster that does not exist, which may be normal for a tile or a day."""


@contextlib.contextmanager
def open_raster(
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
        logging.getLogger(name).addFilter(_redact_record)
    try:
        # With a dummy session, rasterio leaves credentials to GDAL, instead of asking boto3.
        env = rasterio.Env(session=DummySession(), **gdal_options(url, given, login))
        with env, contextlib.ExitStack() as stack:
            with warnings.catch_warnings():
                warnings.simplefilter("error", NotGeoreferencedWarning)
                if _can_read_parts(url, given, login):
                    dataset = rasterio.open(_gdal_path(url))
                else:
                    content = access.read_without_ranges(url, given, login)
                    dataset = stack.enter_context(MemoryFile(content)).open()
            with dataset:
                yield dataset
    except NotGeoreferencedWarning:
        problem = "has no georeference, neither a transform nor a CRS"
        place = http_errors.format_url(url)
        raise DataError(place, problem, remedy="get the complete file") from None
    except RasterioError:
        # GDAL's message may contain a signed URL, or nothing; fsspec finds out the reason instead.
        raise _explain_failure(url, given, login, origin) from None


def _can_read_parts(url: str, given: dict[str, Any], login: str | None) -> bool:
    """Return whether GDAL can read parts of a file.

    If that cannot be determined, the result is True, and opening the file gives the error.
    """
    if not url.startswith(("http://", "https://")):
        return True
    try:
        return access.supports_ranges(url, given, login)
    except DataError:
        return True


def gdal_options(url: str, given: dict[str, Any], login: str | None = None) -> dict[str, Any]:
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
    if scheme not in GDAL_PREFIXES:
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
        return options | _s3_options(access.fsspec_options(url, given, login))
    if scheme == "gs" and given.get("token") == "anon":
        return options | {"GS_NO_SIGN_REQUEST": "YES"}
    headers = access.fsspec_options(url, given, login).get("headers", {})
    if headers:
        options["GDAL_HTTP_HEADERS"] = "\r\n".join(f"{k}: {v}" for k, v in headers.items())
    return options


def _redact_record(record: logging.LogRecord) -> bool:
    """Remove signatures and passwords from the URLs in a log record of GDAL; keep the record."""
    message = re.sub(r"\?[^\s'\"]+", "", record.getMessage())
    record.msg, record.args = re.sub(r"://[^/@\s]+@", "://", message), ()
    return True


def _s3_options(given: dict[str, Any]) -> dict[str, Any]:
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


def _gdal_path(url: str) -> str:
    """Return the path of a URL in GDAL's virtual file systems."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    if scheme == "file":
        return rest
    return GDAL_PREFIXES[scheme] + (access.route_url(url) if scheme in ("http", "https") else rest)


def _explain_failure(
    url: str, given: dict[str, Any], login: str | None, origin: str | None
) -> DataError:
    """Return the error that says why GDAL could not open or read a raster."""
    place = http_errors.format_url(url)
    try:
        with http_errors.plain_http_errors(url, login, origin):
            filesystem, path = fsspec.core.url_to_fs(
                url, **access.fsspec_options(url, given, login)
            )
            try:
                filesystem.cat_file(path, start=0, end=1)
            except FileNotFoundError:
                hint = f"get it from {origin}" if origin else "has it moved? correct the urlpath"
                return MissingRasterError(place, "not found", remedy=hint)
    except DataError as error:
        return error
    problem = "cannot be read: truncated, or not a raster format that GDAL reads"
    return DataError(place, problem, remedy="fetch it again")


@dataclass(frozen=True)
class BlockReader:
    """A function that reads one block, which dask calls, with all that it needs.

    Attributes:
      pattern: URL pattern, which may contain a tile and a day.
      layers: The variables to read.
      layout: The output cells and blocks.
      days: Days of the files; empty if the pattern contains no day.
      tiles: Tiles of the mosaic; None for a single raster.
      read_step: Rows and columns of the raster that are read as one value.
      storage_options: Options for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.
      origin: Where users get the files, for errors.
      absent_value: Value where a tile or a day has no file; None if that is an error.
    """

    pattern: str
    layers: tuple[Layer, ...]
    layout: mosaic.Layout
    days: tuple[datetime.datetime, ...]
    tiles: Tiles | None
    read_step: int
    storage_options: dict[str, Any]
    login: str | None
    origin: str | None
    absent_value: float | None

    def __call__(self, block_id: tuple[int, ...]) -> NDArray[np.float32]:
        """Read a block.

        Args:
          block_id: Indices of the block along (time,) variable, row and column. There is one
            block of variables; `Layout.chunks` has the sizes along rows and columns.

        Returns:
          ((time,) variable, row, column) the values.

        Raises:
          DataError: If access to a file is refused, or it cannot be read.
        """
        *time, _, i, j = block_id
        chunks = self.layout.chunks
        shape = (chunks[0][i], chunks[1][j])
        corner = (self.tiles.souths[i], self.tiles.wests[j]) if self.tiles else None
        url = format_url(self.pattern, self.days[time[0]] if time else None, corner, self.tiles)
        try:
            with open_raster(url, self.storage_options, self.login, self.origin) as dataset:
                self._check(dataset, url, corner)
                window = self._window(dataset, i, j, shape)
                arrays = [
                    layer.read(dataset, window, self.read_step, shape) for layer in self.layers
                ]
        except MissingRasterError:
            if self.absent_value is None:
                raise
            arrays = [np.full(shape, self.absent_value, np.float32) for _ in self.layers]
        block = np.stack(arrays)
        return block[None] if time else block

    def arrays(self) -> dict[str, dask.array.Array]:
        """Return {variable: lazy ((time,) row, column) array}."""
        import dask.array

        chunks: tuple[Any, ...] = ((len(self.layers),), *self.layout.chunks)
        if self.days:
            chunks = ((1,) * len(self.days), *chunks)
        meta = np.empty((0,) * len(chunks), "float32")
        map_blocks: Any = dask.array.map_blocks
        stacked = map_blocks(self, chunks=chunks, dtype="float32", meta=meta)
        return {layer.name: stacked[..., n, :, :] for n, layer in enumerate(self.layers)}

    def _check(self, dataset: rasterio.DatasetReader, url: str, corner: Corner | None) -> None:
        """Check that an open raster is as the catalog says, and on the same grid as the first.

        Raises:
          DataError: If it is not; the error lists all differences.
        """
        problems = [problem for layer in self.layers for problem in layer.problems(dataset)]
        if corner and self.tiles:
            problems += mosaic.position_problems(dataset, corner, self.tiles.degrees)
        elif self.layout.ratio:
            ratio, size = self.layout.ratio, (dataset.height, dataset.width)
            axes = (self.layout.rows, self.layout.cols)
            n_cells = [n // r for n, r in zip(size, ratio, strict=True)]
            if n_cells != [n for *_, n in axes] or not np.allclose(
                [dataset.transform.f, dataset.transform.c], [axes[0][0], axes[1][0]]
            ):
                problems.append(
                    f"its {size[0]} x {size[1]} cells are not on the grid of the first raster"
                )
        if problems:
            raise DataError(http_errors.format_url(url), *problems, remedy=CORRECT_FILE_HINT)

    def _window(
        self, dataset: rasterio.DatasetReader, i: int, j: int, shape: tuple[int, int]
    ) -> Window:
        """Return the rows and columns of the raster for block (i, j), which has `shape` cells."""
        from rasterio.windows import Window

        if self.layout.ratio is None:
            return Window(0, 0, dataset.width, dataset.height)
        (ry, rx), (by, bx) = self.layout.ratio, self.layout.block
        return Window(j * bx * rx, i * by * ry, shape[1] * rx, shape[0] * ry)


# Wider fields would fill the memory.
_TILE_FIELD = re.compile(r"\{(ns|lat|ew|lon|south|west|north|east)(:0?[+-]?\d{1,2}d?)?\}")


def format_url(
    pattern: str, day: datetime.datetime | None, corner: Corner | None, tiles: Tiles | None
) -> str:
    """Return the URL of a tile and a day.

    Args:
      pattern: URL pattern, which may contain a tile and a day.
      day: The day; None if the pattern contains none.
      corner: South-west corner of the tile; None if there are no tiles.
      tiles: Tiles of the mosaic; None for a single raster.

    Raises:
      DataError: If the pattern has other fields than those of a tile.
    """
    url = pattern
    if corner is not None and tiles is not None:
        if "{" in _TILE_FIELD.sub("", pattern):
            problem = "has fields in braces other than ns, lat, ew, lon, south, west, north, east"
            hint = "such as {lat:02d}, with at most two digits"
            raise DataError(http_errors.format_url(pattern), problem, remedy=hint)
        url = url.format(**url_fields(corner, tiles.degrees))
    return dates.fill_pattern(url, day) if day else url
