"""Which stratum each site, or each day of a site, is in: what skill may depend on.

network: the provider's, else the entry of the catalog. land cover: IGBP class of static
`land_cover`, else the largest `cover_*` fraction. climate: precipitation over Makkink's potential
evaporation (model.climate), means of the site's own forcing over the whole cube. season: by month.
frozen: air temperature, mean of 7 days, at or below 0 degC; days that QC drops are in neither.
irrigated: static `irrigated` (a fraction) at least a tenth. training site: great-circle distance
to the nearest site that the site's fold learns from. And what `judging.groups` names.

Scores by stratum: the same summary, of some of the sites or of some of their days.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import pandas as pd

from model import aridity
from pipeline.catalog import experiment_sources, site_records
from pipeline.errors import ConfigError
from pipeline.evaluate import scoring
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


KM = (50, 100, 200)


APART = (1.0, 2.0)  # in units of attribute distance


IRRIGATED = 0.1


FROZEN_DAYS, FREEZING_K = 7, 273.15


COVERS = {
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
    """A way to part sites, or days of sites: `which` of the names each has, -1 where unknown."""

    names: tuple[str, ...]
    which: NDArray[np.int64]  # (site,) or (site, day)

    @classmethod
    def binned(cls, values: NDArray[Any], edges: tuple[float, ...], names: tuple[str, ...]) -> Self:
        """By the edges (one fewer than names) that values lie between; NaN is unknown."""
        return cls(names, np.where(np.isfinite(values), np.digitize(values, edges), -1))

    @classmethod
    def of(cls, labels: list[str]) -> Self:
        """By label (site,), "" for unknown; names in alphabetical order."""
        names = sorted(set(labels) - {""})
        return cls(tuple(names), np.array([names.index(s) if s else -1 for s in labels]))


def by_distance(distance: NDArray[np.float64]) -> Stratum:
    """By the distance in attributes to the nearest training site, in its units."""
    told = (f"under {APART[0]:g}", f"{APART[0]:g} to {APART[1]:g}", f"{APART[1]:g} and more")
    return Stratum.binned(distance, APART, told)


def strata(
    experiment: Experiment, cube: Cube, fold: NDArray[np.int64], test: slice
) -> dict[str, Stratum]:
    """All strata that the cube and the experiment tell of the sites, by name.

    Args:
      experiment: its groups, its folds' buffer, its training period.
      cube: the cube; it has sites.
      fold: (site,) that holds each out, -1 for none.
      test: the days that are judged.

    Raises:
      ConfigError: a group names sites that are not in the cube.
    """
    assert cube.sites is not None
    network = zarr_arrays.attributes(cube.url, "sites").get("network", [""] * len(cube.site_ids))
    made = {"network": Stratum.of(network)} | _places(cube, cube.sites)
    made["season"] = _season(cube.days[test], len(cube.site_ids))
    if "air_temperature" in cube.sites:
        made["frozen"] = _frozen(cube.series(cube.sites, "air_temperature").T, test)
    if (fold >= 0).any():
        made["nearest training site"] = _distance(experiment, cube, cube.sites, fold)
    return made | _groups(experiment, cube)


def _places(cube: Cube, sites: xr.Dataset) -> dict[str, Stratum]:
    """Strata of what stays the same."""
    made = {}
    fractions = [str(n) for n in sites if str(n).startswith("cover_")]
    if "land_cover" in sites:
        named = {c: name for name, classes in COVERS.items() for c in classes}
        covers = np.nan_to_num(sites["land_cover"].values, nan=-1).astype(int).tolist()
        made["land cover"] = Stratum.of([named.get(c, "") for c in covers])
    elif fractions:
        shares = np.nan_to_num(np.stack([sites[name].values for name in fractions]), nan=-1.0)
        largest = np.where(shares.max(0) >= 0, shares.argmax(0), -1)
        made["land cover"] = Stratum(tuple(n.removeprefix("cover_") for n in fractions), largest)
    forcing = ("precipitation", "air_temperature", "shortwave")
    if all(name in sites for name in forcing):
        wetness = aridity.aridity_index(*(cube.series(sites, name).T for name in forcing))
        made["climate"] = Stratum.binned(wetness, aridity.CLASS_EDGES, aridity.CLIMATE_CLASSES)
    if "irrigated" in sites:
        told = ("not irrigated", "irrigated")
        made["irrigated"] = Stratum.binned(sites["irrigated"].values, (IRRIGATED,), told)
    return made


def _season(days: NDArray[np.datetime64], n_sites: int) -> Stratum:
    month = days.astype("datetime64[M]").astype(int) % 12  # January is 0
    return Stratum(SEASONS, np.tile((month + 1) % 12 // 3, (n_sites, 1)))


def _frozen(kelvin: NDArray[np.float32], test: slice) -> Stratum:
    """Whether the mean of a day and the six before it is at or below freezing."""
    mean = pd.DataFrame(kelvin.T).rolling(FROZEN_DAYS, min_periods=1).mean().to_numpy().T
    return Stratum.binned(mean[:, test], (FREEZING_K,), ("frozen", "thawed"))


def _distance(
    experiment: Experiment, cube: Cube, sites: xr.Dataset, fold: NDArray[np.int64]
) -> Stratum:
    """How far the nearest site lies that the models of a site's fold learn from."""
    lat, lon = sites["lat"].values, sites["lon"].values
    train = cube.day_index(experiment.train_period)
    learnable = np.isfinite(cube.series(sites, cube.target)[train]).any(0)
    place = experiment_sources.number_places(experiment, lat, lon)
    km = np.full(len(fold), np.nan)
    for k in np.unique(fold[fold >= 0]).tolist():
        near = spatial_blocks.buffer_mask(lat, lon, fold, k, experiment.folds.buffer_km, place)
        held, learnt = fold == k, learnable & (fold != k) & ~near
        if learnt.any():
            km[held] = lookup.find_nearest(lat[held], lon[held], lat[learnt], lon[learnt])[1]
    between = [f"{a} to {b} km" for a, b in pairwise(KM)]
    return Stratum.binned(km, KM, (f"under {KM[0]} km", *between, f"{KM[-1]} km and more"))


