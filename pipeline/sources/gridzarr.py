"""Grids in Zarr stores, format 2 or 3, and in Icechunk repositories; out as `gridded` has it.

Icechunk repositories: opened at a branch, a tag or a snapshot.
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

    from pipeline.sources.grids.parts import Part


DOCUMENTS = (".zmetadata", "zarr.json")
OF_ARRAYS = ("zarr.json", ".zarray", ".zattrs")
MOST_CHUNKS = 10_000  # of a store, which are listed to tell whether they have changed
STEPS, SIDE = 12, 32  # times, rows and columns of a sample in which fill values are counted
FAULTS = (ValueError, KeyError, TypeError, RuntimeError, OverflowError)  # of what is in a store
COORDINATES = ("time", "valid_time", "day", "lat", "lon", "latitude", "longitude", "y", "x")


class GridZarrSource(GridSource):
    """Intake driver for grids in Zarr stores or an Icechunk repository.

    Args:
      urlpath: the store; with `%Y`, `%m`, ... in it, the stores of a period, all of which are
        opened where each holds a year.
      mapping: as `pipeline.sources.grids.derive` has it, or a list of such.
      group: in the store, None for its root.
      icechunk: {branch: NAME}, {tag: NAME} or {snapshot: ID} of a repository; None for plain Zarr.
      day, gaps, period, login, storage_options, metadata: as `GridSource` has them.
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
        """Keep the arguments; nothing is opened yet."""
        super().__init__(urlpath, mapping, **others)
        self.group, self.icechunk = group, icechunk
        if icechunk is not None and len(icechunk.keys() & {"branch", "tag", "snapshot"}) != 1:
            raise ValueError(f"icechunk: {icechunk}; expected one of branch, tag, snapshot")

    def list_parts(self) -> list[Part]:
        """The stores that are wanted, opened afresh; the workers keep those that they open.

        Raises:
          DataError: they are absent, damaged, or not as the catalog says.
        """
        _in_store.cache_clear()
        opened.cache_clear()
        return super().list_parts()

    def find_urls(self) -> list[str]:
        """The store's URL: whether it is there, its opening tells."""
        return [self.urlpath]

    def open_part(self, url: str) -> xr.Dataset:
        """One store, its time called `time`, nothing read but coordinates.

        Raises:
          DataError: it is absent or refused, or a coordinate cannot be decoded.
        """
        with _opening(url, self.login):
            return _within_validity(self._decoded(url, self._stored(url)))

    def undeclared(self) -> dict[str, tuple[float, float]]:
        """{name in the store: (fill value of its array, share of a sample that equals it)}.

        Of variables of the mapping for which neither the store nor the entry says that this value
        is missing, so that it is read as data.

        Raises:
          DataError: the store is absent, refused or damaged.
        """
        part = next(part for part in super().list_parts() if part.checked)
        with _opening(part.url, self.login):
            stored, shares = self._stored(part.url), {}
            grid, _ = self.read_grid(self._decoded(part.url, stored))
            assert grid is not None  # `parts` has checked it
            window = grid.clip(self.region)
            sample = dict(zip(window.dims, map(_middle, window.slices, window.shape), strict=True))
            sample["time"] = _some(len(part.times))
            for name in variables.inputs_of(self.terms):
                fill = stored[name].encoding.get(zarr_stores.UNDECLARED)
                if fill is not None and not np.isnan(fill) and name not in self.fills:
                    axes = (d if d in sample else "time" for d in map(str, stored[name].dims))
                    where = tuple(sample[axis] for axis in axes)
                    values = stored[name][where].values
                    shares[name] = (float(fill), float((values == fill).mean()))
        return shares

    def _stored(self, url: str) -> xr.Dataset:
        """One store, not decoded."""
        if self.icechunk is not None:
            key = _key(files.with_endpoint(url, self.storage_options))
            return opened(url, self.group, tuple(self.icechunk.items()), key)
        options = access.options(url, self.storage_options, self.login)
        return _in_store(url, self.group, _Options(options), tuple(variables.inputs_of(self.terms)))

    def _decoded(self, url: str, stored: xr.Dataset) -> xr.Dataset:
        """A store's variables decoded, its time called `time`, its coordinates read."""
        try:
            return self.rename_coordinates(missing_values.decoded(stored, self.fills))
        except FAULTS as error:
            missing_values.decoded(
                stored, self.fills, drop=coordinates.TIMES
            )  # fails too where it is not the time
            told = " ".join(str(error).split()).partition(" Try opening")[0]
            found = f"its time cannot be decoded: {told[:300]}"
            raise DataError(http_errors.shown(url), found, remedy="tell its provider") from error

    def digest(self) -> str:
        """Identifies the content: the snapshot of a repository; of Zarr stores their metadata.

        Also the tags of the chunks of the mapping's variables, where the store can be listed and
        they are at most MOST_CHUNKS. Of larger stores, and over HTTP, the metadata tell shapes,
        attributes and the period: values that a provider puts right in place go unseen.

        Raises:
          DataError: a store is absent or refused.
        """
        if self.icechunk is not None:
            with _opening(self.urlpath, self.login):
                key = _key(files.with_endpoint(self.urlpath, self.storage_options))
                chosen = tuple(self.icechunk.items())
                return session_of(self.urlpath, chosen, key)[1]
        urls = [self.urlpath]
        if dates.span(self.urlpath) is not None:
            urls = [url for url, _, optional in self._dated_files() if not optional]
        told = [self._documents(url) for url in urls]
        chunks = [found for url in urls if (found := self._chunks(url))]
        return files.sha256_of([told, chunks] if chunks else told)

    def _chunks(self, url: str) -> list[list[str | None]]:
        """Name and tag of each chunk of the mapping's variables; none where they are too many."""
        place = files.join(url, self.group) if self.group else url
        with _opening(url, self.login):
            stored = self._stored(url)
        names = [name for name in variables.inputs_of(self.terms) if name in stored]
        if place.startswith(("http://", "https://")) or _objects(stored[names]) > MOST_CHUNKS:
            return []
        with http_errors.answering(url, self.login):
            options = access.options(place, self.storage_options, self.login) | files.FRESH
            filesystem, root = fsspec.core.url_to_fs(place, **options)
            try:
                found = [path for n in sorted(names) for path in filesystem.find(f"{root}/{n}")]
            except PermissionError:
                return []
        urls = [
            str(filesystem.unstrip_protocol(path)) if "://" in place else path for path in found
        ]
        told = fingerprints.of_files(
            urls, self.storage_options, self.login, "md5"
        )  # as S3 has them
        return [[path.removeprefix(root), tag] for path, tag in zip(found, told, strict=True)]

    def _documents(self, url: str) -> list[str]:
        """Digests of the metadata documents of a store: all in one, else those of each array."""
        place = files.join(url, self.group) if self.group else url
        names = [name for term in self.terms.values() for name, _ in term.inputs]
        paths = [f"{name}/{doc}" for name in (*names, *COORDINATES) for doc in OF_ARRAYS]
        with http_errors.answering(url, self.login):
            filesystem, root = fsspec.core.url_to_fs(
                place, **access.options(place, self.storage_options, self.login)
            )
            found, refused = [], None
            for path in (*DOCUMENTS, *paths):
                try:
                    data = filesystem.cat_file(f"{root}/{path}")
                except FileNotFoundError:
                    continue
                except Exception as error:
                    if not zarr_stores.is_forbidden(error):
                        raise
                    refused = refused or error
                    continue
                found.append(files.sha256(data))
                if path == ".zmetadata" or b'"consolidated_metadata": {' in data:
                    break
            if refused is not None and not found:
                raise refused
        if not found:
            raise self.absence_error(http_errors.shown(url), "not found")
        return found


