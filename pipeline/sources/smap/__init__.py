"""SMAP's daily composites of retrievals (SPL3SMP of 36 km, SPL3SMP_E of 9 km), HDF5.

A file has a group for the descending passes, at 6 in the morning of local solar time, and one for
the ascending, at 6 in the evening, whose datasets end in `_pm`. A composite takes whole half-orbits
and, at a place, the one nearest to that hour: around the meridian where it is midnight UTC (90 E
in the morning) some of its observations are of the day before or after. So each value goes to the
UTC day of its `tb_time_utc`, and the files of both neighbouring days are read too.

SMAP's Level 4 (SPL4SMGP): means over three hours on the 9 km grid, HDF5; here, means of days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.shared import http_errors
from pipeline.sources.shared.driver import REMEDY, Mapping
from pipeline.sources.smap import hdf5
from pipeline.sources.smap.files import (
    FLAG_NAME,
    PASS_GROUPS,
    Level3Task,
    Level4Task,
    combine_passes,
    coordinate_problems,
    flag_attributes,
    lacks_pass,
    level4_problems,
    mean_of_files,
    pass_problems,
    read_passes,
)
from pipeline.sources.smap.granules import GranuleSource

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.grid.ease import Window
    from pipeline.sources.smap.search import Granule


MAX_FILES_TRIED = 8  # for a file that has a pass


class SmapL3Source(GranuleSource):
    """Intake driver for SMAP's daily retrievals: the grid form, with `provider_flag`.

    `provider_flag` (time, lat, lon) is `retrieval_qual_flag`, uint16, 65535 where nothing was
    observed; no value is dropped for it. Its attributes: `flag_masks` and `flag_meanings` (CF),
    `bad_bits`, any of which is a reason to drop a value, and `good`, the flags without them.

    Args:
      passes: `am`, `pm` or both. Of two passes in a day the recommended ones count, by their mean;
        where none is recommended, both.
      reject_bits: bits of the flag that make a value one not recommended; 1 is the provider's own
        judgement.
      others: as `GranuleSource` has them.
    """

    name = "soilweave_smap_l3"
    margin_days = 1

    def __init__(
        self,
        mapping: Mapping | list[Mapping],
        *,
        passes: list[str] | None = None,
        reject_bits: int = 1,
        **others: Any,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(mapping, **others)
        self.passes, self.reject_bits = tuple(passes or ["am"]), reject_bits
        if not set(self.passes) <= PASS_GROUPS.keys():
            msg = f"passes {list(self.passes)}: expected `am`, `pm` or both"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, one block a day; the first file alone is opened.

        Raises:
          DataError: there are no files, or the first is not as the catalog says. Others that are
            not raise it when they are read.
        """
        import xarray as xr
        from dask.delayed import delayed

        granules = self.granules()
        shape = self._shape(list(granules.values()))
        window = hdf5.window_over(self.region, hdf5.REFINEMENT_BY_SHAPE[shape])
        task = Level3Task(
            self.units,
            self.fills,
            self.passes,
            hdf5.window_slices(window),
            shape,
            self.storage_options,
            self.login,
        )
        opened, joined = delayed(read_passes, pure=True), delayed(combine_passes, pure=True)
        parts = {time.astype("datetime64[D]"): opened(task, g) for time, g in granules.items()}

        def made(day: np.datetime64) -> Any:
            around = {shift: parts[day + shift] for shift in (0, -1, 1) if day + shift in parts}
            return joined(around, list(self.units), window.cell_shape, self.reject_bits)

        types: dict[str, type] = {**dict.fromkeys(self.units, np.float32), FLAG_NAME: np.uint16}
        days = self.days(granules)
        raw = hdf5.grid_dataset(window, days, hdf5.stack_days(made, days, types, window))
        dataset = xr.Dataset(self.translate(raw), raw.coords)
        dataset["provider_flag"] = raw[FLAG_NAME].assign_attrs(flag_attributes(self.reject_bits))
        return dataset

    read = to_dask

    def _shape(self, granules: list[Granule]) -> tuple[int, int]:
        """Rows and columns of the product, by the first file that has one of the passes."""
        for granule in granules[:MAX_FILES_TRIED]:
            with hdf5.open_hdf5(granule.url, self.storage_options, self.login) as file:
                if not all(lacks_pass(file, key) for key in self.passes):
                    break
        return self._shape_of(granule)

    def _shape_of(self, granule: Granule) -> tuple[int, int]:
        """Rows and columns of a file, whose faults are told at once."""
        with hdf5.open_hdf5(granule.url, self.storage_options, self.login) as file:
            held = [key for key in self.passes if not lacks_pass(file, key)] or list(self.passes)
            found = []
            for key in held:
                found += pass_problems(file, key, self.units)
            if not found:
                group, suffix = PASS_GROUPS[held[0]]
                shape = file[f"{group}/{FLAG_NAME}{suffix}"].shape
                if shape in hdf5.REFINEMENT_BY_SHAPE:
                    return (int(shape[0]), int(shape[1]))
                found = [
                    f"{group}/{FLAG_NAME}{suffix}: shape {shape}, "
                    f"expected {list(hdf5.REFINEMENT_BY_SHAPE)}"
                ]
        raise DataError(http_errors.shown(granule.url), *found, remedy=REMEDY)


STEPS_PER_DAY = 8  # of a day, centred 01:30, 04:30 .. 22:30


class SmapL4Source(GranuleSource):
    """Intake driver for SMAP's Level 4: the grid form, means of UTC days.

    Args:
      min_steps: a day with fewer of its eight steps is a gap.
      others: as `GranuleSource` has them.
    """

    name = "soilweave_smap_l4"

    def __init__(
        self,
        mapping: Mapping | list[Mapping],
        *,
        min_steps: int = STEPS_PER_DAY,
        **others: Any,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(mapping, **others)
        self.min_steps = min_steps
        if not 1 <= min_steps <= STEPS_PER_DAY:
            msg = f"min_steps {min_steps}: expected 1 to {STEPS_PER_DAY}"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, one block a day; the first file alone is opened.

        Raises:
          DataError: there are no files, or the first is not as the catalog says. Others that are
            not raise it when they are read.
        """
        import xarray as xr
        from dask.delayed import delayed

        granules = self.granules()
        window = hdf5.window_over(self.region, 4)
        task = Level4Task(
            self.units, self.fills, hdf5.window_slices(window), self.storage_options, self.login
        )
        self._check(next(iter(granules.values())), task, window)
        steps: dict[np.datetime64, list[Granule]] = {}
        for time, granule in granules.items():
            steps.setdefault(time.astype("datetime64[D]"), []).append(granule)
        joined = delayed(mean_of_files, pure=True)

        def made(day: np.datetime64) -> Any:
            held = steps.get(day, [])
            return joined(task, held if len(held) >= self.min_steps else [], window.cell_shape)

        days = self.days(granules)
        types: dict[str, type] = dict.fromkeys(self.units, np.float32)
        raw = hdf5.grid_dataset(window, days, hdf5.stack_days(made, days, types, window))
        return xr.Dataset(self.translate(raw), raw.coords)

    read = to_dask

    def _check(self, granule: Granule, task: Level4Task, window: Window) -> None:
        """Tell the faults of the first file, its latitudes and longitudes among them, at once."""
        with hdf5.open_hdf5(granule.url, self.storage_options, self.login) as file:
            found = level4_problems(file, task) or coordinate_problems(file, task.part, window)
        if found:
            raise DataError(http_errors.shown(granule.url), *found, remedy=REMEDY)
