"""Blosc chunks that were cut short: told instead of decoded.

Blosc trusts the length in a chunk's header, so of a chunk whose end is missing it decodes whatever
lies behind it in memory: an error at best, and at worst values that nobody wrote.

Groups of Zarr stores, opened so that a value is missing only where that is declared.

Zarr stores in places that cannot be listed: opened by the names that the entry knows.

Which chunks of an array in a Zarr store are there: one that is not reads as the fill value.
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


HEADER = 16  # bytes; the last four are the length of the whole chunk


def check(chunk: bytes) -> None:
    """Check that a Blosc chunk is as long as its header says.

    Raises:
      RuntimeError: it is not, as of Blosc for other damage.
    """
    stated = int.from_bytes(chunk[HEADER - 4 : HEADER], "little")
    if len(chunk) < max(HEADER, stated):
        raise RuntimeError(f"a Blosc chunk has {len(chunk)} bytes, expected {stated or HEADER}")


class WholeBlosc(numcodecs.blosc.Blosc):  # type: ignore[misc]
    """Blosc of Zarr v2 that decodes whole chunks only."""

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk.

        Raises:
          RuntimeError: it is damaged.
        """
        check(bytes(memoryview(buf).cast("B")))
        return super().decode(buf, out)


class WholeBloscCodec(BloscCodec):
    """Blosc of Zarr v3 that decodes whole chunks only."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        check(chunk_bytes.to_bytes())
        return await super()._decode_single(chunk_bytes, chunk_spec)


def use() -> None:
    """Let Zarr decode Blosc by these, in this process."""
    numcodecs.register_codec(WholeBlosc, "blosc")
    zarr.registry.register_codec("blosc", WholeBloscCodec)
    zarr.config.set({"codecs.blosc": f"{__name__}.{WholeBloscCodec.__name__}"})


UNDECLARED = "undeclared_fill"  # key of a variable's encoding


def open_group(
    store: Any, group: str | None, options: dict[str, Any] | None, *, consolidated: bool | None
) -> xr.Dataset:
    """A group of a Zarr store, not decoded, nothing read yet.

    The attribute `_FillValue` of a variable is what its store declares as missing: the attribute
    of that name; else, in format 2, the array's `fill_value`, which is where xarray writes it,
    unless that is 0, which zarr writes where nobody has said anything. In format 3 `fill_value`
    only says what chunks that were not written hold. Where it declares nothing, the encoding has
    it as UNDECLARED.

    Args:
      store: a URL, or a store of zarr.
      group: in it, None for its root.
      options: of fsspec.
      consolidated: whether metadata are read from one document; None to try.
    """
    import xarray as xr

    use()
    held = xr.backends.ZarrStore.open_group(
        store,
        mode="r",
        group=group,
        consolidated=consolidated,
        storage_options=options,
        use_zarr_fill_value_as_mask=True,  # or attributes of format 3 that are no base64 fail
    )
    raw = xr.open_dataset(held, engine="store", **missing_values.RAW)
    for name in raw.variables:
        _declare(raw.variables[name], held.members[str(name)])
    return raw


def _declare(variable: xr.Variable, array: Any) -> None:
    """Set `_FillValue` and `missing_value` of a variable to what its array declares."""
    attrs = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
    told, fill = array.attrs.get("_FillValue"), array.fill_value
    if variable.dtype.kind not in "iuf":
        variable.attrs = attrs
        return
    told = _number(told)
    if told is not None:
        attrs["_FillValue"] = told
    if fill is not None:
        if array.metadata.zarr_format == 2 and fill:
            also = np.ravel(attrs.get("missing_value", ())).tolist()
            attrs |= {"missing_value": [*also, fill]} if told is not None else {"_FillValue": fill}
        elif not attrs.keys() & {"_FillValue", "missing_value"}:
            variable.encoding = {**variable.encoding, UNDECLARED: fill}
    variable.attrs = attrs


def _number(told: Any) -> Any:
    """A fill of an attribute: xarray writes floats of format 3 in base64, others as they are.

    None where it is a text that stands for no number.
    """
    if not isinstance(told, str):
        return told
    try:
        return float(told)
    except ValueError:
        pass
    try:
        return struct.unpack("<d", base64.b64decode(told, validate=True))[0]
    except (ValueError, struct.error):
        return None


DOCUMENTS = ("zarr.json", ".zmetadata", ".zgroup", ".zattrs", ".zarray")
FORBIDDEN = 403


class KnownKeys(AsyncFileSystem):  # type: ignore[misc]
    """A file system over another that cannot list: of a group it lists names that are known.

    A public bucket that may not be listed answers 403, and not 404, for what it does not hold.
    Documents of metadata that are refused in this way therefore count as absent. Chunks do not: of
    these nobody can tell whether they were never written, or may not be read.

    Attributes:
      refused: the first refusal of a document.
    """

    cachable = False

    def __init__(self, inner: Any, root: str, names: Sequence[str]) -> None:
        """Keep the other file system, the path of the group, and names of arrays in it."""
        super().__init__(asynchronous=True)
        self.inner, self.root, self.names = inner, root.strip("/"), tuple(names)
        self.refused: Exception | None = None

    async def _cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **how: Any
    ) -> bytes:
        try:
            return bytes(await self.inner._cat_file(path, start=start, end=end, **how))
        except Exception as error:
            if path.rpartition("/")[2] not in DOCUMENTS or not is_forbidden(error):
                raise
            self.refused = self.refused or error
            raise FileNotFoundError(path) from error

    async def _ls(self, path: str, detail: bool = True, **how: Any) -> list[Any]:
        if path.strip("/") != self.root:
            return []
        every = [f"{path.rstrip('/')}/{name}" for name in self.names]
        there = await asyncio.gather(*map(self._is_array, every))
        paths = [each for each, is_there in zip(every, there, strict=True) if is_there]
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
    """A group of a Zarr store, as `stores.opened` has it, with those arrays that are there.

    Args:
      url: the store.
      group: in it, None for its root.
      options: of fsspec.
      names: of arrays that are looked for.

    Raises:
      FileNotFoundError: there is no such store.
      Exception: of the file system, where its documents are refused.
    """
    inner, root = fsspec.core.url_to_fs(url, **options, asynchronous=True)
    known = KnownKeys(inner, f"{root}/{group}" if group else root, names)
    try:
        return open_group(FSMap(root, known), group, None, consolidated=None)
    except FileNotFoundError:
        if known.refused is not None:
            raise known.refused from None
        raise


def is_forbidden(error: BaseException) -> bool:
    """Whether a store refuses to say whether it holds something, or to give it."""
    return isinstance(error, PermissionError) or getattr(error, "status", None) == FORBIDDEN


MOST_LISTED = 200_000  # chunks of an array, above which they are not listed


class Layout(NamedTuple):
    """The chunks of an array: shape and dims of the array, chunks, and how their keys are made."""

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    prefix: str
    separator: str
    fill: Any


def of_source(
    source: GridSource, group: str | None
) -> tuple[dict[str, tuple[Times, Any]], int] | None:
    """Chunks of the wanted days and region that are absent, though others of their place are not.

    Args:
      source: in Zarr stores, told which period and region are wanted.
      group: in the stores, None for their root.

    Returns:
      By our name, the times of such chunks and the fill value that they read as; and how many
      chunks there should be. None where it cannot be told.
    """
    found: dict[str, tuple[Times, Any]] = {}
    expected = 0
    for part in source.list_parts():
        raw = source.open_part(part.url)
        grid, _ = source.read_grid(raw)
        if grid is None:
            return None
        where = dict(zip(grid.dims, grid.clip(source.region).slices, strict=True))
        where["time"] = _steps(source, part.times)
        options = access.options(part.url, source.storage_options, source.login)
        for name, term in source.terms.items():
            for native, _ in term.inputs:
                dims = [str(dim) for dim in raw[native].dims]
                if dims[0] != "time":
                    continue
                wanted = [where[dim] for dim in dims]
                with http_errors.answering(part.url, source.login):
                    told = absent(part.url, group, native, wanted, options)
                if told is None:
                    return None
                expected += told[1]
                if told[0]:
                    steps = np.arange(len(part.times))[where["time"]]
                    spans = [np.arange(span.start, span.stop) for span in told[0]]
                    gone = np.intersect1d(np.concatenate(spans), steps)
                    found[name] = (part.times[gone], told[2])
    return found, expected


def _steps(source: GridSource, times: Times) -> slice:
    """Those of a store's steps that are wanted."""
    wanted = source.requested_days()
    if wanted is None:
        return slice(0, len(times))
    ends = np.searchsorted(times, [wanted[0], wanted[1] + np.timedelta64(1, "D")])
    return slice(int(ends[0]), int(ends[1]))


