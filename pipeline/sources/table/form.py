"""How a table is declared: the roles of its columns, and what makes no sense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import DataError
from pipeline.sources.table import stamps
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    from pipeline.sources.table import TableSource

ROLES = ("id", "lat", "lon", "time", "depth", "depth_from", "depth_to", "sensor", "flag")
NEEDED = ("id", "lat", "lon", "time")


def faults(table: TableSource) -> list[str]:
    """What is wrong with the arguments of a table."""
    roles = table.columns.keys()
    problems = [f"columns: {role} missing" for role in NEEDED if role not in roles]
    problems += [f"columns: no such role: {r}" for r in roles if r not in ROLES]
    if ("depth_from" in roles) != ("depth_to" in roles):
        problems.append("columns: depth_from and depth_to go together")
    depths = ("depth" in roles) + ("depth_from" in roles) + (table.depth is not None)
    if depths != 1:
        problems.append("expected one of columns.depth, columns.depth_from and _to, or depth")
    if "flag" in roles and not table.good:
        problems.append("columns.flag: say which are good, in `good`")
    if table.sensors not in ("mean", "longest"):
        problems.append(f"sensors '{table.sensors}': expected mean or longest")
    if not 0 <= table.min_share <= 1:
        problems.append(f"min_share {table.min_share}: expected 0..1")
    try:
        stamps.zone(table.time_zone or stamps.LOCAL)
    except ValueError as error:
        problems.append(str(error))
    pairs = [(s["units"], s.get("to", s["units"])) for s in table.mapping.values()]
    for units, wanted in [*pairs, (table.depth_units, "m")]:
        try:
            conversion(units, wanted)
        except DataError as error:
            problems.append(str(error))
    return problems
