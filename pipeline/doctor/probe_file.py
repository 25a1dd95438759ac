"""A probe through time: what quality control keeps, and what it drops by which rule.

Show what is known of probes in a terminal: a table, and notes.

`doctor FILE.csv`: examine a user's own probes, show them, and write a catalog entry.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files, safe_yaml
from pipeline.doctor import catalog_entry
from pipeline.errors import ConfigError
from pipeline.evaluate.report import style
from pipeline.evaluate.report.series import set_month_ticks
from pipeline.experiment.config import JudgingConfig
from pipeline.experiment.variables import VARIABLES
from pipeline.probes import examine
from pipeline.probes.columns import TARGET
from pipeline.probes.examine import count_days
from pipeline.sources.table import depth_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    import xarray as xr
    from numpy.typing import NDArray
    from rich.table import Table

    from pipeline.probes.examine import ProbeTable
    from pipeline.progress import Progress


DROPPED = ("#D55E00", "#CC79A7", "#E69F00", "#56B4E9", "#009E73", "#767676")


@dataclass(frozen=True)
class Record:
    """Values of a probe, (day,) each: as read, NaN where missing, and by rule which are dropped."""

    days: NDArray[np.datetime64]
    values: NDArray[np.float32]
    dropped: dict[str, NDArray[np.bool_]]


def draw_record(found: Record, title: str, what: str, bounds: tuple[float, float]) -> bytes:
    """The probe as PNG; `bounds` is the range that values may have, shown as grey lines.

    Values far outside the range stand at the edge of the figure, as triangles.
    """
    gone = np.any([*found.dropped.values(), np.zeros(found.values.shape, bool)], axis=0)
    kept = np.where(gone, np.nan, found.values)
    low, high = _limits(found.values, bounds)
    with style.canvas(10.4, 2.9) as figure:
        axes = figure.subplots()
        for bound in bounds:
            axes.axhline(bound, color=style.FAINT, linewidth=0.8)
        line: dict[str, Any] = {"color": "black", "linewidth": 0.9, "markersize": 1.8}
        axes.plot(found.days, kept, "o-", label=f"kept: {np.isfinite(kept).sum()}", **line)
        rules = [(rule, bad) for rule, bad in found.dropped.items() if bad.any()]
        for i, (rule, bad) in enumerate(rules):
            days, values = found.days[bad], found.values[bad]
            mark: dict[str, Any] = {"s": 14, "linewidths": 0.9, "color": DROPPED[i % len(DROPPED)]}
            axes.scatter([], [], marker="x", label=f"{rule}: {bad.sum()}", **mark)
            sides = {"x": (values >= low) & (values <= high), "^": values > high, "v": values < low}
            for marker, chosen in sides.items():
                shown = np.clip(values[chosen], low, high)
                axes.scatter(days[chosen], shown, marker=marker, **mark)
        room = 0.04 * (high - low)
        axes.set_ylim(low - room, high + room)
        first, last = found.days[0], found.days[-1]
        axes.set_xlim(first - np.timedelta64(1, "D"), last + np.timedelta64(1, "D"))
        axes.set_ylabel(what)
        axes.set_title(title, loc="left", fontsize=8.5)
        style.short_ticks(axes.yaxis)
        set_month_ticks(axes)
        axes.grid(axis="y")
        figure.legend(loc="outside lower left", ncols=6, columnspacing=1.4)
        return style.figure_bytes(figure)


def _limits(values: NDArray[np.float32], bounds: tuple[float, float]) -> tuple[float, float]:
    """The values' own limits, but little more than the range."""
    known = values[np.isfinite(values)]
    width = bounds[1] - bounds[0]
    low, high = (float(known.min()), float(known.max())) if known.size else bounds
    low, high = (
        max(min(low, bounds[1]), bounds[0] - 0.1 * width),
        min(high, bounds[1] + 0.1 * width),
    )
    return (low, high) if high > low else (low - 0.05 * width, low + 0.05 * width)


