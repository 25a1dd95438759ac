"""Intake driver for grids in Zarr stores of format 2 or 3 and in Icechunk repositories.

Its datasets have the form that the module `gridded` describes.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import math
import os
import warnings
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.grids import variables, zarr_stores
from pipeline.sources.grids.driver import GridSource
from pipeline.sources.shared import (
    access,
    coordinates,
    dates,
    fingerprints,
    http_errors,
    missing_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from pipeline.sources.grids.parts import FilePart


STORE_METADATA = (".zmetadata", "zarr.json")  # metadata of a store
ARRAY_METADATA = ("zarr.json", ".zarray", ".zattrs")  # metadata of an array
MAX_TAGGED_CHUNKS = 10_000  # largest number of a store's chunks whose tags are part of the digest
SAMPLE_STEPS, SAMPLE_SIDE = (
    12,
    32,
)  # steps, and rows or columns, of the sample in which fill values are counted

# Errors that damaged content of a store raises.
DAMAGE_ERRORS = (ValueError, KeyError, TypeError, RuntimeError, OverflowError)
COORDINATES = ("time", "valid_time", "day", "lat", "lon", "latitude", "longitude", "y", "x")
IcechunkVersion = tuple[
    tuple[str, str], ...
]  # version of an Icechunk repository, such as (("tag", name),)


class GridZarrSource(GridSource):
    """Read grids from Zarr stores or an Icechunk repository.

    Args:
      urlpath: A store; with `%Y`, `%m` etc., the stores of a period. Stores of one year each are
        all opened at once.
      mapping: As in `GridSource`.
      group: Path of the group in the store; None for the root.
      icechunk: {branch: NAME}, {tag: NAME} or {snapshot: ID} of an Icechunk repository; None for a
        Zarr store.
      others: The arguments `day`, `gaps`, `period`, `login`, `storage_options` and `metadata` of
        `GridSource`.

    Raises:
      ValueError: If arguments are invalid.
    """

    name = "soilweave_gridzarr"
    limits_to_period = True

    def __init__(
        self,
        urlpath: str,
        mapping: dict[str, dict[str, Any]] | list[dict[str, dict[str, Any]]],
        group: str | None = None,
        icechunk: dict[str, str] | None = None,
        **others: Any,
    ) -> None:
        """Check and keep the arguments; open nothing yet."""
        super().__init__(urlpath, mapping, **others)
        self.group, self.icechunk = group, icechunk
        if icechunk is not None and len(icechunk.keys() & {"branch", "tag", "snapshot"}) != 1:
            raise ValueError(f"icechunk: {icechunk}; expected one of branch, tag, snapshot")

    def list_parts(self) -> list[FilePart]:
        """Open the stores of the requested period anew, and return them with their steps.

        Stores are cached in each process. This method empties the cache of its own process, so that
        a change of a store is seen.

        Raises:
          DataError: If stores are missing, damaged, or not as the catalog says.
        """
        _open_zarr.cache_clear()
        open_icechunk.cache_clear()
        return super().list_parts()

    def find_urls(self) -> list[str]:
        """Return the store's URL. Whether the store exists is known when it is opened."""
        return [self.urlpath]

    def open_part(self, url: str) -> xr.Dataset:
        """Open one store, rename its coordinates, and read them.

        Raises:
          DataError: If the store does not exist or is refused, or a coordinate cannot be decoded.
        """
        with _opening_store(url, self.login):
            return _drop_steps_without_data(self._decode(url, self._open(url)))

    def undeclared_fills(self) -> dict[str, tuple[float, float]]:
        """Find fill values that are read as data because nothing declares them as missing.

        Returns:
          {name in the store: (fill value of its array, share of a sample that equals it)}, for
          variables whose fill value neither the store nor the catalog entry declares as missing.

        Raises:
          DataError: If the store does not exist, is refused or is damaged.
        """
        part = next(part for part in super().list_parts() if part.checked)
        with _opening_store(part.url, self.login):
            stored, shares = self._open(part.url), {}
            grid, _ = self.read_grid(self._decode(part.url, stored))
            assert grid is not None  # `list_parts` has checked it
            window = grid.clip(self.region)
            sample = dict(
                zip(window.dims, map(_sample_middle, window.slices, window.shape), strict=True)
            )
            sample["time"] = _sample_steps(len(part.times))
            for name in variables.provider_units(self.terms):
                fill = stored[name].encoding.get(zarr_stores.UNDECLARED)
                if fill is not None and not np.isnan(fill) and name not in self.fills:
                    axes = (d if d in sample else "time" for d in map(str, stored[name].dims))
                    where = tuple(sample[axis] for axis in axes)
                    values = stored[name][where].values
                    shares[name] = (float(fill), float((values == fill).mean()))
        return shares

    def _open(self, url: str) -> xr.Dataset:
        """Open one store without decoding it."""
        if self.icechunk is not None:
            key = _options_as_json(files.with_endpoint(url, self.storage_options))
            return open_icechunk(url, self.group, tuple(self.icechunk.items()), key)
        options = access.fsspec_options(url, self.storage_options, self.login)
        return _open_zarr(
            url, self.group, _HashableOptions(options), tuple(variables.provider_units(self.terms))
        )

    def _decode(self, url: str, stored: xr.Dataset) -> xr.Dataset:
        """Decode a store, rename its coordinates, and read them."""
        try:
            return self.rename_coordinates(missing_values.decode(stored, self.fills))
        except DAMAGE_ERRORS as error:
            # If the time is not the cause, decoding the other variables raises the error again.
            missing_values.decode(stored, self.fills, drop=coordinates.TIME_COORDINATES)
            reason = " ".join(str(error).split()).partition(" Try opening")[0]
            problem = f"its time cannot be decoded: {reason[:300]}"
            hint = "report it to the provider"
            raise DataError(http_errors.format_url(url), problem, remedy=hint) from error

    def digest(self) -> str:
        """Return a digest of the content without reading it.

        For an Icechunk repository, it is that of the snapshot. For Zarr stores, it is that of the
        metadata and, if the store can be listed and has at most 10,000 chunks of the mapping's
        variables, of the chunks' tags. For larger stores, and over HTTP, a provider's correction of
        values in place is not noticed.

        Raises:
          DataError: If a store does not exist or is refused.
        """
        if self.icechunk is not None:
            with _opening_store(self.urlpath, self.login):
                key = _options_as_json(files.with_endpoint(self.urlpath, self.storage_options))
                version = tuple(self.icechunk.items())
                return icechunk_session(self.urlpath, version, key)[1]
        urls = [self.urlpath]
        if dates.pattern_unit(self.urlpath) is not None:
            urls = [url for url, _, optional in self._dated_files() if not optional]
        documents = [self._document_digests(url) for url in urls]
        chunks = [tags for url in urls if (tags := self._chunk_tags(url))]
        return files.sha256_of_json([documents, chunks] if chunks else documents)

    def _chunk_tags(self, url: str) -> list[list[str | None]]:
        """Return the name and tag of each chunk of the mapping's variables.

        The result is empty if the chunks are too many or cannot be listed.
        """
        place = files.join(url, self.group) if self.group else url
        with _opening_store(url, self.login):
            stored = self._open(url)
        names = [name for name in variables.provider_units(self.terms) if name in stored]
        if (
            place.startswith(("http://", "https://"))
            or _count_objects(stored[names]) > MAX_TAGGED_CHUNKS
        ):
            return []
        with http_errors.plain_http_errors(url, self.login):
            options = (
                access.fsspec_options(place, self.storage_options, self.login)
                | files.NO_LISTING_CACHE
            )
            filesystem, root = fsspec.core.url_to_fs(place, **options)
            try:
                paths = [path for n in sorted(names) for path in filesystem.find(f"{root}/{n}")]
            except PermissionError:
                return []
        urls = [
            str(filesystem.unstrip_protocol(path)) if "://" in place else path for path in paths
        ]
        # The digest of local files is MD5, as the tags of S3, so that a copy has the same tags.
        tags = fingerprints.tag_files(urls, self.storage_options, self.login, "md5")
        return [[path.removeprefix(root), tag] for path, tag in zip(paths, tags, strict=True)]

    def _document_digests(self, url: str) -> list[str]:
        """Return digests of a store's metadata: of one document for all, or of each array's.

        Raises:
          DataError: If the store does not exist or is refused.
        """
        place = files.join(url, self.group) if self.group else url
        names = [name for term in self.terms.values() for name, _ in term.inputs]
        paths = [f"{name}/{doc}" for name in (*names, *COORDINATES) for doc in ARRAY_METADATA]
        with http_errors.plain_http_errors(url, self.login):
            filesystem, root = fsspec.core.url_to_fs(
                place, **access.fsspec_options(place, self.storage_options, self.login)
            )
            digests, refused = [], None
            for path in (*STORE_METADATA, *paths):
                try:
                    data = filesystem.cat_file(f"{root}/{path}")
                except FileNotFoundError:
                    continue
                except Exception as error:
                    if not zarr_stores.is_forbidden(error):
                        raise
                    refused = refused or error
                    continue
                digests.append(files.sha256(data))
                if path == ".zmetadata" or b'"consolidated_metadata": {' in data:
                    break
            if refused is not None and not digests:
                raise refused
        if not digests:
            _refuse_other_files(url)
            raise self.absence_error(http_errors.format_url(url), "not found")
        return digests


