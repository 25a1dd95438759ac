"""Zarr stores that name the object that fails, hash what they send, or know what they have."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from pipeline import files
from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from pipeline.files import Json


class _NamingStore(Store):
    """Raises a StoreError that names the object if a file system fails, whoever reads or writes.

    xarray and Ray's tasks read values long after a store was opened, so this is the one place
    through which all of it passes.
    """

    @property
    @abstractmethod
    def place(self) -> str:
        """URL of the store."""

    def _url(self, key: str = "") -> str:
        """Return the URL of an object, or of the store."""
        return files.join(self.place, key) if key else self.place

    async def _open(self, **kwargs: Any) -> None:
        with files.accessing(self._url(), "read" if self.read_only else "written"):
            await super()._open(**kwargs)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Buffer | None:
        """Read an object."""
        with files.accessing(self._url(key)):
            return await super().get(key, *args, **kwargs)  # type: ignore[safe-super]

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Any
    ) -> list[Buffer | None]:
        """Read parts of objects, such as chunks of a shard."""
        ranges = list(key_ranges)
        with files.accessing(self._url(ranges[0][0] if ranges else "")):
            return await super().get_partial_values(prototype, ranges)  # type: ignore[safe-super]

    async def exists(self, key: str) -> bool:
        """Return whether there is an object."""
        with files.accessing(self._url(key)):
            return await super().exists(key)  # type: ignore[safe-super]

    async def set(self, key: str, value: Buffer, *args: Any, **kwargs: Any) -> None:
        """Write an object."""
        with files.accessing(self._url(key), "written"):
            await super().set(key, value, *args, **kwargs)  # type: ignore[safe-super]

    async def delete(self, key: str) -> None:
        """Remove an object."""
        with files.accessing(self._url(key), "removed"):
            await super().delete(key)  # type: ignore[safe-super]

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List a folder."""
        with files.accessing(self._url(prefix), "listed"):
            names = [name async for name in super().list_dir(prefix)]  # type: ignore[safe-super]
        for name in names:
            yield name


class LocalZarr(_NamingStore, LocalStore):
    """A store in a local folder."""

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.root)


class RemoteZarr(_NamingStore, FsspecStore):
    """A store at a URL."""

    @property
    def place(self) -> str:
        """URL of the store."""
        return str(self.fs.unstrip_protocol(self.path))


class WholeShardStore(WrapperStore[Store]):
    """Passes everything on to another store, and records the size and digest of each shard.

    Zarr reads a shard before it writes it, because the write could cover a part of it. Here a write
    always covers whole shards, so this store answers at once that there is no such shard. This
    saves one request for each shard, and reading those that an interrupted run has left.
    """

    def __init__(self, store: Store) -> None:
        """Wrap a store; no shard has been written yet."""
        super().__init__(store)
        self._written: dict[str, tuple[int, str]] = {}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read metadata; a shard counts as absent."""
        if not key.endswith(".json"):
            return None
        return await super().get(key, prototype, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object, and record what was sent."""
        await super().set(key, value)
        self._written[key] = len(value), hashlib.sha256(value.as_buffer_like()).hexdigest()

    async def delete(self, key: str) -> None:
        """Remove an object: Zarr does not store shards that are all fill."""
        await super().delete(key)
        self._written[key] = 0, ""

    def record(self, key: str) -> Json:
        """Return `key`, `size` in bytes and `sha256` of a shard that was written or removed."""
        size, digest = self._written[key]
        return {"key": key, "size": size, "sha256": digest}


class RecordedStore(WrapperStore[Store]):
    """Reads a store whose keys are all known: what is recorded but not there is an error.

    Zarr takes an object that is missing for one whose values are all fill. The keys are not
    listed, and objects that are not recorded are not asked for, so reading takes no other right
    than to read objects.
    """

    def __init__(self, store: Store, where: str, keys: frozenset[str]) -> None:
        """Wrap a store.

        Args:
          store: The store.
          where: Its URL, for messages.
          keys: The keys of all its objects.
        """
        super().__init__(store)
        self._where, self._keys = where, keys

    def _with_store(self, store: Store) -> RecordedStore:
        return RecordedStore(store, self._where, self._keys)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Read an object, or a part of it; None if it is not recorded.

        Raises:
          StoreError: If it is recorded but not there.
        """
        if key not in self._keys:
            return None
        found = await super().get(key, prototype, byte_range)
        if found is None:
            problem = "is recorded but not there: the release was removed, or it is damaged"
            hint = "open the latest release; soilweave verify names what is missing"
            raise StoreError(f"{self._where}/{key}", problem, remedy=hint)
        return found

    async def exists(self, key: str) -> bool:
        """Return whether an object is recorded."""
        return key in self._keys

    def list(self) -> AsyncIterator[str]:
        """Yield all keys."""
        return self.list_prefix("")

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys that start with a prefix."""
        for key in sorted(self._keys):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names in a folder."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        inside = (key.removeprefix(folder) for key in self._keys if key.startswith(folder))
        for name in sorted({key.partition("/")[0] for key in inside}):
            yield name
