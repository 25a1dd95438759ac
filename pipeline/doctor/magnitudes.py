"""Signs in the values of a variable: all fill, out of range, in other units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.doctor.symptoms import Symptom
from pipeline.errors import DataError
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.names import Variable

FEW = 0.05  # share of observations out of range that quality control is left to drop
FILLS = (-9999.0, -999.0, -99.0, 9999.0, 32767.0, -32768.0, 65535.0, 9.96921e36, 1e20)
# What values may be in, taken for the first.
CONFUSED = {
    "K": ("degC", "degF"),
    "degC": ("K", "degF"),
    "1": ("percent",),
    "m3 m-3": ("percent",),
    "percent": ("1", "g kg-1"),
    "Pa": ("hPa", "kPa"),
    "kg kg-1": ("g kg-1",),
    "W m-2": ("J m-2 day-1", "J m-2 h-1"),
    "g cm-3": ("kg m-3", "cg cm-3"),
    "m": ("cm", "mm"),
    "m s-1": ("km h-1",),
}
DAILY = "kg m-2 day-1"
# Precipitation that falls nowhere on land: more in a year than the wettest place has (Mawsynram,
# 11.9 m), over a region; or, on one day of a hundred, more than 300 mm.
WETTEST_YEAR, WETTEST_DAYS = 12_000 / 365.25, 300.0
LEAST_MEAN, LEAST_PERCENTILE = 12, 100  # days that are needed to judge by the one or the other


def of_values(name: str, values: NDArray[np.float32], variable: Variable) -> list[Symptom]:
    """What is wrong with a sample of a variable that is not all fill.

    Args:
      name: ours.
      values: any shape, NaN where missing.
      variable: its units and range.
    """
    given = np.asarray(values, float)[np.isfinite(values)]
    infinite = int(np.isinf(values).sum())
    if infinite:
        remedy = "mask them in the entry's driver, or ask the provider"
        return [Symptom("range", f"{name}: {infinite} values are infinite", remedy)]
    if not given.size:
        return []
    inside = _share(given, variable)
    few = FEW if variable.kind in ("target", "auxiliary") else 0.0
    outside = given[(given < variable.minimum) | (given > variable.maximum)]
    fill = next(
        (f for f in FILLS if outside.size and np.isclose(outside, f, rtol=1e-4).all()), None
    )
    spread = f"{given.min():.4g} to {given.max():.4g}"
    meant = "" if fill is not None else _meant(given, inside, variable)
    if not meant and fill is None:
        meant = _too_wet(values, variable)
    if meant:
        found = f"{name}: {spread} {variable.units}; these look like {meant}"
        remedy = f"correct `units` and `to` of {name} in the mapping"
        return [Symptom("units", found, remedy)]
    if 1 - inside <= few:
        return []
    allowed = f"{variable.minimum:g} to {variable.maximum:g} {variable.units}"
    found = f"{name}: {_percent(1 - inside)} of the sample is outside {allowed}: {spread}"
    remedy = "ask the provider, or correct the mapping"
    if fill is not None:
        remedy = f"{fill:g} looks like a fill value that is not masked; "
        remedy += f"say `fill: {fill:g}` in the mapping"
    return [Symptom("range", found, remedy)]


def all_fill(name: str) -> Symptom:
    """The sign of a variable without values."""
    remedy = "is it the right variable of the file? ask the provider, or name another source"
    return Symptom("all fill", f"{name}: no value in the sample", remedy)


def _share(values: NDArray[np.float64], variable: Variable) -> float:
    """Share of values in the range; a hundred-thousandth of it beyond is rounding."""
    slack = 1e-5 * (variable.maximum - variable.minimum)
    low, high = variable.minimum - slack, variable.maximum + slack
    return float(((values >= low) & (values <= high)).mean())


def _meant(values: NDArray[np.float64], inside: float, variable: Variable) -> str:
    """Units in which the values would make sense, where in their own they do not."""
    units = variable.units
    if units == DAILY and values.max() > variable.maximum:
        for factor, what in ((24, "daily sums taken for hourly"), (3600, "hourly for per second")):
            if _share(values / factor, variable) == 1:
                return f"rates scaled {factor} times too far ({what})"
    if units == "percent" and 0 < values.max() <= 1 and values.min() >= 0:
        return "fractions ('1')"
    if inside > 0.9:
        return ""
    for other in CONFUSED.get(units, ()):
        try:
            slope, offset = conversion(other, units)
        except DataError:
            continue
        if _share(values * slope + offset, variable) > 0.999:
            return f"'{other}'"
    return ""


def _too_wet(values: NDArray[np.float32], variable: Variable) -> str:
    """What to say of precipitation that is inside the range of a day and yet far too much.

    Args:
      values: (day, ...).
      variable: its units and kind.
    """
    if variable.units != DAILY or variable.kind != "forcing" or values.ndim < 2:
        return ""
    given = values[np.isfinite(values)]
    year = float(given.mean())
    heavy = float(np.percentile(given, 99)) if len(values) >= LEAST_PERCENTILE else 0.0
    if len(values) < LEAST_MEAN or (year <= WETTEST_YEAR and heavy <= WETTEST_DAYS):
        return ""
    told = f"{365.25 * year:,.0f} mm a year"
    told += f", 1 % of the values above {heavy:.0f} mm" if heavy else ""
    what = "hourly rates or sums taken for daily, or scaled twice"
    return f"rates scaled 24 times too far ({what}): {told}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
