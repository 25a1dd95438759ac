"""Open groups of Zarr stores, including stores that cannot be listed, and find absent chunks.

Values of an opened group are missing only where the store declares it. Truncated Blosc chunks raise
an error: Blosc trusts the length in a chunk's header, and of a truncated chunk it would decode
whatever follows the chunk in memory.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import numcodecs
import numcodecs.blosc
import numpy as np
import zarr
import zarr.registry
from fsspec.asyn import AsyncFileSystem
from fsspec.mapping import FSMap
from zarr.codecs import BloscCodec

from pipeline import files
from pipeline.sources.shared import access, http_errors, missing_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

    from pipeline.sources.grids.days import Times
    from pipeline.sources.grids.driver import GridSource


HEADER_BYTES = 16  # bytes of a Blosc header; the last four are the length of the chunk
UNDECLARED = "undeclared_fill"  # key of a variable's encoding
METADATA_NAMES = ("zarr.json", ".zmetadata", ".zgroup", ".zattrs", ".zarray")  # metadata of a store
FORBIDDEN = 403  # HTTP status
MAX_LISTED_CHUNKS = 200_000  # largest number of an array's chunks that are listed


def check_blosc_length(chunk: bytes) -> None:
    """Check that a Blosc chunk has at least the length that its header states.

    Raises:
      RuntimeError: If it is shorter. Blosc raises the same type for other damage.
    """
    stated = int.from_bytes(chunk[HEADER_BYTES - 4 : HEADER_BYTES], "little")
    if len(chunk) < max(HEADER_BYTES, stated):
        raise RuntimeError(
            f"a Blosc chunk has {len(chunk)} bytes, expected {stated or HEADER_BYTES}"
        )


class CheckedBlosc(numcodecs.blosc.Blosc):  # type: ignore[misc]
    """Blosc codec of Zarr v2 that checks the length of chunks."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk.

        Raises:
          RuntimeError: If the chunk is damaged.
        """
        check_blosc_length(bytes(memoryview(buf).cast("B")))
        return super().decode(buf, out)


class CheckedBloscCodec(BloscCodec):
    """Blosc codec of Zarr v3 that checks the length of chunks."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        check_blosc_length(chunk_bytes.to_bytes())
        return await super()._decode_single(chunk_bytes, chunk_spec)


def use_checked_blosc() -> None:
    """Let Zarr in this process decode Blosc with the codecs that check the length of chunks."""
    numcodecs.register_codec(CheckedBlosc, "blosc")
    zarr.registry.register_codec("blosc", CheckedBloscCodec)
    zarr.config.set({"codecs.blosc": f"{__name__}.{CheckedBloscCodec.__name__}"})


def open_group(
    store: Any, group: str | None, options: dict[str, Any] | None, *, consolidated: bool | None
) -> xr.Dataset:
    """Open a group of a Zarr store without decoding it; read only metadata.

    The attribute `_FillValue` of a variable is set to the value that the store declares as missing:
    the attribute of that name or, in format 2, the array's `fill_value`, where xarray writes it,
    unless that is 0, zarr's default. In format 3, `fill_value` is only the content of chunks that
    were not written. An array's `fill_value` that declares nothing as missing is stored in the
    encoding as `undeclared_fill`.

    Args:
      store: A URL, or a store of zarr.
      group: Path of the group in the store; None for the root.
      options: Storage options for fsspec.
      consolidated: Whether metadata are read from one document; None to try.
    """
    import xarray as xr

    use_checked_blosc()
    zarr_store = xr.backends.ZarrStore.open_group(
        store,
        mode="r",
        group=group,
        consolidated=consolidated,
        storage_options=options,
        # With False, xarray fails for attributes of format 3 that are not in base64.
        use_zarr_fill_value_as_mask=True,
    )
    raw = xr.open_dataset(zarr_store, engine="store", **missing_values.OPEN_OPTIONS)
    for name in raw.variables:
        _declare_missing(raw.variables[name], zarr_store.members[str(name)])
    return raw


def _declare_missing(variable: xr.Variable, array: Any) -> None:
    """Set `_FillValue` and `missing_value` of a variable to what its array declares as missing."""
    attrs = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
    if variable.dtype.kind not in "iuf":
        variable.attrs = attrs
        return
    declared, fill = _parse_fill(array.attrs.get("_FillValue")), array.fill_value
    if declared is not None:
        attrs["_FillValue"] = declared
    if fill is not None:
        if array.metadata.zarr_format == 2 and fill:
            if declared is None:
                attrs["_FillValue"] = fill
            else:
                others = np.ravel(attrs.get("missing_value", ())).tolist()
                attrs["missing_value"] = [*others, fill]
        elif not attrs.keys() & {"_FillValue", "missing_value"}:
            variable.encoding = {**variable.encoding, UNDECLARED: fill}
    variable.attrs = attrs