FEW_DAYS = JudgingConfig.model_fields["min_days"].default
EPOCH = np.datetime64("1970-01-01", "ns")


def make_probe_table(examined: ProbeTable) -> Table:
    """Make a table, 80 columns wide: where each probe is, what it has and what is dropped."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    convention = f"; {examined.data.time_convention}s" if examined.data is not None else ""
    title = f"Probes; row, column of the global grids{convention}"
    output = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    output.add_column("probe", overflow="fold")
    for name in ("place", "9 km\ncell", "36 km\nfootprint", "depth\nm"):
        output.add_column(name, no_wrap=True)
    for name in ("days", "kept"):
        output.add_column(name, justify="right", no_wrap=True)
    output.add_column("period", no_wrap=True)
    output.add_column("dropped")
    for site, place in examined.places.items():
        cells = [site, place.text, format_position(place.cell), format_position(place.footprint)]
        output.add_row(*(Text(cell) for cell in [*cells, *_record_cells(examined, site)]))
    return output


def _record_cells(examined: ProbeTable, site: str) -> list[str]:
    """Return the cells of a probe's record: depth, days, share kept, period and what is dropped."""
    index = examined.index_of(site)
    if examined.data is None or index is None:
        return ["", "0" if examined.data is not None else ""]
    record = examined.data.isel(place=index)
    days, kept = (int(n[index]) for n in count_days(examined))
    depths = dict.fromkeys(f"{float(record[name]):g}" for name in ("depth_from", "depth_to"))
    if not days:
        return ["-".join(depths), "0"]
    dates = record.time.values[np.isfinite(record[TARGET].values)].astype("datetime64[D]")
    n_dropped = {rule: int(bad[:, index].sum()) for rule, bad in examined.dropped.items()}
    return [
        "-".join(depths),
        str(days),
        f"{kept / days:.0%}",
        f"{dates[0]}\n{dates[-1]}",
        "\n".join(f"{rule} {n}" for rule, n in n_dropped.items() if n),
    ]


def describe_columns(examined: ProbeTable) -> str:
    """Describe how the table is read: the column of each role, with its units or time zone."""
    args = examined.guess.args
    units = {"time": args["time_zone"], "depth": args["depth_units"]}
    units |= {"depth_from": args["depth_units"], "depth_to": args["depth_units"]}
    units["time"] += f", {args['time_format']}" if "time_format" in args else ""
    roles = [(role, str(args[role]), "") for role in ("id", "lat", "lon") if role in args]
    roles += [(role, column, units.get(role, "")) for role, column in args["columns"].items()]
    for name, spec in args["mapping"].items():
        depths = spec["from"] if isinstance(spec["from"], dict) else {}
        columns = [f"{column} at {_format_depth(depth)} m" for column, depth in depths.items()]
        roles.append((name, ", ".join(columns) or spec["from"], spec["units"]))
    texts = [f"{role} {column}" + (f" ({unit})" if unit else "") for role, column, unit in roles]
    return f"read as: {', '.join(texts)}"


def _format_depth(depth: Any) -> str:
    """Format a depth, or the top and bottom of a layer: `0.05` or `0-0.1`."""
    return "-".join(f"{end:g}" for end in dict.fromkeys(depth_range(depth)))


def list_notes(examined: ProbeTable) -> list[str]:
    """Return the notes about the probes, each with the probes that it concerns."""
    sites_of = defaultdict(list)
    for site, place in examined.places.items():
        for note in [*place.notes, *_record_notes(examined, site)]:
            sites_of[note].append(site)
    notes = [f"{examine.join_names(sites)}: {note}" for note, sites in sites_of.items()]
    cadence = "" if examined.data is None else examined.data.attrs.get("cadence", "")
    return [*notes, f"the cadence changes: {cadence}"] if cadence else notes


