"""The inputs of one column of 256 x 256 cells, read block after block as a model wants them.

One column of an arm's maps, walked through its days and written: the task of predict.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.attribute_space import RunningSum
from model.ensemble import combine_members
from model.sampling import SPINUP_DAYS
from model.streaming import StatefulPredictor
from pipeline import files
from pipeline.cluster import ray_cluster
from pipeline.errors import StoreError
from pipeline.experiment.config import Experiment
from pipeline.storage import maps_schema, models, schema, zarr_arrays
from pipeline.storage.cube import Cube
from pipeline.storage.maps_schema import Quality

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from model.attribute_space import AttributeSpace
    from model.checkpoint import TrainedModel
    from pipeline.files import Json

    Inputs = tuple[NDArray[np.float16], NDArray[np.bool_]]


class TileInputs:
    """The inputs of a column's valid cells, as a model wants them, block after block."""

    def __init__(self, cube: Cube, row: int, col: int, trained: TrainedModel) -> None:
        """The column whose upper left cell is (row, col)."""
        self.cube, self.features, self.scaler = cube, trained.features, trained.scaler
        self.lead_days = trained.lead_days
        ny, nx = cube.cells["mask"].shape
        self.rows = slice(row, min(row + schema.SHARD, ny))
        self.cols = slice(col, min(col + schema.SHARD, nx))
        self.valid = cube.cells["mask"].values[self.rows, self.cols].astype(bool)
        mean, std = self.scaler.arrays(self.features.static)
        fields = [cube.cells[n].values[self.rows, self.cols] for n in self.features.static]
        static = np.array([field[self.valid] for field in fields], np.float32)
        self.static = (static.reshape(len(fields), int(self.valid.sum())).T - mean) / std

    def forcing(self, days: slice) -> NDArray[np.float16]:
        """(cell, day, forcing) scaled, of days counted along the period."""
        mean, std = self.scaler.arrays(self.features.forcing)
        shape = (int(self.valid.sum()), days.stop - days.start, len(mean))
        made = np.empty(shape, np.float16)
        for i, name in enumerate(self.features.forcing):
            made[..., i] = (self._series(name, days) - mean[i]) / std[i]
        return made

    def frozen(self, days: slice) -> NDArray[np.bool_]:
        """(cell, day) days with a mean air temperature at or under 273.15 K."""
        if maps_schema.TEMPERATURE not in self.features.forcing:
            return np.zeros((int(self.valid.sum()), days.stop - days.start), bool)
        return np.asarray(self._series(maps_schema.TEMPERATURE, days) <= maps_schema.FREEZING_K)

    def before(self, year: int, day: int = 0) -> NDArray[np.float16]:
        """The days before a day that a model looks back on.

        Days before the record are its first `year` days, repeated.
        """
        lead = self.lead_days
        days = np.arange(day - lead, day)
        days = np.where(days < 0, days % year, days)
        made = np.empty((len(self.static), lead, len(self.features.forcing)), np.float16)
        for start in range(0, lead, schema.BLOCK_DAYS):
            part = days[start : start + schema.BLOCK_DAYS]
            first = int(part.min())
            made[:, start : start + len(part)] = self.forcing(slice(first, int(part.max()) + 1))[
                :, part - first
            ]
        return made

    def _series(self, name: str, days: slice) -> NDArray[np.float32]:
        """(cell, day) values of a variable."""
        first = self.cube.axis_offset
        where = {"time": slice(days.start + first, days.stop + first)}
        field = self.cube.cells[name].isel(where | {"y": self.rows, "x": self.cols})
        values: NDArray[np.float32] = field.values[:, self.valid].T
        return values


@dataclass(frozen=True)
class MapSpec:
    """What every task is told; `root` is the workspace, `queue` takes the blocks done."""

    experiment_json: str
    root: str
    cube: str
    models_root: str
    queue: Any = None


def map_tile(item: Json, task: type[MapTile], orders: MapSpec) -> Json:
    """Map one column: a Ray Data task.

    Args:
      item: the "arm", and the "row" and "col" of the column's upper left cell.
      task: how the column is mapped.
      orders: the same for every column.

    Returns:
      The receipt of the shards that were written.
    """
    return task(orders)(item)


