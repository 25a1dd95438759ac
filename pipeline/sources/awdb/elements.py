"""Elements of AWDB: the service's codes, units and flags, and what a mapping says of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.sources.missing import fills_of
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[Any]"]
# Quality control flags of the service, the surer ones first; a code is a place in this list.
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
UNCHECKED = ("", "N")  # the service applied no check: no flag, or no profile to check against
CODES = {letter: code for code, letter in enumerate(FLAGS)}
UNITS = {"pct": "percent", "in": "inch"}  # the service's spelling, and pint's
PER_DAY = {"DAILY": 1, "HOURLY": 24}


@dataclass(frozen=True)
class Element:
    """One variable: its element, units, and how a day's value is made.

    Attributes:
      name: ours.
      code: element code of the service, with `:depth` in inches where it has one.
      units: accepted of the service; the first is the common one.
      to: our units.
      times: factor to our units, where they are no matter of spelling (inches of rain a day).
      duration: DAILY, or HOURLY, whose mean over the day is taken.
      valid: smallest and largest value taken, in the first of `units`.
      fills: values that are missing, as the service gives them.
      temperature: our name of the air temperature (K) that, with the site's elevation, makes
        specific humidity of a relative one (percent).
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
    """The element that the mapping says of one of our variables.

    Raises:
      DataError: its units cannot be turned into ours.
    """
    units, to, times = str(spec["units"]), spec.get("to", spec["units"]), spec.get("times")
    if "temperature" not in spec:
        factors(units, to, times)  # says at once where units do not fit
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
    """Slope and offset from the service's units to ours."""
    return (times, 0.0) if times is not None else conversion(UNITS.get(units, units), to)
