"""Intake driver for SMAP's Level 4 product (SPL4SMGP), HDF5.

The product has means over three hours on the 9 km grid; the driver returns means of UTC days.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import remote
from pipeline.sources.earthdata import cmr
from pipeline.sources.form import REMEDY, Mapping
from pipeline.sources.smap import ease, hdf5
from pipeline.sources.smap.granules import GranuleSource
from pipeline.sources.smap.level4_files import Task, mean, misplaced, problems

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.grid import Window
    from pipeline.sources.earthdata.named import Granule

STEPS = 8  # files of a day, centred at 01:30, 04:30 .. 22:30


class SmapL4Source(GranuleSource):
    """Read SMAP's Level 4 product as a grid with means of UTC days.

    Args:
      mapping: As in `GranuleSource`.
      collection: As in `GranuleSource`.
      urlpath: As in `GranuleSource`.
      min_steps: A day with fewer than this many of its eight files has no values.
      direct: As in `GranuleSource`.
      repository: As in `GranuleSource`.
      login: As in `GranuleSource`.
      storage_options: As in `GranuleSource`.
      metadata: As in `GranuleSource`.
    """

    name = "soilweave_smap_l4"

    def __init__(
        self,
        mapping: Mapping | list[Mapping],
        collection: dict[str, str] | None = None,
        urlpath: str | list[str] = "",
        min_steps: int = STEPS,
        direct: bool = False,
        repository: str = cmr.CMR,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If arguments are invalid, or neither files nor a collection are given.
        """
        super().__init__(
            mapping, collection, urlpath, direct, repository, login, storage_options, metadata
        )
        self.min_steps = min_steps
        if not 1 <= min_steps <= STEPS:
            msg = f"min_steps {min_steps}: expected 1 to {STEPS}"
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
        window = ease.window_over(self.region, 4)
        units = {spec["from"]: spec["units"] for spec in self.mapping.values()}
        task = Task(units, self.fills, ease.part_of(window), self.storage_options, self.login)
        self._check(next(iter(granules.values())), task, window)
        steps: dict[np.datetime64, list[Granule]] = {}
        for time, granule in granules.items():
            steps.setdefault(time.astype("datetime64[D]"), []).append(granule)
        joined = delayed(mean, pure=True)

        def read_day(day: np.datetime64) -> Any:
            of_day = steps.get(day, [])
            used = of_day if len(of_day) >= self.min_steps else []
            return joined(task, used, window.cell_shape)

        days = self.days(granules)
        types: dict[str, type] = dict.fromkeys(units, np.float32)
        raw = ease.dataset(window, days, ease.stacked(read_day, days, types, window))
        return xr.Dataset(self.translated(raw), raw.coords)

    read = to_dask

    def _check(self, granule: Granule, task: Task, window: Window) -> None:
        """Check that a file, including its latitudes and longitudes, is as expected.

        Raises:
          DataError: If it is not; the error lists all differences.
        """
        with hdf5.opened(granule.url, self.storage_options, self.login) as file:
            messages = problems(file, task) or misplaced(file, task.part, window)
        if messages:
            raise DataError(remote.shown(granule.url), *messages, remedy=REMEDY)
