"""Elements of AWDB: their codes, units and quality flags, and how a mapping describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.sources.missing import fills_of
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[Any]"]
# Quality flags of the service, the most reliable first; the code of a flag is its position here.
FLAGS = {
    "": "unflagged",
    "V": "valid",
    "N": "no_profile",
    "E": "edit",
    "B": "back_estimate",
    "K": "estimate",
    "X": "external_estimate",
    "S": "suspect",
    "?": "unknown",
}
UNCHECKED = ("", "N")  # not checked by the service: no flag, or no profile to check against
CODES = {letter: code for code, letter in enumerate(FLAGS)}
UNITS = {"pct": "percent", "in": "inch"}  # the service's spelling -> pint's spelling
PER_DAY = {"DAILY": 1, "HOURLY": 24}


@dataclass(frozen=True)
class Element:
    """One variable of a mapping: the element it is read from, and how it is converted.

    Attributes:
      name: Name of the variable in soilweave.
      code: Element code of the service, followed by `:depth` in inches if it has a depth.
      units: Units that the service may state. Values are converted to the first of them.
      to: Soilweave's units.
      times: Factor to soilweave's units where a unit conversion cannot give it, as for inches of
        rain per day; None to convert by the units.
      duration: DAILY, or HOURLY for an element whose readings are averaged over the day.
      valid: Smallest and largest accepted value, in the first of `units`; None for any value.
      temperature: Name in soilweave of the air temperature (K). It is set for relative humidity
        (percent), which becomes specific humidity with it and the elevation of the site.
      fills: Values of the service that stand for missing values.
    """

    name: str
    code: str
    units: tuple[str, ...]
    to: str
    times: float | None = None
    duration: str = "DAILY"
    valid: tuple[float, float] | None = None
    temperature: str | None = None
    fills: tuple[float, ...] = ()


def element(name: str, spec: dict[str, Any]) -> Element:
    """Return the element that a mapping describes.

    Args:
      name: Name of the variable in soilweave.
      spec: Its description in the mapping, as in `AwdbSource`.

    Raises:
      DataError: If its units cannot be converted to soilweave's.
    """
    units, to, times = str(spec["units"]), spec.get("to", spec["units"]), spec.get("times")
    if "temperature" not in spec:
        factors(units, to, times)  # raises now if the units cannot be converted
    return Element(
        name,
        str(spec["from"]),
        (units, *spec.get("also", ())),
        to,
        times,
        spec.get("duration", "DAILY"),
        tuple(spec["valid"]) if "valid" in spec else None,
        spec.get("temperature"),
        fills_of({name: spec}).get(str(spec["from"]), ()),
    )


def factors(units: str, to: str, times: float | None = None) -> tuple[float, float]:
    """Return the slope and offset that convert the service's units to soilweave's."""
    return (times, 0.0) if times is not None else conversion(UNITS.get(units, units), to)
