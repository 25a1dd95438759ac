"""One block of 32 days of every source, on its way into the cube: the task of prepare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import arrays, cluster, domain, files, footprints, placing, presence, schema
from pipeline.config import Experiment
from pipeline.errors import DataError, SoilweaveError, StoreError, UnreachableError
from pipeline.sites import range_problems
from pipeline.sources import remote

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
      The receipt: as `empty_receipt`, with the shards written, the values dropped per rule, and
      what went wrong. Beside the receipt lies what `presence.save` keeps: where each variable has
      values.
    """
    experiment, block = Experiment.model_validate_json(experiment_json), int(item["block"])

    def written() -> Json:
        receipt = empty_receipt()
        sources = domain.open_sources(experiment, block, forcing_alone)
        made = Block(experiment, sources, block, url, receipt, forcing_alone)
        made.write()
        made.found.save(url, block)
        return receipt

    receipt = empty_receipt()
    try:
        receipt = remote.patiently(written)
        if not receipt["problems"]:
            files.write_json(files.join(url, "receipts", f"{block}.json"), receipt)
    except StoreError as error:
        receipt |= {"unwritten": [str(error)], "outage": True}
    except SoilweaveError as error:
        receipt |= {"unread": [str(error)], "outage": isinstance(error, UnreachableError)}
    except OSError as error:  # a damaged file shows when its chunks are read
        receipt["unread"] = [f"a source cannot be read, truncated or damaged: {error}"]
    return receipt


def empty_receipt() -> Json:
    """The receipt of a task that has written nothing yet.

    `problems` are values that are unsound, `unread` are sources and `unwritten` are objects that
    could not be read or written; `outage` says that a store did not answer, so that other tasks
    would fail as well.
    """
    failures: Json = {"problems": [], "unread": [], "unwritten": [], "outage": False}
    return {"node": cluster.node(), "shards": [], "dropped": {}, **failures}


def check_receipts(place: str, receipts: list[Json]) -> None:
    """Check that every task has written its block.

    Args:
      place: what the tasks were writing, for the message.
      receipts: of the tasks.

    Raises:
      StoreError: if objects could not be written, whatever else is wrong.
      DataError: listing the sources that cannot be read or are unsound.
    """
    lines = {
        key: sorted({line for receipt in receipts for line in receipt[key]})
        for key in ("unwritten", "unread", "problems")
    }
    if lines["unwritten"]:
        remedy = "correct that and run again; finished blocks are kept"
        raise StoreError(place, *lines["unwritten"], *lines["unread"], remedy=remedy)
    if lines["problems"]:
        remedy = "correct the data, or the variable's range"
        raise DataError("sources", *lines["problems"], *lines["unread"], remedy=remedy)
    if lines["unread"]:
        remedy = "run again when the sources can be read; finished blocks are kept"
        raise DataError("sources", *lines["unread"], remedy=remedy)


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
        self.found = presence.Found()
        self.sites = None
        if experiment.inputs_from == "cell" and not forcing_alone:
            self.sites = _positions(url)

    def write(self) -> None:
        """Cells, footprints, and what the sites have of their cells."""
        for name in self.sources.forcing:
            field = self._cells(name)
            self.found.note("forcing", name, field)
            if self.sites is not None:
                self._put(f"sites/{name}", field[:, *self.sites])
        if self.sources.satellite is not None:
            self._footprints(self.sources.satellite)
        if self.first:
            self._constants()

    def _cells(self, name: str) -> NDArray[np.float32]:
        dataset = self.sources.forcing[name]
        field = self._field(name, dataset, self._values(dataset, name))
        self._put(f"cells/{name}", field)
        return field

    def _footprints(self, satellite: xr.Dataset) -> None:
        target = self.experiment.target
        values, flag = footprints.read(self.experiment, satellite, self.days[self.inside])
        self.found.without_infinite(target, values)
        self.found.note("satellite", target, self._on_all_days(values))
        dropped = footprints.screen(self.experiment, values, flag)
        self.receipt["dropped"] |= {f"satellite: {rule}": n for rule, n in dropped.items()}
        self._put(f"footprints/{target}", self._on_all_days(values))

    def _on_all_days(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The satellite's values of days inside the period on the footprints, on all 32 days."""
        placed = self.sources.footprints(values)
        made = np.full((len(self.days), *placed.shape[1:]), np.nan, np.float32)
        made[self.inside] = placed
        return made

    def _constants(self) -> None:
        """Statics, and which cells have them."""
        for name, dataset in self.sources.static.items():
            values = self.sources.constants[name]
            self.found.without_infinite(name, values)
            field = self._field(name, dataset, values)
            self.found.note("static", name, field)
            self._put(f"cells/{name}", field, constant=True)
            if self.sites is not None:
                self._put(f"sites/{name}", field[self.sites], constant=True)

    def _values(self, dataset: xr.Dataset, name: str) -> NDArray[np.float32]:
        """(day, ...) values of the block; NaN where missing, infinite or outside the period."""
        values = placing.on_days(dataset, name, self.days)
        values[~self.inside] = np.nan
        self.found.without_infinite(name, values)
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
