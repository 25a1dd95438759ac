"""Map one tile of 256 x 256 cells of one arm: the task that `predict` runs for every tile.

A tile is predicted block by block (32 days). Between blocks only the LSTM's state and the days that
slow features look back on are kept, so memory does not grow with the length of the record.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch

from model.attribute_space import RunningSum
from model.ensemble import combine_members
from model.sampling import SPINUP_DAYS
from model.streaming import StatefulPredictor, warm_up
from pipeline import files
from pipeline.cluster import ray_cluster
from pipeline.errors import DamagedError
from pipeline.experiment import shipped_models
from pipeline.experiment.config import Experiment
from pipeline.predict.tile_climatology import TileClimatology
from pipeline.storage import climatology, maps_schema, models, schema, zarr_arrays
from pipeline.storage.cube import Cube
from pipeline.storage.maps_schema import Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    from numpy.typing import NDArray

    from model.attribute_space import AttributeSpace
    from model.checkpoint import TrainedModel
    from pipeline.files import Json

    Fields = dict[str, NDArray[Any]]

Item = TypeVar("Item")
Result = TypeVar("Result")


class BlockInputs(NamedTuple):
    """What a block of days of a tile is mapped from.

    Attributes:
      forcing: (cell, day, forcing) scaled forcing.
      frozen: (cell, day) whether the day is frozen.
      kept: (day, y, x) packed fields by name, of whose first days an update changes nothing.
    """

    forcing: NDArray[np.float16]
    frozen: NDArray[np.bool_]
    kept: Fields = {}  # noqa: RUF012  # nobody changes it


class TileInputs:
    """The inputs of a tile's valid cells, in the form that a model takes, for any days."""

    def __init__(self, cube: Cube, row: int, col: int, trained: TrainedModel) -> None:
        """Read what does not depend on time.

        Args:
          cube: The cube.
          row: Row of the tile's upper left cell.
          col: Column of the tile's upper left cell.
          trained: The model that the inputs are for.
        """
        self.cube, self.features, self.scaler = cube, trained.features, trained.scaler
        self.lead_days = trained.lead_days
        ny, nx = cube.cells["mask"].shape
        self.rows = slice(row, min(row + schema.SHARD, ny))
        self.cols = slice(col, min(col + schema.SHARD, nx))
        self.valid = cube.cells["mask"].values[self.rows, self.cols].astype(bool)
        mean, std = self.scaler.arrays(self.features.static)
        tile = {"y": self.rows, "x": self.cols}
        fields = [cube.cells[n].isel(tile).values for n in self.features.static]
        static = np.array([field[self.valid] for field in fields], np.float32)
        self.static = (static.reshape(len(fields), int(self.valid.sum())).T - mean) / std

    def forcing(self, days: slice) -> NDArray[np.float16]:
        """Return scaled forcing (cell, day, forcing); `days` are counted along the period."""
        mean, std = self.scaler.arrays(self.features.forcing)
        shape = (int(self.valid.sum()), days.stop - days.start, len(mean))
        scaled = np.empty(shape, np.float16)
        for i, name in enumerate(self.features.forcing):
            scaled[..., i] = (self._series(name, days) - mean[i]) / std[i]
        return scaled

    def frozen(self, days: slice) -> NDArray[np.bool_]:
        """Return days (cell, day) with a mean air temperature at or below 273.15 K."""
        if maps_schema.TEMPERATURE not in self.features.forcing:
            return np.zeros((int(self.valid.sum()), days.stop - days.start), bool)
        return np.asarray(self._series(maps_schema.TEMPERATURE, days) <= maps_schema.FREEZING_K)

    def before(self, year: int, day: int = 0) -> NDArray[np.float16]:
        """Return the scaled forcing of the `lead_days` days before a day: (cell, day, forcing).

        Args:
          year: Number of days at the start of the record that are repeated for the days before it.
          day: The day, counted along the period.
        """
        n_days = self.lead_days
        days = np.arange(day - n_days, day)
        days = np.where(days < 0, days % year, days)
        forcing = np.empty((len(self.static), n_days, len(self.features.forcing)), np.float16)
        for start in range(0, n_days, schema.BLOCK_DAYS):
            piece = days[start : start + schema.BLOCK_DAYS]
            first = int(piece.min())
            forcing[:, start : start + len(piece)] = self.forcing(
                slice(first, int(piece.max()) + 1)
            )[:, piece - first]
        return forcing

    def _series(self, name: str, days: slice) -> NDArray[np.float32]:
        """Return the values (cell, day) of a variable."""
        first = self.cube.axis_offset
        where = {"time": slice(days.start + first, days.stop + first)}
        field = self.cube.cells[name].isel(where | {"y": self.rows, "x": self.cols})
        with zarr_arrays.intact_chunks(f"{self.cube.url}, {name}"):
            values: NDArray[np.float32] = field.values[:, self.valid].T
        return values


