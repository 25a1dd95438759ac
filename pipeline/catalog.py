"""Catalogs: from an experiment's sources to datasets in our names and units."""

from __future__ import annotations

import difflib
import importlib.resources
import os
import re
import warnings
from typing import TYPE_CHECKING, Any

import intake
import yaml

from pipeline import files
from pipeline.errors import ConfigError, DataError
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.config import Experiment
    from pipeline.names import Variable

REQUIRED = ("support", "license", "time_convention", "period", "auth")
ENVIRONMENT = re.compile(r"\{\{\s*env\((\w+)\)\s*\}\}")


def open_source(experiment: Experiment, entry: str, url: str | None = None) -> xr.Dataset:
    """One entry of the experiment's catalog, checked against our table.

    Args:
      experiment: names the catalog.
      entry: its name there.
      url: another file of the same form, instead of the entry's own.

    Raises:
      ConfigError: no such catalog or entry.
      DataError: the data are absent, damaged or not as the entry says.
    """
    source = _entry(experiment, entry, url)
    dataset: xr.Dataset = source.to_dask()
    problems = _table_problems(dataset, experiment.table)
    if problems:
        remedy = "correct the entry's mapping; `variables:` of the experiment adds to the table"
        raise DataError(f"catalog entry {entry}", *problems, remedy=remedy)
    return dataset.assign_attrs(entry=entry, **(source.metadata or {}))


def digest(experiment: Experiment, entry: str, url: str | None = None) -> str:
    """Identifies what an entry holds: how it is read, and the content of its file or files.

    Not where they are: parameters such as the planet's folder do not count.
    """
    source = _entry(experiment, entry, url)
    spec = dict(_sources(experiment.sources.catalog)[entry])
    spec.pop("description", None)
    spec.pop("metadata", None)
    try:
        content = files.digest(source.urlpath)
    except FileNotFoundError:
        source.to_dask()  # says where to get it
        raise
    return files.sha256_of([spec, content])


def entries(experiment: Experiment) -> list[str]:
    """Every entry the cube is made from, each once; the truth, which only judges, is not in it."""
    sources = experiment.sources
    named = [*sources.forcing, *sources.static, sources.satellite, sources.insitu]
    return list(dict.fromkeys(name for name in named if name))


def locate(catalog: str) -> str:
    """URL of a catalog: a preset's name, a path or a URL.

    Raises:
      ConfigError: there is none.
    """
    folder = importlib.resources.files("catalogs")
    presets = sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )
    if catalog in presets:
        return str(folder / f"{catalog}.yaml")
    if catalog.endswith((".yaml", ".yml")) and files.exists(catalog):
        return catalog
    remedy = f"give a file.yaml, a URL or a preset: {', '.join(presets)}"
    raise ConfigError(f"catalog '{catalog}'", "not found", remedy=remedy)


def _entry(experiment: Experiment, entry: str, url: str | None) -> Any:
    catalog = experiment.sources.catalog
    sources = _sources(catalog)
    if entry not in sources:
        close = difflib.get_close_matches(entry, sources, 1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        accepted = f"entries: {', '.join(sources)}"
        raise ConfigError(f"catalog {catalog}", f"no entry '{entry}'{hint}", remedy=accepted)
    metadata = sources[entry].get("metadata") or {}
    lacking = [f"metadata '{key}' missing" for key in REQUIRED if key not in metadata]
    if lacking:
        raise ConfigError(f"catalog {catalog}, entry {entry}", *lacking, remedy="add them")
    given = {}
    if url is None:
        _check_environment(catalog, sources[entry])
        given = _parameters(experiment, entry, sources[entry])
    try:
        with warnings.catch_warnings():
            # Intake 2.0.9 says this of every parameter that is text.
            warnings.filterwarnings("ignore", "Shell command not executed", UserWarning)
            source = intake.open_catalog(locate(catalog))[entry](**given)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        found = f"cannot be opened: {' '.join(str(error).split())}"
        raise ConfigError(f"catalog {catalog}, entry {entry}", found) from error
    if url is not None:
        source.urlpath = url
    return source


def _parameters(experiment: Experiment, entry: str, spec: dict[str, Any]) -> dict[str, str]:
    """Values of the entry's own parameters: `planet`, the folder of the experiment's planet."""
    if "planet" not in (spec.get("parameters") or {}):
        return {}
    planet = experiment.planet.url if experiment.planet else None
    if planet is None:
        place = f"catalog {experiment.sources.catalog}, entry {entry}"
        remedy = "give planet.url, the folder of a planet made before, or make one first"
        raise ConfigError(place, "reads from a planet, and there is none yet", remedy=remedy)
    return {"planet": planet.rstrip("/")}


def _sources(catalog: str) -> dict[str, Any]:
    tree = yaml.safe_load(files.read_bytes(locate(catalog)))
    return dict(tree.get("sources") or {})


def _check_environment(catalog: str, spec: dict[str, Any]) -> None:
    unset = [name for name in ENVIRONMENT.findall(str(spec)) if not os.environ.get(name)]
    if unset:
        origin = spec.get("metadata", {}).get("origin", "the entry's provider")
        found = f"{unset[0]} is not set; it names the folder with the data"
        raise DataError(f"catalog {catalog}", found, remedy=f"get them from {origin}")


def _table_problems(dataset: xr.Dataset, table: dict[str, Variable]) -> list[str]:
    problems = []
    for name in map(str, dataset.data_vars):
        if name == "provider_flag":
            continue
        if name not in table:
            close = difflib.get_close_matches(name, table, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            problems.append(f"{name}: no variable of that name{hint}")
        elif dataset[name].attrs["units"] != table[name].units:
            found, wanted = dataset[name].attrs["units"], table[name].units
            try:
                conversion(found, wanted)
                hint = f"; say `to: {wanted}`"
            except DataError as error:
                hint = f", which it {error.problems[0]}"
            problems.append(f"{name}: units '{found}', expected '{wanted}'{hint}")
    return problems
