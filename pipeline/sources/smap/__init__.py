"""Intake drivers for SMAP's Level 3 retrievals and Level 4 analysis, in HDF5 files.

Level 3 (SPL3SMP on 36 km, SPL3SMP_E on 9 km) has daily files with a group for the descending
passes, at 6 in the morning of local solar time, and one for the ascending passes, at 6 in the
evening, whose datasets end in `_pm`. A file is composed of whole half-orbits, and each cell has the
one nearest to that hour. Near the meridian where it is midnight UTC at that hour (90 E in the
morning), some observations are of the day before or after. Each value is therefore assigned to the
UTC day of its `tb_time_utc`, and the files of both neighbouring days are read too.

Level 4 (SPL4SMGP) has means over three hours on the 9 km grid; its driver returns means of UTC
days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.shared import http_errors
from pipeline.sources.shared.driver import CORRECT_FILE_HINT, EntryMapping
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


MAX_FILES_TRIED = 8  # files that are opened to find one that has a pass
STEPS_PER_DAY = 8  # files of Level 4 in a day, centred at 01:30, 04:30 .. 22:30


class SmapL3Source(GranuleSource):
    """Read SMAP's daily retrievals as a grid, with `provider_flag`.

    `provider_flag` (time, lat, lon) is `retrieval_qual_flag`, uint16, 65535 where nothing was
    observed. The driver drops no value because of its flag. The attributes of `provider_flag` are
    `flag_masks` and `flag_meanings` (CF); `bad_bits`, any of which is a reason to drop a value;
    and `good`, the flags without these bits.

    Args:
      mapping: As in `GranuleSource`.
      passes: `am`, `pm` or both. The value of a day with two passes is the mean of those that are
        recommended, or of both if none is.
      reject_bits: Bits of the flag that make a value not recommended; 1 is the provider's own
        recommendation.
      others: The other arguments of `GranuleSource`.

    Raises:
      ValueError: If arguments are invalid, or neither files nor a collection are given.
    """

    name = "soilweave_smap_l3"
    margin_days = 1

    def __init__(
        self,
        mapping: EntryMapping | list[EntryMapping],
        *,
        passes: list[str] | None = None,
        reject_bits: int = 1,
        **others: Any,
    ) -> None:
        """Check and keep the arguments; open nothing yet."""
        super().__init__(mapping, **others)
        self.passes, self.reject_bits = tuple(passes or ["am"]), reject_bits
        if not set(self.passes) <= PASS_GROUPS.keys():
            msg = f"passes {list(self.passes)}: expected `am`, `pm` or both"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays with one block per day.

        Only the first files are opened, to check their form and read the shape of the grid.

        Raises:
          DataError: If there are no files, or the first file is not as the catalog says. Other
            files raise this error when their values are computed.
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
        read, combine = delayed(read_passes, pure=True), delayed(combine_passes, pure=True)
        passes = {time.astype("datetime64[D]"): read(task, g) for time, g in granules.items()}

        def read_day(day: np.datetime64) -> Any:
            around = {shift: passes[day + shift] for shift in (0, -1, 1) if day + shift in passes}
            return combine(around, list(self.units), window.cell_shape, self.reject_bits)

        types: dict[str, type] = {**dict.fromkeys(self.units, np.float32), FLAG_NAME: np.uint16}
        days = self.days(granules)
        raw = hdf5.grid_dataset(window, days, hdf5.stack_days(read_day, days, types, window))
        dataset = xr.Dataset(self.translate(raw), raw.coords)
        dataset["provider_flag"] = raw[FLAG_NAME].assign_attrs(flag_attributes(self.reject_bits))
        return dataset

    read = to_dask

    def _shape(self, granules: list[Granule]) -> tuple[int, int]:
        """Return rows and columns of the product, from the first file that has a pass."""
        for granule in granules[:MAX_FILES_TRIED]:
            with hdf5.open_hdf5(granule.url, self.storage_options, self.login) as file:
                if not all(lacks_pass(file, key) for key in self.passes):
                    break
        return self._shape_of(granule)

    def _shape_of(self, granule: Granule) -> tuple[int, int]:
        """Return rows and columns of a file.

        Raises:
          DataError: If the file is not as the catalog says; the error lists all differences.
        """
        with hdf5.open_hdf5(granule.url, self.storage_options, self.login) as file:
            present = [key for key in self.passes if not lacks_pass(file, key)]
            present = present or list(self.passes)
            problems = [text for key in present for text in pass_problems(file, key, self.units)]
            if not problems:
                group, suffix = PASS_GROUPS[present[0]]
                shape = file[f"{group}/{FLAG_NAME}{suffix}"].shape
                if shape in hdf5.REFINEMENT_BY_SHAPE:
                    return (int(shape[0]), int(shape[1]))
                accepted = " or ".join(map(str, hdf5.REFINEMENT_BY_SHAPE))
                problems = [f"{group}/{FLAG_NAME}{suffix}: shape {shape}, expected {accepted}"]
        raise DataError(http_errors.format_url(granule.url), *problems, remedy=CORRECT_FILE_HINT)


class SmapL4Source(GranuleSource):
    """Read SMAP's Level 4 product as a grid with means of UTC days.

    Args:
      mapping: As in `GranuleSource`.
      min_steps: A day with fewer than this many of its eight files has no values.
      others: The other arguments of `GranuleSource`.

    Raises:
      ValueError: If arguments are invalid, or neither files nor a collection are given.
    """

    name = "soilweave_smap_l4"

    def __init__(
        self,
        mapping: EntryMapping | list[EntryMapping],
        *,
        min_steps: int = STEPS_PER_DAY,
        **others: Any,
    ) -> None:
        """Check and keep the arguments; open nothing yet."""
        super().__init__(mapping, **others)
        self.min_steps = min_steps
        if not 1 <= min_steps <= STEPS_PER_DAY:
            msg = f"min_steps {min_steps}: expected 1 to {STEPS_PER_DAY}"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays with one block per day.

        Only the first file is opened, to check its form.

        Raises:
          DataError: If there are no files, or the first file is not as the catalog says. Other
            files raise this error when their values are computed.
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
        average = delayed(mean_of_files, pure=True)

        def read_day(day: np.datetime64) -> Any:
            day_files = steps.get(day, [])
            used = day_files if len(day_files) >= self.min_steps else []
            return average(task, used, window.cell_shape)

        days = self.days(granules)
        types: dict[str, type] = dict.fromkeys(self.units, np.float32)
        raw = hdf5.grid_dataset(window, days, hdf5.stack_days(read_day, days, types, window))
        return xr.Dataset(self.translate(raw), raw.coords)

    read = to_dask

    def _check(self, granule: Granule, task: Level4Task, window: Window) -> None:
        """Check that a file, including its latitudes and longitudes, is as expected.

        Raises:
          DataError: If it is not; the error lists all differences.
        """
        with hdf5.open_hdf5(granule.url, self.storage_options, self.login) as file:
            problems = level4_problems(file, task) or coordinate_problems(file, task.part, window)
        if problems:
            raise DataError(
                http_errors.format_url(granule.url), *problems, remedy=CORRECT_FILE_HINT
            )
