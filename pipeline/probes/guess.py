"""Find the units of a CSV's columns: what its header states, checked against the values.

Guess how a CSV of probes is to be read, from its header and its values.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.experiment.variables import VARIABLES
from pipeline.probes.columns import (
    COLUMN_NAMES,
    FRACTION,
    PERCENT,
    TARGET,
    TEMPERATURE,
    recognise_header,
)
from pipeline.sources.table import REQUIRED_ROLES, rows

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.probes.columns import Header


FILL_VALUES = (-9999.0, -9999.9, -999.0, -999.9, -99.9, -99.0, -6999.0, 9999.0, 99999.0)
_CENTIMETRES_FROM = 2.0  # a shallowest sensor at 2 or more is in cm, not m
_KELVIN_FROM = 150.0  # a median above this is in K, not degC


@dataclass
class GuessedUnits:
    """The units of a table.

    Attributes:
      mapping: mapping of `TableSource`.
      depth_units: units of depths.
      problems: units that contradict the values.
      notes: what was guessed, and how to change it.
    """

    mapping: dict[str, dict[str, Any]] = field(default_factory=dict)
    depth_units: str = "m"
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def unit_magnitudes(raw: pd.DataFrame, header: Header, given: dict[str, Any]) -> GuessedUnits:
    """Find the units of the measured variables and of depths.

    Args:
      raw: table of text, from `pipeline.sources.table.text.split`.
      header: its columns and what their names say.
      given: `units`, `temperature_units`, `depth` and `depth_units`, if the user states them.
    """
    result = GuessedUnits()
    _guess_target_units(raw, header, given, result)
    if TEMPERATURE in header.columns:
        _guess_temperature_units(raw, header, given, result)
    if header.depths:
        pass  # the depths in names of columns have their units there
    elif "depth" in given:
        result.depth_units = given.get("depth_units", "m")
    else:
        _guess_depth_units(raw, header, given, result)
    return result


def to_numbers(raw: pd.DataFrame, column: str, fills: tuple[float, ...] = FILL_VALUES) -> pd.Series:
    """Return (row,) a column as numbers, NaN for other text and for fill values."""
    import pandas as pd

    text = raw[column]
    if raw.attrs.get("decimal") == ",":
        text = text.str.replace(",", ".", regex=False)
    values: pd.Series = pd.to_numeric(text, errors="coerce")
    return values.mask(values.isin(list(fills)))


def _guess_target_units(
    raw: pd.DataFrame, header: Header, given: dict[str, Any], result: GuessedUnits
) -> None:
    """Find the units of the target from the medians of each site, or of each column."""
    import pandas as pd

    columns = list(header.depths.get(TARGET, [header.columns[TARGET]]))
    label = ", ".join(columns)
    units = given.get("units") or header.hints.get(TARGET)
    if len(columns) == 1 and "id" in header.columns:
        values = to_numbers(raw, columns[0])
        medians = values[values > 0].groupby(raw[header.columns["id"]]).median()
    else:  # by column: the table has one station, or a column for each depth
        parts = {c: to_numbers(raw, c) for c in columns}
        medians = pd.Series({c: part[part > 0].median() for c, part in parts.items()}).dropna()
    is_percent = medians > 1
    likely = PERCENT if is_percent.mean() > 0.5 else FRACTION
    if is_percent.any() and not is_percent.all():
        large, small = medians.index[is_percent][0], medians.index[~is_percent][0]
        result.problems.append(
            f"{label}: {large} has values about {medians[large]:.3g}, "
            f"{small} about {medians[small]:.3g}: convert all to one unit"
        )
    elif units in (PERCENT, FRACTION) and len(medians) and units != likely:
        hint = f"rename the column, or --set units='{likely}'"
        if "units" in given:
            hint = "correct --set units"
        values_text = f"values about {medians.median():.3g} are not {units}, rather {likely}"
        result.problems.append(f"{label}: {values_text}: {hint}")
    elif not units:
        result.notes.append(
            f"{label}: assumed to be in {likely}, from the size of its values; "
            "--set units=... changes it"
        )
    result.mapping[TARGET] = _make_mapping(
        _source_columns(header, TARGET), units or likely, FRACTION
    )


def _guess_temperature_units(
    raw: pd.DataFrame, header: Header, given: dict[str, Any], result: GuessedUnits
) -> None:
    """Find the units of soil temperature."""
    column = header.columns[TEMPERATURE]
    units = given.get("temperature_units") or header.hints.get(TEMPERATURE)
    if not units:
        units = "K" if to_numbers(raw, column).median() > _KELVIN_FROM else "degC"
        result.notes.append(
            f"{column}: assumed to be soil temperature in {units}; "
            "--set temperature_units=... changes the units; rename the column if it is not in soil"
        )
    result.mapping[TEMPERATURE] = _make_mapping(
        _source_columns(header, TEMPERATURE), units, VARIABLES[TEMPERATURE].units
    )


def _source_columns(header: Header, name: str) -> Any:
    """Return the column of a variable, or its columns with their depths."""
    return header.depths.get(name, header.columns[name])


def _make_mapping(column: Any, units: str, target_units: str) -> dict[str, Any]:
    """Return the mapping of a variable."""
    spec = {"from": column, "units": units}
    return spec if units == target_units else spec | {"to": target_units}


def _guess_depth_units(
    raw: pd.DataFrame, header: Header, given: dict[str, Any], result: GuessedUnits
) -> None:
    """Find the units of a column of depths."""
    role = "depth_to" if "depth_to" in header.columns else "depth"
    column = header.columns[role]
    values = to_numbers(raw, column)
    least, most = values[values > 0].min(), values.max()
    units = given.get("depth_units") or header.hints.get(role)
    if (units == "m" and least >= _CENTIMETRES_FROM) or (units == "cm" and most < 1):
        result.problems.append(
            f"{column}: values of {least:g} to {most:g} are unlikely in {units}: correct the "
            "header, or --set depth_units=..."
        )
    if not units:
        units = "cm" if least >= _CENTIMETRES_FROM else "m"
        result.notes.append(
            f"{column}: {least:g} to {most:g}, assumed to be in {units}; "
            "--set depth_units=... changes it"
        )
    result.depth_units = units


_GOOD_FLAGS = ("0", "g", "good", "ok", "pass", "passed", "valid")  # flags in lower case


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


def guess_arguments(raw: pd.DataFrame, given: dict[str, Any]) -> Guess:
    """Guess the arguments of `TableSource`.

    Args:
      raw: table of text, from `pipeline.sources.table.text.split`.
      given: arguments that the user states. `units`, `temperature_units` and `columns` by role
        (also `value` and `temperature`) stand for the mapping.
    """
    station = _single_station(raw, given)
    header = recognise_header(raw, given.get("columns") or {}, station)
    result = Guess(header.columns, problems=header.problems)
    if "id" in station and "id" not in given:
        result.notes.append(
            f"id {station['id']}, from the logger's header; --set id=NAME changes it"
        )
    used = {*header.columns.values(), *(c for depths in header.depths.values() for c in depths)}
    unused = ", ".join(name for name in raw.columns if name not in used)
    absent = [n for n in (*REQUIRED_ROLES, TARGET) if n not in result.columns and n not in station]
    missing = [_describe_missing_column(name) for name in absent]
    if unused and missing:  # a header may be long, so it is told once
        missing[0] += f"; columns not used: {unused}"
    elif unused:
        result.notes.append(f"columns not used: {unused}")
    result.problems += missing
    has_depth = "depth" in given or {"depth", "depth_from"} & result.columns.keys()
    if "depth" in given and header.depths:
        _use_stated_depth(header, result)
    if not has_depth and not header.depths:
        result.problems.append("no depth: add a column depth_m, or --set depth=0.05 (m)")
    elif not absent:
        _fill_arguments(raw, header, station, given, result)
    return result


def _fill_arguments(
    raw: pd.DataFrame,
    header: Header,
    station: dict[str, Any],
    given: dict[str, Any],
    result: Guess,
) -> None:
    """Guess the arguments of a table that has all required columns; none if dates are ambiguous."""
    for name in ("depth", "depth_from", "depth_to") if "depth" in given else ():
        result.columns.pop(name, None)
    found_units = unit_magnitudes(raw, header, given)
    result.problems += found_units.problems
    result.notes += found_units.notes
    roles = {k: v for k, v in result.columns.items() if k not in (TARGET, TEMPERATURE)}
    time_format, is_clear = _guess_time_format(raw[roles["time"]], given, result)
    if not is_clear:
        return
    zone = given.get("time_zone") or header.hints.get("time")
    zone = zone or _guess_time_zone(raw[roles["time"]], time_format, result)
    result.args = {"mapping": found_units.mapping, "columns": roles, **station, "time_zone": zone}
    result.args |= {"time_format": time_format} if time_format else {}
    result.args |= {"depth": given["depth"]} if "depth" in given else {}
    result.args["depth_units"] = found_units.depth_units
    if "flag" in roles:
        result.args["good"] = given.get("good") or _guess_good_flags(raw[roles["flag"]], result)
    result.args["missing"] = given.get("missing") or _guess_fill_values(raw, header, result)
    others = ("sensors", "min_share", "depth_class_m")
    result.args |= {name: given[name] for name in others if name in given}


def _single_station(raw: pd.DataFrame, given: dict[str, Any]) -> dict[str, Any]:
    """Return what is known of the only station: from the user, or its name in a logger's header."""
    station: dict[str, Any] = {role: given[role] for role in ("id", "lat", "lon") if role in given}
    name = raw.attrs["station"]
    if not name or "id" in station:
        return station
    columns = recognise_header(raw, given.get("columns") or {}, ("id",)).columns
    return station if "id" in columns else {"id": name, **station}


