"""Where the data of an experiment belong: cells, footprints and sites on the grid.

A source of places is scattered: each place gives its value to the cell that holds it. A source on
a grid of its own is regridded, conserving totals; only its part over the domain is read.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import catalog, grid, schema
from pipeline.errors import ConfigError, DataError
from pipeline.regrid import Regridder

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
        """A variable's values, (..., place) or (..., lat, lon), on the cells, (..., y, x).

        NaN elsewhere, and in cells of which less than half has values.
        """
        return placed((self.forcing | self.static)[name], values, self.window)

    def footprints(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The satellite's values, as those of `cells`, on the footprints, (..., fy, fx)."""
        assert self.satellite is not None
        return placed(self.satellite, values, self.window.of_footprints)

    def mask(self, first_days: NDArray[np.datetime64]) -> NDArray[np.bool_]:
        """(y, x) cells with every forcing on some of these days, and with any static attribute."""
        valid = np.ones(self.window.cell_shape, bool)
        for name, dataset in self.forcing.items():
            valid &= np.isfinite(self.cells(name, on_days(dataset, name, first_days))).any(0)
        if self.static:
            fields = [self.cells(name, ds[name].values) for name, ds in self.static.items()]
            valid &= np.isfinite(fields).any(0)
        return valid


def open_sources(experiment: Experiment) -> Sources:
    """Open every source of an experiment and check that together they make a cube.

    Raises:
      DataError: a source is absent, damaged or lacks what the experiment needs.
    """
    sources, window = experiment.sources, schema.window(experiment)
    opened = _opened(experiment, window)
    satellite = opened[sources.satellite] if sources.satellite else None
    insitu = opened[sources.insitu] if sources.insitu else None
    for role, dataset in (("satellite", satellite), ("insitu", insitu)):
        if dataset is not None and experiment.target not in dataset:
            found = f"no {experiment.target}; it has {[str(v) for v in dataset.data_vars]}"
            raise DataError(f"sources.{role} {dataset.attrs['entry']}", found)
    if insitu is not None:
        if is_grid(insitu):
            found = "a grid; expected sites, read by pipeline.sources.points.PointsSource"
            raise DataError(f"sources.insitu {insitu.attrs['entry']}", found)
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


