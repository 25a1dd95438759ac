"""Find values that are all fill, out of range or in other units than stated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.doctor.symptoms import Symptom
from pipeline.errors import DataError
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.names import Variable

FEW = 0.05  # share of observations out of range that is left to quality control
FILLS = (-9999.0, -999.0, -99.0, 9999.0, 32767.0, -32768.0, 65535.0, 9.96921e36, 1e20)
# For each unit, the units that values may really be in if they do not fit.
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
# Precipitation above these limits falls nowhere on land. The yearly limit is the mean over a region
# that exceeds the wettest place on Earth (Mawsynram, 11.9 m a year), here in mm per day. The daily
# limit is that of the 99th percentile of the values, in mm.
WETTEST_YEAR, WETTEST_DAYS = 12_000 / 365.25, 300.0
LEAST_MEAN, LEAST_PERCENTILE = 12, 100  # days needed to judge by the mean, by the percentile


def of_values(name: str, values: NDArray[np.float32], variable: Variable) -> list[Symptom]:
    """Find what is wrong with a sample of a variable that has some values.

    Args:
      name: name of the variable in this project.
      values: sample of any shape, NaN where missing.
      variable: units and accepted range of the variable.
    """
    finite = np.asarray(values, float)[np.isfinite(values)]
    n_infinite = int(np.isinf(values).sum())
    if n_infinite:
        hint = "mask them in the entry's driver, or ask the provider"
        return [Symptom("range", f"{name}: {n_infinite} values are infinite", hint)]
    if not finite.size:
        return []
    share_inside = _share(finite, variable)
    tolerated = FEW if variable.kind in ("target", "auxiliary") else 0.0
    outside = finite[(finite < variable.minimum) | (finite > variable.maximum)]
    fill = next(
        (f for f in FILLS if outside.size and np.isclose(outside, f, rtol=1e-4).all()), None
    )
    spread = f"{finite.min():.4g} to {finite.max():.4g}"
    likely = "" if fill is not None else _meant(finite, share_inside, variable)
    if not likely and fill is None:
        likely = _too_wet(values, variable)
    if likely:
        message = f"{name}: {spread} {variable.units}; these look like {likely}"
        return [Symptom("units", message, f"correct `units` and `to` of {name} in the mapping")]
    if 1 - share_inside <= tolerated:
        return []
    accepted = f"{variable.minimum:g} to {variable.maximum:g} {variable.units}"
    message = f"{name}: {_percent(1 - share_inside)} of the sample is outside {accepted}: {spread}"
    hint = "ask the provider, or correct the mapping"
    if fill is not None:
        hint = (
            f"{fill:g} looks like a fill value that is not masked; "
            f"add `fill: {fill:g}` to the mapping"
        )
    return [Symptom("range", message, hint)]


def all_fill(name: str) -> Symptom:
    """Return the finding that a variable has no values."""
    hint = (
        "check that the mapping names the right variable of the file; else ask the provider, or "
        "name another source"
    )
    return Symptom("all fill", f"{name}: no value in the sample", hint)


def _share(values: NDArray[np.float64], variable: Variable) -> float:
    """Return the share of values in the variable's range.

    Values that exceed it by a hundred-thousandth of its width are inside: that is rounding.
    """
    slack = 1e-5 * (variable.maximum - variable.minimum)
    low, high = variable.minimum - slack, variable.maximum + slack
    return float(((values >= low) & (values <= high)).mean())


def _meant(values: NDArray[np.float64], share_inside: float, variable: Variable) -> str:
    """Return the units in which values out of range would make sense; empty if there are none."""
    units = variable.units
    if units == DAILY and values.max() > variable.maximum:
        for factor, cause in (
            (24, "daily sums taken for hourly"),
            (3600, "hourly for per second"),
        ):
            if _share(values / factor, variable) == 1:
                return f"rates scaled {factor} times too far ({cause})"
    if units == "percent" and 0 < values.max() <= 1 and values.min() >= 0:
        return "fractions ('1')"
    if share_inside > 0.9:
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
    """Describe precipitation that is possible on one day but far too much on average.

    Args:
      values: (day, ...) sample.
      variable: units and kind of the variable.

    Returns:
      The likely cause; empty for plausible precipitation and for other variables.
    """
    if variable.units != DAILY or variable.kind != "forcing" or values.ndim < 2:
        return ""
    finite = values[np.isfinite(values)]
    mean = float(finite.mean())
    heavy = float(np.percentile(finite, 99)) if len(values) >= LEAST_PERCENTILE else 0.0
    if len(values) < LEAST_MEAN or (mean <= WETTEST_YEAR and heavy <= WETTEST_DAYS):
        return ""
    amounts = f"{365.25 * mean:,.0f} mm a year"
    amounts += f", 1 % of the values above {heavy:.0f} mm" if heavy else ""
    cause = "hourly rates or sums taken for daily, or scaled twice"
    return f"rates scaled 24 times too far ({cause}): {amounts}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
