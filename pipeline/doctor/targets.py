"""From what `doctor` is given, an experiment or a catalog, to the entries it has to examine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import catalog, files, resolve
from pipeline.doctor.cases import Case, of_experiment
from pipeline.errors import ConfigError, SoilweaveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def of(target: str, settings: Sequence[str]) -> list[Case]:
    """The cases of an experiment (a preset, a file, a URL) or of a catalog.

    Raises:
      ConfigError: it is neither.
    """
    if _is_catalog(target):
        if settings:
            raise ConfigError("--set", f"{target} is a catalog", remedy="name an experiment")
        url = catalog.locate(target)
        return list(_walk(url, "", frozenset({url})))
    return of_experiment(resolve.experiment(target, settings))


def _walk(url: str, prefix: str, above: frozenset[str]) -> Iterator[Case]:
    """Every entry of a catalog and of those nested in it."""
    try:
        entries = catalog.tree(url)
    except (SoilweaveError, OSError) as error:
        wrong = error if isinstance(error, SoilweaveError) else ConfigError(url, "not found")
        yield Case(prefix.rstrip(".") or url, wrong)
        return
    for name, spec in entries.items():
        below = catalog.nested(url, spec)
        if below is None:
            yield Case(prefix + name, catalog.Found(url, name, spec), sparse=_is_sparse(spec))
        elif below not in above:
            yield from _walk(below, f"{prefix}{name}.", above | {below})


def _is_sparse(spec: dict[str, Any]) -> bool:
    """Whether an entry of a catalog has observations, by its support."""
    return (spec.get("metadata") or {}).get("support") in ("footprint", "site")


def _is_catalog(target: str) -> bool:
    """Whether a target is a catalog: a preset that no experiment has, or a file with drivers."""
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
