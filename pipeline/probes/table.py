"""Show what is known of probes in a terminal: a table, and notes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config import JudgingConfig
from pipeline.probes import places
from pipeline.probes.probed import counts
from pipeline.probes.words import TARGET
from pipeline.sources.table.layers import ends

if TYPE_CHECKING:
    from rich.table import Table

    from pipeline.probes.probed import Examined

FEW_DAYS = JudgingConfig.model_fields["min_days"].default
EPOCH = np.datetime64("1970-01-01", "ns")


def table(examined: Examined) -> Table:
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
        cells = [site, place.text, pair(place.cell), pair(place.footprint)]
        output.add_row(*(Text(cell) for cell in [*cells, *_record(examined, site)]))
    return output


def _record(examined: Examined, site: str) -> list[str]:
    """Return the cells of a probe's record: depth, days, share kept, period and what is dropped."""
    index = examined.index_of(site)
    if examined.data is None or index is None:
        return ["", "0" if examined.data is not None else ""]
    record = examined.data.isel(place=index)
    days, kept = (int(n[index]) for n in counts(examined))
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


def schema(examined: Examined) -> str:
    """Describe how the table is read: the column of each role, with its units or time zone."""
    args = examined.guess.args
    units = {"time": args["time_zone"], "depth": args["depth_units"]}
    units |= {"depth_from": args["depth_units"], "depth_to": args["depth_units"]}
    units["time"] += f", {args['time_format']}" if "time_format" in args else ""
    roles = [(role, str(args[role]), "") for role in ("id", "lat", "lon") if role in args]
    roles += [(role, column, units.get(role, "")) for role, column in args["columns"].items()]
    for name, spec in args["mapping"].items():
        depths = spec["from"] if isinstance(spec["from"], dict) else {}
        columns = [f"{column} at {_depth(depth)} m" for column, depth in depths.items()]
        roles.append((name, ", ".join(columns) or spec["from"], spec["units"]))
    texts = [f"{role} {column}" + (f" ({unit})" if unit else "") for role, column, unit in roles]
    return f"read as: {', '.join(texts)}"


def _depth(depth: Any) -> str:
    """Format a depth, or the top and bottom of a layer: `0.05` or `0-0.1`."""
    return "-".join(f"{end:g}" for end in dict.fromkeys(ends(depth)))


def minds(examined: Examined) -> list[str]:
    """Return the notes about the probes, each with the probes that it concerns."""
    sites_of = defaultdict(list)
    for site, place in examined.places.items():
        for note in [*place.notes, *_record_minds(examined, site)]:
            sites_of[note].append(site)
    notes = [f"{places.few(sites)}: {note}" for note, sites in sites_of.items()]
    cadence = "" if examined.data is None else examined.data.attrs.get("cadence", "")
    return [*notes, f"the cadence changes: {cadence}"] if cadence else notes


def _record_minds(examined: Examined, site: str) -> list[str]:
    """Return the notes about a probe's record."""
    if examined.data is None:
        return []
    index = examined.index_of(site)
    if index is None:
        return ["left out, since no sensor is in the depth class"]
    days, kept = (int(n[index]) for n in counts(examined))
    has_value = np.isfinite(examined.data[TARGET].values[:, index])
    last = examined.data.time.values[has_value].max(initial=EPOCH)
    notes = {
        f"fewer than {FEW_DAYS} days kept, so not scored by default": kept < FEW_DAYS,
        "quality control keeps less than half of the days": kept < 0.5 * days,
        "some days are in the future": last > np.datetime64("now"),
    }
    return [note for note, applies in notes.items() if applies]


def pair(indices: tuple[int, int]) -> str:
    """Format row and column; `none` outside the grid."""
    return "{}, {}".format(*indices) if min(indices) >= 0 else "none"
