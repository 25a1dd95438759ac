"""Divide sites, or days of sites, into strata on which skill may depend, and score each stratum.

The strata and what they are based on:
  network: network of the provider, else the catalog entry of the site
  continent: the polygons of `folds.by: continent`, whatever is held out
  land cover: IGBP class of the static `land_cover`, else the largest `cover_*` fraction
  climate: precipitation over Makkink's potential evaporation (see model.aridity), from the means
    of the site's own forcing over all days of the cube
  season: month of the day
  frozen: whether the air temperature, as the mean of 7 days, is at or below 0 degC; days that
    quality control drops are in no stratum
  irrigated: whether the static `irrigated` (a fraction) is at least 0.1
  nearest training site: great-circle distance to the nearest site that the models of the site's
    fold learn from
  the groups of sites that `judging.groups` names
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd

from model import aridity
from pipeline.catalog import site_records
from pipeline.errors import ConfigError
from pipeline.evaluate import scoring
from pipeline.experiment import config, regions
from pipeline.grid import lookup, spatial_blocks
from pipeline.storage import zarr_arrays

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.evaluate.scoring import Candidate, Sites
    from pipeline.experiment.config import Experiment, JudgingConfig
    from pipeline.files import Json
    from pipeline.storage.cube import Cube


SEASONS = ("DJF", "MAM", "JJA", "SON")
DISTANCE_EDGES_KM = (50, 100, 200)
ATTRIBUTE_DISTANCE_EDGES = (1.0, 2.0)  # in units of attribute distance
MIN_IRRIGATED_FRACTION = 0.1
FROZEN_DAYS, FREEZING_K = 7, 273.15
MIN_SITES = 3  # scored sites of a stratum that is reported
MIN_DAYS_IN_STRATUM = 30  # of a site in a stratum of days, unless `judging.min_days` is smaller

LAND_COVER_CLASSES = {  # classes of the IGBP land cover classification
    "forest": (1, 2, 3, 4, 5),
    "shrubland": (6, 7),
    "savanna": (8, 9),
    "grassland": (10,),
    "wetland": (11,),
    "cropland": (12, 14),
    "built up": (13,),
    "snow or barren": (15, 16),
}


class Stratum(NamedTuple):
    """A division of sites, or of days of sites, into named parts.

    Attributes:
      names: names of the parts.
      indices: (site,) or (site, day) index into `names`, -1 where unknown.
    """

    names: tuple[str, ...]
    indices: NDArray[np.int64]

    @classmethod
    def from_edges(
        cls, values: NDArray[Any], edges: tuple[float, ...], names: tuple[str, ...]
    ) -> Self:
        """Divide by value; there is one edge fewer than names, and NaN is unknown."""
        return cls(names, np.where(np.isfinite(values), np.digitize(values, edges), -1))

    @classmethod
    def from_labels(cls, labels: list[str]) -> Self:
        """Divide by label (site,); "" is unknown, and names are in alphabetical order."""
        names = sorted(set(labels) - {""})
        return cls(tuple(names), np.array([names.index(s) if s else -1 for s in labels]))


def score_strata(
    sites: Sites, candidates: list[Candidate], strata: dict[str, Stratum], judging: JudgingConfig
) -> Json:
    """Score every part of every stratum.

    Returns:
      By stratum and name of the part, what `scoring.score_medians` returns. Parts with fewer than
      FEWEST_SITES scored sites are left out, and strata with fewer than two remaining parts.
    """
    summary: Json = {}
    for stratum, (names, indices) in strata.items():
        by_name = {}
        for index, name in enumerate(names):
            inside = indices == index
            chosen = inside if inside.ndim == 1 else inside.any(1)
            if not chosen.any():
                continue
            part, rules = sites.select(chosen), judging
            if inside.ndim == 2:
                part = replace(part, observed=np.where(inside[chosen], part.observed, np.nan))
                min_days = min(MIN_DAYS_IN_STRATUM, judging.min_days)
                rules = judging.model_copy(update={"min_days": min_days})
            scores = scoring.score_medians(part, [c.select(chosen) for c in candidates], rules)
            if scores["n_sites"] >= MIN_SITES:
                by_name[name] = scores
        if len(by_name) > 1:
            summary[stratum] = by_name
    return summary


def stratify_by_attribute_distance(distance: NDArray[np.float64]) -> Stratum:
    """Divide sites by the attribute distance (site,) to their nearest training site."""
    names = (
        f"under {ATTRIBUTE_DISTANCE_EDGES[0]:g}",
        f"{ATTRIBUTE_DISTANCE_EDGES[0]:g} to {ATTRIBUTE_DISTANCE_EDGES[1]:g}",
        f"{ATTRIBUTE_DISTANCE_EDGES[1]:g} and more",
    )
    return Stratum.from_edges(distance, ATTRIBUTE_DISTANCE_EDGES, names)


def find_strata(
    experiment: Experiment, cube: Cube, fold: NDArray[np.int64], test: slice
) -> dict[str, Stratum]:
    """Return all strata that the cube and the experiment define, by name (see the module).

    Args:
      experiment: has the groups, the buffer of the folds and the training period.
      cube: a cube with sites.
      fold: (site,) fold that holds each site out, -1 for none.
      test: the days of the cube that are scored.

    Raises:
      ConfigError: If a group names sites that are not in the cube.
    """
    assert cube.sites is not None
    network = zarr_arrays.read_attributes(cube.url, "sites").get(
        "network", [""] * len(cube.site_ids)
    )
    by_name = {
        "network": Stratum.from_labels(network),
        "continent": _continent_stratum(cube.sites),
    } | _static_strata(cube, cube.sites)
    by_name["season"] = _season_stratum(cube.days[test], len(cube.site_ids))
    if "air_temperature" in cube.sites:
        by_name["frozen"] = _frozen_stratum(cube.series(cube.sites, "air_temperature").T, test)
    if (fold >= 0).any():
        by_name["nearest training site"] = _distance_stratum(experiment, cube, cube.sites, fold)
    return by_name | _group_strata(experiment, cube)


def _continent_stratum(sites: xr.Dataset) -> Stratum:
    """Divide sites by the continent that they are on."""
    names = regions.regions_from_polygons(
        sites["lat"].values, sites["lon"].values, regions.continents_path()
    )
    return Stratum.from_labels(["" if name == regions.ELSEWHERE else name for name in names])


def _static_strata(cube: Cube, sites: xr.Dataset) -> dict[str, Stratum]:
    """Return the strata that do not change in time: land cover, climate and irrigation."""
    by_name = {}
    fractions = [str(n) for n in sites if str(n).startswith("cover_")]
    if "land_cover" in sites:
        name_of_class = {c: name for name, classes in LAND_COVER_CLASSES.items() for c in classes}
        classes = np.nan_to_num(sites["land_cover"].values, nan=-1).astype(int).tolist()
        by_name["land cover"] = Stratum.from_labels([name_of_class.get(c, "") for c in classes])
    elif fractions:
        shares = np.nan_to_num(np.stack([sites[name].values for name in fractions]), nan=-1.0)
        largest = np.where(shares.max(0) >= 0, shares.argmax(0), -1)
        names = tuple(n.removeprefix("cover_") for n in fractions)
        by_name["land cover"] = Stratum(names, largest)
    forcing = ("precipitation", "air_temperature", "shortwave")
    if all(name in sites for name in forcing):
        index = aridity.aridity_index(*(cube.series(sites, name).T for name in forcing))
        by_name["climate"] = Stratum.from_edges(index, aridity.CLASS_EDGES, aridity.CLIMATE_CLASSES)
    if "irrigated" in sites:
        names = ("not irrigated", "irrigated")
        by_name["irrigated"] = Stratum.from_edges(
            sites["irrigated"].values, (MIN_IRRIGATED_FRACTION,), names
        )
    return by_name


def _season_stratum(days: NDArray[np.datetime64], n_sites: int) -> Stratum:
    """Divide the days of every site by meteorological season."""
    month = days.astype("datetime64[M]").astype(int) % 12  # January is 0
    return Stratum(SEASONS, np.tile((month + 1) % 12 // 3, (n_sites, 1)))


def _frozen_stratum(kelvin: NDArray[np.float32], test: slice) -> Stratum:
    """Divide the days of every site by whether the mean of the last 7 days is at or below 0 degC.

    Args:
      kelvin: (site, day) air temperature of all days of the cube.
      test: the days that are scored.
    """
    mean = pd.DataFrame(kelvin.T).rolling(FROZEN_DAYS, min_periods=1).mean().to_numpy().T
    return Stratum.from_edges(mean[:, test], (FREEZING_K,), ("frozen", "thawed"))


def _distance_stratum(
    experiment: Experiment, cube: Cube, sites: xr.Dataset, fold: NDArray[np.int64]
) -> Stratum:
    """Divide sites by the distance to the nearest site that the models of their fold learn from."""
    lat, lon = sites["lat"].values, sites["lon"].values
    train = cube.day_index(experiment.train_period)
    learnable = np.isfinite(cube.series(sites, cube.target)[train]).any(0)
    place = config.label_experiment_places(experiment, lat, lon)
    km = np.full(len(fold), np.nan)
    for k in np.unique(fold[fold >= 0]).tolist():
        near = spatial_blocks.select_buffer(lat, lon, fold, k, experiment.folds.buffer_km, place)
        held_out, training = fold == k, learnable & (fold != k) & ~near
        if training.any():
            km[held_out] = lookup.find_nearest(
                lat[held_out], lon[held_out], lat[training], lon[training]
            )[1]
    between = [f"{a} to {b} km" for a, b in pairwise(DISTANCE_EDGES_KM)]
    return Stratum.from_edges(
        km,
        DISTANCE_EDGES_KM,
        (f"under {DISTANCE_EDGES_KM[0]} km", *between, f"{DISTANCE_EDGES_KM[-1]} km and more"),
    )


def _group_strata(experiment: Experiment, cube: Cube) -> dict[str, Stratum]:
    """Return a stratum for each of `judging.groups`: the group and all other sites.

    Raises:
      ConfigError: If a group names sites that are not in the cube.
    """
    groups, names_of_sites = experiment.judging.groups, _site_names(experiment, cube)
    known = set().union(*names_of_sites)
    unknown = {name: [i for i in group if i not in known] for name, group in groups.items()}
    problems = [f"{name}: no site {', '.join(ids[:5])}" for name, ids in unknown.items() if ids]
    if problems:
        ids = cube.site_ids
        hint = f"give ids of the cube's {len(ids)} sites, such as {ids[0]}"
        raise ConfigError("judging.groups", *problems, remedy=hint)
    return {
        name: Stratum(
            (name, "other"), np.array([int(names.isdisjoint(group)) for names in names_of_sites])
        )
        for name, group in groups.items()
    }


def _site_names(experiment: Experiment, cube: Cube) -> list[set[str]]:
    """Return the names by which settings may refer to each site, (site,).

    A cube of several sources records the catalog entry of each site; otherwise all sites are from
    the experiment's only source.
    """
    short_names = site_records.short_entry_names(experiment.sources.insitu)
    entry_of = {short: entry for entry, short in short_names.items()}
    only = next(iter(entry_of)) if len(entry_of) == 1 else ""
    sources = zarr_arrays.read_attributes(cube.url, "sites").get(
        "entry", [only] * len(cube.site_ids)
    )
    return [
        site_records.accepted_site_names(entry_of.get(source, source), i)
        for source, i in zip(sources, cube.site_ids, strict=True)
    ]
