"""SMAP's Level 4 (SPL4SMGP): means over three hours on the 9 km grid, HDF5; here, means of days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import cmr, ease, hdf5, remote
from pipeline.sources.form import REMEDY, Mapping
from pipeline.sources.granules import GranuleSource

if TYPE_CHECKING:
    import h5py
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.grid import Window
    from pipeline.sources.cmr import Granule

GROUP = "Geophysical_Data"
STEPS = 8  # of a day, centred 01:30, 04:30 .. 22:30
SHAPE = next(shape for shape, refinement in ease.SHAPES.items() if refinement == 4)
_NEAR_DEGREES = 1e-3  # the file's are float32


class Task(NamedTuple):
    """What to read of every file: datasets and their units, the part, and how."""

    units: dict[str, str]
    part: ease.Part
    options: dict[str, Any]
    login: str | None


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
        collection: dict[str, str] | None = None,
        urlpath: str | list[str] = "",
        min_steps: int = STEPS,
        direct: bool = False,
        repository: str = cmr.CMR,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(
            mapping, collection, urlpath, direct, repository, login, storage_options, metadata
        )
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
        units = {spec["from"]: spec["units"] for spec in self.mapping.values()}
        task = Task(units, ease.part_of(window), self.storage_options, self.login)
        self._check(next(iter(granules.values())), task, window)
        steps: dict[np.datetime64, list[Granule]] = {}
        for time, granule in granules.items():
            steps.setdefault(time.astype("datetime64[D]"), []).append(granule)
        mean = delayed(_mean, pure=True)

        def made(day: np.datetime64) -> Any:
            held = steps.get(day, [])
            return mean(task, held if len(held) >= self.min_steps else [], window.cell_shape)

        days = self.days(granules)
        types: dict[str, type] = dict.fromkeys(units, np.float32)
        raw = ease.dataset(window, days, ease.stacked(made, days, types, window))
        return xr.Dataset(self.translated(raw), raw.coords)

    read = to_dask

    def _check(self, granule: Granule, task: Task, window: Window) -> None:
        """Tell the faults of the first file, its latitudes and longitudes among them, at once."""
        with hdf5.opened(granule.url, self.storage_options, self.login) as file:
            found = _problems(file, task) or _misplaced(file, task.part, window)
        if found:
            raise DataError(remote.shown(granule.url), *found, remedy=REMEDY)


def _problems(file: h5py.File, task: Task) -> list[str]:
    found = hdf5.problems(file, GROUP, dict(task.units))
    return found or [
        f"{GROUP}/{name}: shape {file[GROUP][name].shape}, expected {SHAPE}"
        for name in task.units
        if file[GROUP][name].shape != SHAPE
    ]


def _misplaced(file: h5py.File, part: ease.Part, window: Window) -> list[str]:
    """Whether the rows and columns are elsewhere than on the grid."""
    rows, cols = part
    wanted = {
        "cell_lat": ((rows, cols.start), window.cell_lat),
        "cell_lon": ((rows.start, cols), window.cell_lon),
    }
    found = []
    for name, (place, centres) in wanted.items():
        if name not in file or file[name].shape != SHAPE:
            found.append(f"{name}: missing, or not of {SHAPE}")
            continue
        told = file[name][place].astype(np.float64)
        wrong = np.abs(told - centres) > _NEAR_DEGREES
        if wrong.any():
            found.append(f"{name}: {told[wrong][0]:g} where the grid has {centres[wrong][0]:g}")
    return found


def _mean(
    task: Task, granules: list[Granule], shape: tuple[int, int]
) -> dict[str, NDArray[np.float32]]:
    """(row, column) mean of each dataset over files, NaN where one of them has no value.

    Raises:
      DataError: a file cannot be read, or is not as the first was.
    """
    if not granules:
        return {name: np.full(shape, np.nan, np.float32) for name in task.units}
    total = {name: np.zeros(shape, np.float64) for name in task.units}
    for granule in granules:
        place = remote.shown(granule.url)
        with hdf5.opened(granule.url, task.options, task.login) as file:
            found = _problems(file, task)
            if found:
                raise DataError(place, *found, remedy=REMEDY)
            for name in task.units:
                total[name] += hdf5.values(file, f"{GROUP}/{name}", task.part, place)
    return {name: (values / len(granules)).astype(np.float32) for name, values in total.items()}
