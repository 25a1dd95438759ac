"""What was found of probes, for a terminal: a table, and what to mind."""

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


def table(found: Examined) -> Table:
    """A row for each probe: where it is, what it has, and what is dropped; 80 columns wide."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    convention = f"; {found.data.time_convention}s" if found.data is not None else ""
    title = f"Probes; row, column of the global grids{convention}"
    made = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    made.add_column("probe", overflow="fold")
    for name in ("place", "9 km\ncell", "36 km\nfootprint", "depth\nm"):
        made.add_column(name, no_wrap=True)
    for name in ("days", "kept"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("period", no_wrap=True)
    made.add_column("dropped")
    for site, place in found.places.items():
        cells = [site, place.shown, pair(place.cell), pair(place.footprint)]
        made.add_row(*(Text(cell) for cell in [*cells, *_record(found, site)]))
    return made


def _record(found: Examined, site: str) -> list[str]:
    """Depth, days, share kept, period and what is dropped of a probe."""
    at = found.at(site)
    if found.data is None or at is None:
        return ["", "0" if found.data is not None else ""]
    one = found.data.isel(place=at)
    days, kept = (int(n[at]) for n in counts(found))
    depths = dict.fromkeys(f"{float(one[name]):g}" for name in ("depth_from", "depth_to"))
    if not days:
        return ["-".join(depths), "0"]
    stamps = one.time.values[np.isfinite(one[TARGET].values)].astype("datetime64[D]")
    dropped = {rule: int(bad[:, at].sum()) for rule, bad in found.dropped.items()}
    return [
        "-".join(depths),
        str(days),
        f"{kept / days:.0%}",
        f"{stamps[0]}\n{stamps[-1]}",
        "\n".join(f"{rule} {n}" for rule, n in dropped.items() if n),
    ]


def schema(found: Examined) -> str:
    """How the table is read: the column of each role, with its units or zone."""
    args = found.guess.args
    told = {"time": args["time_zone"], "depth": args["depth_units"]}
    told |= {"depth_from": args["depth_units"], "depth_to": args["depth_units"]}
    told["time"] += f", {args['time_format']}" if "time_format" in args else ""
    parts = [(role, str(args[role]), "") for role in ("id", "lat", "lon") if role in args]
    parts += [(role, column, told.get(role, "")) for role, column in args["columns"].items()]
    for name, spec in args["mapping"].items():
        depths = spec["from"] if isinstance(spec["from"], dict) else {}
        at = [f"{column} at {_depth(depth)} m" for column, depth in depths.items()]
        parts.append((name, ", ".join(at) or spec["from"], spec["units"]))
    named = [f"{role} {column}" + (f" ({of})" if of else "") for role, column, of in parts]
    return f"read as: {', '.join(named)}"


def _depth(depth: Any) -> str:
    return "-".join(f"{end:g}" for end in dict.fromkeys(ends(depth)))


def minds(found: Examined) -> list[str]:
    """What to mind of the probes, each with the probes it is true of."""
    told = defaultdict(list)
    for site, place in found.places.items():
        for text in [*place.minds, *_record_minds(found, site)]:
            told[text].append(site)
    minded = [f"{places.few(sites)}: {text}" for text, sites in told.items()]
    cadence = "" if found.data is None else found.data.attrs.get("cadence", "")
    return [*minded, f"the cadence changes: {cadence}"] if cadence else minded


def _record_minds(found: Examined, site: str) -> list[str]:
    if found.data is None:
        return []
    at = found.at(site)
    if at is None:
        return ["left out, no sensor in the depth class"]
    days, kept = (int(n[at]) for n in counts(found))
    last = found.data.time.values[np.isfinite(found.data[TARGET].values[:, at])].max(initial=EPOCH)
    texts = {
        f"fewer than {FEW_DAYS} days kept, so not scored by default": kept < FEW_DAYS,
        "less than half is kept": kept < 0.5 * days,
        "days in the future": last > np.datetime64("now"),
    }
    return [text for text, true in texts.items() if true]


def pair(indices: tuple[int, int]) -> str:
    """Row and column, as people read them."""
    return "{}, {}".format(*indices) if min(indices) >= 0 else "none"
