"""Where the data of an experiment belong: cells, footprints and sites on the grid.

A source of places is scattered: each place gives its value to the cell that holds it. A source on
a grid of its own is regridded, conserving totals; only its part over the domain is read.

Statics of the test period are refused: a model may not know attributes of days it is judged on.

An entry says of which days its statics are: `static_period` in its metadata, else `period`.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from pipeline.catalog import intake_catalog, quality_control, site_records
from pipeline.dates import period_as_text
from pipeline.errors import ConfigError, DataError
from pipeline.experiment import config
from pipeline.grid import ease, remap
from pipeline.storage import schema

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.catalog.site_records import Records
    from pipeline.experiment.config import Experiment


@dataclass(frozen=True)
class Sources:
    """An experiment's datasets, opened and on its grid, nothing read yet.

    `cells` maps every forcing and static variable to the dataset that has it; the others are None
    where the experiment has no such source.
    """

    window: ease.Window
    forcing: dict[str, xr.Dataset]
    static: dict[str, xr.Dataset]
    satellite: xr.Dataset | None
    insitu: Records | None

    def cells(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A variable's values, (..., place) or (..., lat, lon), on the cells, (..., y, x).

        NaN elsewhere, and in cells of which less than half has values.
        """
        return remap.placed((self.forcing | self.static)[name], values, self.window)

    def footprints(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The satellite's values, as those of `cells`, on the footprints, (..., fy, fx)."""
        assert self.satellite is not None
        return remap.placed(self.satellite, values, self.window.of_footprints)

    @functools.cached_property
    def constants(self) -> dict[str, NDArray[np.float32]]:
        """Statics as their sources have them, read together: one file may hold several."""
        datasets = {id(dataset): dataset for dataset in self.static.values()}
        read: dict[str, NDArray[np.float32]] = {}
        for dataset in datasets.values():
            names = [name for name, held in self.static.items() if held is dataset]
            read |= {str(name): held.values for name, held in dataset[names].load().items()}
        return {name: read[name].astype("float32") for name in self.static}


def open_sources(
    experiment: Experiment, block: int | None = None, forcing_alone: bool = False
) -> Sources:
    """Open every source of an experiment and check that together they make a cube.

    Args:
      experiment: names them.
      block: number of the block that is wanted, without the sites, and with the statics only
        where it is the first; None for everything.
      forcing_alone: of a block, whatever else there is.

    Raises:
      DataError: a source is absent, damaged or lacks what the experiment needs.
    """
    sources, window = experiment.sources, config.window(experiment)
    names, period, static = intake_catalog.entries(experiment), None, sources.static
    if block is not None:
        period = within(experiment, days_of(block))
        static = static if block == schema.block_range(experiment.period).start else ()
        static = () if forcing_alone else static
        names = [*dict.fromkeys([*sources.forcing, *static])]
        names += [sources.satellite] if sources.satellite and not forcing_alone else []
    opened = _opened(experiment, window, names, period)
    satellite = opened.get(sources.satellite or "")
    insitu = [opened[name] for name in sources.insitu] if block is None else []
    roles = [("satellite", satellite), *(("insitu", dataset) for dataset in insitu)]
    for role, dataset in roles:
        if dataset is not None and experiment.target not in dataset:
            found = f"no {experiment.target}; it has {[str(v) for v in dataset.data_vars]}"
            raise DataError(f"sources.{role} {dataset.attrs['entry']}", found)
    for dataset in insitu:
        if remap.is_grid(dataset):
            found = "a grid; expected sites, read by pipeline.sources.points.PointsSource"
            raise DataError(f"sources.insitu {dataset.attrs['entry']}", found)
    insitu = without_excluded(experiment, insitu)
    made = Sources(
        window,
        _by_kind(experiment, opened, sources.forcing, "forcing"),
        _by_kind(experiment, opened, static, "static"),
        satellite,
        site_records.records(experiment, insitu, window) if insitu else None,
    )
    _check_positions(made)
    return made


def without_excluded(experiment: Experiment, insitu: list[xr.Dataset]) -> list[xr.Dataset]:
    """Sources without the sites that are excluded; those of which nothing is left, not at all.

    Raises:
      ConfigError: qc.exclude_sites names a site that no source has, or all of them.
    """
    excluded = experiment.qc.exclude_sites
    if not insitu or not excluded:
        return insitu
    of_entry = [(str(dataset.attrs["entry"]), dataset.place.values) for dataset in insitu]
    known = {
        name for entry, ids in of_entry for i in ids for name in site_records.names(entry, str(i))
    }
    if unknown := set(excluded) - known:
        found = f"no site of that id: {', '.join(sorted(unknown))}"
        raise ConfigError("qc.exclude_sites", found, remedy="correct or drop it")
    left = [dataset for dataset in (without(d, excluded) for d in insitu) if dataset.place.size]
    if not left:
        found = f"leaves out all {sum(len(ids) for _, ids in of_entry)} sites"
        remedy = "name fewer; `entry:id` is the site of one source alone"
        raise ConfigError("qc.exclude_sites", found, remedy=remedy)
    return left


@dataclass(frozen=True)
class Truth:
    """The target in every cell, where a planet is observed whose truth is known."""

    window: ease.Window
    dataset: xr.Dataset
    target: str

    def days(self, days: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """(day, y, x) truth of some days; NaN where there is none."""
        return remap.placed(
            self.dataset, remap.on_days(self.dataset, self.target, days), self.window
        )


def open_truth(experiment: Experiment) -> Truth:
    """Open the truth of an experiment, nothing read yet.

    Raises:
      ConfigError: the experiment names none.
      DataError: it is absent, damaged or lacks the target.
    """
    entry = experiment.sources.truth
    if entry is None:
        raise ConfigError(f"experiment {experiment.name}", "no truth", remedy="give sources.truth")
    window = config.window(experiment)
    dataset = remap.near(intake_catalog.open_source(experiment, entry), window)
    if experiment.target not in dataset:
        found = f"no {experiment.target}; it has {[str(v) for v in dataset.data_vars]}"
        raise DataError(f"sources.truth {entry}", found)
    return Truth(window, dataset, experiment.target)


def _opened(
    experiment: Experiment,
    window: ease.Window,
    names: list[str],
    period: tuple[date, date] | None,
) -> dict[str, xr.Dataset]:
    """Entries by name; the problems of all of them are raised together."""
    opened, errors = {}, list[DataError]()
    for name in names:
        try:
            opened[name] = remap.near(
                intake_catalog.open_source(experiment, name, period=period), window
            )
        except DataError as error:
            errors.append(error)
    told = {str(error): error for error in errors}
    if len(told) == 1:
        raise errors[0]
    if told:
        raise DataError(f"catalog {experiment.sources.catalog}", *told)
    return opened


def without(dataset: xr.Dataset, excluded: tuple[str, ...]) -> xr.Dataset:
    """The sites of a source that are not excluded, by id or by `entry:id`."""
    return dataset.isel(place=~excluding(dataset, excluded))


def excluding(dataset: xr.Dataset, excluded: tuple[str, ...]) -> NDArray[np.bool_]:
    """(place,) which sites of a source are excluded."""
    entry, wanted = str(dataset.attrs["entry"]), set(excluded)
    ids = (site_records.names(entry, str(i)) for i in dataset.place.values)
    return np.array([not wanted.isdisjoint(names) for names in ids], bool)


def days_of(block: int) -> NDArray[np.datetime64]:
    """The 32 days of a block."""
    first = block * schema.BLOCK_DAYS
    days = np.arange(first, first + schema.BLOCK_DAYS).astype("datetime64[D]")
    return days.astype("datetime64[ns]")


def within(experiment: Experiment, days: NDArray[np.datetime64]) -> tuple[date, date]:
    """The first and the last of some days that are in the experiment's period."""
    first, last = (day.astype("datetime64[D]").item() for day in days[[0, -1]])
    return max(first, experiment.period[0]), min(last, experiment.period[1])


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
    for dataset in (ds for ds in unique.values() if not remap.is_grid(ds)):
        _check_distinct(dataset, sources.window.cells_of(dataset.lat.values, dataset.lon.values))
    if (satellite := sources.satellite) is not None and not remap.is_grid(satellite):
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


SPAN = re.compile(r"(\d{4}-\d{2}-\d{2})\s*\.\.\s*(\d{4}-\d{2}-\d{2})?$")
CONSTANT = "constant"  # of no time: soils, terrain


def check(experiment: Experiment) -> list[str]:
    """Entries of statics whose period is not known, after all others were found fit.

    None where the models were trained elsewhere.

    Raises:
      ConfigError: naming every entry whose statics are of the test period and not of training.
    """
    train, test = experiment.train_period, experiment.test_period
    unknown, problems = [], []
    for entry in _entries(experiment):
        metadata = intake_catalog.find(experiment.sources.catalog, entry).spec.get("metadata") or {}
        told = str(metadata.get("static_period", metadata.get("period", "")))
        match = SPAN.match(told.strip())
        if match is None:
            unknown += [entry] if told != CONSTANT else []
            continue
        first, last = date.fromisoformat(match[1]), date.fromisoformat(match[2] or str(date.max))
        if _meet((first, last), test) and not _meet((first, last), train):
            periods = (
                f"test_period {period_as_text(test)} and not train_period {period_as_text(train)}"
            )
            problems.append(f"statics of {entry} are of {told}, which meets {periods}")
    if problems:
        remedy = "name statics of the training period or before it, or choose other periods"
        raise ConfigError("sources.static", *problems, remedy=remedy)
    return unknown


def _entries(experiment: Experiment) -> list[str]:
    """Entries that statics come from: the cells', and the sites' where these have their own."""
    sources = experiment.sources
    if experiment.models is not None:
        return []
    own = sources.insitu if experiment.inputs_from == "own" else ()
    return [*dict.fromkeys([*sources.static, *own])]


def _meet(one: tuple[date, date], other: tuple[date, date]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def read_footprints(
    experiment: Experiment, source: xr.Dataset, days: NDArray[np.datetime64]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """A satellite's values and quality flags on some days, as the source has its places or cells.

    Args:
      experiment: names the target.
      source: the satellite, nothing read yet.
      days: (day,) consecutive days.

    Returns:
      (day, ...) values, NaN where missing; and flags of the same shape, None where it has none.
    """
    target = experiment.target
    names = [name for name in (target, "provider_flag") if name in source]
    # Both come from one file, which is read once.
    part = source[names].sel(time=slice(days[0], days[-1])).load()
    flag = remap.on_days(part, "provider_flag", days) if "provider_flag" in part else None
    return remap.on_days(part, target, days), flag


def screen_footprints(
    experiment: Experiment, values: NDArray[np.float32], flag: NDArray[np.float32] | None
) -> dict[str, int]:
    """Set what quality control rejects to NaN in place; returns how many values each rule rejects.

    For the cube, and wherever the satellite is judged.

    Args:
      experiment: names the target and the rules.
      values: of `read`.
      flag: of `read`.
    """
    rejects = quality_control.retrievals(
        values, flag, experiment.table[experiment.target], experiment.qc
    )
    for rejected in rejects.values():
        values[rejected] = np.nan
    return {rule: int(rejected.sum()) for rule, rejected in rejects.items()}
