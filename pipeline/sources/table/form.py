"""Check how a catalog entry declares a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import DataError
from pipeline.sources.table import layers, stamps
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    from collections.abc import Mapping

ROLES = ("id", "lat", "lon", "time", "depth", "depth_from", "depth_to", "sensor", "flag")
NEEDED = ("id", "lat", "lon", "time")


class Declaration(Protocol):
    """The arguments of a table, as `TableSource` keeps them."""

    mapping: dict[str, dict[str, Any]]
    columns: Mapping[str, str]
    station: Mapping[str, str]
    depth: Any
    depth_units: str
    time_format: str | None
    time_zone: str | None
    good: set[Any]
    sensors: str
    min_share: float


def faults(table: Declaration) -> list[str]:
    """Return a message for each invalid argument of a table."""
    roles, station = table.columns.keys(), table.station
    absent = [role for role in NEEDED if role not in roles and role not in station]
    problems = [f"columns: {role} missing" for role in absent]
    problems += [
        f"{role} and columns.{role}: expected only one of them" for role in station if role in roles
    ]
    for role, limit in (("lat", 90), ("lon", 180)):
        if role in station and not _within(station[role], limit):
            problems.append(f"{role} {station[role]}: expected -{limit} to {limit} degrees")
    problems += [
        f"columns: unknown role {role}, expected one of {', '.join(ROLES)}"
        for role in roles
        if role not in ROLES
    ]
    if ("depth_from" in roles) != ("depth_to" in roles):
        problems.append("columns: expected both depth_from and depth_to, or neither")
    is_wide = any(isinstance(spec["from"], dict) for spec in table.mapping.values())
    depths = ("depth" in roles) + ("depth_from" in roles) + (table.depth is not None) + is_wide
    if depths != 1:
        problems.append(
            "depth: expected exactly one of columns.depth, columns.depth_from and columns.depth_to,"
            " depth, or a depth for each column in the mapping"
        )
    problems += layers.faults(table.mapping)
    if table.time_format is not None:
        problems += stamps.format_faults(table.time_format)
    if "flag" in roles and not table.good:
        problems.append("columns.flag: expected `good` too, which lists the flags of good rows")
    if table.sensors not in ("mean", "longest"):
        problems.append(f"sensors '{table.sensors}': expected 'mean' or 'longest'")
    if not 0 <= table.min_share <= 1:
        problems.append(f"min_share {table.min_share}: expected a number from 0 to 1")
    try:
        stamps.zone(table.time_zone or stamps.LOCAL)
    except ValueError as error:
        problems.append(str(error))
    pairs = [(s["units"], s.get("to", s["units"])) for s in table.mapping.values()]
    for units, target_units in [*pairs, (table.depth_units, "m")]:
        try:
            conversion(units, target_units)
        except DataError as error:
            problems.append(str(error))
    return problems


def _within(text: str, limit: float) -> bool:
    """Return whether a text is a number from -limit to limit."""
    try:
        return abs(float(text)) <= limit
    except ValueError:
        return False
