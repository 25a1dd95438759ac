"""Read and write Zarr stores: create arrays, write whole shards, open groups.

No other module uses the zarr library to write.
"""

from __future__ import annotations

import contextlib
import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DamagedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.files import Json
    from pipeline.storage.schema import ArraySpec


ZSTD_LEVEL = 0  # 0 is the default of Zstandard, which is 3


def create_group(
    url: str, arrays: Sequence[ArraySpec], attrs: dict[str, Json], like: str | None = None
) -> None:
    """Create the arrays of a Zarr store, and write the values of its coordinates.

    Attributes of existing groups are updated; existing arrays and their shards are kept. The values
    of existing coordinates are written if they differ, because a run that was killed may have
    created the array and not written them, or cannot be decoded.
    Chunks are compressed and have a CRC-32C, so that readers notice if one is damaged.

    Args:
      url: URL of the store.
      arrays: All arrays.
      attrs: Attributes by group; "" is the root.
      like: URL of a store to which shards of the new one will be copied. Arrays that exist there
        get the same codecs, chunks and shards here, because earlier stores may have others.

    Raises:
      DamagedError: If metadata that a run that was killed has left cannot be decoded.
    """
    import zarr

    with _decodable(url, "", f"remove {url} and run again"):
        root = zarr.open_group(
            _open_store(url), mode="a", attributes=attrs.get("", {}), use_consolidated=False
        )
        for group in sorted({a.path.split("/")[0] for a in arrays if "/" in a.path}):
            root.require_group(group).attrs.update(attrs.get(group, {}))
        existing: dict[str, Any] = {a.path: root[a.path] for a in arrays if a.path in root}
    others = None if like is None else zarr.open_group(_open_store(like, False), mode="r")
    for array in arrays:
        if array.path not in existing:
            _create_array(root, array, None if others is None else others.get(array.path))
            continue
        stored = existing[array.path]
        if array.values is None or stored.shape != array.shape:
            continue
        try:
            with intact_chunks(url):
                written = np.array_equal(stored[...], array.values)
        except DamagedError:
            written = False
        if not written:  # a run was killed before it wrote them, or they are damaged
            stored[...] = array.values


def extend_group(url: str, arrays: Sequence[ArraySpec], attrs: dict[str, Json]) -> None:
    """Resize arrays of a Zarr store to the shapes of a longer template.

    Coordinates get the values of the template, arrays that do not exist are created, and shards
    are kept. A second call has no effect.

    Args:
      url: URL of the store.
      arrays: The arrays to change.
      attrs: The attributes to change, by group; "" is the root.
    """
    import zarr

    root = zarr.open_group(_open_store(url), mode="a", use_consolidated=False)
    for array in arrays:
        if array.path not in root:
            _create_array(root, array)
            continue
        stored: Any = root[array.path]
        if stored.shape != array.shape:
            stored.resize(array.shape)
        stored.attrs.update(array.attrs)
        if array.values is not None:
            stored[...] = array.values
    for group, changes in attrs.items():
        (root.require_group(group) if group else root).attrs.update(changes)


def _create_array(root: Any, array: ArraySpec, like: Any = None) -> None:
    """Create an array, encoded like another one if there is one, and write its values if any."""
    from zarr.codecs import Crc32cCodec, ZstdCodec

    chunks, shards = array.chunks, None if array.values is not None else array.shards
    compressors = (ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec())
    if like is not None:
        compressors = like.compressors
    if like is not None and array.values is None:
        chunks, shards = like.chunks, like.shards
    created = root.create_array(
        array.path,
        shape=array.shape,
        dtype=array.dtype,
        chunks=chunks,
        shards=shards,
        compressors=compressors,
        fill_value=array.fill,
        dimension_names=array.dims,
        attributes=array.attrs,
    )
    if array.values is not None:
        created[...] = array.values