def _groups(experiment: Experiment, cube: Cube) -> dict[str, Stratum]:
    """What `judging.groups` names, each against all other sites."""
    groups, called = experiment.judging.groups, _names(experiment, cube)
    known = set().union(*called)
    unknown = {name: [i for i in group if i not in known] for name, group in groups.items()}
    problems = [f"{name}: no site {', '.join(lost[:5])}" for name, lost in unknown.items() if lost]
    if problems:
        ids = cube.site_ids
        remedy = f"give ids of the cube's {len(ids)} sites, such as {ids[0]}"
        raise ConfigError("judging.groups", *problems, remedy=remedy)
    return {
        name: Stratum((name, "other"), np.array([int(of.isdisjoint(group)) for of in called]))
        for name, group in groups.items()
    }


def _names(experiment: Experiment, cube: Cube) -> list[set[str]]:
    """(site,) what a setting may call each site; cubes of several sources say whose each is."""
    short = site_records.short_names(experiment.sources.insitu)
    entries = {called: entry for entry, called in short.items()}
    alone = next(iter(entries)) if len(entries) == 1 else ""
    held = zarr_arrays.attributes(cube.url, "sites").get("entry", [alone] * len(cube.site_ids))
    return [
        site_records.names(entries.get(h, h), i) for h, i in zip(held, cube.site_ids, strict=True)
    ]


FEWEST_SITES = 3  # scored


FEWEST_DAYS = 30  # of a site in a stratum of days, where `judging.min_days` is not less


def judge(
    sites: Sites, candidates: list[Candidate], strata: dict[str, Stratum], rules: JudgingConfig
) -> Json:
    """Medians, intervals and paired differences by stratum and name, as judging.brief gives them.

    Names with too few scored sites are left out, and strata with fewer than two names.
    """
    made: Json = {}
    for stratum, (names, which) in strata.items():
        found = {}
        for number, name in enumerate(names):
            inside = which == number
            chosen = inside if inside.ndim == 1 else inside.any(1)
            if not chosen.any():
                continue
            part, fewest = sites.select(chosen), rules
            if inside.ndim == 2:
                part = replace(part, observed=np.where(inside[chosen], part.observed, np.nan))
                days = min(FEWEST_DAYS, rules.min_days)
                fewest = rules.model_copy(update={"min_days": days})
            judged = scoring.brief(part, [c.select(chosen) for c in candidates], fewest)
            if judged["n_sites"] >= FEWEST_SITES:
                found[name] = judged
        if len(found) > 1:
            made[stratum] = found
    return made
