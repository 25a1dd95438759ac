"""Open all sources of an experiment and put their data on its cells, footprints and sites.

A source of places is scattered: each place gives its value to the cell that contains it. A source
on a grid of its own is regridded conservatively; only its part over the domain is read.

Statics that describe the test period are rejected, because a model must not know attributes of the
days it is scored on. `static_period` in the metadata of a catalog entry, or else `period`, gives
the days that its statics describe.
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

    from pipeline.catalog.site_records import SiteRecords
    from pipeline.experiment.config import Experiment


PERIOD_PATTERN = re.compile(r"(\d{4}-\d{2}-\d{2})\s*\.\.\s*(\d{4}-\d{2}-\d{2})?$")
CONSTANT_PERIOD = "constant"  # the period of statics such as soil and terrain


@dataclass(frozen=True)
class Sources:
    """The opened datasets of an experiment. Only the records of sites are read.

    Attributes:
      window: The cells and footprints of the experiment.
      forcing: By variable of forcing, the dataset that has it.
      static: By static variable, the dataset that has it.
      satellite: The satellite's dataset, or None.
      insitu: The records of the sites, or None.
    """

    window: ease.Window
    forcing: dict[str, xr.Dataset]
    static: dict[str, xr.Dataset]
    satellite: xr.Dataset | None
    insitu: SiteRecords | None

    def on_cells(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put the values of a variable on the cells.

        Args:
          name: The variable, which determines the dataset.
          values: (..., place) or (..., lat, lon), as the dataset has them.

        Returns:
          (..., y, x), NaN in cells without values or with values in less than half of their area.
        """
        return remap.remap_to_cells((self.forcing | self.static)[name], values, self.window)

    def on_footprints(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put the satellite's values on the footprints, (..., fy, fx), like `on_cells`."""
        assert self.satellite is not None
        return remap.remap_to_cells(self.satellite, values, self.window.of_footprints)

    @functools.cached_property
    def static_values(self) -> dict[str, NDArray[np.float32]]:
        """The values of the statics, by variable, on the places or grid of their sources."""
        datasets = {id(dataset): dataset for dataset in self.static.values()}
        values: dict[str, NDArray[np.float32]] = {}
        # The variables of a dataset are read together, because one file may contain several.
        for dataset in datasets.values():
            names = [name for name, source in self.static.items() if source is dataset]
            values |= {str(name): data.values for name, data in dataset[names].load().items()}
        return {name: values[name].astype("float32") for name in self.static}


def open_sources(
    experiment: Experiment, block: int | None = None, forcing_only: bool = False
) -> Sources:
    """Open all sources of an experiment, and check that a cube can be made from them.

    Args:
      experiment: The settings, which name the sources.
      block: The number of a block to open the sources for, without the sites, and with the
        statics only for the first block; None for the whole period.
      forcing_only: For a block, open only the sources of forcing.

    Raises:
      DataError: If a source is missing or damaged, or does not have what the experiment needs.
    """
    sources, window = experiment.sources, config.experiment_window(experiment)
    names, period, static = intake_catalog.cube_entries(experiment), None, sources.static
    if block is not None:
        period = schema.block_period(experiment.period, block)
        static = static if block == 0 else ()
        static = () if forcing_only else static
        names = [*dict.fromkeys([*sources.forcing, *static])]
        names += [sources.satellite] if sources.satellite and not forcing_only else []
    opened = _open_entries(experiment, window, names, period)
    satellite = opened.get(sources.satellite or "")
    insitu = [opened[name] for name in sources.insitu] if block is None else []
    roles = [("satellite", satellite), *(("insitu", dataset) for dataset in insitu)]
    for role, dataset in roles:
        if dataset is not None and experiment.target not in dataset:
            problem = f"no {experiment.target}; it has {[str(v) for v in dataset.data_vars]}"
            raise DataError(f"sources.{role} {dataset.attrs['entry']}", problem)
    for dataset in insitu:
        if remap.is_grid(dataset):
            problem = "is a grid; expected sites"
            hint = "name an entry with a driver for sites"
            raise DataError(f"sources.insitu {dataset.attrs['entry']}", problem, remedy=hint)
    insitu = drop_excluded_sites(experiment, insitu)
    result = Sources(
        window,
        _variables_of_kind(experiment, opened, sources.forcing, "forcing"),
        _variables_of_kind(experiment, opened, static, "static"),
        satellite,
        site_records.read_records(experiment, insitu, window) if insitu else None,
    )
    _check_positions(result)
    return result


def drop_excluded_sites(experiment: Experiment, insitu: list[xr.Dataset]) -> list[xr.Dataset]:
    """Drop the sites in `qc.exclude_sites` from sources, and sources without any other site.

    Raises:
      ConfigError: If qc.exclude_sites names a site that no source has, or excludes all sites.
    """
    excluded = experiment.qc.exclude_sites
    if not insitu or not excluded:
        return insitu
    ids_by_entry = [(str(dataset.attrs["entry"]), dataset.place.values) for dataset in insitu]
    known = {
        name
        for entry, ids in ids_by_entry
        for i in ids
        for name in site_records.accepted_site_names(entry, str(i))
    }
    if unknown := set(excluded) - known:
        problem = f"no source has a site with this id: {', '.join(sorted(unknown))}"
        raise ConfigError("qc.exclude_sites", problem, remedy="correct or remove it")
    remaining = [d for d in (drop_sites(dataset, excluded) for dataset in insitu) if d.place.size]
    if not remaining:
        problem = f"excludes all {sum(len(ids) for _, ids in ids_by_entry)} sites"
        hint = "exclude fewer; `entry:id` names the site of one source only"
        raise ConfigError("qc.exclude_sites", problem, remedy=hint)
    return remaining


def drop_sites(dataset: xr.Dataset, excluded: tuple[str, ...]) -> xr.Dataset:
    """Drop the excluded sites, given as id or `entry:id`, from a source."""
    return dataset.isel(place=~is_excluded(dataset, excluded))


def is_excluded(dataset: xr.Dataset, excluded: tuple[str, ...]) -> NDArray[np.bool_]:
    """Return which sites of a source are excluded, (place,)."""
    entry = str(dataset.attrs["entry"])
    names_of_sites = (site_records.accepted_site_names(entry, str(i)) for i in dataset.place.values)
    return np.array([not names.isdisjoint(excluded) for names in names_of_sites], bool)


def read_footprints(
    experiment: Experiment, source: xr.Dataset, days: NDArray[np.datetime64]
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Read the values and quality flags of a satellite on some days, at the source's own places.

    Args:
      experiment: The settings, which name the target.
      source: The satellite's dataset.
      days: (day,) consecutive days.

    Returns:
      The values (day, ...), NaN where missing; and the flags of the same shape, or None if the
      source has no flags.
    """
    target = experiment.target
    names = [name for name in (target, "provider_flag") if name in source]
    # Values and flags are in one file; loading them together reads it once.
    part = source[names].sel(time=slice(days[0], days[-1])).load()
    flag = remap.read_days(part, "provider_flag", days) if "provider_flag" in part else None
    return remap.read_days(part, target, days), flag


def screen_footprints(
    experiment: Experiment, values: NDArray[np.float32], flag: NDArray[np.float32] | None
) -> dict[str, int]:
    """Set the satellite's values that quality control rejects to NaN, in place.

    The cube and the scores of the satellite use the same rules.

    Args:
      experiment: The settings, which name the target and the rules.
      values: The values, as returned by `read_footprints`.
      flag: The flags, as returned by `read_footprints`.

    Returns:
      The number of values that each rule rejects.
    """
    rejects = quality_control.reject_retrievals(
        values, flag, experiment.table[experiment.target], experiment.qc
    )
    for rejected in rejects.values():
        values[rejected] = np.nan
    return {rule: int(rejected.sum()) for rule, rejected in rejects.items()}


@dataclass(frozen=True)
class KnownTruth:
    """The true target in every cell, which is known for a simulated planet."""

    window: ease.Window
    dataset: xr.Dataset
    target: str

    def on_days(self, days: NDArray[np.datetime64]) -> NDArray[np.float32]:
        """Read the truth on some days, (day, y, x); NaN where there is none."""
        return remap.remap_to_cells(
            self.dataset, remap.read_days(self.dataset, self.target, days), self.window
        )


def open_truth(experiment: Experiment) -> KnownTruth:
    """Open the truth of an experiment without reading values.

    Raises:
      ConfigError: If the experiment does not name a truth.
      DataError: If the truth is missing or damaged, or does not have the target.
    """
    entry = experiment.sources.truth
    if entry is None:
        raise ConfigError(f"experiment {experiment.name}", "no truth", remedy="set sources.truth")
    window = config.experiment_window(experiment)
    dataset = remap.select_over_window(intake_catalog.open_source(experiment, entry), window)
    if experiment.target not in dataset:
        problem = f"no {experiment.target}; it has {[str(v) for v in dataset.data_vars]}"
        raise DataError(f"sources.truth {entry}", problem)
    return KnownTruth(window, dataset, experiment.target)


def check_static_periods(experiment: Experiment) -> list[str]:
    """Check that statics do not describe the test period only.

    Nothing is checked if the experiment uses models that were trained elsewhere.

    Returns:
      The entries whose metadata do not give the period of their statics.

    Raises:
      ConfigError: If statics describe days of the test period and none of the training period; it
        names every such entry.
    """
    train, test = experiment.train_period, experiment.test_period
    unknown, problems = [], []
    for entry in _static_entries(experiment):
        metadata = (
            intake_catalog.find_entry(experiment.sources.catalog, entry).spec.get("metadata") or {}
        )
        period = str(metadata.get("static_period", metadata.get("period", "")))
        match = PERIOD_PATTERN.match(period.strip())
        if match is None:
            unknown += [entry] if period != CONSTANT_PERIOD else []
            continue
        first, last = date.fromisoformat(match[1]), date.fromisoformat(match[2] or str(date.max))
        if _overlap((first, last), test) and not _overlap((first, last), train):
            problems.append(
                f"statics of {entry} describe {period}, which overlaps test_period "
                f"{period_as_text(test)} but not train_period {period_as_text(train)}"
            )
    if problems:
        hint = "name statics of the training period or earlier, or choose other periods"
        raise ConfigError("sources.static", *problems, remedy=hint)
    return unknown


def _open_entries(
    experiment: Experiment,
    window: ease.Window,
    names: list[str],
    period: tuple[date, date] | None,
) -> dict[str, xr.Dataset]:
    """Open entries, and return them by name; the problems of all entries are raised together."""
    opened, errors = {}, list[DataError]()
    for name in names:
        try:
            opened[name] = remap.select_over_window(
                intake_catalog.open_source(experiment, name, period=period), window
            )
        except DataError as error:
            errors.append(error)
    messages = dict.fromkeys(map(str, errors))
    if len(messages) == 1:
        raise errors[0]
    if messages:
        raise DataError(f"catalog {experiment.sources.catalog}", *messages)
    return opened


def _variables_of_kind(
    experiment: Experiment, opened: dict[str, xr.Dataset], entries: tuple[str, ...], kind: str
) -> dict[str, xr.Dataset]:
    """Return the variables of a kind in some entries, in the order of the table of variables.

    Raises:
      DataError: If two entries have the same variable.
    """
    datasets: dict[str, xr.Dataset] = {}
    for entry in entries:
        for name in map(str, opened[entry].data_vars):
            if name == "provider_flag" or experiment.table[name].kind != kind:
                continue
            if name in datasets:
                problem = f"{name} is in both {datasets[name].attrs['entry']} and {entry}"
                hint = "name only one entry for each variable"
                raise DataError(f"sources.{kind}", problem, remedy=hint)
            datasets[name] = opened[entry]
    return {name: datasets[name] for name in experiment.table if name in datasets}


def _check_positions(sources: Sources) -> None:
    """Check that a cell, or a footprint, contains at most one place of a source.

    Sources on grids are regridded and need no check.
    """
    unique = {id(ds): ds for ds in (sources.forcing | sources.static).values()}
    for dataset in (ds for ds in unique.values() if not remap.is_grid(ds)):
        _check_one_place_per_cell(
            dataset, sources.window.cells_of(dataset.lat.values, dataset.lon.values)
        )
    if (satellite := sources.satellite) is not None and not remap.is_grid(satellite):
        position = sources.window.footprints_of(satellite.lat.values, satellite.lon.values)
        _check_one_place_per_cell(satellite, position)


def _check_one_place_per_cell(dataset: xr.Dataset, position: tuple[NDArray[np.int64], ...]) -> None:
    """Check the places of one source.

    Args:
      dataset: The source.
      position: The row and the column of each place, (place,); negative outside the domain.

    Raises:
      DataError: If no place is in the domain, or two are in one cell or footprint.
    """
    inside = position[0] >= 0
    pairs = np.stack(position, 1)[inside]
    if not len(pairs):
        problem = f"none of its {dataset.sizes['place']} places is in the domain"
        place = f"catalog entry {dataset.attrs['entry']}"
        raise DataError(place, problem, remedy="widen the domain")
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    if (counts > 1).any():
        n_shared = int((counts > 1).sum())
        problem = f"{n_shared} cells or footprints contain more than one of its places"
        hint = "name a source on this grid, or choose another refinement"
        raise DataError(f"catalog entry {dataset.attrs['entry']}", problem, remedy=hint)


def _static_entries(experiment: Experiment) -> list[str]:
    """Return the entries with statics: those of the cells, and those of sites with own inputs."""
    sources = experiment.sources
    if experiment.models is not None:
        return []
    own = sources.insitu if experiment.inputs_from == "own" else ()
    return [*dict.fromkeys([*sources.static, *own])]


def _overlap(one: tuple[date, date], other: tuple[date, date]) -> bool:
    """Return whether two periods, given by first and last day, overlap."""
    return one[0] <= other[1] and other[0] <= one[1]
