"""Zarr stores in places that cannot be listed: opened by the names that the entry knows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.mapping import FSMap

from pipeline.sources.grids import stores

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

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


def opened(
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
        return stores.opened(FSMap(root, known), group, None, consolidated=None)
    except FileNotFoundError:
        if known.refused is not None:
            raise known.refused from None
        raise


def is_forbidden(error: BaseException) -> bool:
    """Whether a store refuses to say whether it holds something, or to give it."""
    return isinstance(error, PermissionError) or getattr(error, "status", None) == FORBIDDEN