def _parse_fill(attribute: Any) -> Any:
    """Return the number of an attribute `_FillValue`; None for a text that is not a number.

    In format 3, xarray writes floats in base64, and other numbers as they are.
    """
    if not isinstance(attribute, str):
        return attribute
    try:
        return float(attribute)
    except ValueError:
        pass
    try:
        return struct.unpack("<d", base64.b64decode(attribute, validate=True))[0]
    except (ValueError, struct.error):
        return None


class UnlistedFileSystem(AsyncFileSystem):  # type: ignore[misc]
    """A wrapper of a file system that cannot list, which lists known names of a group's arrays.

    A public bucket that does not allow listing answers 403 instead of 404 for objects that do not
    exist. Metadata documents that are refused like this are therefore treated as absent. Chunks
    are not, because they may exist and be unreadable.

    Args:
      inner: The other file system, asynchronous.
      root: Path of the group.
      names: Names of arrays that the group may have.

    Attributes:
      refused: The first error for a refused document.
    """

    cachable = False

    def __init__(self, inner: Any, root: str, names: Sequence[str]) -> None:
        """Keep the arguments; access nothing yet."""
        super().__init__(asynchronous=True)
        self.inner, self.root, self.names = inner, root.strip("/"), tuple(names)
        self.refused: Exception | None = None

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **how: Any
    ) -> bytes:
        try:
            return bytes(await self.inner._cat_file(path, start=start, end=end, **how))
        except Exception as error:
            if path.rpartition("/")[2] not in METADATA_NAMES or not is_forbidden(error):
                raise
            self.refused = self.refused or error
            raise FileNotFoundError(path) from error

    async def _ls(self, path: str, detail: bool = True, **how: Any) -> list[Any]:
        if path.strip("/") != self.root:
            return []
        candidates = [f"{path.rstrip('/')}/{name}" for name in self.names]
        are_arrays = await asyncio.gather(*map(self._is_array, candidates))
        paths = [p for p, is_array in zip(candidates, are_arrays, strict=True) if is_array]
        return [{"name": p, "type": "directory", "size": 0} for p in paths] if detail else paths

    async def _is_array(self, path: str) -> bool:
        for document in ("zarr.json", ".zarray"):
            try:
                await self._cat_file(f"{path}/{document}")
            except FileNotFoundError:
                continue
            return True
        return False

    async def _info(self, path: str, **how: Any) -> dict[str, Any]:
        return dict(await self.inner._info(path, **how))


def open_unlisted(
    url: str, group: str | None, options: dict[str, Any], names: Sequence[str]
) -> xr.Dataset:
    """Open a group of a Zarr store that cannot be listed, like `open_group`.

    Args:
      url: The store.
      group: Path of the group in the store; None for the root.
      options: Storage options for fsspec.
      names: Names of arrays to look for. The result has those that exist.

    Raises:
      FileNotFoundError: If there is no such store.
      Exception: The file system's error if the store's documents are refused.
    """
    inner, root = fsspec.core.url_to_fs(url, **options, asynchronous=True)
    known = UnlistedFileSystem(inner, f"{root}/{group}" if group else root, names)
    try:
        return open_group(FSMap(root, known), group, None, consolidated=None)
    except FileNotFoundError:
        if known.refused is not None:
            raise known.refused from None
        raise


def is_forbidden(error: BaseException) -> bool:
    """Return whether an error says that a store refuses access."""
    return isinstance(error, PermissionError) or getattr(error, "status", None) == FORBIDDEN


