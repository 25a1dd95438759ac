"""Blosc chunks that were cut short: told instead of decoded.

Blosc trusts the length in a chunk's header, so of a chunk whose end is missing it decodes whatever
lies behind it in memory: an error at best, and at worst values that nobody wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numcodecs
import numcodecs.blosc
import zarr
import zarr.registry
from zarr.codecs import BloscCodec

if TYPE_CHECKING:
    from zarr.core.array_spec import ArraySpec
    from zarr.core.buffer import Buffer

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
