"""Where the sources have values, as each block was read; from all blocks, the mask of cells.

The task of a block notes where each variable has a value. Which cells are valid is known when all
blocks have been read, and only then can missing values be told from sea.

One block of 32 days of every source, on its way into the cube: the task of prepare.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline import files
from pipeline.catalog import experiment_sources
from pipeline.catalog.site_records import range_problems
from pipeline.cluster import ray_cluster
from pipeline.errors import DataError, SoilweaveError, StoreError, UnreachableError
from pipeline.experiment.config import Experiment
from pipeline.grid import remap
from pipeline.sources.shared import access
from pipeline.storage import missing_values, schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.catalog.experiment_sources import Sources
    from pipeline.files import Json
    from pipeline.grid.ease import Window

    Period = tuple[date, date]
    Bits = NDArray[np.uint8]  # (days / 8, ...): a bit per day, the first day the highest
    Mask = NDArray[np.bool_]


_FORCING, _STATIC, _INFINITE = "forcing", "static", "infinite"


class Land(NamedTuple):
    """The mask of cells, and for each variable the cells in which it has to have values.

    `without` has the numbers of cells that are not valid though they have some of it: `forcing`,
    which have a static; `static`, which have all forcing; and `alone`, by variable of forcing,
    which lack nothing but this variable.
    """

    mask: Mask
    expected: dict[str, Mask]
    without: dict[str, Any]


class Found:
    """Where the sources have values in one block."""

    def __init__(self) -> None:
        """Nothing is noted yet."""
        self._held: dict[str, NDArray[Any]] = {}

    def without_infinite(self, name: str, values: NDArray[np.float32]) -> None:
        """Replace infinite values of a variable by NaN in place, and count them."""
        infinite = np.isinf(values)
        values[infinite] = np.nan
        if infinite.any():
            self._held[f"{_INFINITE}/{name}"] = infinite.sum()

    def note(self, kind: str, name: str, values: NDArray[np.float32]) -> None:
        """Note where a variable has values.

        Args:
          kind: forcing, static or satellite.
          name: of the variable.
          values: (day, y, x) on the 32 days of the block; of a static (y, x). NaN where missing.
        """
        there = ~np.isnan(values)
        self._held[f"{kind}/{name}"] = there if kind == _STATIC else np.packbits(there, axis=0)

    def save(self, url: str, block: int) -> None:
        """Keep it beside the receipt of the block."""
        held = io.BytesIO()
        np.savez_compressed(held, **self._held)  # type: ignore[arg-type]
        files.write_bytes(_url(url, block), held.getvalue())


def kept(url: str, block: int) -> bool:
    """Whether there is a whole note of a block; earlier versions made none."""
    try:
        return bool(dict(_load(url, block)))
    except (FileNotFoundError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return False


def settled(
    url: str, experiment: Experiment, window: Window, entries: dict[str, str]
) -> tuple[Mask, Json]:
    """The mask of cells, once all blocks are read, and what the sources lack.

    Args:
      url: the cube.
      experiment: its period, and the limits.
      window: the cells.
      entries: of every variable, the entry that it comes from; of the target, the satellite's.

    Returns:
      (y, x) the mask; {"cells": ..., "footprints": ...}, by variable as of `missing.Counts`, and
      {"no_cells": ...} as `Land.without`.

    Raises:
      DataError: no cell is valid, or a variable lacks more than is accepted; the blocks in which
        it does are forgotten, to be read again by the next run.
    """
    target, blocks = experiment.target, schema.block_range(experiment.period)
    try:
        made = land(url, blocks, entries)
    except DataError:
        missing_values.forget(url, blocks)
        raise
    side, (fy, fx) = window.refinement, window.footprint_shape
    usable = made.mask.reshape(fy, side, fx, side).sum((1, 3)) * 2 >= side**2
    where = made.expected | ({target: usable} if target in entries else {})
    counts = {n: missing_values.Counts(entries[n], int(at.sum())) for n, at in where.items()}
    _count(url, experiment.period, blocks, where, counts)
    found = {name: counted.record() for name, counted in counts.items()}
    satellite = {name: found.pop(name) for name in (target,) if name in found}
    for name, record in satellite.items():
        if usable.any() and record["n"] == record["of"]:
            missing_values.forget(url, blocks)
            raise missing_values.stop([_no_value(name, record["entry"])])
    missing_values.check(experiment, found, url)
    return made.mask, {"cells": found, "footprints": satellite, "no_cells": made.without}


def went_on(
    url: str, longer: Experiment, blocks: range, cube_url: str, before: dict[str, Json]
) -> dict[str, Json]:
    """What the forcing of the cells lacks, once the last blocks of a longer period are read.

    Args:
      url: the store of these blocks.
      longer: the experiment, its period until the last day.
      blocks: their numbers.
      cube_url: the cube, with the mask of cells.
      before: records of the cube as it was; without a record, a variable is taken for whole.

    Raises:
      DataError: a variable lacks more than is accepted; as of `settled`.
    """
    mask = zarr_arrays.open_group(cube_url, "cells")["mask"].values.astype(bool)
    names = [str(name) for name in zarr_arrays.attributes(cube_url)["forcing"]]
    first = schema.epoch_day(longer.period[0])
    days = range(first, max(first, blocks.start * schema.BLOCK_DAYS))
    whole = missing_values.Counts(", ".join(longer.sources.forcing), 0).record()
    counts = {
        name: missing_values.Counts.until(before.get(name, whole), int(mask.sum()), days)
        for name in names
    }
    _count(url, longer.period, blocks, dict.fromkeys(names, mask), counts)
    found = {name: counted.record() for name, counted in counts.items()}
    missing_values.check(longer, found, url)
    return before | found


def land(url: str, blocks: Iterable[int], entries: dict[str, str]) -> Land:
    """The mask of cells, from all blocks: every forcing on some day, and any static.

    A static has to have values in these cells, and in those that have all forcing and in which
    its entry has another variable: what an entry lacks of itself there is no sea.

    Args:
      url: the store of the blocks.
      blocks: their numbers.
      entries: of every variable, the entry that it comes from.

    Raises:
      DataError: there is no such cell; naming the variables that have no value at all.
    """
    forcing, statics = _seen(url, blocks)
    seen = forcing | statics
    shape = next(iter(forcing.values())).shape
    described = np.any([*statics.values()], axis=0) if statics else np.ones(shape, bool)
    driven = np.all([*forcing.values()], axis=0)
    mask = driven & described
    of_entry = {
        entry: np.any([seen[name] for name in seen if entries[name] == entry], axis=0)
        for entry in set(entries.values())
    }
    expected = dict.fromkeys(forcing, mask)
    for name in statics:
        expected[name] = mask | (driven & of_entry[entries[name]])
    if not mask.any():
        raise missing_values.stop(_empty(seen, entries))
    alone: dict[str, int] = {}
    for name in forcing:
        others = [found for other, found in forcing.items() if other != name]
        n = int(np.all([described & ~forcing[name], *others], axis=0).sum()) if others else 0
        alone |= {name: n} if n else {}
    without: dict[str, Any] = {"static": int((driven & ~described).sum()), "alone": alone}
    without["forcing"] = int((described & ~driven).sum()) if statics else 0
    return Land(mask, expected, without)


def _seen(url: str, blocks: Iterable[int]) -> tuple[dict[str, Mask], dict[str, Mask]]:
    """(y, x) cells in which each variable of forcing has a value on any day; and each static."""
    forcing: dict[str, Mask] = {}
    statics: dict[str, Mask] = {}
    for block in blocks:
        for key, found in _load(url, block):
            kind, _, name = key.partition("/")
            if kind == _FORCING:
                there: Mask = np.any(found, axis=0)
                forcing[name] = forcing[name] | there if name in forcing else there
            elif kind == _STATIC:
                statics[name] = found
    return forcing, statics


def _empty(seen: dict[str, Mask], entries: dict[str, str]) -> list[str]:
    """Why no cell is valid: variables without a value, else the cells that each one has."""
    lacking = [name for name, found in seen.items() if not found.any()]
    if lacking:
        return [_no_value(n, entries[n]) for n in lacking]
    each = ", ".join(f"{n} of {entries[n]} in {int(seen[n].sum())}" for n in seen)
    return [f"no cell has values of all forcing and of a static; cells with values: {each}"]


def _no_value(name: str, entry: str) -> str:
    return f"{name} of {entry} has no value in the domain and period"


def _count(
    url: str,
    period: Period,
    blocks: Iterable[int],
    where: dict[str, Mask],
    counts: dict[str, missing_values.Counts],
) -> None:
    """Count what some variables lack in blocks, each where it has to have values."""
    for block in blocks:
        held = dict(_load(url, block))
        days = missing_values.days_of(period, block)
        for key, found in held.items():
            kind, _, name = key.partition("/")
            if kind == _INFINITE or name not in where:
                continue
            infinite = int(held.get(f"{_INFINITE}/{name}", 0))
            if kind == _STATIC:
                counts[name].add_constant(int((where[name] & ~found).sum()), infinite)
            else:
                lacking = _lacking(found, where[name], [*days])
                counts[name].add(np.array([*days.values()]), lacking, infinite)


def _lacking(found: Bits, cells: Mask, places: Sequence[int]) -> NDArray[np.int64]:
    """(day,) cells without a value on some of the days of a block."""
    n = int(cells.sum())
    there = [((found[day // 8] >> (7 - day % 8)) & 1)[cells].sum() for day in places]
    return n - np.array(there, np.int64)


def _load(url: str, block: int) -> Iterator[tuple[str, NDArray[Any]]]:
    with np.load(io.BytesIO(files.read_bytes(_url(url, block)))) as held:
        for key in held.files:
            yield key, held[key]


def _url(url: str, block: int) -> str:
    return files.join(url, "receipts", f"{block}.npz")


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
        sources = experiment_sources.open_sources(experiment, block, forcing_alone)
        made = Block(experiment, sources, block, url, receipt, forcing_alone)
        made.write()
        made.found.save(url, block)
        return receipt

    receipt = empty_receipt()
    try:
        receipt = access.patiently(written)
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
    return {"node": ray_cluster.node(), "shards": [], "dropped": {}, **failures}


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
        self.days = experiment_sources.days_of(block)
        blocks = schema.block_range(experiment.period)
        self.first = not forcing_alone and block == blocks.start
        start = (block - blocks.start) * schema.BLOCK_DAYS
        self.time = slice(start, start + schema.BLOCK_DAYS)
        first, last = (np.datetime64(day, "ns") for day in experiment.period)
        self.inside = (self.days >= first) & (self.days <= last)
        self.found = Found()
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
        values, flag = experiment_sources.read_footprints(
            self.experiment, satellite, self.days[self.inside]
        )
        self.found.without_infinite(target, values)
        self.found.note("satellite", target, self._on_all_days(values))
        dropped = experiment_sources.screen_footprints(self.experiment, values, flag)
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
        values = remap.on_days(dataset, name, self.days)
        values[~self.inside] = np.nan
        self.found.without_infinite(name, values)
        return values

    def _field(
        self, name: str, dataset: xr.Dataset, values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """A source's values on the cells, (..., y, x), their range checked."""
        field = self.sources.cells(name, values)
        # A mean over several of a grid's cells could hide one that is out of range.
        checked = values if remap.is_grid(dataset) else field
        self._check_range(name, checked, str(dataset.attrs["entry"]))
        return field

    def _check_range(self, name: str, values: NDArray[np.float32], entry: str) -> None:
        self.receipt["problems"] += range_problems(name, values, self.experiment.table, entry)

    def _put(self, path: str, values: NDArray[Any], constant: bool = False) -> None:
        region = [slice(0, size) for size in values.shape]
        if not constant:
            region[0] = self.time
        self.receipt["shards"] += zarr_arrays.write_shards(self.url, path, region, values)


def _positions(url: str) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Row and column of the cell that holds each site of the cube; None where it has no sites."""
    if not zarr_arrays.attributes(url, "sites"):
        return None
    group = zarr_arrays.open_group(url, "sites")
    return group["y"].values, group["x"].values