@dataclass(frozen=True)
class MapSpec:
    """What every task needs to map a tile.

    Attributes:
      experiment_json: The resolved experiment, as JSON.
      root: URL of the workspace that maps/ and state/ are written to.
      cube: URL of the cube.
      models_root: URL of the models, as the driver has them.
      run: Differs from run to run, so that no process keeps the models of an earlier one.
      queue: Receives the number of blocks done, for progress; None reports nothing.
    """

    experiment_json: str
    root: str
    cube: str
    models_root: str
    run: str = ""
    queue: Any = dataclasses.field(default=None, compare=False)


def map_tile(item: Json, task: type[MapTile], spec: MapSpec) -> Json:
    """Map one tile (a Ray task).

    Args:
      item: The "arm", and the "row" and "col" of the tile's upper left cell.
      task: The class that maps the tile.
      spec: What every task needs.

    Returns:
      The receipt, which lists the shards that were written, or the problems.

    Raises:
      StoreError: If the cube cannot be read or the maps cannot be written.
    """
    return _mapper(task, spec)(item)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _mapper(task: type[MapTile], spec: MapSpec) -> MapTile:
    """Return what maps the tiles of this process: it is made once, and so loads models once.

    An actor would do the same. But Ray retries tasks, spreads them over nodes that join later and
    lets them declare memory without an actor pool, whose size we would have to choose.
    """
    return task(spec)


class MapTile:
    """Maps tiles: takes an arm and a tile, writes its shards, and returns the receipt."""

    spec: MapSpec

    def __init__(self, spec: MapSpec) -> None:
        """Open the cube."""
        self.spec = spec
        self._ensembles: dict[str, list[TrainedModel]] = {}
        self.experiment = Experiment.model_validate_json(spec.experiment_json)
        self.cube = Cube.open(spec.cube).within(self.experiment.period)
        self.models_root = shipped_models.url_here(self.experiment.models, spec.models_root)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(self.experiment.compute.cpus_per_worker)

    def __call__(self, item: Json) -> Json:
        """Map one tile; errors in models or data are listed in the receipt's `problems`.

        Raises:
          StoreError: If the cube cannot be read or the maps cannot be written.
        """
        arm, row, col = str(item["arm"]), int(item["row"]), int(item["col"])
        try:
            members = self._load_models(arm)
            tile = TileInputs(self.cube, row, col, members[0])
            result = {"shards": [], "steps": 0}
            if tile.valid.any():
                result = self.write_tile(arm, tile, members)
        except (DamagedError, ValueError) as error:
            return {"problems": [f"{arm}: {error}"]}
        receipt = {"node": ray_cluster.node_address(), "problems": [], **result}
        name = receipt_name(arm, row, col)
        files.write_json(files.join(self.spec.root, "maps", "receipts", name), receipt)
        return receipt

    def _load_models(self, arm: str) -> list[TrainedModel]:
        """Return the models of an arm, which are kept for further tiles."""
        if arm not in self._ensembles:
            ensemble = models.load_ensemble(self.models_root, arm)  # type: ignore[arg-type]
            self._ensembles[arm] = ensemble
        return self._ensembles[arm]

    def write_tile(self, arm: str, tile: TileInputs, members: list[TrainedModel]) -> Json:
        """Write the maps and the state of one tile.

        Returns:
          `shards`, the records of all shards that were written, and `steps`, the days per cell.
        """
        writing = TileWriter(self, arm, tile, members)
        return {"shards": writing.write(), "steps": writing.steps}


def receipt_name(arm: str, row: int, col: int) -> str:
    """Return the file name of a tile's receipt."""
    return f"{arm}-{row}-{col}.json"


