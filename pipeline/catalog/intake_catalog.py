"""Find and open entries of Intake catalogs; the datasets have soilweave's names and units.

This module also finds the last day and the preliminary days of sources of forcing, and estimates
the bytes and requests that reading an entry takes from its metadata.
"""

from __future__ import annotations

import difflib
import importlib.resources
import math
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import failures, files
from pipeline.catalog import templates
from pipeline.catalog.entries import CatalogEntry, make_driver, read_entries
from pipeline.errors import ConfigError, DataError, UnreachableError
from pipeline.experiment import config
from pipeline.sources import drivers
from pipeline.sources.shared.units import are_same_units, linear_conversion
from pipeline.storage import schema, source_copies
from pipeline.storage.earlier_versions import Digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.files import Json
    from pipeline.storage.schema import Spans


REQUIRED_METADATA = ("support", "license", "time_convention", "period", "auth")
# Arguments of drivers that say where data are, not what they are.
LOCATION_ARGUMENTS = ("urlpath", "storage_options", "login", "direct", "repository")
CONSTANT_TOLERANCE = 1e-5  # relative tolerance for the rounding of constant values
MAX_PROBLEMS = 8  # problems of one kind that a message lists
DAY = timedelta(1)


def driver_of_entry(
    experiment: Experiment, entry: str, url: str | None = None, period: Any = None
) -> Any:
    """Return the driver of an entry, set to the days and region of the experiment.

    Nothing is opened yet.

    Args:
      experiment: The settings, which name the catalog.
      entry: The entry: its name in the catalog, `inner.name` in a nested catalog, or
        `CATALOG:name` in another catalog.
      url: Another file of the same form to read instead of the entry's own.
      period: The first and last day to read; by default the experiment's period.

    Raises:
      ConfigError: If there is no such catalog or entry, or its metadata are incomplete.
    """
    catalog_entry = find_entry(experiment.sources.catalog, entry)
    metadata = catalog_entry.spec.get("metadata") or {}
    place = f"catalog {catalog_entry.catalog}, entry {catalog_entry.name}"
    problems = [f"metadata '{key}' missing" for key in REQUIRED_METADATA if key not in metadata]
    if problems:
        hint = "add it to the entry; catalogs/README.md explains each key"
        raise ConfigError(place, *problems, remedy=hint)
    values = {}
    if url is None:
        _check_environment(catalog_entry)
        values = entry_parameters(experiment, catalog_entry)
    else:  # where the entry's own data are does not matter
        arguments = {**(catalog_entry.spec.get("args") or {}), "urlpath": url}
        spec = {**catalog_entry.spec, "args": arguments}
        catalog_entry = catalog_entry._replace(spec=spec)
    driver = make_driver(catalog_entry, values)
    if url is not None:
        driver.urlpath = url
    else:
        driver.period = period or experiment.period
        # Whole footprints, so it can reach beyond the domain.
        lat, lon = config.experiment_window(experiment).cell_edges
        driver.region = (lon.min(), lat.min(), lon.max(), lat.max())
    return driver


def open_source(
    experiment: Experiment, entry: str, url: str | None = None, period: Any = None
) -> xr.Dataset:
    """Open an entry of the experiment's catalog and check it against the table of variables.

    If the experiment has copies of its sources, from `prepare --stage-to`, the copy is opened.

    Args:
      experiment: The settings, which name the catalog.
      entry: The entry, as in `source`.
      url: Another file of the same form to read instead of the entry's own.
      period: The first and last day to read; by default the experiment's period.

    Raises:
      ConfigError: If there is no such catalog or entry.
      DataError: If the data are missing, damaged or not as the entry describes them.
    """
    if _is_staged(experiment, entry, url):
        return source_copies.open_copy(str(experiment.sources.staged), entry)
    driver = driver_of_entry(experiment, entry, url, period)
    try:
        dataset: xr.Dataset = driver.to_dask()
    except failures.storage_exceptions(ImportError) as error:
        raise _unreadable(entry, driver, error) from error
    problems = table_problems(dataset, experiment.table)
    if problems:
        hint = "correct the entry's mapping, or add to the table with the experiment's `variables:`"
        raise DataError(f"catalog entry {entry}", *problems, remedy=hint)
    dataset = _reduce_static_series(dataset, entry, experiment.table)
    return dataset.assign_attrs(entry=entry, **(driver.metadata or {}))


def _unreadable(entry: str, driver: Any, error: Exception) -> DataError:
    """Return the error for an entry that a library or the system could not read."""
    found = failures.explain(error, str(driver.urlpath))
    remedy = found.remedy or "correct the entry's urlpath, or the permissions of the file"
    kind = UnreachableError if found.passing else DataError
    what = found.reason if isinstance(error, ImportError) else f"cannot be read: {found.reason}"
    return kind(f"catalog entry {entry}", what, remedy=remedy)


