"""Catalogs: from an experiment's sources to datasets in our names and units.

How far the sources of forcing reach, and which of their days are preliminary.

How much a source is, from what its catalog says of its objects: nothing is opened.
"""

from __future__ import annotations

import difflib
import importlib.resources
import math
import os
import re
import warnings
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import intake
import yaml

from pipeline import files
from pipeline.errors import ConfigError, DataError
from pipeline.experiment import config
from pipeline.sources import drivers
from pipeline.sources.shared.units import conversion, same
from pipeline.storage import schema, source_copies
from pipeline.storage.version2 import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.files import Json
    from pipeline.storage.schema import Spans


REQUIRED = ("support", "license", "time_convention", "period", "auth")
WHERE = ("urlpath", "storage_options", "login", "direct", "repository")
SAME = 1e-5  # of a value: rounding in which what is constant may differ
MOST = 8  # problems of a kind that are listed
ENVIRONMENT = re.compile(r"\{\{\s*env\((\w+)\)\s*\}\}")


class CatalogEntry(NamedTuple):
    """An entry: the URL of the catalog that has it, its name there, what the catalog says."""

    catalog: str
    name: str
    spec: Json


def source(experiment: Experiment, entry: str, url: str | None = None, period: Any = None) -> Any:
    """The driver of an entry, nothing opened yet, told which days and region are wanted.

    Args:
      experiment: names the catalog.
      entry: its name there, `inner.name` in a nested one, `CATALOG:name` in another.
      url: another file of the same form, instead of the entry's own.
      period: first and last day wanted, the experiment's by default.

    Raises:
      ConfigError: no such catalog or entry, or it lacks what every entry must say.
    """
    found = find(experiment.sources.catalog, entry)
    metadata = found.spec.get("metadata") or {}
    place = f"catalog {found.catalog}, entry {found.name}"
    lacking = [f"metadata '{key}' missing" for key in REQUIRED if key not in metadata]
    if lacking:
        raise ConfigError(place, *lacking, remedy="add them")
    given = {}
    if url is None:
        _check_environment(found)
        given = parameters(experiment, found)
    made = driver_of(found, given)
    if url is not None:
        made.urlpath = url
    else:
        made.period = period or experiment.period
        lat, lon = config.window(experiment).cell_edges  # whole footprints, beyond the domain
        made.region = (lon.min(), lat.min(), lon.max(), lat.max())
    return made


def driver_of(found: CatalogEntry, given: dict[str, str]) -> Any:
    """The driver of an entry with values of its parameters, nothing opened yet.

    Raises:
      ConfigError: the entry is none that Intake can make a driver of.
    """
    drivers.register()
    try:
        with warnings.catch_warnings():
            # Intake 2.0.9 says this of every parameter that is text.
            warnings.filterwarnings("ignore", "Shell command not executed", UserWarning)
            made = intake.open_catalog(found.catalog)[found.name](**given)
    except (AttributeError, ImportError, KeyError, TypeError, ValueError) as error:
        problem = f"cannot be opened: {' '.join(str(error).split())}"
        raise ConfigError(f"catalog {found.catalog}, entry {found.name}", problem) from error
    return made


def open_source(
    experiment: Experiment, entry: str, url: str | None = None, period: Any = None
) -> xr.Dataset:
    """One entry of the experiment's catalog, checked against our table.

    From the copy that `prepare --stage-to` made, where the experiment names one.

    Args:
      experiment: names the catalog.
      entry: as of `source`.
      url: another file of the same form, instead of the entry's own.
      period: first and last day wanted, the experiment's by default.

    Raises:
      ConfigError: no such catalog or entry.
      DataError: the data are absent, damaged or not as the entry says.
    """
    if _is_staged(experiment, entry, url):
        return source_copies.open_copy(str(experiment.sources.staged), entry)
    driver = source(experiment, entry, url, period)
    dataset: xr.Dataset = driver.to_dask()
    problems = table_problems(dataset, experiment.table)
    if problems:
        remedy = "correct the entry's mapping; `variables:` of the experiment adds to the table"
        raise DataError(f"catalog entry {entry}", *problems, remedy=remedy)
    dataset = _with_constants(dataset, entry, experiment.table)
    return dataset.assign_attrs(entry=entry, **(driver.metadata or {}))


