"""`doctor FILE.csv`: examine a user's own probes, show them, and write a catalog entry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from pipeline import files
from pipeline.errors import ConfigError
from pipeline.names import VARIABLES
from pipeline.probes import entry, probed, table, written
from pipeline.probes.words import TARGET

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr

    from pipeline.probes.probed import Examined
    from pipeline.progress import Progress

TABLES = (".csv", ".tsv", ".txt", ".dat")  # loggers write the last two
AS_WRITTEN = ("id", "time_format")  # settings that stay text: an id may be 007
SETTINGS = (
    *("columns", "id", "lat", "lon", "units", "temperature_units"),
    *(
        "depth",
        "depth_units",
        "depth_class_m",
        "time_zone",
        "time_format",
        "good",
        "sensors",
        "min_share",
        "missing",
        "license",
    ),
)


def is_table(url: str) -> bool:
    """Return whether the name of a file or a URL is that of a table of text."""
    return url.partition("?")[0].lower().endswith(TABLES)


def examine(
    target: str,
    write: str | None,
    progress: Progress,
    settings: Sequence[str] = (),
    plots: str | None = None,
) -> tuple[bool, list[Any]]:
    """Examine a CSV of probes; write a catalog entry and plot the probes if that is requested.

    Args:
      target: the CSV, a path or a URL.
      write: `CATALOG.yaml:NAME` to write an entry there, if there is no problem.
      progress: advanced by every probe that is plotted.
      settings: `key=value` that replace guesses; the keys are `SETTINGS`.
      plots: folder for a plot of each probe; by default `FILE-probes` beside the CSV if `write` is
        given, else none are made.

    Returns:
      Whether there is no problem, and the parts to print.

    Raises:
      SoilweaveError: If the file cannot be read, or the settings or the catalog cannot be used.
    """
    given = _given(settings)
    license_ = str(given.pop("license", entry.LICENSE))
    catalog = written.parts(write) if write else None
    examined = probed.examined(files.absolute(target), given)
    progress.start("doctor", len(examined.places), "probes")
    healthy = not examined.problems
    parts: list[Any] = [table.table(examined)] if examined.places else []
    if examined.guess.args:
        parts.append(table.schema(examined))
    parts += [f"note: {note}" for note in [*examined.guess.notes, *table.minds(examined)]]
    parts += [f"problem: {problem}" for problem in examined.problems]
    if (plots or catalog) and examined.data is not None:
        is_remote = "://" in examined.url
        path = examined.url.rpartition("/")[2] if is_remote else examined.url
        folder = plots or f"{path.removesuffix('.csv')}-probes"
        _draw(examined, examined.data, folder, progress)
        parts.append(f"a plot of each probe is in {folder}")
    if catalog and not healthy:
        parts.append(f"nothing was written to {catalog[0]}: correct the problems first")
    elif catalog and examined.data is not None:
        parts.append(entry.write(examined, examined.data, *catalog, license_))
    result = f"{len(examined.problems)} problems" if examined.problems else "healthy"
    progress.finish(f"{len(examined.places)} probes: {result}")
    return healthy, [_escaped(part) for part in parts]


def _given(settings: Sequence[str]) -> dict[str, Any]:
    """Parse settings into a tree, in which `columns` has keys of its own.

    Raises:
      ConfigError: If a setting is not `key=value` with a known key.
    """
    tree: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        first, _, role = key.partition(".")
        if not equals or first not in SETTINGS or (first == "columns") != bool(role):
            accepted = f"of a table: columns.ROLE, {', '.join(SETTINGS[1:])}"
            raise ConfigError(f"--set {setting}", f"expected key=value; keys {accepted}")
        if role:
            tree.setdefault("columns", {})[role] = text
        else:
            tree[first] = text if first in AS_WRITTEN else yaml.safe_load(text)
    return tree


def _draw(examined: Examined, data: xr.Dataset, folder: str, progress: Progress) -> None:
    """Write a PNG for each probe into a folder."""
    from pipeline.figures import probes, style

    variable = VARIABLES[TARGET]
    label = style.quantity(TARGET.replace("_", " "), style.units(variable.units))
    bounds, used_names = (variable.minimum, variable.maximum), set[str]()
    days = data.time.values.astype("datetime64[D]")
    for index, site in enumerate(data.place.values.tolist()):
        place = examined.places[site]
        where = place.text.replace("\n", " ")
        title = f"{site}: {where}, cell {table.pair(place.cell)}, {data.time_convention}s"
        dropped = {rule: bad[:, index] for rule, bad in examined.dropped.items()}
        record = probes.Record(days, data[TARGET].values[:, index], dropped)
        name = re.sub(r"[^\w.-]+", "_", site)
        while name.lower() in used_names:
            name += "_"
        used_names.add(name.lower())
        picture = probes.record(record, title, label, bounds)
        files.write_bytes(files.join(folder, f"{name}.png"), picture)
        progress.advance()


def _escaped(part: Any) -> Any:
    """Escape text for rich, whose markup may occur in names of columns."""
    from rich.markup import escape

    return escape(part) if isinstance(part, str) else part