def _sample_steps(steps: int) -> Any:
    """Return the indices of a sample of steps.

    The sample is random, because in evenly spaced steps, either all or none could be at night.
    """
    sample = np.random.default_rng(0).choice(steps, min(steps, SAMPLE_STEPS), replace=False)
    return np.sort(sample)


def _sample_middle(rows: slice, size: int) -> slice:
    """Return a sample from the middle of rows or columns.

    Args:
      rows: Slice of the rows or columns.
      size: Their number.
    """
    begin = (rows.start or 0) + max(0, size - SAMPLE_SIDE) // 2
    return slice(begin, begin + min(size, SAMPLE_SIDE))


def _count_objects(stored: xr.Dataset) -> int:
    """Return the number of objects of a store's variables if all chunks exist."""
    count = 0
    for variable in stored.variables.values():
        encoding = variable.encoding
        lengths = encoding.get("shards") or encoding.get("chunks") or variable.shape
        count += math.prod(-(-size // n) for size, n in zip(variable.shape, lengths, strict=True))
    return count


class _HashableOptions(dict[str, Any]):
    """Storage options that can be a key of a cache."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(_options_as_json(self))


def _options_as_json(options: dict[str, Any]) -> str:
    """Return storage options as JSON."""
    return json.dumps(options, sort_keys=True, default=str)


def _refuse_other_files(url: str) -> None:
    """Raise an error if a local path exists, but is not a store."""
    if os.path.exists(url):
        what = "a folder that is no Zarr store" if os.path.isdir(url) else "a file"
        problem = f"is {what}; expected the folder of a Zarr store"
        raise DataError(url, problem, remedy="correct the entry's urlpath")


@contextlib.contextmanager
def _opening_store(url: str, login: str | None) -> Iterator[None]:
    """Turn errors on opening a store into a `DataError` that names the store."""
    with http_errors.plain_http_errors(url, login):
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            if os.path.isfile(url):
                _refuse_other_files(url)
            raise
        except DAMAGE_ERRORS as error:
            problem = f"cannot be opened: {' '.join(str(error).split())[:300]}"
            hint = "report it to the provider"
            raise DataError(http_errors.format_url(url), problem, remedy=hint) from error


@functools.lru_cache(maxsize=64)
def _open_zarr(
    url: str, group: str | None, options: _HashableOptions, names: tuple[str, ...]
) -> xr.Dataset:
    """Open a Zarr store without decoding it; a process opens each store once.

    A store that cannot be listed is opened by the names of its variables and coordinates.

    Args:
      url: The store.
      group: Path of the group in the store; None for the root.
      options: Storage options for fsspec.
      names: Names of the variables.
    """
    known = [*names, *COORDINATES, *(f"{name}_bnds" for name in COORDINATES)]
    raw = None
    with warnings.catch_warnings():
        # zarr and xarray warn of stores without consolidated metadata, which are common.
        warnings.filterwarnings("ignore", ".*onsolidated metadata.*")
        try:
            raw = zarr_stores.open_group(url, group, dict(options) or None, consolidated=None)
        except Exception as error:
            if "://" not in url or not zarr_stores.is_forbidden(error):
                raise
        if raw is not None and ("://" not in url or all(name in raw for name in names)):
            return raw
        return zarr_stores.open_unlisted(url, group, dict(options), known)


def _drop_steps_without_data(raw: xr.Dataset) -> xr.Dataset:
    """Drop steps without data yet, if the store's attributes state which have data (ARCO-ERA5)."""
    stop = raw.attrs.get("valid_time_stop")
    if stop is None or "time" not in raw or raw["time"].dtype.kind != "M":
        return raw
    first = np.datetime64(raw.attrs.get("valid_time_start", "0001-01-01"))
    last = np.datetime64(datetime.date.fromisoformat(str(stop)[:10])) + np.timedelta64(1, "D")
    times = raw["time"].values
    begin, end = np.searchsorted(times, first), np.searchsorted(times, last)
    return raw.isel(time=slice(int(begin), int(end)))


@functools.lru_cache(maxsize=8)
def open_icechunk(
    url: str, group: str | None, version: IcechunkVersion, options: str
) -> xr.Dataset:
    """Open a group of an Icechunk repository without decoding it; a process opens each one once.

    Args:
      url: The repository, on s3 or gs or in a folder.
      group: Path of the group in the repository; None for the root.
      version: (("branch", name),), or the same with tag or snapshot.
      options: Storage options for fsspec, as JSON.

    Raises:
      FileNotFoundError: If there is no such repository or version.
      PermissionError: If access is refused.
      ConnectionError: If the store does not answer.
    """
    session, _ = icechunk_session(url, version, options)
    return zarr_stores.open_group(session.store, group, None, consolidated=False)


def icechunk_session(url: str, version: IcechunkVersion, options: str) -> tuple[Any, str]:
    """Return a session of an Icechunk repository, and the id of the snapshot that it reads.

    Args:
      url: The repository, on s3 or gs or in a folder.
      version: (("branch", name),), or the same with tag or snapshot.
      options: Storage options for fsspec, as JSON.

    Raises:
      FileNotFoundError: If there is no such repository or version.
      PermissionError: If access is refused.
      ConnectionError: If the store does not answer.
    """
    import icechunk

    kwargs: dict[str, Any] = {
        ("snapshot_id" if key == "snapshot" else key): name for key, name in version
    }
    try:
        repository = icechunk.Repository.open(_icechunk_storage(url, json.loads(options)))
        session = repository.readonly_session(**kwargs)
    except icechunk.IcechunkError as error:
        # All errors of Icechunk have this type, so that only the text tells them apart.
        text = " ".join(str(error).split())
        if "doesn't exist" in text or "not found" in text:
            raise FileNotFoundError(url) from error
        if any(word in text for word in ("AccessDenied", "403", "Forbidden", "InvalidAccess")):
            raise PermissionError(url) from error
        if any(word in text.lower() for word in ("dispatch", "timeout", "timed out", "connect")):
            raise ConnectionError(url) from error
        place, problem = http_errors.format_url(url), f"cannot be opened by Icechunk: {text[:300]}"
        raise DataError(place, problem, remedy="report it to the provider") from error
    return session, str(session.snapshot_id)


def _icechunk_storage(url: str, options: dict[str, Any]) -> Any:
    """Return Icechunk's storage of a repository.

    Args:
      url: The repository, on s3 or gs or in a folder.
      options: Storage options of s3fs.

    Raises:
      FileNotFoundError: If there is no such folder.
      DataError: If the URL has another scheme.
    """
    import icechunk

    scheme, separator, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    if not separator or scheme == "file":
        if not os.path.isdir(rest if separator else url):
            raise FileNotFoundError(url)
        return icechunk.local_filesystem_storage(rest if separator else url)
    if scheme == "gs":
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix)
    if scheme != "s3":
        problem = f"Icechunk repository on {scheme}://, expected s3://, gs:// or a folder"
        raise DataError(http_errors.format_url(url), problem, remedy="correct the entry's urlpath")
    client = options.get("client_kwargs", {})
    endpoint = files.s3_endpoint(options)
    anonymous = bool(options.get("anon"))
    region = client.get("region_name") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    # Signed requests cannot be redirected, because their signature depends on the host.
    if anonymous and access.ROUTE is not None:
        original = endpoint or f"https://s3.{region}.amazonaws.com"
        endpoint = access.route_url(f"{original.rstrip('/')}/")  # Icechunk appends keys directly
    return icechunk.s3_storage(
        bucket=bucket,
        prefix=prefix,
        region=region,
        endpoint_url=endpoint,
        allow_http=bool(endpoint and endpoint.startswith("http://")),
        force_path_style=endpoint is not None,
        anonymous=anonymous,
        from_env=not anonymous,
    )
