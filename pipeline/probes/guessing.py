"""Guess how a CSV of probes is to be read, from its header and its values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.probes import units
from pipeline.probes.units import FILLS, numbers
from pipeline.probes.words import TARGET, TEMPERATURE, WORDS, recognised
from pipeline.sources.table import stamps
from pipeline.sources.table.form import NEEDED

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.probes.words import Recognised

_GOOD = ("0", "g", "good", "ok", "pass", "passed", "valid")  # flags in lower case


@dataclass
class Guess:
    """How a CSV is to be read.

    Attributes:
      columns: column of each role, or of each variable by its name in this project.
      args: arguments of `TableSource` except the file; empty if a required column is missing.
      problems: what the user has to correct.
      notes: what was guessed, and how to change it.
    """

    columns: dict[str, str] = field(default_factory=dict)
    args: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def guess(raw: pd.DataFrame, given: dict[str, Any]) -> Guess:
    """Guess the arguments of `TableSource`.

    Args:
      raw: table of text, from `pipeline.sources.table.text.split`.
      given: arguments that the user states. `units`, `temperature_units` and `columns` by role
        (also `value` and `temperature`) stand for the mapping.
    """
    station = _station(raw, given)
    header = recognised(raw, given.get("columns") or {}, station)
    result = Guess(header.columns, problems=header.problems)
    if "id" in station and "id" not in given:
        result.notes.append(
            f"id {station['id']}, from the logger's header; --set id=NAME changes it"
        )
    used = {*header.columns.values(), *(c for depths in header.depths.values() for c in depths)}
    if unused := [name for name in raw.columns if name not in used]:
        result.notes.append(f"columns not used: {', '.join(unused)}")
    absent = [n for n in (*NEEDED, TARGET) if n not in result.columns and n not in station]
    result.problems += [_absent(raw, name) for name in absent]
    has_depth = "depth" in given or {"depth", "depth_from"} & result.columns.keys()
    if "depth" in given and header.depths:
        _one_depth(header, result)
    if not has_depth and not header.depths:
        result.problems.append("no depth: add a column depth_m, or --set depth=0.05 (m)")
    elif not absent:
        _guess_args(raw, header, station, given, result)
    return result


def _guess_args(
    raw: pd.DataFrame,
    header: Recognised,
    station: dict[str, Any],
    given: dict[str, Any],
    result: Guess,
) -> None:
    """Guess the arguments of a table that has all required columns; none if dates are ambiguous."""
    for name in ("depth", "depth_from", "depth_to") if "depth" in given else ():
        result.columns.pop(name, None)
    found_units = units.seen(raw, header, given)
    result.problems += found_units.problems
    result.notes += found_units.notes
    roles = {k: v for k, v in result.columns.items() if k not in (TARGET, TEMPERATURE)}
    time_format, is_clear = _time_format(raw[roles["time"]], given, result)
    if not is_clear:
        return
    zone = given.get("time_zone") or header.hints.get("time")
    zone = zone or _zone(raw[roles["time"]], time_format, result)
    result.args = {"mapping": found_units.mapping, "columns": roles, **station, "time_zone": zone}
    result.args |= {"time_format": time_format} if time_format else {}
    result.args |= {"depth": given["depth"]} if "depth" in given else {}
    result.args["depth_units"] = found_units.depth_units
    if "flag" in roles:
        result.args["good"] = given.get("good") or _good(raw[roles["flag"]], result)
    result.args["missing"] = given.get("missing") or _fills(raw, header, result)
    others = ("sensors", "min_share", "depth_class_m")
    result.args |= {name: given[name] for name in others if name in given}


def _station(raw: pd.DataFrame, given: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of the only station: from the user, or its name in a logger's header."""
    station: dict[str, Any] = {role: given[role] for role in ("id", "lat", "lon") if role in given}
    name = raw.attrs["station"]
    if not name or "id" in station:
        return station
    columns = recognised(raw, given.get("columns") or {}, ("id",)).columns
    return station if "id" in columns else {"id": name, **station}