def absent(
    url: str, group: str | None, name: str, wanted: Sequence[slice], options: dict[str, Any]
) -> tuple[list[slice], int, Any] | None:
    """Parts of the first dimension for which a chunk is absent that is there for others.

    A chunk that is absent all along the first dimension is taken for sea.

    Args:
      url: the store.
      group: in it, None for its root.
      name: of the array.
      wanted: of each dimension.
      options: of fsspec.

    Returns:
      Those parts in order; how many chunks there should be; and the fill value that is read in
      place of the absent ones. None where it cannot be told: the store does not list its objects,
      or has too many.
    """
    filesystem, root = fsspec.core.url_to_fs(files.join(url, group) if group else url, **options)
    if "http" in files.protocols(filesystem):
        return None
    layout = _layout(filesystem, f"{root}/{name}")
    if layout is None or np.prod(_counts(layout)) > MOST_LISTED:
        return None
    folder = f"{root}/{name}/"
    found = {str(path).rpartition(f"/{name}/")[2] for path in filesystem.find(folder)}
    within = [
        range(start // chunk, -(-stop // chunk))
        for (start, stop, _), chunk in zip(
            (part.indices(size) for part, size in zip(wanted, layout.shape, strict=True)),
            layout.chunks,
            strict=True,
        )
    ]
    there = {index for index in np.ndindex(*_counts(layout)) if _key(layout, index) in found}
    ever = {index[1:] for index in there}
    parts: list[slice] = []
    expected = 0
    for first in within[0]:
        here = [(first, *rest) for rest in itertools.product(*within[1:]) if rest in ever]
        expected += len(here)
        if any(index not in there for index in here):
            length = layout.chunks[0]
            parts.append(slice(first * length, min((first + 1) * length, layout.shape[0])))
    return parts, expected, layout.fill


def _counts(layout: Layout) -> tuple[int, ...]:
    return tuple(-(-size // chunk) for size, chunk in zip(layout.shape, layout.chunks, strict=True))


def _key(layout: Layout, index: tuple[int, ...]) -> str:
    return layout.prefix + layout.separator.join(map(str, index))


def _layout(filesystem: Any, path: str) -> Layout | None:
    """As the metadata of the array has it, in either format; None where there is none."""
    try:
        held = json.loads(filesystem.cat_file(f"{path}/zarr.json"))
    except FileNotFoundError:
        try:
            held = json.loads(filesystem.cat_file(f"{path}/.zarray"))
        except FileNotFoundError:
            return None
        separator = held.get("dimension_separator", ".")
        return Layout(
            tuple(held["shape"]), tuple(held["chunks"]), "", separator, held["fill_value"]
        )
    encoding = held["chunk_key_encoding"]
    default = encoding["name"] == "default"
    separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
    chunks = tuple(held["chunk_grid"]["configuration"]["chunk_shape"])  # of shards, where it has
    prefix = f"c{separator}" if default else ""
    return Layout(tuple(held["shape"]), chunks, prefix, separator, held["fill_value"])
