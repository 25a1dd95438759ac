"""Find values that are all fill, out of range or in other units than stated.

Find fields that are upside down: air temperature that rises towards the pole.

Find fill values that nothing declares as missing, so that they are read as data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.doctor.findings import Finding
from pipeline.errors import DataError
from pipeline.sources.shared.units import linear_conversion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.experiment.variables import Variable


TOLERATED_SHARE = 0.05  # share of observations out of range that is left to quality control
COMMON_FILLS = (-9999.0, -999.0, -99.0, 9999.0, 32767.0, -32768.0, 65535.0, 9.96921e36, 1e20)

# For each unit, the units that values may really be in if they do not fit.
CONFUSED_UNITS = {
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

DAILY_RATE = "kg m-2 day-1"

# Precipitation above these limits falls nowhere on land. The yearly limit is the mean over a region
# that exceeds the wettest place on Earth (Mawsynram, 11.9 m a year), here in mm per day. The daily
# limit is that of the 99th percentile of the values, in mm.
MAX_MEAN_RAIN, MAX_HEAVY_RAIN = 12_000 / 365.25, 300.0

MIN_DAYS_FOR_MEAN, MIN_DAYS_FOR_PERCENTILE = (
    12,
    100,
)  # days needed to judge by the mean, by the percentile


def check_values(name: str, values: NDArray[np.float32], variable: Variable) -> list[Finding]:
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
        return [Finding("range", f"{name}: {n_infinite} values are infinite", hint)]
    if not finite.size:
        return []
    share_inside = _share_in_range(finite, variable)
    tolerated = TOLERATED_SHARE if variable.kind in ("target", "auxiliary") else 0.0
    outside = finite[(finite < variable.minimum) | (finite > variable.maximum)]
    fill = next(
        (f for f in COMMON_FILLS if outside.size and np.isclose(outside, f, rtol=1e-4).all()), None
    )
    spread = f"{finite.min():.4g} to {finite.max():.4g}"
    likely = "" if fill is not None else _likely_units(finite, share_inside, variable)
    if not likely and fill is None:
        likely = _describe_excess_rain(values, variable)
    if likely:
        message = f"{name}: {spread} {variable.units}; these look like {likely}"
        return [Finding("units", message, f"correct `units` and `to` of {name} in the mapping")]
    if 1 - share_inside <= tolerated:
        return []
    accepted = f"{variable.minimum:g} to {variable.maximum:g} {variable.units}"
    message = (
        f"{name}: {_format_percent(1 - share_inside)} of the sample is outside {accepted}: {spread}"
    )
    hint = "ask the provider, or correct the mapping"
    if fill is not None:
        hint = (
            f"{fill:g} looks like a fill value that is not masked; "
            f"add `fill: {fill:g}` to the mapping"
        )
    return [Finding("range", message, hint)]


def no_value_finding(name: str) -> Finding:
    """Return the finding that a variable has no values."""
    hint = (
        "check that the mapping names the right variable of the file; else ask the provider, or "
        "name another source"
    )
    return Finding("all fill", f"{name}: no value in the sample", hint)


def _share_in_range(values: NDArray[np.float64], variable: Variable) -> float:
    """Return the share of values in the variable's range.

    Values that exceed it by a hundred-thousandth of its width are inside: that is rounding.
    """
    slack = 1e-5 * (variable.maximum - variable.minimum)
    low, high = variable.minimum - slack, variable.maximum + slack
    return float(((values >= low) & (values <= high)).mean())


def _likely_units(values: NDArray[np.float64], share_inside: float, variable: Variable) -> str:
    """Return the units in which values out of range would make sense; empty if there are none."""
    units = variable.units
    if units == DAILY_RATE and values.max() > variable.maximum:
        for factor, cause in (
            (24, "daily sums taken for hourly"),
            (3600, "hourly for per second"),
        ):
            if _share_in_range(values / factor, variable) == 1:
                return f"rates scaled {factor} times too far ({cause})"
    if units == "percent" and 0 < values.max() <= 1 and values.min() >= 0:
        return "fractions ('1')"
    if share_inside > 0.9:
        return ""
    for other in CONFUSED_UNITS.get(units, ()):
        try:
            slope, offset = linear_conversion(other, units)
        except DataError:
            continue
        if _share_in_range(values * slope + offset, variable) > 0.999:
            return f"'{other}'"
    return ""


def _describe_excess_rain(values: NDArray[np.float32], variable: Variable) -> str:
    """Describe precipitation that is possible on one day but far too much on average.

    Args:
      values: (day, ...) sample.
      variable: units and kind of the variable.

    Returns:
      The likely cause; empty for plausible precipitation and for other variables.
    """
    if variable.units != DAILY_RATE or variable.kind != "forcing" or values.ndim < 2:
        return ""
    finite = values[np.isfinite(values)]
    mean = float(finite.mean())
    heavy = float(np.percentile(finite, 99)) if len(values) >= MIN_DAYS_FOR_PERCENTILE else 0.0
    if len(values) < MIN_DAYS_FOR_MEAN or (mean <= MAX_MEAN_RAIN and heavy <= MAX_HEAVY_RAIN):
        return ""
    amounts = f"{365.25 * mean:,.0f} mm a year"
    amounts += f", 1 % of the values above {heavy:.0f} mm" if heavy else ""
    cause = "hourly rates or sums taken for daily, or scaled twice"
    return f"rates scaled 24 times too far ({cause}): {amounts}"


def _format_percent(share: float) -> str:
    return f"{100 * share:.2g} %"


MIN_LATITUDE_RANGE = 8.0  # degrees of latitude needed to tell north from south


def check_orientation(
    name: str, values: NDArray[np.float32], lat: NDArray[np.float64], days: NDArray[np.datetime64]
) -> list[Finding]:
    """Find out whether the rows of an air temperature field are in the opposite order of `lat`.

    The values are correlated with a simple climate, -sin²(latitude - 12° · season), where season
    is a cosine with its maximum in mid-July: once with the latitudes as given, once reversed.

    Args:
      name: name of the variable in this project.
      values: (day, row) means along rows.
      lat: (row,) latitudes in degrees.
      days: (day,) dates.
    """
    if len(lat) < 4 or np.ptp(lat) < MIN_LATITUDE_RANGE:
        return []
    season = np.cos(2 * np.pi * (days.astype("datetime64[D]").astype(int) % 365.25 - 200) / 365.25)
    correlations = {}
    for order, rows in (("given", lat), ("reversed", lat.min() + lat.max() - lat)):
        expected = -(np.sin(np.radians(rows[None] - 12 * season[:, None])) ** 2)
        correlations[order] = np.mean(
            [_correlation(*pair) for pair in zip(values, expected, strict=True)]
        )
    as_given, as_reversed = correlations["given"], correlations["reversed"]
    if not (as_reversed > 0.6 and as_reversed - as_given > 0.3):
        return []
    message = (
        f"{name}: warms towards the pole (correlation with a climate of its latitudes: "
        f"{as_given:.2f} as given, {as_reversed:.2f} upside down)"
    )
    hint = "the rows and lat are in opposite order; reverse one of them in the file or the driver"
    return [Finding("latitude", message, hint)]


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return Pearson's correlation of the finite pairs; 0 for fewer than 4 or constant values."""
    good = np.isfinite(a) & np.isfinite(b)
    if good.sum() < 4 or np.ptp(a[good]) == 0:
        return 0.0
    return float(np.corrcoef(a[good], b[good])[0, 1])


FREQUENT_SHARE = 0.05  # share of the sample from which a fill value is reported


def check_undeclared_fills(driver: Any) -> list[Finding]:
    """Find variables of a store whose undeclared fill value is frequent in a sample.

    Args:
      driver: driver of the entry. Only drivers of Zarr stores have `undeclared_fills`; other
        file formats have no such value.

    Raises:
      SoilweaveError: If the driver cannot read the store.
    """
    findings = []
    has_fills = hasattr(driver, "undeclared_fills")
    for name, (fill, share) in driver.undeclared_fills().items() if has_fills else ():
        if share >= FREQUENT_SHARE:
            message = (
                f"{name}: {share:.0%} of the sample are {fill:g}, the fill value of its array, "
                "which neither the store nor the entry declares as missing: read as data"
            )
            hint = (
                f"add `fill: {fill:g}` to the mapping if these values are missing, `fill: []` if "
                "they are data"
            )
            findings.append(Finding("undeclared fill", message, hint))
    return findings
