"""Find the units of a CSV's columns: what its header states, checked against the values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.names import VARIABLES
from pipeline.probes.words import FRACTION, PERCENT, TARGET, TEMPERATURE

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.probes.words import Recognised

FILLS = (-9999.0, -9999.9, -999.0, -999.9, -99.9, -99.0, -6999.0, 9999.0, 99999.0)
_CENTIMETRES_FROM = 2.0  # a shallowest sensor at 2 or more is in cm, not m
_KELVIN_FROM = 150.0  # a median above this is in K, not degC


@dataclass
class Seen:
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


def seen(raw: pd.DataFrame, header: Recognised, given: dict[str, Any]) -> Seen:
    """Find the units of the measured variables and of depths.

    Args:
      raw: table of text, from `pipeline.sources.table.text.split`.
      header: its columns and what their names say.
      given: `units`, `temperature_units`, `depth` and `depth_units`, if the user states them.
    """
    result = Seen()
    _target(raw, header, given, result)
    if TEMPERATURE in header.columns:
        _temperature(raw, header, given, result)
    if header.depths:
        pass  # the depths in names of columns have their units there
    elif "depth" in given:
        result.depth_units = given.get("depth_units", "m")
    else:
        _depths(raw, header, given, result)
    return result


def numbers(raw: pd.DataFrame, column: str, fills: tuple[float, ...] = FILLS) -> pd.Series:
    """Return (row,) a column as numbers, NaN for other text and for fill values."""
    import pandas as pd

    text = raw[column]
    if raw.attrs.get("decimal") == ",":
        text = text.str.replace(",", ".", regex=False)
    values: pd.Series = pd.to_numeric(text, errors="coerce")
    return values.mask(values.isin(list(fills)))


def _target(raw: pd.DataFrame, header: Recognised, given: dict[str, Any], result: Seen) -> None:
    """Find the units of the target from the medians of each site, or of each column."""
    import pandas as pd

    columns = list(header.depths.get(TARGET, [header.columns[TARGET]]))
    label = ", ".join(columns)
    units = given.get("units") or header.hints.get(TARGET)
    if len(columns) == 1 and "id" in header.columns:
        values = numbers(raw, columns[0])
        medians = values[values > 0].groupby(raw[header.columns["id"]]).median()
    else:  # by column: the table has one station, or a column for each depth
        parts = {c: numbers(raw, c) for c in columns}
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
    result.mapping[TARGET] = _spec(_from(header, TARGET), units or likely, FRACTION)


def _temperature(
    raw: pd.DataFrame, header: Recognised, given: dict[str, Any], result: Seen
) -> None:
    """Find the units of soil temperature."""
    column = header.columns[TEMPERATURE]
    units = given.get("temperature_units") or header.hints.get(TEMPERATURE)
    if not units:
        units = "K" if numbers(raw, column).median() > _KELVIN_FROM else "degC"
        result.notes.append(
            f"{column}: assumed to be soil temperature in {units}; "
            "--set temperature_units=... changes the units; rename the column if it is not in soil"
        )
    result.mapping[TEMPERATURE] = _spec(
        _from(header, TEMPERATURE), units, VARIABLES[TEMPERATURE].units
    )


def _from(header: Recognised, name: str) -> Any:
    """Return the column of a variable, or its columns with their depths."""
    return header.depths.get(name, header.columns[name])


def _spec(column: Any, units: str, target_units: str) -> dict[str, Any]:
    """Return the mapping of a variable."""
    spec = {"from": column, "units": units}
    return spec if units == target_units else spec | {"to": target_units}


def _depths(raw: pd.DataFrame, header: Recognised, given: dict[str, Any], result: Seen) -> None:
    """Find the units of a column of depths."""
    role = "depth_to" if "depth_to" in header.columns else "depth"
    column = header.columns[role]
    values = numbers(raw, column)
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
