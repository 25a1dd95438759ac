"""One column of an arm's maps, gone on with from its state: the task of the verb update."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from model.sampling import SPINUP_DAYS
from pipeline import arrays, cluster, files, maps, schema
from pipeline.mapper import MapColumn, Orders, Writing

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.checkpoint import Trained
    from pipeline.column import Column
    from pipeline.files import Json


@dataclass(frozen=True)
class Onward(Orders):
    """What a task is told; `root` is a folder aside, in the form of a workspace.

    Attributes:
      before: the workspace whose maps and state are gone on from.
      through: the last day.
      begin: number of the block whose state is the start.
      changed: the first day that is not as before.
      slots: by arm, the block that each place of the state is for.
    """

    before: str = ""
    through: str = ""
    begin: int = 0
    changed: str = ""
    slots: tuple[tuple[str, tuple[int, ...]], ...] = ()


class GoOn(MapColumn):
    """Maps one column: writes the blocks from the state's on, and the series that hold them."""

    orders: Onward

    def __init__(self, orders: Onward) -> None:
        """Open the cube as far as it is wanted."""
        super().__init__(orders)
        self.cube = self.cube.until(date.fromisoformat(orders.through))

    def written(self, arm: str, column: Column, members: list[Trained]) -> Json:
        """`shards` and `steps`, as of `MapColumn`."""
        writing = _GoingOn(self, arm, column, members)
        return {"shards": writing.write(), "steps": writing.steps}


class _GoingOn(Writing):
    """The walk of one column from a state on."""

    def __init__(self, task: GoOn, arm: str, column: Column, members: list[Trained]) -> None:
        super().__init__(task, arm, column, members)
        orders = task.orders
        self.begin = orders.begin - self.first_block
        self.old_maps = files.join(orders.before, "maps", f"{arm}.zarr")
        self.old_state = files.join(orders.before, "state", f"{arm}.zarr")
        self.kept = [*dict(orders.slots)[arm]]
        # Days before the record are the first year of what the maps were begun with.
        first, last = task.experiment.period
        self.year = min(SPINUP_DAYS, (last - first).days + 1)
        changed = schema.epoch_day(date.fromisoformat(orders.changed))
        self.unchanged = changed - self.first_block * schema.BLOCK_DAYS  # days of the axis

    def write(self) -> list[Json]:
        """Records of every shard that is written."""
        self._restore()
        length = maps.SERIES_BLOCKS
        for first in range(self.begin // length * length, self.blocks, length):
            together = range(first, min(first + length, self.blocks))
            self.put_series(first, [self._next(block) for block in together])
        self.put_state(self.blocks)
        return self.shards

    def _next(self, block: int) -> dict[str, NDArray[Any]]:
        """A block as the maps shall have it; (day, y, x) packed, by name."""
        if block < self.begin:
            return self._stored(block)
        if block > self.begin:
            self.put_state(block)
        made = self._as_before(block, self.block(block, self.read(block)))
        self.put_root(block, made)
        cluster.tell(self.queue, 1)
        return made

    def _restore(self) -> None:
        """Let every member's walk stand before the first block."""
        state = arrays.open_group(self.old_state, "")
        place = state["block"].values.tolist().index(self.first_block + self.begin)
        day = max(0, self.begin * schema.BLOCK_DAYS - self.first)
        before = self.column.before(self.year, day)
        for member, walk in enumerate(self.walks):
            hidden, cell = (
                state[name][place, member, self.column.rows, self.column.cols].values
                for name in ("hidden", "cell")
            )
            levels = [
                state[name][member, self.column.rows, self.column.cols].values[self.column.valid]
                for name in ("site_level", "satellite_level")
            ]
            valid = self.column.valid
            walk.restore(before, (hidden[valid], cell[valid]), np.stack(levels))

    def _as_before(self, block: int, made: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A block with its unchanged days as they were, to the last bit on any machine."""
        n_days = self.unchanged - block * schema.BLOCK_DAYS
        if n_days > 0:
            for name, values in self._stored(block).items():
                made[name][:n_days] = values[:n_days]
        return made

    def _stored(self, block: int) -> dict[str, NDArray[Any]]:
        """A block as the maps have it; (day, y, x) packed, by name."""
        start = block * schema.BLOCK_DAYS
        region = [slice(start, start + schema.BLOCK_DAYS), self.column.rows, self.column.cols]
        names = (self.target, f"{self.target}_std", "quality_flag")
        return {name: arrays.packed(self.old_maps, name, region) for name in names}