def write_shards(url: str, path: str, region: Sequence[slice], values: NDArray[Any]) -> list[Json]:
    """Write whole shards of one array.

    Args:
      url: URL of the store.
      path: Path of the array in the store.
      region: One slice per dimension; each must begin and end at the edge of a shard or at the end
        of the array.
      values: Values in the shape of the region.

    Returns:
      For each shard its key, size and SHA-256 digest, those of the bytes that were sent to the
      store. The size is 0 if all values are fill, because such shards are not stored.

    Raises:
      StoreError: If a slice cuts a shard, in which concurrent writers would lose data, or if the
        store cannot be written.
    """
    import zarr

    from pipeline.storage.shard_store import WholeShardStore

    store = WholeShardStore(_open_store(url))
    array = zarr.open_array(store, path=path, mode="r+", zarr_format=3)
    shards = array.shards or array.chunks
    aligned = zip(region, shards, array.shape, strict=True)
    for part, shard, size in aligned:
        if part.start % shard or (part.stop % shard and part.stop != size):
            edges = [(p.start, p.stop) for p in region]
            problem = f"region {edges} cuts shards of {shards}"
            raise StoreError(f"{url}/{path}", problem, remedy="write whole shards only")
    try:
        array[tuple(region)] = values
    except StoreError as error:  # of one shard
        raise StoreError(f"{url}/{path}", *error.problems, remedy=error.remedy) from error
    counts = [
        range(part.start // shard, -(-part.stop // shard))
        for part, shard in zip(region, shards, strict=True)
    ]
    keys = np.stack(np.meshgrid(*counts, indexing="ij"), -1).reshape(-1, len(counts))
    return [store.record(f"{path}/c/{'/'.join(map(str, key))}") for key in keys.tolist()]


def read_packed(url: str, path: str, region: Sequence[slice]) -> NDArray[Any]:
    """Read a region of one array as stored, without applying scale factor or fill value."""
    import zarr

    array = zarr.open_array(_open_store(url, False), path=path, mode="r")
    with intact_chunks(f"{url}/{path}"):
        values: NDArray[Any] = np.array(array[tuple(region)])
    return values


@contextlib.contextmanager
def intact_chunks(where: str) -> Iterator[None]:
    """Raise DamagedError if a chunk that is read in the block cannot be decoded.

    Args:
      where: The array, for the message.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:  # from the checksum, or from Zstandard
        problem = f"a chunk is damaged ({error})"
        hint = "soilweave verify names the object, and with --repair makes it again"
        raise DamagedError(where, problem, remedy=hint) from error


def consolidate(url: str) -> None:
    """Consolidate the metadata in the root, so that a reader needs only one request."""
    import zarr

    with warnings.catch_warnings():
        # The Zarr v3 specification does not include consolidated metadata yet, but readers use it.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        # begun.json is in the folder of an incomplete cube, but is no part of a Zarr store.
        warnings.filterwarnings("ignore", ".*not recognized as a component of a Zarr hierarchy")
        zarr.consolidate_metadata(_open_store(url))


def open_group(url: str, group: str) -> xr.Dataset:
    """Open one group of a Zarr store lazily, without dask.

    Args:
      url: URL of the store.
      group: The group; "" is the root.

    Raises:
      DamagedError: If the metadata exist but cannot be decoded.
    """
    import xarray as xr

    with _decodable(url, group):
        dataset: xr.Dataset = xr.open_zarr(
            _open_store(url, False), group=group or None, chunks=None, consolidated=False
        )
    return dataset


def open_recorded(
    url: str,
    group: str,
    keys: Iterable[str] | None = None,
    packed: bool = False,
    chunks: Json | None = None,
) -> xr.Dataset:
    """Open one group of a Zarr store lazily.

    Args:
      url: URL of the store.
      group: The group; "" is the root.
      keys: The keys of all its objects, if they are known. Then nothing is listed, and reading an
        object that has been removed or lost is an error.
      packed: Leave values and attributes as they are stored.
      chunks: The chunks of dask, as in `xarray.open_zarr`; None does without dask.

    Raises:
      StoreError: If there is no such group.
      DamagedError: If the metadata exist but cannot be decoded.
    """
    import xarray as xr
    from zarr.storage import LocalStore

    from pipeline.storage.shard_store import RecordedStore

    store = _open_store(url)
    if keys is not None:
        inner = LocalStore(url, read_only=True) if isinstance(store, str) else store
        store = RecordedStore(inner, url, frozenset(keys))
    try:
        with _decodable(url, group):
            # The metadata are consolidated in the root alone.
            options: Json = {"group": group or None, "consolidated": not group}
            options |= {"decode_cf": not packed, "chunks": chunks}
            dataset: xr.Dataset = xr.open_zarr(store, **options)
    except FileNotFoundError as error:
        hint = "give the URL of a publication, of a release, or of an experiment that has maps"
        raise StoreError(files.join(url, group), "there are no maps here", remedy=hint) from error
    return dataset


def read_attributes(url: str, group: str = "") -> Json:
    """Read the attributes of a group of a Zarr store; empty if the group does not exist.

    Raises:
      DamagedError: If the metadata exist but cannot be decoded.
    """
    import zarr

    try:
        with _decodable(url, group):
            return dict(zarr.open_group(_open_store(url, False), path=group, mode="r").attrs)
    except FileNotFoundError:
        return {}


@contextlib.contextmanager
def _decodable(url: str, group: str, remedy: str = files.DAMAGED_HINT) -> Iterator[None]:
    """Raise DamagedError for metadata that cannot be decoded in the block."""
    from zarr.errors import BaseZarrError

    where = files.join(url, group) if group else url
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problem = f"is damaged: a zarr.json in it is not valid JSON ({error})"
        raise DamagedError(where, problem, remedy=remedy) from error
    except FileNotFoundError:
        raise
    except (BaseZarrError, TypeError, KeyError, AttributeError) as error:  # JSON of another form
        problem = f"is damaged: a zarr.json in it is not that of a Zarr store ({error})"
        raise DamagedError(where, problem, remedy=remedy) from error


def _open_store(url: str, writable: bool = True) -> Any:
    """Return the Zarr store at a path or URL, without a cache of its listings.

    To open a local one that is writable creates its folder.
    """
    from pipeline.storage.shard_store import LocalZarr, RemoteZarr

    if "://" not in url:
        return LocalZarr(url, read_only=not writable)
    options = files.with_endpoint(url, files.NO_LISTING_CACHE)
    with files.accessing(url, "opened"):
        return RemoteZarr.from_url(url, storage_options=options, read_only=not writable)
