"""SMAP's Level 4 (SPL4SMGP): means over three hours on the 9 km grid, HDF5; here, means of days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import http_errors
from pipeline.sources.form import REMEDY, Mapping
from pipeline.sources.smap import ease, hdf5
from pipeline.sources.smap.granules import GranuleSource
from pipeline.sources.smap.level4_files import Task, mean, misplaced, problems

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.grid import Window
    from pipeline.sources.earthdata.named import Granule

STEPS = 8  # of a day, centred 01:30, 04:30 .. 22:30


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
        min_steps: int = STEPS,
        **others: Any,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(mapping, **others)
        self.min_steps = min_steps
        if not 1 <= min_steps <= STEPS:
            msg = f"min_steps {min_steps}: expected 1 to {STEPS}"
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
        window = ease.window_over(self.region, 4)
        task = Task(self.units, self.fills, ease.part_of(window), self.storage_options, self.login)
        self._check(next(iter(granules.values())), task, window)
        steps: dict[np.datetime64, list[Granule]] = {}
        for time, granule in granules.items():
            steps.setdefault(time.astype("datetime64[D]"), []).append(granule)
        joined = delayed(mean, pure=True)

        def made(day: np.datetime64) -> Any:
            held = steps.get(day, [])
            return joined(task, held if len(held) >= self.min_steps else [], window.cell_shape)

        days = self.days(granules)
        types: dict[str, type] = dict.fromkeys(self.units, np.float32)
        raw = ease.dataset(window, days, ease.stacked(made, days, types, window))
        return xr.Dataset(self.translated(raw), raw.coords)

    read = to_dask

    def _check(self, granule: Granule, task: Task, window: Window) -> None:
        """Tell the faults of the first file, its latitudes and longitudes among them, at once."""
        with hdf5.opened(granule.url, self.storage_options, self.login) as file:
            found = problems(file, task) or misplaced(file, task.part, window)
        if found:
            raise DataError(http_errors.shown(granule.url), *found, remedy=REMEDY)
