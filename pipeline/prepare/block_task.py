"""Write blocks of 32 days of all sources into the cube, one Ray task for each block.

The task also records where each variable has values. When all blocks are written, these records
give the mask of valid cells. Only then can missing values be distinguished from sea, and counted.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline import failures, files
from pipeline.catalog import experiment_sources
from pipeline.catalog.site_records import find_range_problems
from pipeline.cluster import ray_cluster
from pipeline.errors import DataError, SoilweaveError, StoreError, UnreachableError
from pipeline.experiment.config import Experiment
from pipeline.grid import remap
from pipeline.sources.shared import access, open_files
from pipeline.storage import missing_values, schema, zarr_arrays

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.catalog.experiment_sources import Sources
    from pipeline.files import Json
    from pipeline.grid.ease import Window

    Period = tuple[date, date]
    PackedDays = NDArray[
        np.uint8
    ]  # (days / 8, ...): one bit per day, the first day the highest bit
    Mask = NDArray[np.bool_]


_FORCING, _STATIC, _INFINITE = "forcing", "static", "infinite"  # kinds of records


def write_block(
    item: Json, experiment_json: str, url: str, forcing_only: bool = False, extended_days: int = 0
) -> Json:
    """Write all arrays of one block (a Ray task).

    The receipt, and the records of `ValuePresence` next to it, are written too.

    Args:
      item: {"block": number of the block}.
      experiment_json: The experiment as JSON.
      url: The cube.
      forcing_only: Write only the forcing of the cells, without statics, satellite and sites.
      extended_days: Number of days of the cells, if updates have added some. Their forcing is
        missing afterwards, in a block that has days of both.

    Returns:
      The receipt, in the form of `empty_receipt`, with the shards written, the number of values
      that each rule dropped, and all errors of the sources.

    Raises:
      StoreError: If the cube cannot be written.
    """
    experiment, block = Experiment.model_validate_json(experiment_json), int(item["block"])

    def write() -> Json:
        receipt = empty_receipt()
        with open_files.keep_open():
            sources = experiment_sources.open_sources(experiment, block, forcing_only)
            writer = BlockWriter(
                experiment, sources, block, url, receipt, forcing_only, extended_days
            )
            writer.write()
        writer.presence.save(url, block)
        return receipt

    receipt = empty_receipt()
    try:
        receipt = access.retry_read(write)
        if not receipt["problems"]:
            files.write_json(files.join(url, "receipts", f"{block}.json"), receipt)
    except StoreError:
        raise  # Ray runs the task again
    except SoilweaveError as error:
        receipt |= {"unread": [str(error)], "outage": isinstance(error, UnreachableError)}
    except failures.storage_exceptions(ImportError) as error:
        # A damaged file raises OSError when its chunks are read, and so does an outage.
        passing = failures.explain(error).passing
        what = next(iter(getattr(error, "__notes__", ())), "a source")  # from `_naming`
        receipt |= {"unread": [f"{what} {failures.read_problem(error)}"], "outage": passing}
    return receipt


def empty_receipt() -> Json:
    """Return the receipt of a task that has written nothing yet.

    `problems` lists invalid values, `unread` sources that could not be read, and `unwritten`
    objects that could not be written. `outage` means that a store did not respond, so that other
    tasks would fail too.
    """
    failures: Json = {"problems": [], "unread": [], "unwritten": [], "outage": False}
    return {"node": ray_cluster.node_address(), "shards": [], "dropped": {}, **failures}


class BlockWriter:
    """Writes the arrays of one block of 32 days into the cube.

    Attributes:
      days: (day,) datetime64[ns], the days of the block.
      time: Where they are on the time axis of the cube.
      n_added: Number of days of the block that updates have added to the cells.
      presence: Where the sources have values.
      receipt: The receipt of the task, which `write` adds to.
    """

    def __init__(
        self,
        experiment: Experiment,
        sources: Sources,
        block: int,
        url: str,
        receipt: Json,
        forcing_only: bool = False,
        extended_days: int = 0,
    ) -> None:
        self.experiment, self.sources, self.url, self.receipt = experiment, sources, url, receipt
        self.days = schema.block_days(experiment.period, block)
        self.time = schema.block_slice(experiment.period, block)
        stop = max(self.time.stop, min(self.time.start + schema.BLOCK_DAYS, extended_days))
        self.n_added = stop - self.time.stop
        self.writes_statics = not forcing_only and block == 0
        self.presence = ValuePresence()
        self._read: dict[str, NDArray[np.float32]] = {}  # read with another variable
        self.sites = None
        if experiment.inputs_from == "cell" and not forcing_only:
            self.sites = _site_cells(url)

    def write(self) -> None:
        """Write the cells, the footprints, and the inputs that sites take from their cells."""
        for name in self.sources.forcing:
            field = self._cells(name)
            self.presence.record(_FORCING, name, field)
            if self.sites is not None:
                self._put(f"sites/{name}", field[:, *self.sites])
        if self.sources.satellite is not None:
            self._footprints(self.sources.satellite)
        if self.writes_statics:
            self._constants()

    def _cells(self, name: str) -> NDArray[np.float32]:
        """Write a forcing on the cells and return it, (day, y, x)."""
        dataset = self.sources.forcing[name]
        field = self._field(name, dataset, self._values(dataset, name))
        added = np.full((self.n_added, *field.shape[1:]), np.nan, np.float32)
        self._put(f"cells/{name}", np.concatenate([field, added]) if self.n_added else field)
        return field

    def _footprints(self, satellite: xr.Dataset) -> None:
        """Write the satellite's values that pass quality control."""
        target = self.experiment.target
        with _naming(satellite, target):
            values, flag = experiment_sources.read_footprints(self.experiment, satellite, self.days)
        self.presence.drop_infinite(target, values)
        self.presence.record("satellite", target, self.sources.on_footprints(values))
        dropped = experiment_sources.screen_footprints(self.experiment, values, flag)
        self.receipt["dropped"] |= {f"satellite: {rule}": n for rule, n in dropped.items()}
        self._put(f"footprints/{target}", self.sources.on_footprints(values))

    def _constants(self) -> None:
        """Write the statics."""
        for name, dataset in self.sources.static.items():
            values = self.sources.static_values[name]
            self.presence.drop_infinite(name, values)
            field = self._field(name, dataset, values)
            self.presence.record(_STATIC, name, field)
            self._put(f"cells/{name}", field, constant=True)
            if self.sites is not None:
                self._put(f"sites/{name}", field[self.sites], constant=True)

    def _values(self, dataset: xr.Dataset, name: str) -> NDArray[np.float32]:
        """Read the block's values, (day, ...); NaN if missing or infinite."""
        if name not in self._read:
            forcing = self.sources.forcing
            together = dataset.encoding.get("together", False)
            names = [n for n in forcing if forcing[n] is dataset] if together else [name]
            with _naming(dataset, name):
                self._read |= remap.read_variables(dataset, names, self.days)
        values = self._read.pop(name)
        self.presence.drop_infinite(name, values)
        return values

    def _field(
        self, name: str, dataset: xr.Dataset, values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Put a source's values on the cells, (..., y, x), and check their range."""
        field = self.sources.on_cells(name, values)
        # A mean over several source cells could hide one that is outside the range.
        checked = values if remap.is_grid(dataset) else field
        self._check_range(name, checked, str(dataset.attrs["entry"]))
        return field

    def _check_range(self, name: str, values: NDArray[np.float32], entry: str) -> None:
        """Add a value outside the variable's range to the receipt's problems."""
        self.receipt["problems"] += find_range_problems(name, values, self.experiment.table, entry)

    def _put(self, path: str, values: NDArray[Any], constant: bool = False) -> None:
        """Write an array of the cube, on the days of the block unless it is constant."""
        region = [slice(0, size) for size in values.shape]
        if not constant:
            region[0] = slice(self.time.start, self.time.start + len(values))
        self.receipt["shards"] += zarr_arrays.write_shards(self.url, path, region, values)


@contextlib.contextmanager
def _naming(source: xr.Dataset, variable: str) -> Iterator[None]:
    """Note in the error of a library what was read, whose values come only now."""
    try:
        yield
    except failures.storage_exceptions(ImportError) as error:
        error.add_note(f"catalog entry {source.attrs['entry']}: {variable}")
        raise


def _site_cells(url: str) -> tuple[NDArray[np.int32], NDArray[np.int32]] | None:
    """Return the row and column of the cell of each site; None if the cube has no sites."""
    if not zarr_arrays.read_attributes(url, "sites"):
        return None
    group = zarr_arrays.open_group(url, "sites")
    return group["y"].values, group["x"].values


class CellMask(NamedTuple):
    """The mask of valid cells, and for each variable the cells in which values are expected.

    Attributes:
      mask: (y, x) the valid cells.
      expected: By variable, (y, x) the cells in which values are expected.
      without: Numbers of cells that have some values but are not valid. `forcing` counts cells
        with a static but without all forcing, `static` cells with all forcing but without a
        static, and `alone`, by variable, cells in which only this forcing is missing.
    """

    mask: Mask
    expected: dict[str, Mask]
    without: dict[str, Any]


class ValuePresence:
    """Records where the sources have values in one block."""

    def __init__(self) -> None:
        """Start without records."""
        self._arrays: dict[str, NDArray[Any]] = {}

    def drop_infinite(self, name: str, values: NDArray[np.float32]) -> None:
        """Replace the infinite values of a variable by NaN, in place, and count them."""
        infinite = np.isinf(values)
        values[infinite] = np.nan
        if infinite.any():
            self._arrays[f"{_INFINITE}/{name}"] = infinite.sum()

    def record(self, kind: str, name: str, values: NDArray[np.float32]) -> None:
        """Record where a variable has values.

        Args:
          kind: forcing, static or satellite.
          name: The name of the variable.
          values: (day, y, x) on the days of the block, or (y, x) for a static; NaN if missing.
        """
        present = ~np.isnan(values)
        self._arrays[f"{kind}/{name}"] = (
            present if kind == _STATIC else np.packbits(present, axis=0)
        )

    def save(self, url: str, block: int) -> None:
        """Save the records next to the receipt of the block."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self._arrays)  # type: ignore[arg-type]
        files.write_bytes(_presence_url(url, block), buffer.getvalue())


def has_presence(url: str, block: int) -> bool:
    """Return whether the records of a block are complete; older versions did not write them."""
    try:
        return bool(dict(_load_presence(url, block)))
    except (FileNotFoundError, EOFError, ValueError, zipfile.BadZipFile, zlib.error):
        return False


def finish_mask(
    url: str, experiment: Experiment, window: Window, entries: dict[str, str]
) -> tuple[Mask, Json]:
    """Find the mask of cells after all blocks are written, and count the missing values.

    Args:
      url: The cube.
      experiment: The settings: the period, and how many missing values are accepted.
      window: The cells.
      entries: By variable, the catalog entry it comes from; for the target, the satellite's.

    Returns:
      The mask (y, x); and {"cells": ..., "footprints": ...}, by variable the records of
      `missing_values.MissingCounts`, with {"no_cells": ...}, the numbers in `Land.without`.

    Raises:
      DataError: If no cell is valid, or a variable has more missing values than are accepted. The
        receipts of the blocks concerned are removed, so that the next run reads them again.
    """
    target, blocks = experiment.target, schema.block_range(experiment.period)
    try:
        cells = find_valid_cells(url, blocks, entries)
    except DataError:
        missing_values.forget_receipts(url, blocks)
        raise
    side, (fy, fx) = window.refinement, window.footprint_shape
    # A footprint is usable if at least half of its cells are valid.
    usable = cells.mask.reshape(fy, side, fx, side).sum((1, 3)) * 2 >= side**2
    expected = cells.expected | ({target: usable} if target in entries else {})
    counts = {
        n: missing_values.MissingCounts(entries[n], int(at.sum())) for n, at in expected.items()
    }
    _count_missing(url, experiment.period, blocks, expected, counts)
    records = {name: each.record() for name, each in counts.items()}
    satellite = {name: records.pop(name) for name in (target,) if name in records}
    for name, record in satellite.items():
        if usable.any() and record["n"] == record["of"]:
            missing_values.forget_receipts(url, blocks)
            raise missing_values.missing_values_error([_no_value_problem(name, record["entry"])])
    missing_values.check_limits(experiment, records, url)
    return cells.mask, {"cells": records, "footprints": satellite, "no_cells": cells.without}


def count_appended(
    url: str, extended: Experiment, blocks: range, cube_url: str, before: dict[str, Json]
) -> dict[str, Json]:
    """Count the missing forcing of the cells after the last blocks of an extended period are read.

    Args:
      url: The store of these blocks.
      extended: The experiment with a period that ends on the last new day.
      blocks: The numbers of the blocks.
      cube_url: The cube, which has the mask of cells.
      before: By variable, the record of the present cube. A variable without a record is assumed
        to be complete.

    Returns:
      The records by variable, updated.

    Raises:
      DataError: If a variable has more missing values than are accepted, as in `settled`.
    """
    mask = zarr_arrays.open_group(cube_url, "cells")["mask"].values.astype(bool)
    names = [str(name) for name in zarr_arrays.read_attributes(cube_url)["forcing"]]
    first = schema.epoch_day(extended.period[0])
    days = range(first, first + blocks.start * schema.BLOCK_DAYS)
    complete = missing_values.MissingCounts(", ".join(extended.sources.forcing), 0).record()
    counts = {
        name: missing_values.MissingCounts.until(before.get(name, complete), int(mask.sum()), days)
        for name in names
    }
    _count_missing(url, extended.period, blocks, dict.fromkeys(names, mask), counts)
    records = {name: each.record() for name, each in counts.items()}
    missing_values.check_limits(extended, records, url)
    return before | records


def find_valid_cells(url: str, blocks: Iterable[int], entries: dict[str, str]) -> CellMask:
    """Find the valid cells: those with every forcing on some day, and with any static.

    A static is expected in these cells, and also in cells with all forcing in which its entry has
    another variable: such a cell is not sea, so the value is missing.

    Args:
      url: The store of the blocks.
      blocks: The numbers of the blocks.
      entries: By variable, the catalog entry it comes from.

    Raises:
      DataError: If no cell is valid; it names the variables that have no value at all.
    """
    forcing, statics = _cells_with_values(url, blocks)
    present = forcing | statics
    shape = next(iter(forcing.values())).shape
    any_static = np.any([*statics.values()], axis=0) if statics else np.ones(shape, bool)
    all_forcing = np.all([*forcing.values()], axis=0)
    mask = all_forcing & any_static
    in_entry = {
        entry: np.any([present[name] for name in present if entries[name] == entry], axis=0)
        for entry in set(entries.values())
    }
    expected = dict.fromkeys(forcing, mask)
    for name in statics:
        expected[name] = mask | (all_forcing & in_entry[entries[name]])
    if not mask.any():
        raise missing_values.missing_values_error(_no_valid_cell_problems(present, entries))
    alone: dict[str, int] = {}
    for name in forcing:
        others = [cells for other, cells in forcing.items() if other != name]
        n = int(np.all([any_static & ~forcing[name], *others], axis=0).sum()) if others else 0
        alone |= {name: n} if n else {}
    without: dict[str, Any] = {"static": int((all_forcing & ~any_static).sum()), "alone": alone}
    without["forcing"] = int((any_static & ~all_forcing).sum()) if statics else 0
    return CellMask(mask, expected, without)


def _cells_with_values(url: str, blocks: Iterable[int]) -> tuple[dict[str, Mask], dict[str, Mask]]:
    """Return the cells (y, x) with a value of each forcing on any day, and of each static."""
    forcing: dict[str, Mask] = {}
    statics: dict[str, Mask] = {}
    for block in blocks:
        for key, array in _load_presence(url, block):
            kind, _, name = key.partition("/")
            if kind == _FORCING:
                on_any_day: Mask = np.any(array, axis=0)
                forcing[name] = forcing[name] | on_any_day if name in forcing else on_any_day
            elif kind == _STATIC:
                statics[name] = array
    return forcing, statics


def _no_valid_cell_problems(present: dict[str, Mask], entries: dict[str, str]) -> list[str]:
    """Explain why no cell is valid: variables without a value, or else the cells of each one."""
    empty = [name for name, cells in present.items() if not cells.any()]
    if empty:
        return [_no_value_problem(name, entries[name]) for name in empty]
    counts = ", ".join(f"{n} of {entries[n]} in {int(present[n].sum())}" for n in present)
    return [f"no cell has values of all forcing and of a static; cells with values: {counts}"]


def _no_value_problem(name: str, entry: str) -> str:
    return f"{name} of {entry} has no value in the domain and period"


def _count_missing(
    url: str,
    period: Period,
    blocks: Iterable[int],
    expected: dict[str, Mask],
    counts: dict[str, missing_values.MissingCounts],
) -> None:
    """Add the missing values of blocks to `counts`, for each variable in the expected cells."""
    for block in blocks:
        arrays = dict(_load_presence(url, block))
        days = schema.time_axis(period)[schema.block_slice(period, block)]
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            if kind == _INFINITE or name not in expected:
                continue
            infinite = int(arrays.get(f"{_INFINITE}/{name}", 0))
            if kind == _STATIC:
                counts[name].add_constant(int((expected[name] & ~array).sum()), infinite)
            else:
                counts[name].add(days, _missing_per_day(array, expected[name], len(days)), infinite)


def _missing_per_day(bits: PackedDays, cells: Mask, n_days: int) -> NDArray[np.int64]:
    """Return the number of cells without a value, (day,), on the days of a block.

    Args:
      bits: Where the block has values.
      cells: (y, x) the cells to count.
      n_days: Number of days of the block.
    """
    present = [((bits[day // 8] >> (7 - day % 8)) & 1)[cells].sum() for day in range(n_days)]
    return int(cells.sum()) - np.array(present, np.int64)


def _load_presence(url: str, block: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the keys and arrays that `Found.save` has written."""
    with np.load(io.BytesIO(files.read_bytes(_presence_url(url, block)))) as archive:
        for key in archive.files:
            yield key, archive[key]


def _presence_url(url: str, block: int) -> str:
    """Return the URL of the records of a block."""
    return files.join(url, "receipts", f"{block}.npz")