def entry_digest(
    experiment: Experiment, entry: str, url: str | None = None, period: Any = None
) -> Digest:
    """Return a digest of an entry: of how it is read, and of the content of its files.

    How it is read is the name of the driver and its arguments. Locations do not count: neither the
    module of the driver, nor parameters such as the planet's folder, nor whether a copy is read.
    The arguments are those of `open_source`.

    Raises:
      DataError: If the files cannot be read.
    """
    if _is_staged(experiment, entry, url):
        return source_copies.copied_digest(str(experiment.sources.staged), entry)
    driver = driver_of_entry(experiment, entry, url, period)
    spec = find_entry(experiment.sources.catalog, entry).spec
    given = spec.get("args") or {}
    arguments = {key: given[key] for key in given if key not in LOCATION_ARGUMENTS}
    try:
        content = driver.digest()
    except FileNotFoundError:
        driver.to_dask()  # raises an error that says where to get the file
        raise
    except IsADirectoryError as error:
        hint = "name a file in it, or files by date, such as FOLDER/%Y%m%d.nc"
        raise DataError(f"catalog entry {entry}", "urlpath is a folder", remedy=hint) from error
    except failures.storage_exceptions(ImportError) as error:
        raise _unreadable(entry, driver, error) from error
    path = drivers.published_path(spec["driver"])
    version2 = files.sha256_of_json([path, arguments, content])
    return Digest(files.sha256_of_json([drivers.driver_name(driver), arguments, content]), version2)


def cube_entries(experiment: Experiment) -> list[str]:
    """Return the entries that the cube is made from, each once, without the truth and baselines."""
    sources = experiment.sources
    names = [*sources.forcing, *sources.static, sources.satellite, *sources.insitu]
    return list(dict.fromkeys(name for name in names if name))


