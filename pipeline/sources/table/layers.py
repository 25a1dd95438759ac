"""Columns of a wide table, which has one for each depth of a variable."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

Ends = tuple[float, float]


class Layer(NamedTuple):
    """What is read of each row of a file as one row.

    Attributes:
      columns: {our name: column}; of a variable that has none at this depth, nothing.
      depth: top and bottom in the table's units; None where a column or the entry says it.
      sensor: tells columns of one depth apart, else empty.
    """

    columns: dict[str, str]
    depth: Ends | None = None
    sensor: str = ""


def of(mapping: dict[str, dict[str, Any]]) -> list[Layer]:
    """One layer for each column of the target; a single one where the target has one column.

    Args:
      mapping: {our name: {"from": a column, or {column: depth} or {column: [top, bottom]}}}; the
        first is the target.
    """
    (target, spec), *others = mapping.items()
    if not isinstance(spec["from"], dict):
        return [Layer({name: told["from"] for name, told in mapping.items()})]
    depths = [ends(depth) for depth in spec["from"].values()]
    made, before = list[Layer](), Counter[Ends]()
    for column, depth in zip(spec["from"], depths, strict=True):
        columns = {target: str(column)}
        for name, told in others:
            if not isinstance(told["from"], dict):
                columns[name] = told["from"]
                continue
            here = [str(c) for c, d in told["from"].items() if ends(d) == depth]
            if here:
                columns[name] = here[min(before[depth], len(here) - 1)]
        before[depth] += 1
        sensor = str(before[depth]) if depths.count(depth) > 1 else ""
        made.append(Layer(columns, depth, sensor))
    return made


def named(spec: dict[str, Any]) -> str:
    """The column of a variable; of several their names."""
    return ", ".join(map(str, spec["from"])) if isinstance(spec["from"], dict) else spec["from"]


def faults(mapping: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with the depths that a mapping says."""
    wide = {name: s["from"] for name, s in mapping.items() if isinstance(s["from"], dict)}
    problems = [
        f"mapping of {name}, column {column}: depth '{depth}', expected a number or [top, bottom]"
        for name, columns in wide.items()
        for column, depth in columns.items()
        if not _is_depth(depth)
    ]
    problems += [f"mapping of {name}: no column" for name, columns in wide.items() if not columns]
    if wide and next(iter(mapping)) not in wide:
        problems.append(f"mapping of {next(iter(mapping))}: say the depth of its column, too")
    return problems


def ends(depth: Any) -> Ends:
    """Top and bottom of a depth, or of a layer."""
    top, bottom = depth if isinstance(depth, (list, tuple)) else (depth, depth)
    return float(top), float(bottom)


def _is_depth(depth: Any) -> bool:
    try:
        top, bottom = ends(depth)
    except (TypeError, ValueError):
        return False
    return 0 <= top <= bottom