def _some(steps: int) -> Any:
    """At most STEPS of several steps, not evenly spaced: nights would be all or none of them."""
    chosen = np.random.default_rng(0).choice(steps, min(steps, STEPS), replace=False)
    return np.sort(chosen)


def _middle(taken: slice, size: int) -> slice:
    """At most SIDE rows or columns in the middle of those that are taken."""
    begin = (taken.start or 0) + max(0, size - SIDE) // 2
    return slice(begin, begin + min(size, SIDE))


def _objects(stored: xr.Dataset) -> int:
    """How many objects hold the chunks of the variables of a store, if all are there."""
    count = 0
    for held in stored.variables.values():
        each = held.encoding.get("shards") or held.encoding.get("chunks") or held.shape
        count += math.prod(-(-size // n) for size, n in zip(held.shape, each, strict=True))
    return count


class _Options(dict[str, Any]):
    """Options of fsspec, as a key of a cache: equal where their values are."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(_key(self))


def _key(options: dict[str, Any]) -> str:
    return json.dumps(options, sort_keys=True, default=str)


@contextlib.contextmanager
def _opening(url: str, login: str | None) -> Iterator[None]:
    """Say which store fails to open, and why."""
    with http_errors.answering(url, login):
        try:
            yield
        except FileNotFoundError:
            raise
        except FAULTS as error:
            found = f"cannot be opened: {' '.join(str(error).split())[:300]}"
            raise DataError(http_errors.shown(url), found, remedy="tell its provider") from error


@functools.lru_cache(maxsize=64)
def _in_store(url: str, group: str | None, options: _Options, names: tuple[str, ...]) -> xr.Dataset:
    """A Zarr store, not decoded, opened once in a process.

    One that cannot be listed, or may not, is opened by the names of variables and coordinates.
    """
    known = [*names, *COORDINATES, *(f"{name}_bnds" for name in COORDINATES)]
    made = None
    with warnings.catch_warnings():
        # Stores without consolidated metadata, of both formats, are read without complaint.
        warnings.filterwarnings("ignore", ".*onsolidated metadata.*")
        try:
            made = zarr_stores.open_group(url, group, dict(options) or None, consolidated=None)
        except Exception as error:
            if "://" not in url or not zarr_stores.is_forbidden(error):
                raise
        if made is not None and ("://" not in url or all(name in made for name in names)):
            return made
        return zarr_stores.open_unlisted(url, group, dict(options), known)


def _within_validity(raw: xr.Dataset) -> xr.Dataset:
    """Without steps that a store has room for and no data yet, where it says so (ARCO-ERA5)."""
    stop = raw.attrs.get("valid_time_stop")
    if stop is None or "time" not in raw or raw["time"].dtype.kind != "M":
        return raw
    first = np.datetime64(raw.attrs.get("valid_time_start", "0001-01-01"))
    last = np.datetime64(datetime.date.fromisoformat(str(stop)[:10])) + np.timedelta64(1, "D")
    times = raw["time"].values
    begin, end = np.searchsorted(times, first), np.searchsorted(times, last)
    return raw.isel(time=slice(int(begin), int(end)))


Chosen = tuple[tuple[str, str], ...]


@functools.lru_cache(maxsize=8)
def opened(url: str, group: str | None, chosen: Chosen, options: str) -> xr.Dataset:
    """A group of an Icechunk repository, opened once in a process, not decoded, nothing read yet.

    Args:
      url: the repository: s3, gs, or a folder.
      group: in it, None for its root.
      chosen: (("branch", name),), or tag or snapshot.
      options: of fsspec, as JSON.

    Raises:
      FileNotFoundError: there is none.
      PermissionError: it is refused.
      ConnectionError: its store does not answer.
    """
    session, _ = session_of(url, chosen, options)
    return zarr_stores.open_group(session.store, group, None, consolidated=False)


def session_of(url: str, chosen: Chosen, options: str) -> tuple[Any, str]:
    """A session of a repository, and the id of the snapshot that it reads.

    Raises:
      FileNotFoundError: there is none.
      PermissionError: it is refused.
      ConnectionError: its store does not answer.
    """
    import icechunk

    given: dict[str, Any] = {
        ("snapshot_id" if key == "snapshot" else key): name for key, name in chosen
    }
    try:
        repository = icechunk.Repository.open(_storage(url, json.loads(options)))
        session = repository.readonly_session(**given)
    except icechunk.IcechunkError as error:
        told = " ".join(str(error).split())
        if "doesn't exist" in told or "not found" in told:
            raise FileNotFoundError(url) from error
        refused = any(
            word in told for word in ("AccessDenied", "403", "Forbidden", "InvalidAccess")
        )
        raise (PermissionError if refused else ConnectionError)(url) from error
    return session, str(session.snapshot_id)


def _storage(url: str, options: dict[str, Any]) -> Any:
    """Where Icechunk finds a repository: s3, gs, or a folder; options as s3fs has them."""
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
        raise DataError(
            http_errors.shown(url), f"Icechunk on {scheme}://, expected s3, gs or a folder"
        )
    client = options.get("client_kwargs", {})
    endpoint = files.s3_endpoint(options)
    anonymous = bool(options.get("anon"))
    region = client.get("region_name") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    if anonymous and access.ROUTE is not None:  # a signature would be of another host
        asked = endpoint or f"https://s3.{region}.amazonaws.com"
        endpoint = access.routed(f"{asked.rstrip('/')}/")  # keys follow without a slash
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
