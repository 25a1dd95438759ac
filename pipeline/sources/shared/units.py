"""Conversion between units, and formulas that derive a variable from others.

Units are converted by pint with the spelling of the CF conventions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from model.humidity import specific_humidity
from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable


# Providers' spellings of units -> pint's.
UNIT_SPELLINGS = {
    **{"degrees C": "degC", "degrees Celsius": "degC", "deg C": "degC", "Kelvin": "K"},
    **dict.fromkeys(("(0 - 1)", "0-1", "-", "fraction", "unitless"), "1"),
}

# Gas constant of dry air over that of water vapour, as in the IFS.
GAS_RATIO = 287.0597 / 461.5250
WATER_DENSITY = 1000.0  # kg m-3, density


# Pint computes powers of numbers, so that units such as `9**9**9**9 m` would never end.
MAX_UNITS = 100  # characters
_POWER = re.compile(r"[\d)]\s*(?:\*\*|\^)")
_LARGE_POWER = re.compile(r"(?:\*\*|\^)[\s(+-]*\d{3,}")


@dataclass(frozen=True)
class Formula:
    """A formula that derives a variable from others.

    Attributes:
      input_units: Units of each input; None for the units of the first input.
      output_units: Units of the result; None for the units of the first input.
      compute: Computes the result from arrays of the inputs.
    """

    input_units: tuple[str | None, ...]
    output_units: str | None
    compute: Callable[..., Any]


def normalize_units(units: str) -> str:
    """Return units in pint's spelling."""
    return UNIT_SPELLINGS.get(units.strip(), units.strip())


def are_same_units(one: str, other: str) -> bool:
    """Return whether two units are equal in any spelling: `m**3 m**-3` is `m3 m-3`, and `1`."""
    try:
        return linear_conversion(one, other) == (1.0, 0.0)
    except DataError:
        return False


@cache
def linear_conversion(units: str, target: str) -> tuple[float, float]:
    """Return the slope and offset that convert values from one unit to another.

    Args:
      units: Units of the values.
      target: Units to convert to.

    Raises:
      DataError: If a unit is unknown, or the two have different dimensions.
    """
    if normalize_units(units) == normalize_units(target):
        return 1.0, 0.0
    for text in (units, target):
        if len(text) > MAX_UNITS or _LARGE_POWER.search(text) or len(_POWER.findall(text)) > 1:
            problem = f"have more than {MAX_UNITS} characters, or powers of powers or above 99"
            raise DataError(f"units '{text[:MAX_UNITS]}'", problem)
    from cf_xarray.units import units as registry

    try:
        zero, one = (
            registry.Quantity(value, normalize_units(units)).to(normalize_units(target)).magnitude
            for value in (0.0, 1.0)
        )
    except Exception as error:  # pint's parser raises many kinds of errors for invalid units
        reason = " ".join(str(error).split()) or "unknown units"
        problem = f"cannot be converted to '{target}': {reason}"
        raise DataError(f"units '{units}'", problem) from error
    return float(one - zero), float(zero)


def convert_units(values: Any, units: str, target: str) -> Any:
    """Convert values to other units; converted values are float32.

    Args:
      values: An array.
      units: Units of the values.
      target: Units to convert to.

    Raises:
      DataError: If a unit is unknown, or the two have different dimensions.
    """
    slope, offset = linear_conversion(units, target)
    if (slope, offset) == (1.0, 0.0):
        return values
    return (values * slope + offset).astype("float32")


def _saturation_pressure(temperature: Any) -> Any:
    """Return the saturation vapour pressure (Pa) over water at a temperature (K).

    The formula is equation 7.5 of the IFS documentation, part IV.
    """
    return 611.21 * np.exp(17.502 * (temperature - 273.16) / (temperature - 32.19))


def _humidity(vapour: Any, pressure: Any) -> Any:
    """Return specific humidity from vapour pressure and pressure (Pa), with the IFS's constants."""
    return specific_humidity(vapour, pressure, GAS_RATIO)


def _wind_speed(east: Any, north: Any) -> Any:
    """Return the speed of a wind from its components."""
    return (east**2 + north**2) ** 0.5


# Value of `by` in a catalog entry's mapping -> formula.
FORMULAS = {
    "speed": Formula(("m s-1", "m s-1"), "m s-1", _wind_speed),
    "dew_point": Formula(
        ("K", "Pa"), "kg kg-1", lambda dew, p: _humidity(_saturation_pressure(dew), p)
    ),
    "vapour_pressure": Formula(("Pa", "Pa"), "kg kg-1", _humidity),
    "relative_humidity": Formula(
        ("1", "K", "Pa"),
        "kg kg-1",
        lambda ratio, t, p: _humidity(ratio * _saturation_pressure(t), p),
    ),
    "middle": Formula((None, None), None, lambda low, high: (low + high) / 2),
    "daylight": Formula(("W m-2", "s"), "W m-2", lambda mean, seconds: mean * seconds / 86400),
    "mixing_ratio": Formula(("1",), "kg kg-1", lambda ratio: ratio / (1 + ratio)),
    "water": Formula(("m",), "kg m-2", lambda depth: WATER_DENSITY * depth),
    "in_10_cm": Formula(("kg m-2",), "m3 m-3", lambda water: water / (0.1 * WATER_DENSITY)),
    "water_rate": Formula(("m day-1",), "kg m-2 day-1", lambda depth: WATER_DENSITY * depth),
}