class ChunkLayout(NamedTuple):
    """The chunks of an array.

    Attributes:
      shape: Shape of the array.
      chunks: Shape of a chunk, or of a shard if the array has shards.
      prefix: Begin of the chunks' keys.
      separator: Separator of the indices in the chunks' keys.
      fill: Value of chunks that do not exist.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    prefix: str
    separator: str
    fill: Any


def find_absent_chunks(
    source: GridSource, group: str | None
) -> tuple[dict[str, tuple[Times, Any]], int] | None:
    """Find absent chunks of the requested days and region.

    A chunk is not listed if the chunks at its position are absent at all times, which is usual
    over sea.

    Args:
      source: A driver of Zarr stores, with the requested period and region.
      group: Path of the group in the stores; None for the root.

    Returns:
      {soilweave's name: (times of absent chunks, fill value that they read as)}, and the number of
      chunks that are expected. None if the chunks cannot be listed.
    """
    result: dict[str, tuple[Times, Any]] = {}
    expected = 0
    for part in source.list_parts():
        raw = source.open_part(part.url)
        grid, _ = source.read_grid(raw)
        if grid is None:
            return None
        where = dict(zip(grid.dims, grid.clip(source.region).slices, strict=True))
        where["time"] = _requested_steps(source, part.times)
        options = access.fsspec_options(part.url, source.storage_options, source.login)
        for name, term in source.terms.items():
            for native, _ in term.inputs:
                dims = [str(dim) for dim in raw[native].dims]
                if dims[0] != "time":
                    continue
                slices = [where[dim] for dim in dims]
                with http_errors.plain_http_errors(part.url, source.login):
                    listing = absent_chunks_of_array(part.url, group, native, slices, options)
                if listing is None:
                    return None
                absent_slices, n_expected, fill = listing
                expected += n_expected
                if absent_slices:
                    steps = np.arange(len(part.times))[where["time"]]
                    absent_steps = [np.arange(one.start, one.stop) for one in absent_slices]
                    requested = np.intersect1d(np.concatenate(absent_steps), steps)
                    result[name] = (part.times[requested], fill)
    return result, expected


def _requested_steps(source: GridSource, times: Times) -> slice:
    """Return the slice of a store's steps that are in the requested period."""
    requested = source.requested_days()
    if requested is None:
        return slice(0, len(times))
    ends = np.searchsorted(times, [requested[0], requested[1] + np.timedelta64(1, "D")])
    return slice(int(ends[0]), int(ends[1]))


def absent_chunks_of_array(
    url: str, group: str | None, name: str, slices: Sequence[slice], options: dict[str, Any]
) -> tuple[list[slice], int, Any] | None:
    """Find parts of an array's first dimension where a chunk is absent that exists elsewhere.

    A chunk that is absent along the whole first dimension is expected to be absent.

    Args:
      url: The store.
      group: Path of the group in the store; None for the root.
      name: Name of the array.
      slices: The part of the array to look at, one slice for each dimension.
      options: Storage options for fsspec.

    Returns:
      The parts in order, the number of chunks that are expected, and the fill value that absent
      chunks read as. None if the store does not list its objects, or the array has too many chunks.
    """
    filesystem, root = fsspec.core.url_to_fs(files.join(url, group) if group else url, **options)
    if "http" in files.protocols(filesystem):
        return None
    layout = _read_layout(filesystem, f"{root}/{name}")
    if layout is None or np.prod(_count_chunks(layout)) > MAX_LISTED_CHUNKS:
        return None
    folder = f"{root}/{name}/"
    keys = {str(path).rpartition(f"/{name}/")[2] for path in filesystem.find(folder)}
    bounds = [part.indices(size) for part, size in zip(slices, layout.shape, strict=True)]
    chunk_ranges = [
        range(start // chunk, -(-stop // chunk))
        for (start, stop, _), chunk in zip(bounds, layout.chunks, strict=True)
    ]
    existing = {
        index for index in np.ndindex(*_count_chunks(layout)) if _chunk_key(layout, index) in keys
    }
    positions = {index[1:] for index in existing}  # where a chunk exists at any time
    parts: list[slice] = []
    n_expected = 0
    for first in chunk_ranges[0]:
        expected = [
            (first, *rest) for rest in itertools.product(*chunk_ranges[1:]) if rest in positions
        ]
        n_expected += len(expected)
        if any(index not in existing for index in expected):
            length = layout.chunks[0]
            parts.append(slice(first * length, min((first + 1) * length, layout.shape[0])))
    return parts, n_expected, layout.fill


def _count_chunks(layout: ChunkLayout) -> tuple[int, ...]:
    """Return the number of chunks along each dimension."""
    return tuple(-(-size // chunk) for size, chunk in zip(layout.shape, layout.chunks, strict=True))


def _chunk_key(layout: ChunkLayout, index: tuple[int, ...]) -> str:
    """Return the key of the chunk with an index."""
    return layout.prefix + layout.separator.join(map(str, index))


def _read_layout(filesystem: Any, path: str) -> ChunkLayout | None:
    """Read the chunks of an array from its metadata of format 2 or 3; None without metadata."""
    try:
        metadata = json.loads(filesystem.cat_file(f"{path}/zarr.json"))
    except FileNotFoundError:
        try:
            metadata = json.loads(filesystem.cat_file(f"{path}/.zarray"))
        except FileNotFoundError:
            return None
        shape, chunks = tuple(metadata["shape"]), tuple(metadata["chunks"])
        separator = metadata.get("dimension_separator", ".")
        return ChunkLayout(shape, chunks, "", separator, metadata["fill_value"])
    encoding = metadata["chunk_key_encoding"]
    is_default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if is_default else ".")
    chunks = tuple(metadata["chunk_grid"]["configuration"]["chunk_shape"])
    prefix = f"c{separator}" if is_default else ""
    return ChunkLayout(tuple(metadata["shape"]), chunks, prefix, separator, metadata["fill_value"])