def find_entry(catalog: str, entry: str) -> CatalogEntry:
    """Find an entry in a catalog, in a nested one (`inner.name`) or in another (`CATALOG:name`).

    Raises:
      ConfigError: If there is no such entry.
    """
    other, colon, name = entry.rpartition(":")
    if colon and not name.startswith("//"):
        return find_entry(other, name)
    url = catalog_url(catalog)
    entries = read_entries(url)
    if name in entries:
        templates.check_form(f"catalog {url}, entry {name}", entries[name])
        return CatalogEntry(url, name, entries[name])
    outer, dot, inner = name.partition(".")
    if dot and (below := nested_catalog_url(url, outer, entries.get(outer))):
        return find_entry(below, inner)
    close = difflib.get_close_matches(name, entries, 1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    accepted = f"entries: {', '.join(entries)}"
    raise ConfigError(f"catalog {catalog}", f"no entry '{entry}'{hint}", remedy=accepted)


def catalog_url(catalog: str) -> str:
    """Return the URL of a catalog, given a preset's name, a path or a URL.

    Raises:
      ConfigError: If there is no such catalog.
    """
    folder = importlib.resources.files("catalogs")
    presets = sorted(
        p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml")
    )
    if catalog in presets:
        return str(folder / f"{catalog}.yaml")
    if catalog.endswith((".yaml", ".yml")) and files.exists(catalog):
        return catalog
    hint = f"give a file.yaml, a URL or a preset: {', '.join(presets)}"
    raise ConfigError(f"catalog '{catalog}'", "not found", remedy=hint)


def nested_catalog_url(url: str, name: str, spec: Json | None) -> str | None:
    """Return the URL of the catalog that an entry refers to; None if the entry is data.

    Raises:
      ConfigError: If it refers to something that is not accepted; see `templates.nested_url`.
    """
    if not isinstance(spec, dict) or spec.get("driver") != "yaml_file_cat":
        return None
    return templates.nested_url(url, name, spec)


def entry_parameters(experiment: Experiment, entry: CatalogEntry) -> dict[str, str]:
    """Return the values of an entry's parameters: `planet`, the folder of the planet, or nothing.

    Raises:
      ConfigError: If the entry needs a planet and the experiment has none.
    """
    if "planet" not in (entry.spec.get("parameters") or {}):
        return {}
    planet = experiment.planet.url if experiment.planet else None
    if planet is None:
        place = f"catalog {entry.catalog}, entry {entry.name}"
        hint = "set planet.url to the folder of a planet, or simulate one first"
        raise ConfigError(place, "needs a planet, but the experiment has none", remedy=hint)
    return {"planet": planet.rstrip("/")}


def table_problems(dataset: xr.Dataset, table: dict[str, Variable]) -> list[str]:
    """Return problems of variables that are not in the table, or have units it cannot accept."""
    problems = []
    for name in map(str, dataset.data_vars):
        if name == "provider_flag":
            continue
        if name not in table:
            close = difflib.get_close_matches(name, table, 1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            problems.append(f"{name}: no variable of that name{hint}")
        elif not are_same_units(dataset[name].attrs["units"], table[name].units):
            units, expected = dataset[name].attrs["units"], table[name].units
            try:
                linear_conversion(units, expected)
                hint = f"; add `to: {expected}` to the mapping"
            except DataError as error:
                hint = f", which it {error.problems[0]}"
            problems.append(f"{name}: units '{units}', expected '{expected}'{hint}")
    return problems


def today() -> date:
    """Return the present date in UTC."""
    return datetime.now(UTC).date()


def last_day(experiment: Experiment, entry: str, after: date, until: date) -> tuple[date, str]:
    """Find the last day up to which a source of forcing has all days.

    Sources do not say how far they reach. Some refuse a period in which they have missing days;
    for these the last day is found by bisection.

    Args:
      experiment: The settings, which name the catalog.
      entry: The catalog entry.
      after: The last day that the source is known to have.
      until: The last day that is needed.

    Returns:
      The last day, which is `after` if there is none later; and the reason why the source does not
      reach `until`, "" if it does.
    """
    if until <= after:
        return after, ""
    low, high, reason = after, until, ""  # the last day is in [low, high]
    while True:
        middle = high if not reason else low + (high - low) // 2
        try:
            low = max(low, min(_last_whole_day(experiment, entry, (after + DAY, middle)), middle))
            if not reason:
                return low, "" if low == until else f"it ends on {low}"
            if low < middle:
                return low, reason
        except DataError as error:
            reason, high = str(error), middle
        if high - low <= DAY:
            return low, reason


def preliminary_span(experiment: Experiment, through: date) -> Spans:
    """Return the span of days up to `through` whose forcing the provider may still replace.

    An entry with `preliminary_days: N` in its metadata may replace the last N days before today.

    Returns:
      A list with one span, [first day, last day], or an empty list.
    """
    first = through + DAY
    for entry in experiment.sources.forcing:
        metadata = find_entry(experiment.sources.catalog, entry).spec.get("metadata") or {}
        if n_days := int(metadata.get("preliminary_days", 0)):
            first = min(first, today() - timedelta(n_days - 1))
    first = max(first, experiment.period[0])
    return [[str(first), str(through)]] if first <= through else []


class Volume(NamedTuple):
    """An estimate of what reading an entry takes.

    Attributes:
      requests: The number of objects to read.
      megabytes: Their size.
      basis: How the figures are known, such as `estimated`.
      blocks: The number of blocks of 32 days that one object spans. Reading block by block, as
        `prepare` does without copies, reads each object this many times.
    """

    requests: int
    megabytes: float
    basis: str
    blocks: int


def entry_volume(experiment: Experiment, entry: str) -> Volume | None:
    """Estimate what the experiment's window and period take of an entry.

    The entry's metadata describe one object under `volume`: the `days` it spans (0 for constants),
    the `degrees` of latitude and longitude it spans (without it the whole region), `per`, whether
    it contains one `variable` or `all`, its size in `megabytes` as stored, and the `basis` of
    these figures.

    Returns:
      The estimate; None if the metadata have no `volume`.
    """
    spec = find_entry(experiment.sources.catalog, entry).spec
    volume = (spec.get("metadata") or {}).get("volume")
    if not volume:
        return None
    try:
        return _estimate_volume(experiment, spec, volume)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        problem = f"metadata.volume cannot be used ({type(error).__name__}: {error})"
        hint = "catalogs/README.md explains its form"
        raise ConfigError(f"catalog entry {entry}", problem, remedy=hint) from error


def _estimate_volume(experiment: Experiment, spec: Json, volume: Json) -> Volume:
    """Return the volume of an entry, of whose metadata `volume` is a part."""
    days, degrees = float(volume["days"]), volume.get("degrees")
    per_variable = volume.get("per") == "variable"
    n_objects = _objects_in_time(experiment, days) * _objects_in_space(experiment, degrees)
    if per_variable:
        n_objects *= len(_mapped_variables(spec))
    megabytes, basis = n_objects * float(volume["megabytes"]), str(volume.get("basis", "estimated"))
    blocks = math.ceil(days / schema.BLOCK_DAYS) if degrees and per_variable else 1
    return Volume(n_objects, megabytes, basis, max(1, blocks))


def describe_volume(experiment: Experiment, entries: Sequence[str]) -> str:
    """Describe the bytes and requests of some entries together, in one line."""
    by_entry = {entry: entry_volume(experiment, entry) for entry in entries}
    volumes = [v for v in by_entry.values() if v is not None]
    requests, megabytes = sum(v.requests for v in volumes), sum(v.megabytes for v in volumes)
    line = "bytes and requests"
    if volumes:
        line = f"about {format_size(megabytes)} in {requests:,} requests"
    unknown = [entry for entry, v in by_entry.items() if v is None]
    separator = "; unknown for " if volumes else " unknown for "
    return line + separator + ", ".join(unknown) if unknown else line


def format_size(megabytes: float) -> str:
    """Format a size as MB or GB."""
    return f"{megabytes:.1f} MB" if megabytes < 1000 else f"{megabytes / 1000:,.1f} GB"


def _is_staged(experiment: Experiment, entry: str, url: str | None) -> bool:
    """Return whether a copy is read for an entry; only entries of the cube are copied."""
    return bool(experiment.sources.staged) and url is None and entry in cube_entries(experiment)


def _reduce_static_series(
    dataset: xr.Dataset, entry: str, table: dict[str, Variable]
) -> xr.Dataset:
    """Reduce the statics of a source of sites to one value per site if they have daily values.

    They do in tables, whose columns have a value on every row.

    Raises:
      DataError: If a static changes with time.
    """
    problems = []
    for name in map(str, dataset.data_vars):
        daily = {"time", "place"} <= set(dataset[name].dims)
        if not daily or name not in table or table[name].kind != "static":
            continue
        values = dataset[name].load()
        low, high = values.min("time"), values.max("time")
        for place in dataset.place.values[(high - low > CONSTANT_TOLERANCE * abs(high)).values]:
            first, last = (f"{float(limit.sel(place=place)):g}" for limit in (low, high))
            problems.append(f"{name}: {first} to {last} at {place}, expected one value per site")
        dataset[name] = values.median("time", keep_attrs=True).astype("float32")
    if problems:
        more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
        hint = "give constant values, or map the column to a variable that is not static"
        raise DataError(f"catalog entry {entry}", *problems[:MAX_PROBLEMS], *more, remedy=hint)
    return dataset


def _check_environment(entry: CatalogEntry) -> None:
    """Check that the environment variables that an entry uses are set.

    Raises:
      DataError: If one is not set.
    """
    unset = templates.unset_names(entry.catalog, entry.spec)
    if unset:
        origin = (entry.spec.get("metadata") or {}).get("origin", "the entry's provider")
        problem = f"{unset[0]} is not set; it names the folder with the data"
        hint = f"get the data from {origin}"
        raise DataError(f"catalog {entry.catalog}", problem, remedy=hint)


def _last_whole_day(experiment: Experiment, entry: str, period: tuple[date, date]) -> date:
    """Return the last complete day of a source within a period.

    Raises:
      DataError: If the source refuses the period because it does not have all of its days.
    """
    if not _is_staged(experiment, entry, None):
        found = driver_of_entry(experiment, entry, period=period).last_day_on_server()
        if found is not None:
            period = (period[0], min(found, period[1]))
        if period[1] < period[0]:
            return period[0] - DAY
    dataset = open_source(experiment, entry, period=period)
    times = dataset["time"].values.astype("datetime64[D]").tolist()
    partial = str(dataset.attrs.get("partial_days", ""))
    dataset.close()
    # Gaps that an entry allows have days too, but at the end they are days that have not come yet.
    last = date.fromisoformat(str(dataset.attrs.get("last_day", period[1])))
    days: list[date] = sorted(day for day in times if period[0] <= day <= min(last, period[1]))
    if days and partial.endswith(str(days[-1])):
        days.pop()
    return days[-1] if days else period[0] - DAY


def _objects_in_time(experiment: Experiment, days: float) -> int:
    """Return how many objects of some days cover the period; 1 for constants."""
    first, last = experiment.period
    return math.ceil(((last - first).days + 1) / days) if days else 1


def _objects_in_space(experiment: Experiment, degrees: Sequence[float] | None) -> int:
    """Return how many objects that span some degrees of latitude and longitude cover the domain."""
    if not degrees:
        return 1
    box = experiment.domain
    spans = (
        (box.south_degrees, box.north_degrees, degrees[0]),
        (box.west_degrees, box.east_degrees, degrees[1]),
    )
    return math.prod(math.ceil(high / d) - math.floor(low / d) for low, high, d in spans)


def _mapped_variables(spec: Json) -> set[Any]:
    """Return the provider's variables that the mapping of an entry reads."""
    mapping = spec["args"]["mapping"]
    parts = mapping if isinstance(mapping, list) else [mapping]
    names = [item["from"] for part in parts for item in part.values()]
    # `from` is one name or a list of them.
    return {name for item in names for name in (item if isinstance(item, list) else [item])}
