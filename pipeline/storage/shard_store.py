"""The Zarr store through which whole shards are written: it hashes what it sends."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from zarr.abc.store import Store
from zarr.storage import WrapperStore

if TYPE_CHECKING:
    from zarr.abc.store import ByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype

    from pipeline.files import Json


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
