"""Linear conversion between units, through pint with CF's spelling.

Variables made from others: formulas, the units they take and give, and units' spellings.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from model.humidity import specific_humidity
from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable


# How providers spell units that pint knows by other names.
SPELLINGS = {
    **{"degrees C": "degC", "degrees Celsius": "degC", "deg C": "degC", "Kelvin": "K"},
    **dict.fromkeys(("(0 - 1)", "0-1", "-", "fraction", "unitless"), "1"),
}


def known(units: str) -> str:
    """Units as pint knows them."""
    return SPELLINGS.get(units.strip(), units.strip())


def same(found: str, said: str) -> bool:
    """Whether two are the same unit, however spelled: `m**3 m**-3` is `m3 m-3`, and `1`."""
    try:
        return conversion(found, said) == (1.0, 0.0)
    except DataError:
        return False


@cache
def conversion(found: str, wanted: str) -> tuple[float, float]:
    """Slope and offset that bring values from one unit to another.

    Raises:
      DataError: a unit is unknown, or the two are not of one dimension.
    """
    if known(found) == known(wanted):
        return 1.0, 0.0
    from cf_xarray.units import units

    try:
        zero, one = (
            units.Quantity(value, known(found)).to(known(wanted)).magnitude for value in (0.0, 1.0)
        )
    except Exception as error:  # a text that is no unit fails in pint's parser in many ways
        told = " ".join(str(error).split()) or "no unit"
        raise DataError(f"units '{found}'", f"cannot be turned into '{wanted}': {told}") from error
    return float(one - zero), float(zero)


GAS_RATIO = 287.0597 / 461.5250  # of dry air's constant to vapour's, as the IFS has them
WATER = 1000.0  # kg m-3


@dataclass(frozen=True)
class Rule:
    """A variable made from others: what it takes, in which units (None: the first's), and gives."""

    takes: tuple[str | None, ...]
    gives: str | None
    make: Callable[..., Any]


def _saturated(temperature: Any) -> Any:
    """Vapour pressure (Pa) over water at a temperature (K): IFS documentation, part IV, eq. 7.5."""
    return 611.21 * np.exp(17.502 * (temperature - 273.16) / (temperature - 32.19))


def _humidity(vapour: Any, pressure: Any) -> Any:
    """Specific humidity of vapour pressure and pressure (Pa), with the constants of the IFS."""
    return specific_humidity(vapour, pressure, GAS_RATIO)


def _speed(east: Any, north: Any) -> Any:
    return (east**2 + north**2) ** 0.5


RULES = {
    "speed": Rule(("m s-1", "m s-1"), "m s-1", _speed),
    "dew_point": Rule(("K", "Pa"), "kg kg-1", lambda dew, p: _humidity(_saturated(dew), p)),
    "vapour_pressure": Rule(("Pa", "Pa"), "kg kg-1", _humidity),
    "relative_humidity": Rule(
        ("1", "K", "Pa"), "kg kg-1", lambda part, t, p: _humidity(part * _saturated(t), p)
    ),
    "middle": Rule((None, None), None, lambda low, high: (low + high) / 2),
    "daylight": Rule(("W m-2", "s"), "W m-2", lambda mean, lasting: mean * lasting / 86400),
    "mixing_ratio": Rule(("1",), "kg kg-1", lambda ratio: ratio / (1 + ratio)),
    "water": Rule(("m",), "kg m-2", lambda depth: WATER * depth),
    "in_10_cm": Rule(("kg m-2",), "m3 m-3", lambda water: water / (0.1 * WATER)),
    "water_rate": Rule(("m day-1",), "kg m-2 day-1", lambda depth: WATER * depth),
}


def linear(values: Any, units: str, wanted: str) -> Any:
    """Values in other units, float32."""
    slope, offset = conversion(units, wanted)
    if (slope, offset) == (1.0, 0.0):
        return values
    return (values * slope + offset).astype("float32")