def _describe_missing_column(name: str) -> str:
    """Say that a required column is missing, and what to do."""
    role = "value" if name == TARGET else name
    examples = ", ".join(COLUMN_NAMES[name].split()[:4])
    absent = f"no column for {role} (such as {examples})"
    station = f"; for a single station, --set {role}=..." if role in ("id", "lat", "lon") else ""
    return f"{absent}: rename a column, or --set columns.{role}=NAME{station}"


def _use_stated_depth(header: Header, result: Guess) -> None:
    """Use the depth that the user states instead of those in the names of columns."""
    columns = list(header.depths[TARGET])
    if len(columns) > 1:
        result.problems.append(
            f"columns {', '.join(columns)} have different depths in their names, but `depth` is "
            "set: remove --set depth, or choose one column with --set columns.value=NAME"
        )
    header.depths.clear()


def _guess_time_format(
    text: pd.Series, given: dict[str, Any], result: Guess
) -> tuple[str | None, bool]:
    """Find the format of times that are not ISO 8601.

    Returns:
      The format, None for ISO 8601 or an unknown one; and whether it is unambiguous.
    """
    if "time_format" in given or rows.has_iso_dates(text):
        return given.get("time_format"), True
    formats = rows.find_time_formats(text)
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


def _guess_time_zone(text: pd.Series, time_format: str | None, result: Guess) -> str:
    """Guess the time zone: offsets in the times, else local standard time, which is noted."""
    has_offset = "%z" in time_format if time_format else rows.has_offset(text).any()
    if has_offset:
        return rows.OWN_OFFSET
    has_times = (
        rows.format_has_times(time_format) if time_format else not rows.is_date_only(text).all()
    )
    if has_times:
        result.notes.append(
            "times have no UTC offset: they are assumed to be in local standard time; otherwise "
            "--set time_zone=UTC, UTC-06:00 (no summer time) or an IANA name"
        )
    return rows.LOCAL_STANDARD


