"""Arrays in Zarr stores on any URL: template, whole-shard writes, reading. The only zarr user."""

from __future__ import annotations

import contextlib
import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DamagedError, StoreError
from pipeline.storage.artefacts import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.files import Json
    from pipeline.storage.schema import Array


def create_group(url: str, arrays: Sequence[Array], attrs: dict[str, Json]) -> None:
    """Write the template of a Zarr store: every array with its metadata, coordinates with values.

    Args:
      url: where; an existing template is replaced, shards stay as they are.
      arrays: all arrays.
      attrs: attributes by group; "" is the root.
    """
    import zarr

    root = zarr.open_group(_store(url), mode="a", attributes=attrs.get("", {}))
    for group in sorted({a.path.split("/")[0] for a in arrays if "/" in a.path}):
        root.require_group(group).attrs.update(attrs.get(group, {}))
    for array in arrays:
        if array.path not in root:
            _create(root, array)


def extend_group(url: str, arrays: Sequence[Array], attrs: dict[str, Json]) -> None:
    """Bring arrays of a Zarr store to the shape of a template that reaches further.

    Coordinates get the template's values, what is lacking is made, shards stay as they are. Doing
    it twice changes nothing.

    Args:
      url: where.
      arrays: those that change.
      attrs: what changes of the attributes, by group; "" is the root.
    """
    import zarr

    root = zarr.open_group(_store(url), mode="a", use_consolidated=False)
    for array in arrays:
        if array.path not in root:
            _create(root, array)
            continue
        held: Any = root[array.path]
        if held.shape != array.shape:
            held.resize(array.shape)
        held.attrs.update(array.attrs)
        if array.values is not None:
            held[...] = array.values
    for group, told in attrs.items():
        (root.require_group(group) if group else root).attrs.update(told)


def _create(root: Any, array: Array) -> None:
    """Make an array, with its values where it has any."""
    made = root.create_array(
        array.path,
        shape=array.shape,
        dtype=array.dtype,
        chunks=array.chunks,
        shards=None if array.values is not None else array.shards,
        fill_value=array.fill,
        dimension_names=array.dims,
        attributes=array.attrs,
    )
    if array.values is not None:
        made[...] = array.values


def write_shards(url: str, path: str, region: Sequence[slice], values: NDArray[Any]) -> list[Json]:
    """Write whole shards of one array and read them back.

    Args:
      url: the Zarr store.
      path: the array.
      region: one slice per dim; every edge on a shard's edge or at the end of the array.
      values: of the region's shape.

    Returns:
      For each shard {"key", "size", "sha256"}; size 0 where all is fill and nothing is stored.

    Raises:
      StoreError: a slice cuts a shard, which two writers would then lose data in.
    """
    import zarr

    array = zarr.open_array(_store(url), path=path, mode="r+")
    shards = array.shards or array.chunks
    aligned = zip(region, shards, array.shape, strict=True)
    for part, shard, size in aligned:
        if part.start % shard or (part.stop % shard and part.stop != size):
            found = [(p.start, p.stop) for p in region]
            remedy = "write whole shards only"
            raise StoreError(f"{url}/{path}", f"{found} cuts shards of {shards}", remedy=remedy)
    try:
        array[tuple(region)] = values
    except files.failures() as error:
        raise StoreError(f"{url}/{path}", f"cannot be written: {error}") from error
    counts = [
        range(part.start // shard, -(-part.stop // shard))
        for part, shard in zip(region, shards, strict=True)
    ]
    keys = np.stack(np.meshgrid(*counts, indexing="ij"), -1).reshape(-1, len(counts))
    return [record(url, f"{path}/c/{'/'.join(map(str, key))}") for key in keys.tolist()]


def packed(url: str, path: str, region: Sequence[slice]) -> NDArray[Any]:
    """Values of a part of one array as they are stored."""
    import zarr

    array = zarr.open_array(_store(url), path=path, mode="r")
    values: NDArray[Any] = np.array(array[tuple(region)])
    return values


def consolidate(url: str) -> None:
    """Put all metadata into the root, so that a reader needs one request."""
    import zarr

    with warnings.catch_warnings():
        # Consolidated metadata is no part of the Zarr v3 text yet; readers we serve want it.
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        # begun.json lies beside the arrays until the manifest takes its place.
        warnings.filterwarnings("ignore", ".*not recognized as a component of a Zarr hierarchy")
        zarr.consolidate_metadata(_store(url))


def open_group(url: str, group: str) -> xr.Dataset:
    """One group of a Zarr store, lazily, without dask.

    Raises:
      DamagedError: its metadata are there and are not whole.
    """
    import xarray as xr

    where = group or None
    with _whole(url, group):
        made: xr.Dataset = xr.open_zarr(_store(url), group=where, chunks=None, consolidated=False)
    return made


def attributes(url: str, group: str = "") -> Json:
    """Attributes of a group of a Zarr store; empty where there is no such group.

    Raises:
      DamagedError: its metadata are there and are not whole.
    """
    import zarr

    try:
        with _whole(url, group):
            return dict(zarr.open_group(_store(url), path=group, mode="r").attrs)
    except FileNotFoundError:
        return {}


@contextlib.contextmanager
def _whole(url: str, group: str) -> Iterator[None]:
    """Say of metadata that cannot be decoded where they are, and what to do."""
    try:
        yield
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        place = files.join(url, group) if group else url
        problem = f"is damaged: a zarr.json there is not whole JSON ({error})"
        raise DamagedError(place, problem, remedy=files.DAMAGED) from error


def _store(url: str) -> Any:
    """What zarr opens: a path, or an object store whose listings others may change meanwhile."""
    if "://" not in url:
        return url
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(url, storage_options=files.with_endpoint(url, files.FRESH))
