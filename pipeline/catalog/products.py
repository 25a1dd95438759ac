"""Products of others at the sites: the baselines that an experiment names.

A product is not brought onto our grid: at a site it has the value of its own cell that holds the
site or, where it has places instead of cells, of the nearest within `judging.max_footprint_km`.
Only the chunks that hold a site, on days that are judged, are read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline.catalog import intake_catalog, quality_control
from pipeline.errors import ConfigError, DataError, SoilweaveError
from pipeline.grid import lookup

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.grid.lookup import Places


Made = TypeVar("Made")
TAKEN = ("multiscale", "insitu", "satellite", "ridge", "footprint")  # names of other candidates
TOLD = ("support", "license", "doi", "time_convention", "period", "native_grid", "version")


@dataclass(frozen=True)
class Sampled:
    """A product at sites.

    `series` (site, day) is NaN where it has no value; `distance_km` (site,) is how far away the
    centre of its cell is, NaN where none holds the site; `dropped` counts values by QC rule.
    """

    series: NDArray[np.float32]
    distance_km: NDArray[np.float64]
    dropped: dict[str, int]


def name_of(entry: str) -> str:
    """The name of a product among the arms and baselines: its own in `CATALOG:inner.name`."""
    return re.split(r"[:.]", entry)[-1]


def digests(experiment: Experiment) -> dict[str, str]:
    """What identifies the content of every product.

    Raises:
      SoilweaveError: products are absent or not as the catalog says; all of them are named.
    """
    try:
        found = _each(experiment, lambda entry: intake_catalog.digest(experiment, entry))
    except DataError:
        opened(experiment)  # tells the faults of all products, not of those without a file alone
        raise
    return {f"baseline {name}": digest for name, digest in found.items()}


def opened(experiment: Experiment) -> dict[str, xr.Dataset]:
    """Every product by its name, opened and checked, nothing read yet.

    Raises:
      SoilweaveError: products are absent, not as the catalog says, lack the target, or have no
        day of the test period; all of them are named.
    """
    return _each(experiment, lambda entry: _opened(experiment, entry))


def at_sites(
    experiment: Experiment,
    products: dict[str, xr.Dataset],
    sites: Places,
    days: NDArray[np.datetime64],
) -> dict[str, Sampled]:
    """Every product at every site, days that it lacks missing.

    Args:
      experiment: names the target, the rules of QC, and how far a place may stand for a site.
      products: as `opened` gives them.
      sites: latitude and longitude (site,), degrees.
      days: (day,) days in order.

    Raises:
      DataError: products cannot be read; all of them are named.
    """
    return _each(
        experiment, lambda entry: _sampled(experiment, products[name_of(entry)], sites, days)
    )


def entries(products: dict[str, xr.Dataset]) -> Json:
    """What the catalog says of each product: licence, DOI, time convention, support."""
    told = {name: product.attrs for name, product in products.items()}
    return {name: {k: attrs[k] for k in TOLD if k in attrs} for name, attrs in told.items()}


def _each(experiment: Experiment, make: Callable[[str], Made]) -> dict[str, Made]:
    """Something of every product, by its name; the problems of all are raised together."""
    _check(experiment)
    made: dict[str, Made] = {}
    errors: list[SoilweaveError] = []
    for entry in experiment.baselines:
        try:
            made[name_of(entry)] = make(entry)
        except SoilweaveError as error:
            errors.append(error)
        except OSError as error:  # a damaged file shows when its chunks are read
            found = f"cannot be read, truncated or damaged: {error}"
            errors.append(DataError(f"catalog entry {entry}", found, remedy="fetch it again"))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataError("baselines", *dict.fromkeys(map(str, errors)))
    return made


def _check(experiment: Experiment) -> None:
    """Products have names of their own, and there are sites that arms are judged at too."""
    if experiment.baselines and (experiment.models or not experiment.sources.insitu):
        found = "scored at sites that models trained here have not seen, and there are none"
        raise ConfigError("baselines", found, remedy="give sources.insitu, or --set baselines=[]")
    named = Counter([*TAKEN, *map(name_of, experiment.baselines)])
    if twice := [name for name, n in named.items() if n > 1]:
        found = f"more than one arm or baseline would be called {', '.join(twice)}"
        raise ConfigError("baselines", found, remedy="give the entry another name in a catalog")


def _opened(experiment: Experiment, entry: str) -> xr.Dataset:
    dataset = intake_catalog.open_source(experiment, entry, period=experiment.test_period)
    target, place = experiment.target, f"baseline {entry}"
    if target not in dataset:
        found = f"no {target}; it has {[str(v) for v in dataset.data_vars]}"
        raise DataError(place, found, remedy=f"map its variable to {target} in the catalog")
    if "time" not in dataset[target].dims:
        raise DataError(place, f"{target} has no days", remedy="name a product that has them")
    days, counts = np.unique(_days(dataset), return_counts=True)
    if (counts > 1).any():
        found = f"day {days[counts > 1][0]} is there {counts.max()} times"
        raise DataError(place, found, remedy="give each day once")
    first, last = (np.datetime64(day, "D") for day in experiment.test_period)
    if not ((days >= first) & (days <= last)).any():
        held = f"its days are {days[0]} to {days[-1]}" if len(days) else "it has no day"
        found = f"{held}, none of them in the test period {first} to {last}"
        raise DataError(place, found, remedy="move test_period, or drop it from baselines")
    return dataset


def _days(dataset: xr.Dataset) -> NDArray[np.datetime64]:
    days: NDArray[np.datetime64] = dataset["time"].values.astype("datetime64[D]")
    return days


def _sampled(
    experiment: Experiment, dataset: xr.Dataset, sites: Places, days: NDArray[np.datetime64]
) -> Sampled:
    import xarray as xr

    held = lookup.cells(dataset, sites, experiment.judging.max_footprint_km)
    known, times = held.known, _days(dataset)
    judged = np.flatnonzero(np.isin(times, days))
    names = [name for name in (experiment.target, "provider_flag") if name in dataset]
    chosen = {dim: xr.DataArray(index[known], dims="site") for dim, index in held.index.items()}
    part = dataset[names].isel(time=judged).isel(chosen).transpose("site", "time").load()
    values, dropped = _screened(experiment, part, "place" in dataset.dims)
    series = np.full((len(known), len(days)), np.nan, np.float32)
    series[np.ix_(known, np.searchsorted(days.astype("datetime64[D]"), times[judged]))] = values
    distance = lookup.great_circle_km(*sites, held.lat, held.lon)
    return Sampled(series, np.where(known, distance, np.nan), dropped)


def _screened(
    experiment: Experiment, part: xr.Dataset, of_sites: bool
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Values that pass QC, as the satellite's or a site's flags must, and how many do not."""
    values = part[experiment.target].values.astype("float32")
    flag, rules = part.get("provider_flag"), {}
    if of_sites and flag is not None:
        if experiment.qc.provider:
            good = list(quality_control.accepted(flag, experiment.qc))
            rules["provider"] = ~np.isin(flag.values, good) & ~np.isnan(values)
            values[rules["provider"]] = np.nan
        flag = None
    bits = None if flag is None else flag.values
    rules |= quality_control.retrievals(
        values, bits, experiment.table[experiment.target], experiment.qc
    )
    for rejected in rules.values():
        values[rejected] = np.nan
    return values, {rule: int(rejected.sum()) for rule, rejected in rules.items()}
