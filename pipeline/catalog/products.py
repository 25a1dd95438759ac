"""Sample products of other providers at the sites: the `baselines` of an experiment.

Products are not regridded. At a site, a product has the value of its own cell that contains the
site. If it has places instead of cells, it has the value of the nearest place within
`judging.max_footprint_km`. Only the chunks that contain a site, on days that are scored, are read.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from pipeline import failures
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


T = TypeVar("T")
RESERVED_NAMES = ("multiscale", "insitu", "satellite", "ridge", "footprint")  # names in use
METADATA_KEYS = ("support", "license", "doi", "time_convention", "period", "native_grid", "version")


@dataclass(frozen=True)
class SampledProduct:
    """The values of a product at sites.

    Attributes:
      series: (site, day) the values, NaN if the product has none.
      distance_km: (site,) the distance to the centre of the product's cell, NaN if no cell
        contains the site.
      dropped: The number of values that each rule of quality control dropped.
    """

    series: NDArray[np.float32]
    distance_km: NDArray[np.float64]
    dropped: dict[str, int]


def open_products(experiment: Experiment) -> dict[str, xr.Dataset]:
    """Open and check all products without reading values, and return them by name.

    Raises:
      SoilweaveError: If products are missing or not as the catalog describes them, or do not have
        the target or a day of the test period; all are named.
    """
    return _for_each_product(experiment, lambda entry: _open_product(experiment, entry))


def sample_products(
    experiment: Experiment,
    products: dict[str, xr.Dataset],
    sites: Places,
    days: NDArray[np.datetime64],
) -> dict[str, SampledProduct]:
    """Sample all products at the sites.

    Args:
      experiment: The settings, which give the target, the rules of quality control and the
        greatest distance between a site and a place of a product.
      products: The products, as returned by `opened`.
      sites: The latitude and longitude of the sites, (site,) each, in degrees.
      days: (day,) the days, in order. Days that a product does not have are NaN.

    Raises:
      DataError: If products cannot be read; all are named.
    """
    return _for_each_product(
        experiment,
        lambda entry: _sample_product(experiment, products[product_name(entry)], sites, days),
    )


def product_digests(experiment: Experiment) -> dict[str, str]:
    """Return the digests of the content of all products, by `baseline NAME`.

    Raises:
      SoilweaveError: If products are missing or not as the catalog describes them; all are named.
    """
    try:
        by_name = _for_each_product(
            experiment, lambda entry: intake_catalog.entry_digest(experiment, entry)
        )
    except DataError:
        # This reports the problems of all products, not only of those without a file.
        open_products(experiment)
        raise
    return {f"baseline {name}": digest for name, digest in by_name.items()}


def product_metadata(products: dict[str, xr.Dataset]) -> Json:
    """Return the metadata of each product: licence, DOI, time convention, support and others."""
    return {
        name: {k: p.attrs[k] for k in METADATA_KEYS if k in p.attrs} for name, p in products.items()
    }


def product_name(entry: str) -> str:
    """Return the name of a product in the scores, which is `name` for `CATALOG:inner.name`."""
    return re.split(r"[:.]", entry)[-1]


def _for_each_product(experiment: Experiment, make: Callable[[str], T]) -> dict[str, T]:
    """Call a function with the entry of every product, and return the results by name.

    Raises:
      SoilweaveError: The problems of all products together.
    """
    _check_baselines(experiment)
    results: dict[str, T] = {}
    errors: list[SoilweaveError] = []
    for entry in experiment.baselines:
        try:
            results[product_name(entry)] = make(entry)
        except SoilweaveError as error:
            errors.append(error)
        except failures.storage_exceptions(ImportError) as error:
            problem = failures.read_problem(error)
            errors.append(DataError(f"catalog entry {entry}", problem, remedy="fetch it again"))
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DataError("baselines", *dict.fromkeys(map(str, errors)))
    return results


def _check_baselines(experiment: Experiment) -> None:
    """Check that names of products are unique, and that there are sites to score them at.

    Raises:
      ConfigError: If a name is in use, or the experiment trains no models or has no sites.
    """
    if experiment.baselines and (experiment.models or not experiment.sources.insitu):
        problem = "are scored at sites that models trained here have not seen, but there are none"
        raise ConfigError("baselines", problem, remedy="set sources.insitu, or --set baselines=[]")
    counts = Counter([*RESERVED_NAMES, *map(product_name, experiment.baselines)])
    if twice := [name for name, n in counts.items() if n > 1]:
        problem = f"more than one arm or baseline would have the name {', '.join(twice)}"
        raise ConfigError("baselines", problem, remedy="give the entry another name in a catalog")


def _open_product(experiment: Experiment, entry: str) -> xr.Dataset:
    """Open a product and check that it has the target on days of the test period, each once."""
    dataset = intake_catalog.open_source(experiment, entry, period=experiment.test_period)
    target, place = experiment.target, f"baseline {entry}"
    if target not in dataset:
        problem = f"no {target}; it has {[str(v) for v in dataset.data_vars]}"
        raise DataError(place, problem, remedy=f"map its variable to {target} in the catalog")
    if "time" not in dataset[target].dims:
        raise DataError(place, f"{target} has no time", remedy="name a product with daily values")
    days, counts = np.unique(_days(dataset), return_counts=True)
    if (counts > 1).any():
        problem = f"day {days[counts > 1][0]} occurs {counts.max()} times"
        raise DataError(place, problem, remedy="give each day once")
    first, last = (np.datetime64(day, "D") for day in experiment.test_period)
    if not ((days >= first) & (days <= last)).any():
        extent = f"its days are {days[0]} to {days[-1]}" if len(days) else "it has no days"
        problem = f"{extent}, none of them in the test period {first} to {last}"
        raise DataError(place, problem, remedy="move test_period, or remove it from baselines")
    return dataset


def _days(dataset: xr.Dataset) -> NDArray[np.datetime64]:
    """Return the days of a dataset, (time,) datetime64[D]."""
    days: NDArray[np.datetime64] = dataset["time"].values.astype("datetime64[D]")
    return days


def _sample_product(
    experiment: Experiment, dataset: xr.Dataset, sites: Places, days: NDArray[np.datetime64]
) -> SampledProduct:
    """Sample one product at the sites, as in `sample_products`."""
    import xarray as xr

    cells = lookup.find_cells(dataset, sites, experiment.judging.max_footprint_km)
    known, times = cells.known, _days(dataset)
    scored = np.flatnonzero(np.isin(times, days))
    names = [name for name in (experiment.target, "provider_flag") if name in dataset]
    at_cells = {dim: xr.DataArray(index[known], dims="site") for dim, index in cells.index.items()}
    part = dataset[names].isel(time=scored).isel(at_cells).transpose("site", "time").load()
    values, dropped = _screen_product(experiment, part, "place" in dataset.dims)
    series = np.full((len(known), len(days)), np.nan, np.float32)
    series[np.ix_(known, np.searchsorted(days.astype("datetime64[D]"), times[scored]))] = values
    distance = lookup.great_circle_km(*sites, cells.lat, cells.lon)
    return SampledProduct(series, np.where(known, distance, np.nan), dropped)


def _screen_product(
    experiment: Experiment, part: xr.Dataset, of_sites: bool
) -> tuple[NDArray[np.float32], dict[str, int]]:
    """Set values that quality control rejects to NaN, and count them by rule.

    Args:
      experiment: The settings.
      part: The target (site, time), and the provider's flags if there are any.
      of_sites: Whether the product has places, so that its flags are those of sites; otherwise
        they are bits, like those of a satellite.
    """
    values = part[experiment.target].values.astype("float32")
    flag, rules = part.get("provider_flag"), {}
    if of_sites and flag is not None:
        if experiment.qc.provider:
            accepted = list(quality_control.accepted_flags(flag, experiment.qc))
            rules["provider"] = ~np.isin(flag.values, accepted) & ~np.isnan(values)
            values[rules["provider"]] = np.nan
        flag = None
    bits = None if flag is None else flag.values
    rules |= quality_control.reject_retrievals(
        values, bits, experiment.table[experiment.target], experiment.qc
    )
    for rejected in rules.values():
        values[rejected] = np.nan
    return values, {rule: int(rejected.sum()) for rule, rejected in rules.items()}
