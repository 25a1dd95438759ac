"""Divide a wide table, which has one column per depth of a variable, into layers."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

Ends = tuple[float, float]


class Layer(NamedTuple):
    """The columns of a table that belong to one depth.

    Attributes:
      columns: {soilweave's name: column}, without variables that have no column at this depth.
      depth: Top and bottom in the table's units; None if a column or the entry states it.
      sensor: Number of the column, if several have this depth; otherwise empty.
    """

    columns: dict[str, str]
    depth: Ends | None = None
    sensor: str = ""


def of(mapping: dict[str, dict[str, Any]]) -> list[Layer]:
    """Return one layer for each column of the target.

    Args:
      mapping: {soilweave's name: {"from": a column, or {column: depth}, or {column: [top,
        bottom]}}}; the first variable is the target.
    """
    (target, spec), *others = mapping.items()
    if not isinstance(spec["from"], dict):
        return [Layer({name: spec["from"] for name, spec in mapping.items()})]
    depths = [ends(depth) for depth in spec["from"].values()]
    layers, n_before = list[Layer](), Counter[Ends]()
    for column, depth in zip(spec["from"], depths, strict=True):
        columns = {target: str(column)}
        for name, other in others:
            if not isinstance(other["from"], dict):
                columns[name] = other["from"]
                continue
            at_depth = [str(c) for c, d in other["from"].items() if ends(d) == depth]
            if at_depth:
                # The second column of the target at a depth goes with the second of the other.
                columns[name] = at_depth[min(n_before[depth], len(at_depth) - 1)]
        n_before[depth] += 1
        sensor = str(n_before[depth]) if depths.count(depth) > 1 else ""
        layers.append(Layer(columns, depth, sensor))
    return layers


def named(spec: dict[str, Any]) -> str:
    """Return the column of a variable, or the names of its columns in a wide table."""
    return ", ".join(map(str, spec["from"])) if isinstance(spec["from"], dict) else spec["from"]


def faults(mapping: dict[str, dict[str, Any]]) -> list[str]:
    """Return a message for each invalid depth in a mapping."""
    wide = {name: s["from"] for name, s in mapping.items() if isinstance(s["from"], dict)}
    problems = [
        f"mapping of {name}, column {column}: depth '{depth}', expected a number or [top, bottom]"
        for name, columns in wide.items()
        for column, depth in columns.items()
        if not _is_depth(depth)
    ]
    problems += [
        f"mapping of {name}: expected a column" for name, columns in wide.items() if not columns
    ]
    if wide and next(iter(mapping)) not in wide:
        target = next(iter(mapping))
        problems.append(f"mapping of {target}: expected the depth of its column too")
    return problems


def ends(depth: Any) -> Ends:
    """Return top and bottom of a single depth or of a pair [top, bottom]."""
    top, bottom = depth if isinstance(depth, (list, tuple)) else (depth, depth)
    return float(top), float(bottom)


def _is_depth(depth: Any) -> bool:
    """Return whether a value is a depth, or a pair of which the first is not deeper."""
    try:
        top, bottom = ends(depth)
    except (TypeError, ValueError):
        return False
    return 0 <= top <= bottom
