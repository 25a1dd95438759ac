"""One block of 32 days of every source, on its way into the cube: the task of prepare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import arrays, cluster, domain, files, qc, schema
from pipeline.config import Experiment
from pipeline.errors import SoilweaveError, StoreError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.domain import Sources
    from pipeline.files import Json


def write_block(item: Json, experiment_json: str, url: str) -> Json:
    """Write every array of one block; a Ray Data task.

    Args:
      item: {"block": number of the block}.
      experiment_json: the experiment.
      url: the cube.

    Returns:
      {"receipt": JSON of the shards written, the values dropped per rule, the problems of the
      data, and what could not be written}.
    """
    experiment = Experiment.model_validate_json(experiment_json)
    receipt: Json = {
        "node": cluster.node(),
        "shards": [],
        "dropped": {},
        "problems": [],
        "unwritten": [],
    }
    try:
        sources = domain.open_sources(experiment)
        Block(experiment, sources, int(item["block"]), url, receipt).write()
        if not receipt["problems"]:
            files.write_json(files.join(url, "receipts", f"{item['block']}.json"), receipt)
    except StoreError as error:
        receipt["unwritten"].append(str(error))
    except SoilweaveError as error:
        receipt["problems"].append(str(error))
    except OSError as error:  # a damaged file shows when its chunks are read
        receipt["problems"].append(f"a source cannot be read, truncated or damaged: {error}")
    return {"receipt": json.dumps(receipt)}


class Block:
    """The arrays of one block of 32 days, on their way into the cube."""

    def __init__(
        self, experiment: Experiment, sources: Sources, block: int, url: str, receipt: Json
    ) -> None:
        self.experiment, self.sources, self.url, self.receipt = experiment, sources, url, receipt
        self.days = domain.days_of(block)
        blocks = schema.block_range(experiment.period)
        self.first = block == blocks.start
        start = (block - blocks.start) * schema.BLOCK_DAYS
        self.time = slice(start, start + schema.BLOCK_DAYS)
        first, last = (np.datetime64(day, "ns") for day in experiment.period)
        self.inside = (self.days >= first) & (self.days <= last)

    def write(self) -> None:
        """Cells, footprints, sites."""
        cells = {name: self._cells(name) for name in self.sources.forcing}
        if self.sources.satellite is not None:
            self._footprints(self.sources.satellite)
        if self.sources.insitu is not None:
            self._sites(self.sources.insitu, cells)
        if self.first:
            self._constants()

    def _cells(self, name: str) -> NDArray[np.float32]:
        dataset = self.sources.forcing[name]
        field = self._field(name, dataset, self._values(dataset, name))
        self._put(f"cells/{name}", field)
        return field

    def _footprints(self, satellite: xr.Dataset) -> None:
        target = self.experiment.target
        values = self._values(satellite, target)
        variable = self.experiment.table[target]
        outside = (values < variable.minimum) | (values > variable.maximum)
        self.receipt["dropped"]["satellite: range"] = int(outside.sum())
        values[outside] = np.nan
        self._put(f"footprints/{target}", self.sources.footprints(values))

    def _sites(self, insitu: xr.Dataset, cells: dict[str, NDArray[np.float32]]) -> None:
        target = self.experiment.target
        margin = np.timedelta64(self.experiment.qc.stuck_days or 0, "D")  # a run crosses blocks
        around = insitu.sel(time=slice(self.days[0] - margin, self.days[-1] + margin)).load()
        variable = self.experiment.table[target]
        values, dropped = qc.screen(around, target, variable, self.experiment.qc)
        screened = around[target].copy(data=values).reindex(time=self.days).values
        screened[~self.inside] = np.nan
        self._put(f"sites/{target}", screened)
        counted = np.isin(around.time.values, self.days[self.inside])
        for rule, rejected in dropped.items():
            self.receipt["dropped"][f"insitu: {rule}"] = int(rejected[counted].sum())
        y, x = self.sources.window.cells_of(insitu.lat.values, insitu.lon.values)
        for name, field in cells.items():
            if self.experiment.inputs_from == "cell":
                own = field[:, y, x]
            else:
                own = self._values(insitu, name)
                self._check_range(name, own, f"catalog entry {insitu.attrs['entry']}")
            self._put(f"sites/{name}", own)

    def _constants(self) -> None:
        """Statics and mask, by the task of the first block."""
        mask = self.sources.mask(self.days[self.inside])
        self._put("cells/mask", mask.astype("uint8"), constant=True)
        insitu = self.sources.insitu
        for name, dataset in self.sources.static.items():
            field = self._field(name, dataset, dataset[name].values)
            self._put(f"cells/{name}", field, constant=True)
            if insitu is None:
                continue
            y, x = self.sources.window.cells_of(insitu.lat.values, insitu.lon.values)
            own = self.experiment.inputs_from == "own"
            values = insitu[name].values if own else field[y, x]
            self._put(f"sites/{name}", values, constant=True)

    def _values(self, dataset: xr.Dataset, name: str) -> NDArray[np.float32]:
        """(day, ...) values of the block; NaN on days that are missing or outside the period."""
        values = domain.on_days(dataset, name, self.days)
        values[~self.inside] = np.nan
        return values

    def _field(
        self, name: str, dataset: xr.Dataset, values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """A source's values on the cells, (..., y, x), their range checked."""
        field = self.sources.cells(name, values)
        # A mean over several of a grid's cells could hide one that is out of range.
        checked = values if domain.is_grid(dataset) else field
        self._check_range(name, checked, f"catalog entry {dataset.attrs['entry']}")
        return field

    def _check_range(self, name: str, values: NDArray[np.float32], place: str) -> None:
        variable = self.experiment.table[name]
        outside = (values < variable.minimum) | (values > variable.maximum)
        if outside.any():
            accepted = f"[{variable.minimum}, {variable.maximum}] {variable.units}"
            found = f"{name} {values[outside].flat[0]:g}"
            self.receipt["problems"].append(f"{place}: {found} is outside {accepted}")

    def _put(self, path: str, values: NDArray[Any], constant: bool = False) -> None:
        region = [slice(0, size) for size in values.shape]
        if not constant:
            region[0] = self.time
        self.receipt["shards"] += arrays.write_shards(self.url, path, region, values)
