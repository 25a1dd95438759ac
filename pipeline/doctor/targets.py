"""List the entries that `doctor` has to examine, from an experiment or a catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import catalog, files, resolve
from pipeline.doctor.cases import Case, of_experiment
from pipeline.errors import ConfigError, SoilweaveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def of(target: str, settings: Sequence[str]) -> list[Case]:
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
        url = catalog.locate(target)
        return list(_walk(url, "", frozenset({url})))
    return of_experiment(resolve.experiment(target, settings))


def _walk(url: str, prefix: str, ancestors: frozenset[str]) -> Iterator[Case]:
    """Yield every entry of a catalog and of the catalogs nested in it.

    Args:
      url: the catalog.
      prefix: what comes before the entries' names in their labels.
      ancestors: this catalog and those it is nested in, so that circular references end.
    """
    try:
        entries = catalog.tree(url)
    except (SoilweaveError, OSError) as error:
        failure = error if isinstance(error, SoilweaveError) else ConfigError(url, "not found")
        yield Case(prefix.rstrip(".") or url, failure)
        return
    for name, spec in entries.items():
        nested_url = catalog.nested(url, spec)
        if nested_url is None:
            yield Case(prefix + name, catalog.Found(url, name, spec), sparse=_is_sparse(spec))
        elif nested_url not in ancestors:
            yield from _walk(nested_url, f"{prefix}{name}.", ancestors | {nested_url})


def _is_sparse(spec: dict[str, Any]) -> bool:
    """Return whether an entry holds observations, which its `support` says."""
    return (spec.get("metadata") or {}).get("support") in ("footprint", "site")


def _is_catalog(target: str) -> bool:
    """Return whether a target is a catalog rather than an experiment.

    A preset is a catalog if no experiment has its name, a file if all its entries name drivers.
    """
    if not target.endswith((".yaml", ".yml")):
        if target in resolve.presets("experiments"):
            return False
        try:
            catalog.locate(target)
        except ConfigError:
            return False
        return True
    if not files.exists(target):
        return False
    try:
        entries = catalog.tree(target)
    except ConfigError:
        return False
    return all(isinstance(spec, dict) and "driver" in spec for spec in entries.values())
