"""One block of 32 days of every source, on its way into the cube: the task of prepare."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import arrays, cluster, domain, files, footprints, placing, schema
from pipeline.config import Experiment
from pipeline.errors import SoilweaveError, StoreError
from pipeline.sites import range_problems

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.domain import Sources
    from pipeline.files import Json


def write_block(item: Json, experiment_json: str, url: str, forcing_alone: bool = False) -> Json:
    """Write every array of one block; a Ray Data task.

    Args:
      item: {"block": number of the block}.
      experiment_json: the experiment.
      url: the cube.
      forcing_alone: of the cells, without statics, mask, satellite and sites.

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
        block = int(item["block"])
        sources = domain.open_sources(experiment, block, forcing_alone)
        Block(experiment, sources, block, url, receipt, forcing_alone).write()
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
        self,
        experiment: Experiment,
        sources: Sources,
        block: int,
        url: str,
        receipt: Json,
        forcing_alone: bool = False,
    ) -> None:
        self.experiment, self.sources, self.url, self.receipt = experiment, sources, url, receipt
        self.days = domain.days_of(block)
        blocks = schema.block_range(experiment.period)
        self.first = not forcing_alone and block == blocks.start
        start = (block - blocks.start) * schema.BLOCK_DAYS
        self.time = slice(start, start + schema.BLOCK_DAYS)
        first, last = (np.datetime64(day, "ns") for day in experiment.period)
        self.inside = (self.days >= first) & (self.days <= last)
        self.sites = None
        if experiment.inputs_from == "cell" and not forcing_alone:
            self.sites = _positions(url)

    def write(self) -> None:
        """Cells, footprints, and what the sites have of their cells."""
        valid = np.ones(self.sources.window.cell_shape, bool)
        for name in self.sources.forcing:
            field = self._cells(name)
            valid &= np.isfinite(field[self.inside]).any(0)
            if self.sites is not None:
                self._put(f"sites/{name}", field[:, *self.sites])
        if self.sources.satellite is not None:
            self._footprints(self.sources.satellite)
        if self.first:
            self._constants(valid)

    def _cells(self, name: str) -> NDArray[np.float32]:
        dataset = self.sources.forcing[name]
        field = self._field(name, dataset, self._values(dataset, name))
        self._put(f"cells/{name}", field)
        return field

    def _footprints(self, satellite: xr.Dataset) -> None:
        kept, dropped = footprints.retrieved(self.experiment, satellite, self.days[self.inside])
        self.receipt["dropped"] |= {f"satellite: {rule}": n for rule, n in dropped.items()}
        values = np.full((len(self.days), *kept.shape[1:]), np.nan, np.float32)
        values[self.inside] = kept
        self._put(f"footprints/{self.experiment.target}", self.sources.footprints(values))

    def _constants(self, valid: NDArray[np.bool_]) -> None:
        """Statics, and the mask: cells with every forcing on some day, and with any static."""
        seen = np.zeros(valid.shape, bool)
        for name, dataset in self.sources.static.items():
            field = self._field(name, dataset, self.sources.constants[name])
            seen |= np.isfinite(field)
            self._put(f"cells/{name}", field, constant=True)
            if self.sites is not None:
                self._put(f"sites/{name}", field[self.sites], constant=True)
        mask = valid & seen if self.sources.static else valid
        self._put("cells/mask", mask.astype("uint8"), constant=True)

    def _values(self, dataset: xr.Dataset, name: str) -> NDArray[np.float32]:
        """(day, ...) values of the block; NaN on days that are missing or outside the period."""
        values = placing.on_days(dataset, name, self.days)
        values[~self.inside] = np.nan
        return values

    def _field(
        self, name: str, dataset: xr.Dataset, values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """A source's values on the cells, (..., y, x), their range checked."""
        field = self.sources.cells(name, values)
        # A mean over several of a grid's cells could hide one that is out of range.
        checked = values if placing.is_grid(dataset) else field
        self._check_range(name, checked, str(dataset.attrs["entry"]))
        return field

    def _check_range(self, name: str, values: NDArray[np.float32], entry: str) -> None:
        self.receipt["problems"] += range_problems(name, values, self.experiment.table, entry)

    def _put(self, path: str, values: NDArray[Any], constant: bool = False) -> None:
        region = [slice(0, size) for size in values.shape]
        if not constant:
            region[0] = self.time
        self.receipt["shards"] += arrays.write_shards(self.url, path, region, values)


def _positions(url: str) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Row and column of the cell that holds each site of the cube; None where it has no sites."""
    if not arrays.attributes(url, "sites"):
        return None
    group = arrays.open_group(url, "sites")
    return group["y"].values, group["x"].values