class TileWriter:
    """Predicts one tile block by block, and writes its maps and its state."""

    def __init__(
        self,
        task: MapTile,
        arm: str,
        tile: TileInputs,
        members: list[TrainedModel],
    ) -> None:
        """Prepare to write; nothing is read yet."""
        self.tile, self.heads = tile, members[0].heads
        calibrations = models.read_calibrations(task.models_root, arm)
        self.calibration = calibrations[models.fold_name(models.ALL_SITES)]
        self.variable = task.experiment.table[task.experiment.target]
        self.target, self.root = task.experiment.target, task.spec.root
        self.queue = task.spec.queue
        self.maps_url = files.join(self.root, "maps", f"{arm}.zarr")
        self.state_url = files.join(self.root, "state", f"{arm}.zarr")
        self.n_days = len(task.cube.days)
        # The spin-up and the layers of the maps use these days; updates add others.
        self.described_days = self.n_days
        self.period = (task.cube.days[0].item(), task.cube.days[-1].item())
        self.n_blocks = len(schema.block_range(self.period))
        # The block of each slot of the state.
        self.state_blocks: list[int] = [*maps_schema.state_blocks(self.period)]
        self.predictors = [
            StatefulPredictor(member, tile.static, task.device) for member in members
        ]
        self.shards: list[Json] = []
        self.steps = 0  # of each member's LSTM in each cell
        self.space = models.read_attribute_space(task.models_root) if "site" in self.heads else None
        self.climate, self.variance = RunningSum(), RunningSum()
        self.first_period = task.experiment.period  # without the days that updates have added
        # Maps with the reference period, and the state that keeps values of it, "" for none yet.
        self.old_maps, self.old_state = self.maps_url, ""

    def write(self) -> list[Json]:
        """Predict and write all blocks; return the records of the shards."""
        year = min(SPINUP_DAYS, self.described_days)
        before = self.tile.before(year)
        with ThreadPoolExecutor(1) as reader:
            warm_up(self.predictors, before, _read_ahead(reader, self.tile.forcing, _pieces(year)))
        self.steps += year
        self._write_levels()
        self.write_blocks(0)
        self.write_state(self.n_blocks)
        if self.space is not None:
            self._write_layers(self.space)
        self.write_climatology(0)
        return self.shards

    def write_blocks(self, first: int) -> None:
        """Predict and write the blocks from `first` on, which begins a shard of the series.

        The next block is read, and those before are written, while one is computed.
        """
        pending: list[Fields] = []
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            last_write = writer.submit(lambda: None)
            blocks = range(first, self.n_blocks)
            read = _read_ahead(reader, self.read_block, blocks)
            for block, inputs in zip(blocks, read, strict=True):
                pending.append(self.map_block(block, inputs))
                last_write.result()
                last_write = writer.submit(self.write_root, block, pending[-1])
                if len(pending) == maps_schema.SERIES_BLOCKS or block + 1 == self.n_blocks:
                    last_write.result()
                    last_write = writer.submit(self.write_series, block + 1 - len(pending), pending)
                    pending = []
            last_write.result()

    def read_block(self, block: int) -> BlockInputs:
        """Read what a block is mapped from."""
        days = schema.block_slice(self.period, block)
        return BlockInputs(self.tile.forcing(days), self.tile.frozen(days))

    def map_block(self, block: int, inputs: BlockInputs) -> Fields:
        """Write the state before the next block, if it is kept, and predict the block."""
        self.write_state(block)
        fields = self.predict_block(block, inputs)
        ray_cluster.report_progress(self.queue, 1)
        return fields

    def predict_block(self, block: int, inputs: BlockInputs) -> Fields:
        """Predict the next block; return packed fields (day, y, x) by name."""
        days, forcing = schema.block_slice(self.period, block), inputs.forcing
        self.steps += forcing.shape[1]
        members = [predictor.advance(forcing) for predictor in self.predictors]
        mean, raw = combine_members(members, self.heads, self.calibration.level_weight)
        std = raw * np.float32(self.calibration.width_scale)
        known = np.isfinite(mean)
        mean = np.where(known, mean, np.float32(np.nan))
        std = np.where(known & np.isfinite(std), std, np.float32(np.nan))
        described = max(0, self.described_days - days.start)
        self.climate.add(forcing[:, :described])
        self.variance.add((std**2)[:, :described])
        flags = self._flags(forcing, inputs.frozen, mean)
        step, fill = self.variable.scale_factor, maps_schema.VALUE_FILL
        return {
            self.target: self._field(maps_schema.pack_values(mean, step), fill),
            f"{self.target}_std": self._field(maps_schema.pack_values(std, step), fill),
            "quality_flag": self._field(flags, Quality.NO_INPUTS),
        }

    def write_root(self, block: int, fields: Fields) -> None:
        """Write a block of fields to the root group, which is chunked for maps."""
        for name, field in fields.items():
            self._write_days(self.maps_url, name, block * schema.BLOCK_DAYS, field)

    def write_series(self, first: int, blocks: list[Fields]) -> None:
        """Write consecutive blocks to the group `series`, as whole shards."""
        for name in blocks[0]:
            series = np.concatenate([fields[name] for fields in blocks])
            self._write_days(self.maps_url, f"series/{name}", first * schema.BLOCK_DAYS, series)

    def write_climatology(self, first: int) -> None:
        """Write percentile and anomaly of the days from `first` on, if the maps have them."""
        reference = climatology.stored_reference(self.old_maps)
        if reference is None:
            return
        frozen, days = None, maps_schema.revisable_days(self.first_period, reference)
        rows, cols = self.tile.rows, self.tile.cols
        if self.old_state and days:
            region = [slice(0, days.stop - days.start), rows, cols]
            frozen = zarr_arrays.read_packed(self.old_state, "reference", region)
            if (frozen == maps_schema.VALUE_FILL).all():  # it was lost, and is made again
                frozen = None
        comparison = TileClimatology(
            self.target,
            self.period[0],
            reference,
            self.maps_url,
            self.old_maps,
            rows,
            cols,
            self.tile.valid,
            days,
            frozen,
        )
        for path, start, values in comparison.compared(first, self.n_days):
            self._write_days(self.maps_url, path, start, values)
        if first == 0 and days:
            self._write_days(self.state_url, "reference", 0, comparison.values_to_freeze())

    def _flags(
        self, forcing: NDArray[np.float16], frozen: NDArray[np.bool_], mean: NDArray[np.float32]
    ) -> NDArray[np.uint8]:
        """Return the quality flags (cell, day) of the valid cells."""
        missing = ~np.isfinite(forcing).all(2) | ~np.isfinite(self.tile.static).all(1)[:, None]
        outside = (mean < self.variable.minimum) | (mean > self.variable.maximum)
        flags = Quality.INPUT_MISSING * missing + Quality.FROZEN * frozen
        flags = flags + Quality.OUTSIDE_RANGE * outside + Quality.NOT_PREDICTED * ~np.isfinite(mean)
        flags = flags + (0 if self.calibration.calibrated else Quality.UNCALIBRATED)
        return np.asarray(flags, np.uint8)

    def _field(self, values: NDArray[Any], fill: int) -> NDArray[Any]:
        """Return a field (day, y, x) with the values (cell, day) of the valid cells."""
        field = np.full((values.shape[1], *self.tile.valid.shape), fill, values.dtype)
        field[:, self.tile.valid] = values.T
        return field

    def write_state(self, block: int) -> None:
        """Write the state before a block, if it is one of those that are kept."""
        if block not in self.state_blocks:
            return
        slot = self.state_blocks.index(block)
        for member, predictor in enumerate(self.predictors):
            for name, values in zip(("hidden", "cell"), predictor.state(), strict=True):
                field = np.full((*self.tile.valid.shape, values.shape[1]), np.nan, np.float32)
                field[self.tile.valid] = values
                region = [slice(slot, slot + 1), slice(member, member + 1)]
                region += [self.tile.rows, self.tile.cols, slice(0, values.shape[1])]
                self.shards += self._write_array(self.state_url, name, region, field[None, None])

    def _write_levels(self) -> None:
        """Write the mean of each head's predictions in the first year, of every member."""
        for member, predictor in enumerate(self.predictors):
            for name, values in zip(
                ("site_level", "satellite_level"), predictor.levels, strict=True
            ):
                field = np.full(self.tile.valid.shape, np.nan, np.float32)
                field[self.tile.valid] = values
                region = [slice(member, member + 1), self.tile.rows, self.tile.cols]
                self.shards += self._write_array(self.state_url, name, region, field[None])

    def _write_layers(self, space: AttributeSpace) -> None:
        """Write the cells' attributes, their distance to those of sites, and the mean variance."""
        attributes = space.scaled(np.concatenate([self.tile.static, self.climate.mean], 1))
        cells = [self.tile.rows, self.tile.cols]
        for url, name, values in (
            (self.maps_url, "attribute_distance", space.distance(attributes)),
            (self.state_url, "mean_variance", self.variance.mean),
            (self.state_url, "attributes", attributes.T),
        ):
            region = [*(slice(0, n) for n in values.shape[:-1]), *cells]
            field = np.full((*values.shape[:-1], *self.tile.valid.shape), np.nan, np.float32)
            field[..., self.tile.valid] = values
            self.shards += self._write_array(url, name, region, field)

    def _write_days(self, url: str, path: str, start: int, values: NDArray[Any]) -> None:
        """Write some days of a field."""
        region = [slice(start, start + len(values)), self.tile.rows, self.tile.cols]
        self.shards += self._write_array(url, path, region, values)

    def _write_array(
        self, url: str, path: str, region: list[slice], values: NDArray[Any]
    ) -> list[Json]:
        """Write an array; return the records of its shards, by their keys in the workspace."""
        folder = url.removeprefix(self.root).lstrip("/")
        records = zarr_arrays.write_shards(url, path, region, values)
        return [record | {"key": f"{folder}/{record['key']}"} for record in records]


def _pieces(n_days: int) -> list[slice]:
    """Return the first `n_days` days in pieces of one block."""
    starts = range(0, n_days, schema.BLOCK_DAYS)
    return [slice(start, min(start + schema.BLOCK_DAYS, n_days)) for start in starts]


def _read_ahead(
    reader: Executor, read: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """Yield what `read` returns for each item; the next one is read while one is used."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(reader.submit(read, item))
        if len(waiting) > 1:
            yield waiting.popleft().result()
    yield from (future.result() for future in waiting)
