"""Linear conversion between units, through pint with CF's spelling."""

from __future__ import annotations

from functools import cache

from pipeline.errors import DataError


@cache
def conversion(found: str, wanted: str) -> tuple[float, float]:
    """Slope and offset that bring values from one unit to another.

    Raises:
      DataError: a unit is unknown, or the two are not of one dimension.
    """
    if found == wanted:
        return 1.0, 0.0
    import pint
    from cf_xarray.units import units

    try:
        zero, one = (units.Quantity(value, found).to(wanted).magnitude for value in (0.0, 1.0))
    except (pint.errors.PintError, AttributeError) as error:
        raise DataError(f"units '{found}'", f"cannot be turned into '{wanted}': {error}") from error
    return float(one - zero), float(zero)
