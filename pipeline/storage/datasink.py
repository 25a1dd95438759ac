"""Write a Ray dataset to Zarr: every row is one whole shard."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from ray.data import Datasink
from ray.data.block import BlockAccessor

from pipeline import files
from pipeline.storage import zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from ray.data._internal.execution.interfaces import TaskContext
    from ray.data.block import Block
    from ray.data.datasource.datasink import WriteResult

    from pipeline.files import Json


def shard_row(store: str, array: str, start: Sequence[int], values: NDArray[Any]) -> Json:
    """Return the row of one shard, in flat columns: Ray cannot tell the size of nested ones.

    Args:
      store: Path of the Zarr store below the root of the sink.
      array: Path of the array in the store.
      start: The index of the shard's first value in each dimension.
      values: The values, of the whole shard or, at the end of the array, of what is left.
    """
    return {
        "store": store,
        "array": array,
        "start": json.dumps([int(index) for index in start]),
        "shape": json.dumps(values.shape),
        "dtype": str(values.dtype),
        "values": values.tobytes(),
    }


class ZarrDatasink(Datasink["list[Json]"]):
    """Writes rows of `shard_row` to existing Zarr v3 arrays, and commits once when all are written.

    A task that Ray repeats, because its worker was killed, writes the same shards again and returns
    its receipts again, while those of the lost attempt are lost with it. So the commit has every
    shard once. If any task fails for good, nothing is committed.
    """

    def __init__(self, root: str, commit: Callable[[list[Json]], None]) -> None:
        """Remember where to write; the arrays must exist when the first row arrives.

        Args:
          root: URL of the folder that has the stores.
          commit: Called once in the driver with the receipts of all shards, in the order of their
            keys: `key` below the root, `size` in bytes and `sha256`, as in a manifest.
        """
        self._root, self._commit = root, commit

    def write(self, blocks: Iterable[Block], ctx: TaskContext) -> list[Json]:
        """Write the shards of some rows and return their receipts; Ray calls this in tasks.

        Raises:
          StoreError: If a row is not a whole shard, or the store cannot be written.
        """
        receipts = []
        for block in blocks:
            rows: Iterable[Any] = BlockAccessor.for_block(block).iter_rows(public_row_format=False)
            for row in rows:
                receipts += self._write_shard(row)
        return receipts

    def _write_shard(self, row: Any) -> list[Json]:
        start, shape = json.loads(row["start"]), json.loads(row["shape"])
        values = np.frombuffer(row["values"], row["dtype"]).reshape(shape)
        region = [slice(first, first + n) for first, n in zip(start, shape, strict=True)]
        url = files.join(self._root, row["store"])
        records = zarr_arrays.write_shards(url, row["array"], region, values)
        return [record | {"key": f"{row['store']}/{record['key']}"} for record in records]

    def on_write_complete(self, write_result: WriteResult[list[Json]]) -> None:
        """Commit; Ray calls this once in the driver, after the last task."""
        receipts = [receipt for task in write_result.write_returns for receipt in task]
        self._commit(sorted(receipts, key=lambda receipt: str(receipt["key"])))
