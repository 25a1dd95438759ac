"""`doctor FILE.csv`: probes of one's own, examined, shown and named in a catalog."""

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
AS_WRITTEN = ("id", "time_format")
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
    """Whether a file or a URL is a table of text, by its name."""
    return url.partition("?")[0].lower().endswith(TABLES)


def examine(
    target: str,
    write: str | None,
    progress: Progress,
    settings: Sequence[str] = (),
    plots: str | None = None,
) -> tuple[bool, list[Any]]:
    """Examine a CSV of probes; name it in a catalog, and draw each probe, where that is asked.

    Args:
      target: the CSV, a path or a URL.
      write: `CATALOG.yaml:NAME` to write an entry there, if nothing is wrong.
      progress: told of every probe.
      settings: `key=value` over what would be guessed; keys are `SETTINGS`.
      plots: folder for a picture of each probe; with `write` by default `FILE-probes` beside it.

    Returns:
      whether nothing is wrong, and what is shown.

    Raises:
      SoilweaveError: the file cannot be read, or the settings or the catalog not be used.
    """
    given = _given(settings)
    license_ = str(given.pop("license", entry.LICENSE))
    catalog = written.parts(write) if write else None
    found = probed.examined(files.absolute(target), given)
    progress.start("doctor", len(found.places), "probes")
    healthy = not found.problems
    shown: list[Any] = [table.table(found)] if found.places else []
    if found.guess.args:
        shown.append(table.schema(found))
    shown += [f"mind: {note}" for note in [*found.guess.notes, *table.minds(found)]]
    shown += [f"wrong: {problem}" for problem in found.problems]
    if (plots or catalog) and found.data is not None:
        beside = found.url.rpartition("/")[2] if "://" in found.url else found.url
        folder = plots or f"{beside.removesuffix('.csv')}-probes"
        _draw(found, found.data, folder, progress)
        shown.append(f"a picture of each probe is in {folder}")
    if catalog and not healthy:
        shown.append(f"nothing was written to {catalog[0]}: mend what is wrong first")
    elif catalog and found.data is not None:
        shown.append(entry.write(found, found.data, *catalog, license_))
    ill = f"{len(found.problems)} problems" if found.problems else "healthy"
    progress.finish(f"{len(found.places)} probes: {ill}")
    return healthy, [_escaped(part) for part in shown]


def _given(settings: Sequence[str]) -> dict[str, Any]:
    """Settings as a tree; `columns` has keys of its own."""
    made: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        first, _, role = key.partition(".")
        if not equals or first not in SETTINGS or (first == "columns") != bool(role):
            accepted = f"of a table: columns.ROLE, {', '.join(SETTINGS[1:])}"
            raise ConfigError(f"--set {setting}", f"expected key=value; keys {accepted}")
        if role:
            made.setdefault("columns", {})[role] = text
        else:
            made[first] = text if first in AS_WRITTEN else yaml.safe_load(text)
    return made


def _draw(found: Examined, data: xr.Dataset, folder: str, progress: Progress) -> None:
    """A PNG for each probe."""
    from pipeline.figures import probes, style

    variable = VARIABLES[TARGET]
    what = style.quantity(TARGET.replace("_", " "), style.units(variable.units))
    bounds, taken = (variable.minimum, variable.maximum), set[str]()
    days = data.time.values.astype("datetime64[D]")
    for at, site in enumerate(data.place.values.tolist()):
        place = found.places[site]
        where = place.shown.replace("\n", " ")
        title = f"{site}: {where}, cell {table.pair(place.cell)}, {data.time_convention}s"
        dropped = {rule: bad[:, at] for rule, bad in found.dropped.items()}
        record = probes.Record(days, data[TARGET].values[:, at], dropped)
        name = re.sub(r"[^\w.-]+", "_", site)
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        picture = probes.record(record, title, what, bounds)
        files.write_bytes(files.join(folder, f"{name}.png"), picture)
        progress.advance()


def _escaped(part: Any) -> Any:
    from rich.markup import escape

    return escape(part) if isinstance(part, str) else part