def _guess_good_flags(flags: pd.Series, result: Guess) -> list[str]:
    """Guess which flags mean good values: known ones, else the most frequent one."""
    counts = Counter(flags[flags != ""])
    known = [text for text in counts if text.lower() in _GOOD_FLAGS]
    chosen = known or [text for text, _ in counts.most_common(1)]
    others = ", ".join(text for text in counts if text not in chosen) or "none"
    result.notes.append(
        f"flags assumed good: {', '.join(chosen) or 'none'}; bad: {others}; "
        "--set good=[...] changes it"
    )
    return chosen or ["0"]


def _guess_fill_values(raw: pd.DataFrame, header: Header, result: Guess) -> list[float]:
    """Find the common fill values that occur in the measured columns."""
    import pandas as pd

    names = [name for name in (TARGET, TEMPERATURE) if name in result.columns]
    columns = [c for name in names for c in header.depths.get(name, [result.columns[name]])]
    values = pd.concat([to_numbers(raw, column, ()) for column in columns])
    fills = [fill for fill in FILL_VALUES if np.isclose(values, fill).any()]
    if fills:
        listed = ", ".join(f"{fill:g}" for fill in fills)
        result.notes.append(f"read as missing: {listed}; --set missing=[...] changes it")
    return fills or [FILL_VALUES[0]]
