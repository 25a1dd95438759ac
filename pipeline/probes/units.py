"""Units of a stranger's CSV: what its header says, against the magnitude of its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipeline.names import VARIABLES
from pipeline.probes.words import FRACTION, PERCENT, TARGET, TEMPERATURE

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.probes.words import Recognised

FILLS = (-9999.0, -9999.9, -999.0, -999.9, -99.9, -99.0, -6999.0, 9999.0, 99999.0)
_CENTIMETRES_FROM = 2.0  # no one's shallowest sensor is 2 m deep
_KELVIN_FROM = 150.0


@dataclass
class Seen:
    """The mapping of `TableSource`, the units of depths, what contradicts, and what was decided."""

    mapping: dict[str, dict[str, Any]] = field(default_factory=dict)
    depth_units: str = "m"
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def seen(raw: pd.DataFrame, found: Recognised, given: dict[str, Any]) -> Seen:
    """Units of the measured variables and of depths.

    Args:
      raw: of `pipeline.sources.table.text.split`.
      found: its columns and what their names say.
      given: `units`, `temperature_units`, `depth`, `depth_units`, where a person gave them.
    """
    made = Seen()
    _target(raw, found, given, made)
    if TEMPERATURE in found.columns:
        _temperature(raw, found, given, made)
    if found.depths:
        pass  # the columns' names have their units
    elif "depth" in given:
        made.depth_units = given.get("depth_units", "m")
    else:
        _depths(raw, found, given, made)
    return made


def numbers(raw: pd.DataFrame, column: str, fills: tuple[float, ...] = FILLS) -> pd.Series:
    """(row,) a column as numbers, NaN where there is none or one that stands for none."""
    import pandas as pd

    text = raw[column]
    if raw.attrs.get("decimal") == ",":
        text = text.str.replace(",", ".", regex=False)
    values: pd.Series = pd.to_numeric(text, errors="coerce")
    return values.mask(values.isin(list(fills)))


def _target(raw: pd.DataFrame, found: Recognised, given: dict[str, Any], made: Seen) -> None:
    import pandas as pd

    columns = list(found.depths.get(TARGET, [found.columns[TARGET]]))
    column = ", ".join(columns)
    units = given.get("units") or found.hints.get(TARGET)
    if len(columns) == 1 and "id" in found.columns:
        values = numbers(raw, columns[0])
        medians = values[values > 0].groupby(raw[found.columns["id"]]).median()
    else:  # by column: one station, or one depth each
        parts = {c: numbers(raw, c) for c in columns}
        medians = pd.Series({c: part[part > 0].median() for c, part in parts.items()}).dropna()
    large = medians > 1
    likely = PERCENT if large.mean() > 0.5 else FRACTION
    if large.any() and not large.all():
        one, other = medians.index[large][0], medians.index[~large][0]
        about = f"{one} has values about {medians[one]:.3g}, {other} about {medians[other]:.3g}"
        made.problems.append(f"{column}: {about}: bring all to one unit")
    elif units in (PERCENT, FRACTION) and len(medians) and units != likely:
        wrong = f"{column}: values about {medians.median():.3g} are no {units} but {likely}"
        remedy = f"rename it, or --set units='{likely}'"
        made.problems.append(f"{wrong}: {'correct --set units' if 'units' in given else remedy}")
    elif not units:
        text = f"{column}: taken to be {likely}, from its magnitude; else --set units=..."
        made.notes.append(text)
    made.mapping[TARGET] = _spec(_from(found, TARGET), units or likely, FRACTION)


def _temperature(raw: pd.DataFrame, found: Recognised, given: dict[str, Any], made: Seen) -> None:
    column = found.columns[TEMPERATURE]
    units = given.get("temperature_units") or found.hints.get(TEMPERATURE)
    if not units:
        units = "K" if numbers(raw, column).median() > _KELVIN_FROM else "degC"
        made.notes.append(
            f"{column}: taken to be the soil's temperature in {units}; "
            "else --set temperature_units=..., or rename it"
        )
    made.mapping[TEMPERATURE] = _spec(
        _from(found, TEMPERATURE), units, VARIABLES[TEMPERATURE].units
    )


def _from(found: Recognised, name: str) -> Any:
    """The column of a variable, or its columns with their depths."""
    return found.depths.get(name, found.columns[name])


def _spec(column: Any, units: str, ours: str) -> dict[str, Any]:
    spec = {"from": column, "units": units}
    return spec if units == ours else spec | {"to": ours}


def _depths(raw: pd.DataFrame, found: Recognised, given: dict[str, Any], made: Seen) -> None:
    role = "depth_to" if "depth_to" in found.columns else "depth"
    column = found.columns[role]
    values = numbers(raw, column)
    least, most = values[values > 0].min(), values.max()
    units = given.get("depth_units") or found.hints.get(role)
    if (units == "m" and least >= _CENTIMETRES_FROM) or (units == "cm" and most < 1):
        made.problems.append(
            f"{column}: values of {least:g} to {most:g} are hardly {units}: correct the header, or "
            "--set depth_units"
        )
    if not units:
        units = "cm" if least >= _CENTIMETRES_FROM else "m"
        text = f"{column}: {least:g} to {most:g}, taken to be {units}; else --set depth_units=..."
        made.notes.append(text)
    made.depth_units = units
