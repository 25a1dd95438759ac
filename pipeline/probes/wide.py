"""Columns of a wide table: what their names say of the variable, its depth and its units."""

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
# A dash between two depths; that of `vwc-1-5cm` stands between the parts of a name.
_TO = re.compile(rf"(?<![-.\d])({_NUMBER})\s*(?:cm|mm|m)?\s*[-\N{{EN DASH}}]\s*(?=\d)")
_INCH = re.compile(r"(?<=\d)\s*[\"\N{DOUBLE PRIME}]")
_SHARE = re.compile(r"c?m\^?3\s*[/ ._*]*\s*c?m\^?-?3")  # m3 m-3 and the like
# What a logger adds to a name for the value it keeps of an interval, the best first; other
# additions, such as Std or Max, are no value of the variable.
_KEPT = ("avg", "mean", "med", "smp", "sample", "")
_INDEX = re.compile(r"\d{1,2}|[a-d]")


class Column(NamedTuple):
    """A column of one depth.

    Attributes:
      name: as in the header.
      rest: what its name says besides depth, sensor and the value kept: variable and units.
      depth: top and bottom, m.
      top: in m, what may be the top of a layer or the number of a sensor, as in `SM_5_30cm` and
        `VW_1_5cm`; None where the name is clear.
      sensor: number or letter that tells it from others of that depth.
      kept: place in the order of values kept, the better ones first.
    """

    name: str
    rest: str
    depth: tuple[float, float]
    top: float | None
    sensor: str
    kept: int


def parts(name: str) -> Column | None:
    """What a column's name says; None where it names no depth."""
    plain = name.lower().replace("\N{SUPERSCRIPT THREE}", "3")
    plain = _INCH.sub("in", _TO.sub(r"\1to", _SHARE.sub("m3m3", plain)))
    plain = re.sub(r"[^a-z0-9.%]+", "_", plain)
    match = _DEPTH.search(plain)
    if match is None:
        return None
    before, joint, bottom, unit = match.groups()
    words = re.split(r"[_.]+", f"{plain[: match.start()]}_{plain[match.end() :]}")
    kept = next((word for word in words if word in _KEPT and word), "")
    sensor = next((word for word in words if _INDEX.fullmatch(word)), "")
    rest = "".join(word for word in words if word not in (kept, sensor))
    low = round(float(bottom) * METRES[unit], 6)
    top = round(float(before) * METRES[unit], 6) if before else low
    if joint == "_" and top > 0:
        return Column(name, rest, (low, low), top, sensor or before, _KEPT.index(kept))
    return Column(name, rest, (min(top, low), max(top, low)), None, sensor, _KEPT.index(kept))


def _layered(columns: list[Column]) -> list[Column]:
    """Columns in which a number before the depth is a top where a layer ends there."""
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
    """Columns of a variable with their depths in m, and the units that the first one names.

    Args:
      names: of the header.
      words: that mean the variable.
      units: what may follow the word, and what it says.
    """
    best: dict[tuple[tuple[float, float], str], Column] = {}
    hints = []
    for column in _layered(list(filter(None, map(parts, names)))):
        rests = [column.rest.removeprefix(w) for w in words if column.rest.startswith(w)]
        said = [units[rest] for rest in rests if rest in units]
        if not said:
            continue
        hints.append(said[0])
        other = best.get((column.depth, column.sensor))
        if other is None or column.kept < other.kept:
            best[column.depth, column.sensor] = column
    chosen = {
        column.name: column.depth[0] if column.depth[0] == column.depth[1] else [*column.depth]
        for column in best.values()
    }
    return chosen, next(iter(hints), "")