class MapTile:
    """Maps one column: {"arm", "row", "col"} in, the receipt of the shards it has written out."""

    orders: MapSpec

    def __init__(self, orders: MapSpec) -> None:
        """Open the cube; models are small, and loaded with every column."""
        self.orders = orders
        self.experiment = Experiment.model_validate_json(orders.experiment_json)
        self.cube = Cube.open(orders.cube)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(self.experiment.compute.threads_per_worker)

    def __call__(self, item: Json) -> Json:
        """Walk one column and write it; what went wrong is told in the receipt."""
        arm, row, col = str(item["arm"]), int(item["row"]), int(item["col"])
        try:
            members = models.ensemble(self.orders.models_root, arm)  # type: ignore[arg-type]
            column = TileInputs(self.cube, row, col, members[0])
            made = {"shards": [], "steps": 0}
            if column.valid.any():
                made = self.written(arm, column, members)
        except (StoreError, ValueError) as error:
            return {"problems": [f"{arm}: {error}"]}
        receipt = {"node": ray_cluster.node(), "problems": [], **made}
        name = receipt_name(arm, row, col)
        files.write_json(files.join(self.orders.root, "maps", "receipts", name), receipt)
        return receipt

    def written(self, arm: str, column: TileInputs, members: list[TrainedModel]) -> Json:
        """`shards`, records of all that were written, and `steps`, days that each cell took."""
        writing = Writing(self, arm, column, members)
        return {"shards": writing.write(), "steps": writing.steps}


def receipt_name(arm: str, row: int, col: int) -> str:
    """Name of the receipt of a column."""
    return f"{arm}-{row}-{col}.json"