def _record_notes(examined: ProbeTable, site: str) -> list[str]:
    """Return the notes about a probe's record."""
    if examined.data is None:
        return []
    index = examined.index_of(site)
    if index is None:
        return ["left out, since no sensor is in the depth class"]
    days, kept = (int(n[index]) for n in count_days(examined))
    has_value = np.isfinite(examined.data[TARGET].values[:, index])
    last = examined.data.time.values[has_value].max(initial=EPOCH)
    notes = {
        f"fewer than {FEW_DAYS} days kept, so not scored by default": kept < FEW_DAYS,
        "quality control keeps less than half of the days": kept < 0.5 * days,
        "some days are in the future": last > np.datetime64("now"),
    }
    return [note for note, applies in notes.items() if applies]


def format_position(indices: tuple[int, int]) -> str:
    """Format row and column; `none` outside the grid."""
    return "{}, {}".format(*indices) if min(indices) >= 0 else "none"


TEXT_SETTINGS = ("id", "time_format")  # settings that stay text: an id may be 007

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


def examine_probes(
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
    given = _parse_settings(settings)
    license_ = str(given.pop("license", catalog_entry.DEFAULT_LICENSE))
    catalog = catalog_entry.parts(write) if write else None
    examined = examine.read_probes(files.make_absolute(target), given)
    progress.start("doctor", len(examined.places), "probes")
    healthy = not examined.problems
    parts: list[Any] = [make_probe_table(examined)] if examined.places else []
    if examined.guess.args:
        parts.append(describe_columns(examined))
    parts += [f"note: {note}" for note in [*examined.guess.notes, *list_notes(examined)]]
    parts += [f"problem: {problem}" for problem in examined.problems]
    if (plots or catalog) and examined.data is not None:
        is_remote = "://" in examined.url
        path = examined.url.rpartition("/")[2] if is_remote else examined.url
        folder = plots or f"{path.removesuffix('.csv')}-probes"
        _draw_probes(examined, examined.data, folder, progress)
        parts.append(f"a plot of each probe is in {folder}")
    if catalog and not healthy:
        parts.append(f"nothing was written to {catalog[0]}: correct the problems first")
    elif catalog and examined.data is not None:
        parts.append(catalog_entry.write_probe_entry(examined, examined.data, *catalog, license_))
    result = f"{len(examined.problems)} problems" if examined.problems else "healthy"
    progress.finish(f"{len(examined.places)} probes: {result}")
    return healthy, [_escape_markup(part) for part in parts]


def _parse_settings(settings: Sequence[str]) -> dict[str, Any]:
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
        elif first in TEXT_SETTINGS:
            tree[first] = text
        else:
            tree[first] = safe_yaml.load(text, f"--set {setting}")
    return tree


def _draw_probes(examined: ProbeTable, data: xr.Dataset, folder: str, progress: Progress) -> None:
    """Write a PNG for each probe into a folder."""
    from pipeline.evaluate.report import style

    variable = VARIABLES[TARGET]
    label = style.label_with_unit(TARGET.replace("_", " "), style.format_units(variable.units))
    bounds, used_names = (variable.minimum, variable.maximum), set[str]()
    days = data.time.values.astype("datetime64[D]")
    for index, site in enumerate(data.place.values.tolist()):
        place = examined.places[site]
        where = place.text.replace("\n", " ")
        title = f"{site}: {where}, cell {format_position(place.cell)}, {data.time_convention}s"
        dropped = {rule: bad[:, index] for rule, bad in examined.dropped.items()}
        record = Record(days, data[TARGET].values[:, index], dropped)
        name = re.sub(r"[^\w.-]+", "_", site)
        while name.lower() in used_names:
            name += "_"
        used_names.add(name.lower())
        picture = draw_record(record, title, label, bounds)
        files.write_bytes(files.join(folder, f"{name}.png"), picture)
        progress.advance()


def _escape_markup(part: Any) -> Any:
    """Escape text for rich, whose markup may occur in names of columns."""
    from rich.markup import escape

    return escape(part) if isinstance(part, str) else part
