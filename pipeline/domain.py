"""Where the data of an experiment belong: cells, footprints and sites on the grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import catalog, grid, schema
from pipeline.errors import ConfigError, DataError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.config import Experiment


@dataclass(frozen=True)
class Sources:
    """An experiment's datasets, opened and on its grid, nothing read yet.

    `cells` maps every forcing and static variable to the dataset that has it; the others are None
    where the experiment has no such source.
    """

    window: grid.Window
    forcing: dict[str, xr.Dataset]
    static: dict[str, xr.Dataset]
    satellite: xr.Dataset | None
    insitu: xr.Dataset | None

    def cells(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """(..., place) values of a variable on the cells, (..., y, x); NaN elsewhere."""
        dataset = (self.forcing | self.static)[name]
        position = self.window.cells_of(dataset.lat.values, dataset.lon.values)
        return scattered(values, position, self.window.cell_shape)

    def mask(self, first_days: NDArray[np.datetime64]) -> NDArray[np.bool_]:
        """(y, x) cells with every forcing on some of these days, and with any static attribute."""
        valid = np.ones(self.window.cell_shape, bool)
        for name, dataset in self.forcing.items():
            days = dataset[name].reindex(time=first_days).values
            valid &= np.isfinite(self.cells(name, days)).any(0)
        if self.static:
            fields = [self.cells(name, ds[name].values) for name, ds in self.static.items()]
            valid &= np.isfinite(fields).any(0)
        return valid


def open_sources(experiment: Experiment) -> Sources:
    """Open every source of an experiment and check that together they make a cube.

    Raises:
      DataError: a source is absent, damaged or lacks what the experiment needs.
    """
    box, sources = experiment.domain, experiment.sources
    window = grid.Window.from_bbox(
        box.west_degrees, box.south_degrees, box.east_degrees, box.north_degrees, box.refinement
    )
    opened = _opened(experiment)
    satellite = opened[sources.satellite] if sources.satellite else None
    insitu = opened[sources.insitu] if sources.insitu else None
    for role, dataset in (("satellite", satellite), ("insitu", insitu)):
        if dataset is not None and experiment.target not in dataset:
            found = f"no {experiment.target}; it has {[str(v) for v in dataset.data_vars]}"
            raise DataError(f"sources.{role} {dataset.attrs['entry']}", found)
    if insitu is not None:
        unknown = set(experiment.qc.exclude_sites) - set(map(str, insitu.place.values))
        if unknown:
            found = f"no site of that id: {', '.join(sorted(unknown))}"
            raise ConfigError("qc.exclude_sites", found, remedy="correct or drop it")
        insitu = without(insitu, experiment.qc.exclude_sites)
    made = Sources(
        window,
        _by_kind(experiment, opened, sources.forcing, "forcing"),
        _by_kind(experiment, opened, sources.static, "static"),
        satellite,
        insitu,
    )
    _check_positions(made)
    return made


def _opened(experiment: Experiment) -> dict[str, xr.Dataset]:
    """Every entry the experiment reads; the problems of all of them are raised together."""
    opened, errors = {}, list[DataError]()
    for name in catalog.entries(experiment):
        try:
            opened[name] = catalog.open_source(experiment, name)
        except DataError as error:
            errors.append(error)
    told = {str(error): error for error in errors}
    if len(told) == 1:
        raise errors[0]
    if told:
        raise DataError(f"catalog {experiment.sources.catalog}", *told)
    return opened


def without(sites: xr.Dataset, excluded: tuple[str, ...]) -> xr.Dataset:
    """The sites that are not excluded by id."""
    return sites.isel(place=~np.isin(sites.place.values, np.array(excluded, str)))


def scattered(
    values: NDArray[np.float32], position: tuple[NDArray[np.int64], ...], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """(..., place) values on a grid of `shape`; NaN where no place is."""
    row, col = position
    inside = row >= 0
    field = np.full((*values.shape[:-1], *shape), np.nan, np.float32)
    field[..., row[inside], col[inside]] = values[..., inside]
    return field


def days_of(block: int) -> NDArray[np.datetime64]:
    """The 32 days of a block."""
    first = block * schema.BLOCK_DAYS
    days = np.arange(first, first + schema.BLOCK_DAYS).astype("datetime64[D]")
    return days.astype("datetime64[ns]")


def _by_kind(
    experiment: Experiment, opened: dict[str, xr.Dataset], entries: tuple[str, ...], kind: str
) -> dict[str, xr.Dataset]:
    """The variables of a kind that the entries of a role have, in the order of the table."""
    found: dict[str, xr.Dataset] = {}
    for entry in entries:
        for name in map(str, opened[entry].data_vars):
            if name == "provider_flag" or experiment.table[name].kind != kind:
                continue
            if name in found:
                both = f"{name} is in both {found[name].attrs['entry']} and {entry}"
                raise DataError(f"sources.{kind}", both, remedy="name one entry for a variable")
            found[name] = opened[entry]
    return {name: found[name] for name in experiment.table if name in found}


def _check_positions(sources: Sources) -> None:
    """No two places of a source may fall into one cell, or one footprint."""
    unique = {id(ds): ds for ds in (sources.forcing | sources.static).values()}
    for dataset in unique.values():
        _check_distinct(dataset, sources.window.cells_of(dataset.lat.values, dataset.lon.values))
    if (satellite := sources.satellite) is not None:
        position = sources.window.footprints_of(satellite.lat.values, satellite.lon.values)
        _check_distinct(satellite, position)


def _check_distinct(dataset: xr.Dataset, position: tuple[NDArray[np.int64], ...]) -> None:
    inside = position[0] >= 0
    pairs = np.stack(position, 1)[inside]
    if not len(pairs):
        found = f"none of its {dataset.sizes['place']} places lies in the domain"
        raise DataError(f"catalog entry {dataset.attrs['entry']}", found, remedy="widen the domain")
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    if (counts > 1).any():
        found = f"{int((counts > 1).sum())} cells or footprints hold more than one of its places"
        remedy = "name a source on this grid, or choose another refinement"
        raise DataError(f"catalog entry {dataset.attrs['entry']}", found, remedy=remedy)
