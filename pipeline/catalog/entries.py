"""Read catalogs, and make the drivers of their entries.

Intake's own catalogs are not used: opening one imports the modules that it names and runs its
templates. Here a driver comes from a list, and its arguments from `templates.fill`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import failures, files, safe_yaml
from pipeline.catalog import templates
from pipeline.errors import ConfigError, redact_urls
from pipeline.sources import drivers

if TYPE_CHECKING:
    from pipeline.files import Json


class CatalogEntry(NamedTuple):
    """An entry of a catalog.

    Attributes:
      catalog: The URL of the catalog that has the entry.
      name: The name of the entry in this catalog.
      spec: What the catalog says of the entry: driver, args, metadata, parameters and environment.
    """

    catalog: str
    name: str
    spec: Json


def read_entries(url: str) -> dict[str, Json]:
    """Read the specs of all entries in the catalog at a URL, by name.

    Raises:
      ConfigError: If there is no catalog at the URL.
    """
    try:
        content = safe_yaml.load(files.read_limited(url, safe_yaml.MAX_BYTES), url)
    except FileNotFoundError as error:
        raise ConfigError(url, "not found", remedy="correct the path of the catalog") from error
    sources = content.get("sources") if isinstance(content, dict) else None
    if not isinstance(sources, dict):
        hint = "catalogs/README.md explains the form of a catalog"
        raise ConfigError(url, "no `sources`", remedy=hint)
    return {str(name): spec for name, spec in sources.items()}


def make_driver(entry: CatalogEntry, values: dict[str, str], parents: tuple[str, ...] = ()) -> Any:
    """Return the driver of an entry, with values for its parameters; nothing is opened yet.

    Args:
      entry: The entry.
      values: Values of its parameters; others have their defaults.
      parents: Names of the entries of the same catalog that are composed of this one.

    Raises:
      ConfigError: If the entry has a driver or a template that is not accepted, or the driver does
        not accept its arguments.
    """
    arguments = templates.fill(entry.catalog, entry.name, entry.spec, values)
    metadata = dict(entry.spec.get("metadata") or {})
    # As Intake does, but without a password, because it becomes an attribute of the data.
    metadata["catalog_dir"] = redact_urls(f"{templates.catalog_folder(entry.catalog)}/")
    try:
        driver = drivers.driver_class(entry.spec["driver"])(**arguments, metadata=metadata)
    except ImportError as error:
        found = failures.explain(error)
        place = f"catalog {entry.catalog}, entry {entry.name}"
        problem = f"cannot be opened: {found.reason}"
        raise ConfigError(place, problem, remedy=found.remedy) from error
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = str(error.args[0] if isinstance(error, LookupError) and error.args else error)
        problem = f"cannot be opened: {' '.join(reason.split())}"
        raise ConfigError(f"catalog {entry.catalog}, entry {entry.name}", problem) from error
    driver.name, driver.description = entry.name, str(entry.spec.get("description", ""))
    driver.cat = driver.catalog_object = _Siblings(entry.catalog, (*parents, entry.name))
    return driver


@dataclass(frozen=True)
class _Siblings:
    """The drivers of a catalog by name, for an entry that is composed of others.

    Attributes:
      catalog: URL of the catalog.
      parents: The entry, and those that are composed of it.
    """

    catalog: str
    parents: tuple[str, ...]

    def __getitem__(self, name: Any) -> Any:
        """Return the driver of another entry of the catalog."""
        place = f"catalog {self.catalog}, entry {self.parents[-1]}"
        entries = read_entries(self.catalog)
        if name not in entries or name in self.parents:
            problem = f"is composed of '{name}', "
            problem += "itself" if name in self.parents else "which is not in the catalog"
            others = [other for other in entries if other not in self.parents]
            raise ConfigError(place, problem, remedy=f"other entries: {', '.join(others)}")
        return make_driver(CatalogEntry(self.catalog, name, entries[name]), {}, self.parents)
