"""Linear conversion between units, through pint with CF's spelling."""

from __future__ import annotations

from functools import cache

from pipeline.errors import DataError

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