def _with_constants(dataset: xr.Dataset, entry: str, table: dict[str, Variable]) -> xr.Dataset:
    """A source of sites with one value of each static attribute at a site, if it has one a day.

    Tables have a column for each variable, and so a value on every day.

    Raises:
      DataError: a static attribute changes with time.
    """
    problems = []
    for name in map(str, dataset.data_vars):
        daily = {"time", "place"} <= set(dataset[name].dims)
        if not daily or name not in table or table[name].kind != "static":
            continue
        held = dataset[name].load()
        low, high = held.min("time"), held.max("time")
        for place in dataset.place.values[(high - low > SAME * abs(high)).values]:
            at = [f"{float(end.sel(place=place)):g}" for end in (low, high)]
            problems.append(f"{name}: {at[0]} to {at[1]} at {place}, expected one value per site")
        dataset[name] = held.median("time", keep_attrs=True).astype("float32")
    if problems:
        more = [f"and {len(problems) - MOST} more"] if len(problems) > MOST else []
        remedy = "give a constant, or map it to a variable that is no static attribute"
        raise DataError(f"catalog entry {entry}", *problems[:MOST], *more, remedy=remedy)
    return dataset


def digest(
    experiment: Experiment, entry: str, url: str | None = None, period: Any = None
) -> Digest:
    """Identifies what an entry holds: how it is read, and the content of its file or files.

    How it is read is the name of the driver and its arguments. Where things are does not count:
    neither the module of the driver, nor parameters such as the planet's folder, nor a copy.
    `period` is as of `open_source`.

    Raises:
      DataError: it cannot be read.
    """
    if _is_staged(experiment, entry, url):
        return source_copies.digest_of(str(experiment.sources.staged), entry)
    driver = source(experiment, entry, url, period)
    spec = find(experiment.sources.catalog, entry).spec
    read = {key: value for key, value in (spec.get("args") or {}).items() if key not in WHERE}
    try:
        content = driver.digest()
    except FileNotFoundError:
        driver.to_dask()  # says where to get it
        raise
    except IsADirectoryError as error:
        remedy = "name a file in it, or files by date, such as FOLDER/%Y%m%d.nc"
        raise DataError(f"catalog entry {entry}", "urlpath is a folder", remedy=remedy) from error
    except OSError as error:
        found = f"cannot be read: {error.strerror or error}"
        remedy = "correct the entry's urlpath, or the permissions of what is there"
        raise DataError(f"catalog entry {entry}", found, remedy=remedy) from error
    path = drivers.published_path(spec["driver"])
    version2 = files.sha256_of([path, read, content])
    return Digest(files.sha256_of([drivers.name_of(driver), read, content]), version2)


def entries(experiment: Experiment) -> list[str]:
    """Every entry the cube is made from, each once; the truth, which only judges, is not in it."""
    sources = experiment.sources
    named = [*sources.forcing, *sources.static, sources.satellite, *sources.insitu]
    return list(dict.fromkeys(name for name in named if name))


def _is_staged(experiment: Experiment, entry: str, url: str | None) -> bool:
    """Whether a copy stands for an entry: of what the cube is made from, not of what judges."""
    return bool(experiment.sources.staged) and url is None and entry in entries(experiment)


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


