"""List the entries that `doctor` has to examine, from an experiment or a catalog."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from pipeline import files
from pipeline.catalog import entries as catalog_entries
from pipeline.catalog import intake_catalog, templates
from pipeline.doctor.entries import Case, list_experiment_cases
from pipeline.errors import ConfigError, SoilweaveError
from pipeline.experiment import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


MAX_CATALOGS = 100  # catalogs nested in one


def find_targets(target: str, settings: Sequence[str]) -> list[Case]:
    """List the entries of an experiment or a catalog.

    Args:
      target: a preset, a YAML file or a URL.
      settings: `key=value` settings of an experiment.

    Raises:
      ConfigError: If the target is neither, or settings are given for a catalog.
    """
    if _is_catalog(target):
        if settings:
            problem = f"{target} is a catalog, which has no settings"
            raise ConfigError("--set", problem, remedy="name an experiment")
        url = intake_catalog.catalog_url(target)
        return list(_walk_catalog(url, "", (url,), itertools.count()))
    return list_experiment_cases(load.load_experiment(target, settings))


def _walk_catalog(
    url: str, prefix: str, ancestors: tuple[str, ...], opened: Iterator[int]
) -> Iterator[Case]:
    """Yield every entry of a catalog and of the catalogs nested in it.

    Args:
      url: the catalog.
      prefix: what comes before the entries' names in their labels.
      ancestors: this catalog and those it is nested in, so that circular references end.
      opened: counts the catalogs, of which a hostile server could send ever more.
    """
    try:
        if next(opened) >= MAX_CATALOGS:
            remedy = "examine the nested catalogs one by one"
            raise ConfigError(
                ancestors[0], f"nests more than {MAX_CATALOGS} catalogs", remedy=remedy
            )
        entries = catalog_entries.read_entries(url)
    except (SoilweaveError, OSError) as error:
        failure = error if isinstance(error, SoilweaveError) else ConfigError(url, "not found")
        yield Case(prefix.rstrip(".") or url, failure)
        return
    for name, spec in entries.items():
        try:
            templates.check_form(f"catalog {url}, entry {name}", spec)
            nested_url = intake_catalog.nested_catalog_url(url, name, spec)
        except ConfigError as error:
            yield Case(prefix + name, error)
            continue
        if nested_url is None:
            yield Case(
                prefix + name,
                catalog_entries.CatalogEntry(url, name, spec),
                sparse=_is_sparse(spec),
            )
        elif nested_url not in ancestors:
            yield from _walk_catalog(
                nested_url, f"{prefix}{name}.", (*ancestors, nested_url), opened
            )


def _is_sparse(spec: dict[str, Any]) -> bool:
    """Return whether an entry holds observations, which its `support` says."""
    return (spec.get("metadata") or {}).get("support") in ("footprint", "site")


def _is_catalog(target: str) -> bool:
    """Return whether a target is a catalog rather than an experiment.

    A preset is a catalog if no experiment has its name, a file if any entry names a driver.
    """
    if not target.endswith((".yaml", ".yml")):
        if target in load.list_presets("experiments"):
            return False
        try:
            intake_catalog.catalog_url(target)
        except ConfigError:
            return False
        return True
    if not files.exists(target):
        return False
    try:
        entries = catalog_entries.read_entries(target)
    except ConfigError:
        return False
    return any(isinstance(spec, dict) and "driver" in spec for spec in entries.values())
