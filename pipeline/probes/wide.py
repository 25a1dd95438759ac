"""Read the names of the columns of a wide table, such as `VWC_5cm_Avg`: variable, depth, units."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

METRES = {"cm": 0.01, "mm": 0.001, "m": 1.0, "in": 0.0254, "inch": 0.0254, "inches": 0.0254}
_NUMBER = r"\d+(?:\.\d+)?"
_DEPTH = re.compile(
    rf"(?<![\d.])(?:({_NUMBER})(_?to_?|_))?({_NUMBER})_?({'|'.join(METRES)})(?![a-z0-9])"
)
# A dash between two depths, as in `vwc 5-10cm`. In `vwc-1-5cm` it separates parts of the name.
_TO = re.compile(rf"(?<![-.\d])({_NUMBER})\s*(?:cm|mm|m)?\s*[-\N{{EN DASH}}]\s*(?=\d)")
_INCH = re.compile(r"(?<=\d)\s*[\"\N{DOUBLE PRIME}]")
_SHARE = re.compile(r"c?m\^?3\s*[/ ._*]*\s*c?m\^?-?3")  # m3 m-3 and the like
# What a logger adds to a name for the statistic of an interval that it stores, the best first.
# Columns with other statistics, such as Std or Max, are not used.
_KEPT = ("avg", "mean", "med", "smp", "sample", "")
_INDEX = re.compile(r"\d{1,2}|[a-d]")


class Column(NamedTuple):
    """A column of one depth.

    Attributes:
      name: name in the header.
      rest: what the name says besides depth, sensor and statistic: variable and units.
      depth: top and bottom, m.
      top: what may be the top of a layer in m or the number of a sensor, as in `SM_5_30cm` and
        `VW_1_5cm`; None if the name is clear.
      sensor: number or letter that distinguishes the sensors of one depth.
      rank: place of its statistic in the order of preference, 0 for the best.
    """

    name: str
    rest: str
    depth: tuple[float, float]
    top: float | None
    sensor: str
    rank: int


def parts(name: str) -> Column | None:
    """Return the parts of a column's name; None if it names no depth."""
    plain = name.lower().replace("\N{SUPERSCRIPT THREE}", "3")
    plain = _INCH.sub("in", _TO.sub(r"\1to", _SHARE.sub("m3m3", plain)))
    plain = re.sub(r"[^a-z0-9.%]+", "_", plain)
    match = _DEPTH.search(plain)
    if match is None:
        return None
    first, joint, second, unit = match.groups()
    words = re.split(r"[_.]+", f"{plain[: match.start()]}_{plain[match.end() :]}")
    statistic = next((word for word in words if word in _KEPT and word), "")
    sensor = next((word for word in words if _INDEX.fullmatch(word)), "")
    rest = "".join(word for word in words if word not in (statistic, sensor))
    rank = _KEPT.index(statistic)
    bottom = round(float(second) * METRES[unit], 6)
    top = round(float(first) * METRES[unit], 6) if first else bottom
    if joint == "_" and top > 0:
        return Column(name, rest, (bottom, bottom), top, sensor or first, rank)
    return Column(name, rest, (min(top, bottom), max(top, bottom)), None, sensor, rank)


def _layered(columns: list[Column]) -> list[Column]:
    """Decide whether a number before a depth is the top of a layer: if a layer ends there."""
    bottoms = {column.depth[1] for column in columns}
    return [
        column._replace(depth=(column.top, column.depth[1]), sensor="")
        if column.top in bottoms and column.top < column.depth[1]
        else column
        for column in columns
    ]


def of_variable(
    names: Iterable[str], words: Iterable[str], units: dict[str, str]
) -> tuple[dict[str, Any], str]:
    """Return the columns of a variable with their depths, and the units that the first one names.

    Args:
      names: names in the header.
      words: names of the variable.
      units: what may follow such a name, and the units that it means.

    Returns:
      {column: depth in m, or [top, bottom] of a layer}, and the units; "" if none are named.
    """
    best: dict[tuple[tuple[float, float], str], Column] = {}
    hints = []
    for column in _layered(list(filter(None, map(parts, names)))):
        suffixes = [column.rest.removeprefix(w) for w in words if column.rest.startswith(w)]
        stated = [units[suffix] for suffix in suffixes if suffix in units]
        if not stated:
            continue
        hints.append(stated[0])
        other = best.get((column.depth, column.sensor))
        if other is None or column.rank < other.rank:
            best[column.depth, column.sensor] = column
    depths = {
        column.name: column.depth[0] if column.depth[0] == column.depth[1] else [*column.depth]
        for column in best.values()
    }
    return depths, next(iter(hints), "")