@dataclass(frozen=True)
class Truth:
    """The target in every cell, where a planet is observed whose truth is known."""

    window: grid.Window
    dataset: xr.Dataset
    target: str

    def days(self, days: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """(day, y, x) truth of some days; NaN where there is none."""
        return placed(self.dataset, on_days(self.dataset, self.target, days), self.window)


def open_truth(experiment: Experiment) -> Truth:
    """Open the truth of an experiment, nothing read yet.

    Raises:
      ConfigError: the experiment names none.
      DataError: it is absent, damaged or lacks the target.
    """
    entry = experiment.sources.truth
    if entry is None:
        raise ConfigError(f"experiment {experiment.name}", "no truth", remedy="give sources.truth")
    window = schema.window(experiment)
    dataset = near(catalog.open_source(experiment, entry), window)
    if experiment.target not in dataset:
        found = f"no {experiment.target}; it has {[str(v) for v in dataset.data_vars]}"
        raise DataError(f"sources.truth {entry}", found)
    return Truth(window, dataset, experiment.target)


def _opened(experiment: Experiment, window: grid.Window) -> dict[str, xr.Dataset]:
    """Every entry the cube is made from; the problems of all of them are raised together."""
    opened, errors = {}, list[DataError]()
    for name in catalog.entries(experiment):
        try:
            opened[name] = near(catalog.open_source(experiment, name), window)
        except DataError as error:
            errors.append(error)
    told = {str(error): error for error in errors}
    if len(told) == 1:
        raise errors[0]
    if told:
        raise DataError(f"catalog {experiment.sources.catalog}", *told)
    return opened


def is_grid(dataset: xr.Dataset) -> bool:
    """Whether a source has its own grid, lat and lon; others have places."""
    return "place" not in dataset.dims


def on_days(dataset: xr.Dataset, name: str, days: NDArray[np.datetime64]) -> NDArray[np.float32]:
    """(day, ...) values of a source's variable; NaN on days that it has not."""
    part = dataset[name].sel(time=slice(days[0], days[-1]))
    values: NDArray[np.float32] = part.reindex(time=days).values.astype("float32")
    return values


def placed(
    dataset: xr.Dataset, values: NDArray[np.float32], window: grid.Window
) -> NDArray[np.float32]:
    """Values of a source, (..., place) or (..., lat, lon), on a window's cells, (..., y, x)."""
    if is_grid(dataset):
        edges = (_edges(dataset, "lat"), _edges(dataset, "lon"))
        return _regridder(window, *(tuple(e.tolist()) for e in edges))(values).astype(
            np.float32, copy=False
        )
    position = window.cells_of(dataset.lat.values, dataset.lon.values)
    return scattered(values, position, window.cell_shape)


def near(dataset: xr.Dataset, window: grid.Window) -> xr.Dataset:
    """A grid's rows and columns over a window; places as they are.

    Raises:
      DataError: the grid does not reach the window.
    """
    if not is_grid(dataset):
        return dataset
    lat_edges, lon_edges = window.cell_edges
    dataset = _turned(dataset, float(lon_edges.mean()))
    chosen = {}
    for axis, edges, turns in (("lat", lat_edges, (0,)), ("lon", lon_edges, (-360, 0, 360))):
        low, high = np.sort(dataset[f"{axis}_bnds"].values, axis=1).T
        over = [(low + turn < edges.max()) & (high + turn > edges.min()) for turn in turns]
        index = np.flatnonzero(np.any(over, axis=0))
        if not index.size:
            found = f"its {axis} {low.min():g} to {high.max():g} is outside the domain's"
            domain = f"{edges.min():g} to {edges.max():g}"
            remedy = "move the domain, or name another source"
            place = f"catalog entry {dataset.attrs['entry']}"
            raise DataError(place, f"{found} {domain}", remedy=remedy)
        chosen[axis] = slice(int(index[0]), int(index[-1]) + 1)
    return dataset.isel(chosen)


def _turned(dataset: xr.Dataset, middle: float) -> xr.Dataset:
    """A grid round the whole Earth, its columns from opposite `middle` on, eastward.

    So the columns over a window that lies across the file's first column follow one another.
    """
    bounds = np.sort(dataset.lon_bnds.values, axis=1)
    if bounds.max() - bounds.min() < 360 - 1e-3:
        return dataset
    lon = middle + (dataset.lon.values - middle + 180) % 360 - 180
    bounds += (lon - dataset.lon.values)[:, None]
    turned = dataset.assign_coords(lon=("lon", lon), lon_bnds=(("lon", "bnds"), bounds))
    return turned.sortby("lon")


def _edges(dataset: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """(n + 1,) edges of a grid's rows or columns, degrees."""
    bounds = dataset[f"{axis}_bnds"].values
    return np.append(bounds[:, 0], bounds[-1, 1])


@functools.lru_cache(maxsize=8)
def _regridder(window: grid.Window, lat: tuple[float, ...], lon: tuple[float, ...]) -> Regridder:
    """From a grid with these edges to a window's cells."""
    return Regridder(np.array(lat), np.array(lon), *window.cell_edges)


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
    """No two places of a source may fall into one cell, or one footprint; grids are regridded."""
    unique = {id(ds): ds for ds in (sources.forcing | sources.static).values()}
    for dataset in (ds for ds in unique.values() if not is_grid(ds)):
        _check_distinct(dataset, sources.window.cells_of(dataset.lat.values, dataset.lon.values))
    if (satellite := sources.satellite) is not None and not is_grid(satellite):
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