class Writing:
    """The walk of one column, block by block, into maps and state."""

    def __init__(
        self,
        task: MapTile,
        arm: str,
        column: TileInputs,
        members: list[TrainedModel],
    ) -> None:
        """Nothing is read yet."""
        self.column, self.heads = column, members[0].heads
        calibrations = models.calibrations(task.orders.models_root, arm)
        self.calibration = calibrations[models.fold_name(models.ALL)]
        self.variable = task.experiment.table[task.experiment.target]
        self.target, self.root = task.experiment.target, task.orders.root
        self.queue = task.orders.queue
        self.maps_url = files.join(self.root, "maps", f"{arm}.zarr")
        self.state_url = files.join(self.root, "state", f"{arm}.zarr")
        self.n_days = len(task.cube.days)
        self.first = task.cube.axis_offset
        self.blocks = -(-(self.first + self.n_days) // schema.BLOCK_DAYS)
        period = (task.cube.days[0].item(), task.cube.days[-1].item())
        self.first_block = schema.block_range(period).start
        self.kept: list[int] = [*maps_schema.state_blocks(period)]  # by place in the state
        self.walks = [StatefulPredictor(member, column.static, task.device) for member in members]
        self.shards: list[Json] = []
        self.steps = 0  # of the LSTM in each cell and member
        self.space = models.space(task.orders.models_root) if "site" in self.heads else None
        self.climate, self.variance = RunningSum(), RunningSum()

    def write(self) -> list[Json]:
        """Records of every shard of the column."""
        year = min(SPINUP_DAYS, self.n_days)
        before = self.column.before(year)
        for walk in self.walks:
            walk.warm_up(before, (self.column.forcing(days) for days in _pieces(year)))
        self.steps += year
        self._levels()
        pending: list[dict[str, NDArray[Any]]] = []
        # The next block is read and the last one written while this one is computed.
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            ahead, written = reader.submit(self.read, 0), writer.submit(lambda: None)
            for block in range(self.blocks):
                self.put_state(block)
                inputs = ahead.result()
                ahead = reader.submit(self.read, block + 1)
                pending.append(self.block(block, inputs))
                written.result()
                written = writer.submit(self.put_root, block, pending[-1])
                if len(pending) == maps_schema.SERIES_BLOCKS or block + 1 == self.blocks:
                    written.result()
                    self.put_series(block + 1 - len(pending), pending)
                    pending = []
                ray_cluster.report_progress(self.queue, 1)
        self.put_state(self.blocks)
        if self.space is not None:
            self._layers(self.space)
        return self.shards

    def days(self, block: int) -> slice:
        """Days of a block that are in the period, counted along it; none after its end."""
        start = block * schema.BLOCK_DAYS
        edges = np.array([start, start + schema.BLOCK_DAYS]) - self.first
        return slice(*np.clip(edges, 0, self.n_days).tolist())

    def read(self, block: int) -> Inputs:
        """The inputs of a block, and which of its days are frozen, each (cell, day, ...)."""
        days = self.days(block)
        return self.column.forcing(days), self.column.frozen(days)

    def block(self, block: int, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """The next block of days, predicted and packed; (day, y, x) by name."""
        days, (forcing, frozen) = self.days(block), inputs
        self.steps += forcing.shape[1]
        members = [walk.advance(forcing) for walk in self.walks]
        mean, raw = combine_members(members, self.heads, self.calibration.level_weight)
        std = raw * np.float32(self.calibration.width_scale)
        known = np.isfinite(mean)
        mean = np.where(known, mean, np.float32(np.nan))
        std = np.where(known & np.isfinite(std), std, np.float32(np.nan))
        self.climate.add(forcing)
        self.variance.add(std**2)
        flags = self._flags(forcing, frozen, mean)
        step = self.variable.scale_factor
        shift = self.first - block * schema.BLOCK_DAYS
        inside = slice(days.start + shift, days.stop + shift)
        return {
            self.target: self._field(maps_schema.pack(mean, step), maps_schema.FILL, inside),
            f"{self.target}_std": self._field(
                maps_schema.pack(std, step), maps_schema.FILL, inside
            ),
            "quality_flag": self._field(flags, maps_schema.FLAG_FILL, inside, Quality.NO_INPUTS),
        }

    def put_root(self, block: int, made: dict[str, NDArray[Any]]) -> None:
        """Write a block into the root."""
        for name, field in made.items():
            self._put(self.maps_url, name, block * schema.BLOCK_DAYS, field)

    def put_series(self, first: int, made: list[dict[str, NDArray[Any]]]) -> None:
        """Write blocks that follow one another into the group `series`, as whole shards."""
        for name in made[0]:
            whole = np.concatenate([values[name] for values in made])
            self._put(self.maps_url, f"series/{name}", first * schema.BLOCK_DAYS, whole)

    def _flags(
        self, forcing: NDArray[np.float16], frozen: NDArray[np.bool_], mean: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """(cell, day) quality of the valid cells."""
        missing = ~np.isfinite(forcing).all(2) | ~np.isfinite(self.column.static).all(1)[:, None]
        outside = (mean < self.variable.minimum) | (mean > self.variable.maximum)
        flags = Quality.INPUT_MISSING * missing + Quality.FROZEN * frozen
        flags = flags + Quality.OUTSIDE_RANGE * outside + Quality.NOT_PREDICTED * ~np.isfinite(mean)
        flags = flags + (0 if self.calibration.calibrated else Quality.UNCALIBRATED)
        return np.asarray(flags, np.uint8)

    def _field(
        self, values: NDArray[Any], fill: int, inside: slice, elsewhere: int | None = None
    ) -> NDArray[Any]:
        """(cell, day) values of some days of a block as a field (32 days, y, x).

        `elsewhere` goes into cells without inputs, on these days; else the fill value.
        """
        field = np.full((schema.BLOCK_DAYS, *self.column.valid.shape), fill, values.dtype)
        if elsewhere is not None:
            field[inside] = elsewhere
        field[inside, self.column.valid] = values.T
        return field

    def put_state(self, block: int) -> None:
        """Write the state before a block's first day, where it is one of those that are kept."""
        if self.first_block + block not in self.kept:
            return
        kept = self.kept.index(self.first_block + block)
        for member, walk in enumerate(self.walks):
            for name, values in zip(("hidden", "cell"), walk.state(), strict=True):
                field = np.full((*self.column.valid.shape, values.shape[1]), np.nan, np.float32)
                field[self.column.valid] = values
                region = [slice(kept, kept + 1), slice(member, member + 1)]
                region += [self.column.rows, self.column.cols, slice(0, values.shape[1])]
                self.shards += self._recorded(self.state_url, name, region, field[None, None])

    def _levels(self) -> None:
        for member, walk in enumerate(self.walks):
            for name, values in zip(("site_level", "satellite_level"), walk.levels, strict=True):
                field = np.full(self.column.valid.shape, np.nan, np.float32)
                field[self.column.valid] = values
                region = [slice(member, member + 1), self.column.rows, self.column.cols]
                self.shards += self._recorded(self.state_url, name, region, field[None])

    def _layers(self, space: AttributeSpace) -> None:
        """Attributes of the cells, how far they are from those of sites, and the mean variance."""
        attributes = space.scaled(np.concatenate([self.column.static, self.climate.mean], 1))
        cells = [self.column.rows, self.column.cols]
        for url, name, values in (
            (self.maps_url, "attribute_distance", space.distance(attributes)),
            (self.state_url, "mean_variance", self.variance.mean),
            (self.state_url, "attributes", attributes.T),
        ):
            region = [*(slice(0, n) for n in values.shape[:-1]), *cells]
            field = np.full((*values.shape[:-1], *self.column.valid.shape), np.nan, np.float32)
            field[..., self.column.valid] = values
            self.shards += self._recorded(url, name, region, field)

    def _put(self, url: str, path: str, start: int, values: NDArray[Any]) -> None:
        region = [slice(start, start + len(values)), self.column.rows, self.column.cols]
        self.shards += self._recorded(url, path, region, values)

    def _recorded(
        self, url: str, path: str, region: list[slice], values: NDArray[Any]
    ) -> list[Json]:
        """Shards written, by their keys in the workspace."""
        folder = url.removeprefix(self.root).lstrip("/")
        records = zarr_arrays.write_shards(url, path, region, values)
        return [record | {"key": f"{folder}/{record['key']}"} for record in records]


def _pieces(n_days: int) -> Iterator[slice]:
    """The first days in pieces of a block."""
    for start in range(0, n_days, schema.BLOCK_DAYS):
        yield slice(start, min(start + schema.BLOCK_DAYS, n_days))
