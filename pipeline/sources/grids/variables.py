"""The mapping of a gridded entry: names, units, aggregation to days, and derived variables.

Keys of a variable in the mapping:
  {from: NAME, units: UNITS, to: UNITS}             name and units of the provider, and the units
                                                    to convert to (optional)
  fill: NUMBER, or a list                           stored values that are missing although the
                                                    file does not declare it
  daily: mean | sum | max | min                     how steps shorter than a day become days; a
                                                    sum of UNITS has UNITS day-1
  accumulated: hourly | since_00                    amounts of each step (of any length), or
                                                    since 00 UTC; their times are interval ends
  stamp: start | middle | end | instant             if it differs from the entry's `day.stamp`
  {from: [NAME, ...], units: [UNITS, ...], by: RULE}  a variable that one of the formulas in
                                                    `pipeline.sources.shared.units` derives from
                                                    others, before aggregation to days
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.grids.days import AGGREGATIONS, SINCE_00, STAMPS
from pipeline.sources.shared.units import (
    FORMULAS,
    are_same_units,
    convert_units,
    linear_conversion,
    normalize_units,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray as xr

    from pipeline.sources.grids.axes import Grid

    Arrays = list[Any]


MAPPING_KEYS = {"from", "units", "to", "fill", "daily", "accumulated", "stamp", "by"}


@dataclass(frozen=True)
class MappedVariable:
    """One variable of a mapping.

    Attributes:
      inputs: (name, units) of each of the provider's variables that are read.
      rule: Name of the formula that derives the variable; None for a single input as it is.
      daily: How steps become days: mean, sum, max or min; None for daily data.
      since_00: Whether the values accumulate from 00 UTC on.
      stamp: Where the time of a step is in its interval; None for the entry's setting.
      units: Units after the formula and the aggregation to days.
      to: Units to convert to.
    """

    inputs: tuple[tuple[str, str], ...]
    rule: str | None
    daily: str | None
    since_00: bool
    stamp: str | None
    units: str
    to: str

    def stamp_or(self, default: str) -> str:
        """Return where the time of a step is in its interval, or SINCE_00.

        Args:
          default: The setting of the catalog entry.
        """
        return SINCE_00 if self.since_00 else self.stamp or default

    def apply_formula(self, arrays: Arrays) -> Any:
        """Return the variable at the provider's steps.

        Args:
          arrays: Arrays of the inputs, in the provider's units.
        """
        if self.rule is None:
            return arrays[0]
        formula, first_units = FORMULAS[self.rule], self.inputs[0][1]
        converted = [
            convert_units(array, units, target or first_units)
            for array, (_, units), target in zip(
                arrays, self.inputs, formula.input_units, strict=True
            )
        ]
        return formula.compute(*converted).astype("float32")

    def compute(self, arrays: Arrays, to_days: Callable[[Any], Any] | None = None) -> Any:
        """Return the variable in the units to convert to.

        Args:
          arrays: Arrays of the inputs at the provider's steps, in the provider's units.
          to_days: Aggregates an array of steps to days; None to keep the steps.
        """
        values = self.apply_formula(arrays)
        return convert_units(to_days(values) if to_days else values, self.units, self.to)


def parse_mapping(mapping: dict[str, dict[str, Any]]) -> dict[str, MappedVariable]:
    """Check a mapping and parse its variables.

    Args:
      mapping: {soilweave's name: keys and values as in the description of this module}.

    Raises:
      ValueError: If the mapping is invalid; the message lists all problems.
    """
    problems = [
        f"{name}: {problem}"
        for name, spec in mapping.items()
        for problem in _variable_problems(spec)
    ]
    if problems:
        raise ValueError(f"mapping: {'; '.join(problems)}")
    return {name: _parse_variable(spec) for name, spec in mapping.items()}


def provider_units(variables: dict[str, MappedVariable]) -> dict[str, str]:
    """Return {provider's name: its units} of all variables that a mapping reads."""
    return {name: units for term in variables.values() for name, units in term.inputs}


def input_problems(raw: xr.Dataset, variables: dict[str, MappedVariable]) -> list[str]:
    """Return messages about inputs that are missing or have other units than the mapping states.

    Units that cannot be converted are listed too.

    Args:
      raw: The file.
      variables: The variables of the mapping.
    """
    problems = []
    for name, units in provider_units(variables).items():
        if name not in raw:
            problems.append(f"{name}: missing; the file has {[str(v) for v in raw.data_vars]}")
            continue
        file_units = raw[name].attrs.get("units")
        if file_units is not None and not are_same_units(str(file_units), units):
            problems.append(f"{name}: units '{file_units}', expected '{units}'")
    for term in variables.values():
        pairs = [(term.units, term.to)]
        if term.rule:
            targets = zip(term.inputs, FORMULAS[term.rule].input_units, strict=True)
            pairs += [(units, target) for (_, units), target in targets if target]
        for units, target in pairs:
            try:
                linear_conversion(units, target)
            except DataError as error:
                problems.append(f"{', '.join(name for name, _ in term.inputs)}: {error}")
    return problems


def _parse_variable(spec: dict[str, Any]) -> MappedVariable:
    """Parse a valid variable of a mapping."""
    names, units = _as_list(spec["from"]), _as_list(spec["units"])
    inputs = tuple(zip(names, units * len(names) if len(units) == 1 else units, strict=True))
    rule, daily = spec.get("by"), spec.get("daily")
    result_units = (FORMULAS[rule].output_units if rule else None) or units[0]
    result_units = f"{normalize_units(result_units)} day-1" if daily == "sum" else result_units
    accumulated = spec.get("accumulated")
    stamp = "end" if accumulated else spec.get("stamp")
    since_00 = accumulated == "since_00"
    return MappedVariable(
        inputs, rule, daily, since_00, stamp, result_units, spec.get("to", result_units)
    )


def _variable_problems(spec: dict[str, Any]) -> list[str]:
    """Return messages about what is invalid in a variable of a mapping."""
    problems = [f"unknown key '{key}'" for key in spec.keys() - MAPPING_KEYS]
    for key, accepted in (
        ("daily", AGGREGATIONS),
        ("accumulated", ("hourly", "since_00")),
        ("stamp", STAMPS),
        ("by", tuple(FORMULAS)),
    ):
        if key in spec and spec[key] not in accepted:
            problems.append(f"{key} '{spec[key]}', expected {', '.join(accepted)}")
    names, units = _as_list(spec["from"]), _as_list(spec["units"])
    if len(units) not in (1, len(names)):
        problems.append(f"{len(names)} names and {len(units)} units")
    n_inputs = len(FORMULAS[spec["by"]].input_units) if spec.get("by") in FORMULAS else 1
    if len(names) != n_inputs:
        formula = f"for `by: {spec['by']}`" if "by" in spec else "without `by`"
        problems.append(f"from {len(names)} variables, expected {n_inputs} {formula}")
    if "accumulated" in spec and spec.get("daily") != "sum":
        problems.append("accumulated amounts need `daily: sum`")
    return problems


def _as_list(value: Any) -> list[str]:
    """Return one or several values as a list of texts."""
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else [str(value)]


def estimate_daily_bytes(
    terms: dict[str, MappedVariable], template: xr.Dataset, window: Grid, steps: float
) -> dict[str, float]:
    """Estimate the memory in bytes for reading one day of each variable.

    Files are read in whole chunks, so that the memory is that of all chunks that overlap the
    window.

    Args:
      terms: {soilweave's name: variable of the mapping}.
      template: One of the files.
      window: Rows and columns to read.
      steps: Number of steps in a day.

    Returns:
      {soilweave's name: bytes}.
    """
    return {
        name: steps * sum(_bytes_per_step(template[native], window) for native, _ in term.inputs)
        for name, term in terms.items()
    }


def _bytes_per_step(stored: xr.DataArray, window: Grid) -> float:
    """Return the bytes of one step of a stored variable in whole chunks that overlap a window."""
    native: dict[Any, int] = stored.encoding.get("preferred_chunks") or {}
    size = float(np.dtype(stored.encoding.get("dtype") or stored.dtype).itemsize)
    for dim, taken, n in zip(window.dims, window.slices, window.shape, strict=True):
        chunk, start = int(native.get(dim, 1)), taken.start or 0
        length = -(-(start + n) // chunk) * chunk - start // chunk * chunk
        size *= min(length, int(stored.sizes[dim]))
    return size