def find(catalog: str, entry: str) -> CatalogEntry:
    """An entry of a catalog, of one nested in it (`inner.name`) or of another (`CATALOG:name`).

    Raises:
      ConfigError: there is none.
    """
    other, colon, name = entry.rpartition(":")
    if colon and not name.startswith("//"):
        return find(other, name)
    url = locate(catalog)
    entries = tree(url)
    if name in entries:
        return CatalogEntry(url, name, entries[name])
    outer, dot, inner = name.partition(".")
    if dot and (below := nested(url, entries.get(outer))):
        return find(below, inner)
    close = difflib.get_close_matches(name, entries, 1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    accepted = f"entries: {', '.join(entries)}"
    raise ConfigError(f"catalog {catalog}", f"no entry '{entry}'{hint}", remedy=accepted)


def tree(url: str) -> dict[str, Json]:
    """What the catalog at a URL says of each of its entries.

    Raises:
      ConfigError: it is no catalog.
    """
    try:
        found = yaml.safe_load(files.read_bytes(url))
    except yaml.YAMLError as error:
        raise ConfigError(url, f"is no YAML: {' '.join(str(error).split())}") from error
    except FileNotFoundError as error:
        raise ConfigError(url, "not found", remedy="correct the path of the catalog") from error
    sources = found.get("sources") if isinstance(found, dict) else None
    if not isinstance(sources, dict):
        raise ConfigError(url, "no `sources`", remedy="catalogs/README.md tells the form")
    return sources


def nested(url: str, spec: Json | None) -> str | None:
    """URL of the catalog that an entry of a catalog stands for; None where it is data."""
    if not spec or spec.get("driver") != "yaml_file_cat":
        return None
    folder = files.absolute(url).rpartition("/")[0]
    path: str = re.sub(r"\{\{\s*CATALOG_DIR\s*\}\}", lambda _: folder, spec["args"]["path"])
    return path


def parameters(experiment: Experiment, found: CatalogEntry) -> dict[str, str]:
    """Values of the entry's own parameters: `planet`, the folder of the experiment's planet."""
    if "planet" not in (found.spec.get("parameters") or {}):
        return {}
    planet = experiment.planet.url if experiment.planet else None
    if planet is None:
        place = f"catalog {found.catalog}, entry {found.name}"
        remedy = "give planet.url, the folder of a planet made before, or make one first"
        raise ConfigError(place, "reads from a planet, and there is none yet", remedy=remedy)
    return {"planet": planet.rstrip("/")}


def _check_environment(found: CatalogEntry) -> None:
    unset = [name for name in ENVIRONMENT.findall(str(found.spec)) if not os.environ.get(name)]
    if unset:
        origin = found.spec.get("metadata", {}).get("origin", "the entry's provider")
        problem = f"{unset[0]} is not set; it names the folder with the data"
        raise DataError(f"catalog {found.catalog}", problem, remedy=f"get them from {origin}")


def table_problems(dataset: xr.Dataset, table: dict[str, Variable]) -> list[str]:
    """Variables of a source that our table has not, or has in other units."""
    problems = []
    for name in map(str, dataset.data_vars):
        if name == "provider_flag":
            continue
        if name not in table:
            close = difflib.get_close_matches(name, table, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            problems.append(f"{name}: no variable of that name{hint}")
        elif not same(dataset[name].attrs["units"], table[name].units):
            found, wanted = dataset[name].attrs["units"], table[name].units
            try:
                conversion(found, wanted)
                hint = f"; say `to: {wanted}`"
            except DataError as error:
                hint = f", which it {error.problems[0]}"
            problems.append(f"{name}: units '{found}', expected '{wanted}'{hint}")
    return problems


DAY = timedelta(1)


def today() -> date:
    """The day by UTC."""
    return datetime.now(UTC).date()


def last_day(experiment: Experiment, entry: str, after: date, until: date) -> tuple[date, str]:
    """The last day of a source, without holes since a day that it has; `after` where none is later.

    Sources do not tell how far they reach: those that refuse days they lack are asked by bisection.

    Args:
      experiment: names the catalog.
      entry: of forcing.
      after: the last day that is known to be there.
      until: the last day that is of interest.

    Returns:
      The day, and what the source says of the days after it, "" where it reaches `until`.
    """
    if until <= after:
        return after, ""
    least, most, said = after, until, ""
    while True:
        middle = most if not said else least + (most - least) // 2
        try:
            least = max(least, min(_last(experiment, entry, (after + DAY, middle)), middle))
            if not said:
                return least, "" if least == until else f"it ends on {least}"
            if least < middle:
                return least, said
        except DataError as error:
            said, most = str(error), middle
        if most - least <= DAY:
            return least, said


def _last(experiment: Experiment, entry: str, period: tuple[date, date]) -> date:
    """The last whole day that a source has, opened for a period.

    Raises:
      DataError: it has not the whole period, and wants to say so.
    """
    dataset = open_source(experiment, entry, period=period)
    held = dataset["time"].values.astype("datetime64[D]").tolist()
    partial = str(dataset.attrs.get("partial_days", ""))
    dataset.close()
    days: list[date] = sorted(day for day in held if period[0] <= day <= period[1])
    if days and partial.endswith(str(days[-1])):
        days.pop()
    return days[-1] if days else period[0] - DAY


def preliminary(experiment: Experiment, through: date) -> Spans:
    """The span of days, up to one, whose forcing may still be replaced; none, or one.

    The entries say so: `preliminary_days: N` in their metadata are the last N days before today.
    """
    first = through + DAY
    for entry in experiment.sources.forcing:
        metadata = find(experiment.sources.catalog, entry).spec.get("metadata") or {}
        if n_days := int(metadata.get("preliminary_days", 0)):
            first = min(first, today() - timedelta(n_days - 1))
    first = max(first, experiment.period[0])
    return [[str(first), str(through)]] if first <= through else []


class Volume(NamedTuple):
    """Objects that must be read, their bytes, and how well that is known.

    `blocks` is how many blocks of 32 days an object spans: whoever reads one block after the
    other, as `prepare` does without a copy, reads it so many times.
    """

    requests: int
    megabytes: float
    basis: str
    blocks: int


def of(experiment: Experiment, entry: str) -> Volume | None:
    """What the experiment's window and period take of an entry; None where that is not said.

    `metadata.volume` says: `days` of one object (0 for constants), `degrees` of latitude and
    longitude it spans (the whole region without), whether it holds one `variable` or `all`, its
    `megabytes` as stored, and the `basis` of these figures.
    """
    spec = find(experiment.sources.catalog, entry).spec
    said = (spec.get("metadata") or {}).get("volume")
    if not said:
        return None
    objects = _in_time(experiment, float(said["days"])) * _in_space(experiment, said.get("degrees"))
    if said.get("per") == "variable":
        objects *= len(_variables(spec))
    size, basis = objects * float(said["megabytes"]), str(said.get("basis", "estimated"))
    chunked = said.get("degrees") and said.get("per") == "variable"
    blocks = math.ceil(float(said["days"]) / schema.BLOCK_DAYS) if chunked else 1
    return Volume(objects, size, basis, max(1, blocks))


def told(experiment: Experiment, entries: Sequence[str]) -> str:
    """One line: bytes and requests of some entries together, and what is not known."""
    known = {entry: of(experiment, entry) for entry in entries}
    volumes = [v for v in known.values() if v is not None]
    requests, megabytes = sum(v.requests for v in volumes), sum(v.megabytes for v in volumes)
    line = f"about {size(megabytes)} in {requests:,} requests" if volumes else "bytes and requests"
    unknown = [entry for entry, v in known.items() if v is None]
    join = "; not known of " if volumes else " not known of "
    return line + join + ", ".join(unknown) if unknown else line


def size(megabytes: float) -> str:
    """Megabytes for people."""
    if megabytes < 1000:
        return f"{megabytes:.1f} MB"
    return f"{megabytes / 1000:,.1f} GB"


def _in_time(experiment: Experiment, days: float) -> int:
    first, last = experiment.period
    return math.ceil(((last - first).days + 1) / days) if days else 1


def _in_space(experiment: Experiment, degrees: Sequence[float] | None) -> int:
    if not degrees:
        return 1
    box = experiment.domain
    spans = (
        (box.south_degrees, box.north_degrees, degrees[0]),
        (box.west_degrees, box.east_degrees, degrees[1]),
    )
    return math.prod(math.ceil(high / d) - math.floor(low / d) for low, high, d in spans)


def _variables(spec: Json) -> set[Any]:
    """The provider's variables that a mapping reads."""
    mapping = spec["args"]["mapping"]
    parts = mapping if isinstance(mapping, list) else [mapping]
    named = [item["from"] for part in parts for item in part.values()]
    return {name for item in named for name in (item if isinstance(item, list) else [item])}
