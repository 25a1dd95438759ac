"""Grids in Zarr stores, format 2 or 3, and in Icechunk repositories; out as `gridded` has it."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import warnings
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import dated, remote
from pipeline.sources.grids import repository
from pipeline.sources.grids.gridsource import TIMES, GridSource, with_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    import xarray as xr

    from pipeline.sources.grids.parts import Part

DOCUMENTS = (".zmetadata", "zarr.json")
OF_ARRAYS = ("zarr.json", ".zarray", ".zattrs")
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
    strict = True

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

    def parts(self) -> list[Part]:
        """The stores that are wanted, opened afresh; the workers keep those that they open.

        Raises:
          DataError: they are absent, damaged, or not as the catalog says.
        """
        _in_store.cache_clear()
        repository.opened.cache_clear()
        return super().parts()

    def matching(self) -> list[str]:
        """The store's URL: whether it is there, its opening tells."""
        return [self.urlpath]

    def opened_part(self, url: str) -> xr.Dataset:
        """One store, its time called `time`, nothing read but coordinates.

        Raises:
          DataError: it is absent or refused, or a coordinate cannot be decoded.
        """
        with _opening(url, self.login):
            if self.icechunk is not None:
                chosen = tuple(self.icechunk.items())
                raw = with_time(
                    repository.opened(url, self.group, chosen, _key(self.storage_options))
                )
            else:
                options = remote.options(url, self.storage_options, self.login)
                raw = _in_store(url, self.group, _Options(options))
        return _within_validity(raw)

    def digest(self) -> str:
        """Identifies the content: the snapshot of a repository, the metadata of Zarr stores.

        Of a store it tells shapes, chunks, attributes and the period, and not every value: values
        that a provider puts right in place go unseen.

        Raises:
          DataError: a store is absent or refused.
        """
        if self.icechunk is not None:
            with _opening(self.urlpath, self.login):
                chosen = tuple(self.icechunk.items())
                return repository.session_of(self.urlpath, chosen, _key(self.storage_options))[1]
        urls = [self.urlpath]
        if dated.span(self.urlpath) is not None:
            urls = [url for url, _, optional in self._dated() if not optional]
        return files.sha256_of([self._documents(url) for url in urls])

    def _documents(self, url: str) -> list[str]:
        """Digests of the metadata documents of a store: all in one, else those of each array."""
        place = files.join(url, self.group) if self.group else url
        names = [name for term in self.terms.values() for name, _ in term.inputs]
        paths = [f"{name}/{doc}" for name in (*names, *COORDINATES) for doc in OF_ARRAYS]
        with remote.answering(url, self.login):
            filesystem, root = fsspec.core.url_to_fs(
                place, **remote.options(place, self.storage_options, self.login)
            )
            found = []
            for path in (*DOCUMENTS, *paths):
                with contextlib.suppress(FileNotFoundError):
                    data = filesystem.cat_file(f"{root}/{path}")
                    found.append(files.sha256(data))
                    if path == ".zmetadata" or b'"consolidated_metadata": {' in data:
                        break
        if not found:
            raise self.absent(remote.shown(url), "not found")
        return found


class _Options(dict[str, Any]):
    """Options of fsspec, as a key of a cache: equal where their values are."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(_key(self))


def _key(options: dict[str, Any]) -> str:
    return json.dumps(options, sort_keys=True, default=str)


@contextlib.contextmanager
def _opening(url: str, login: str | None) -> Iterator[None]:
    """Say which store fails to open, and why."""
    with remote.answering(url, login):
        try:
            yield
        except FileNotFoundError:
            raise
        except FAULTS as error:
            found = f"cannot be opened: {' '.join(str(error).split())[:300]}"
            raise DataError(remote.shown(url), found, remedy="tell its provider") from error


@functools.lru_cache(maxsize=64)
def _in_store(url: str, group: str | None, options: _Options) -> xr.Dataset:
    """A Zarr store with its coordinates read, once in a process."""
    import xarray as xr

    with warnings.catch_warnings():
        # Stores without consolidated metadata, of both formats, are read without complaint.
        warnings.filterwarnings("ignore", ".*onsolidated metadata.*")
        how: dict[str, Any] = {
            "group": group,
            "chunks": None,
            "storage_options": dict(options) or None,
        }
        try:
            return with_time(xr.open_zarr(url, **how))
        except FileNotFoundError:
            raise
        except FAULTS as error:
            xr.open_zarr(url, **how, drop_variables=TIMES)  # fails too where it is not the time
            found = f"its time cannot be decoded: {' '.join(str(error).split())[:300]}"
            raise DataError(remote.shown(url), found, remedy="tell its provider") from error


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