def _absent(raw: pd.DataFrame, name: str) -> str:
    """Say that a required column is missing, and what to do."""
    role = "value" if name == TARGET else name
    examples = ", ".join(WORDS[name].split()[:4])
    header = ", ".join(raw.columns)
    absent = f"no column for {role} (such as {examples}); the header has {header}"
    station = f"; for a single station, --set {role}=..." if role in ("id", "lat", "lon") else ""
    return f"{absent}: rename a column, or --set columns.{role}=NAME{station}"


def _one_depth(header: Recognised, result: Guess) -> None:
    """Use the depth that the user states instead of those in the names of columns."""
    columns = list(header.depths[TARGET])
    if len(columns) > 1:
        result.problems.append(
            f"columns {', '.join(columns)} have different depths in their names, but `depth` is "
            "set: remove --set depth, or choose one column with --set columns.value=NAME"
        )
    header.depths.clear()


def _time_format(text: pd.Series, given: dict[str, Any], result: Guess) -> tuple[str | None, bool]:
    """Find the format of times that are not ISO 8601.

    Returns:
      The format, None for ISO 8601 or an unknown one; and whether it is unambiguous.
    """
    if "time_format" in given or stamps.is_iso(text):
        return given.get("time_format"), True
    formats = stamps.fitting(text)
    column = result.columns["time"]
    if not formats:
        result.notes.append(
            f"{column}: no known format fits all times; state it, as in "
            "--set time_format='%d/%m/%Y %H:%M'"
        )
        return None, True  # reading the table then reports the lines that are wrong
    if len(formats) == 1:
        result.notes.append(f"{column}: read as {formats[0]}; --set time_format=... changes it")
        return formats[0], True
    first = text[text != ""].iloc[0]
    choices = " or ".join(f"--set time_format='{choice}'" for choice in formats)
    result.problems.append(
        f"{column}: '{first}' and all other times fit several formats: choose {choices}"
    )
    return None, False


def _zone(text: pd.Series, time_format: str | None, result: Guess) -> str:
    """Guess the time zone: offsets in the times, else local standard time, which is noted."""
    has_offset = "%z" in time_format if time_format else stamps.has_offset(text).any()
    if has_offset:
        return stamps.OFFSET
    has_times = stamps.has_times(time_format) if time_format else not stamps.is_date(text).all()
    if has_times:
        result.notes.append(
            "times have no UTC offset: they are assumed to be in local standard time; otherwise "
            "--set time_zone=UTC, UTC-06:00 (no summer time) or an IANA name"
        )
    return stamps.LOCAL


def _good(flags: pd.Series, result: Guess) -> list[str]:
    """Guess which flags mean good values: known ones, else the most frequent one."""
    counts = Counter(flags[flags != ""])
    known = [text for text in counts if text.lower() in _GOOD]
    chosen = known or [text for text, _ in counts.most_common(1)]
    others = ", ".join(text for text in counts if text not in chosen) or "none"
    result.notes.append(
        f"flags assumed good: {', '.join(chosen) or 'none'}; bad: {others}; "
        "--set good=[...] changes it"
    )
    return chosen or ["0"]


def _fills(raw: pd.DataFrame, header: Recognised, result: Guess) -> list[float]:
    """Find the common fill values that occur in the measured columns."""
    import pandas as pd

    names = [name for name in (TARGET, TEMPERATURE) if name in result.columns]
    columns = [c for name in names for c in header.depths.get(name, [result.columns[name]])]
    values = pd.concat([numbers(raw, column, ()) for column in columns])
    fills = [fill for fill in FILLS if np.isclose(values, fill).any()]
    if fills:
        listed = ", ".join(f"{fill:g}" for fill in fills)
        result.notes.append(f"read as missing: {listed}; --set missing=[...] changes it")
    return fills or [FILLS[0]]
