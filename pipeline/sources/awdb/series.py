"""What AWDB answers for a batch of sites, brought to daily arrays in our names and units.

An answer is a list of sites, each with `stationTriplet` and `data`: per sensor a `stationElement`
(elementCode, heightDepth in inches, ordinal, durationName, storedUnitCode) and `values`
(date, value, qcFlag, qaFlag). Dates are in the clock of the site, without daylight saving.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import cadence, http_errors
from pipeline.sources.awdb.days import daily, humidity_in_standard_atmosphere
from pipeline.sources.awdb.elements import CODES, Arrays, Element, factors

if TYPE_CHECKING:
    from numpy.typing import NDArray

MISSING = -99.9


@dataclass
class Answers:
    """The arrays, (day, site), that the answers of one batch fill.

    Args:
      triplets: the sites.
      elements: the variables.
      first: the first day.
      days: how many.
      flagged: code of the element whose flags become provider_flag.
      good: letters of the flags that are kept.
      hours: fewest hours that the values of a day cover.
      offsets: hours to add to UTC for the clock of each site; zeros for days of that clock.
    """

    triplets: tuple[str, ...]
    elements: tuple[Element, ...]
    first: np.datetime64
    days: int
    flagged: str
    good: tuple[str, ...]
    hours: int
    offsets: tuple[float, ...]
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with nothing measured."""
        shape = (self.days, len(self.triplets))
        self.arrays: Arrays = {e.name: np.full(shape, np.nan) for e in self.elements}
        self.arrays["provider_flag"] = np.zeros(shape, "int8")

    def take(self, url: str, content: bytes) -> None:
        """Take one answer in.

        Raises:
          DataError: it is no JSON of the service's form; or listing what is wrong in it.
        """
        try:
            for site in json.loads(content):
                if site["stationTriplet"] in self.triplets:
                    column = self.triplets.index(site["stationTriplet"])
                    self._site(column, sorted(site["data"], key=_ordinal))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            found = f"no answer of the service's form ({type(error).__name__}: {error})"
            raise DataError(http_errors.shown(url), found, remedy="try again later") from error
        if self.problems:
            remedy = "correct the units in the entry's mapping, or leave the site out"
            raise DataError(http_errors.shown(url), *self.problems, remedy=remedy)

    def _site(self, column: int, sensors: list[dict[str, Any]]) -> None:
        """The sensors of a site, by ordinal: the first of an element and depth is the one."""
        seen = set()
        for sensor in sensors:
            about = sensor["stationElement"]
            code = str(about["elementCode"])
            full = f"{code}:{about['heightDepth']}" if about.get("heightDepth") else code
            for element in self.elements:
                fits = element.code in (code, full) and about.get(
                    "durationName", element.duration
                ) == (element.duration)
                if fits and element.name not in seen and sensor["values"]:
                    seen.add(element.name)
                    self._sensor(column, element, about.get("storedUnitCode"), sensor["values"])

    def _sensor(
        self, column: int, element: Element, units: str | None, values: list[dict[str, Any]]
    ) -> None:
        place = f"{self.triplets[column]} {element.code}"
        if units not in element.units:
            accepted = "' or '".join(element.units)
            self.problems.append(f"{place}: units '{units}', expected '{accepted}'")
            return
        stamps = np.array([v["date"] for v in values], "datetime64[m]")
        unique, counts = np.unique(stamps, return_counts=True)
        if (counts > 1).any():
            self.problems.append(f"{place}: {_text(unique[counts > 1][0])} is there twice")
            return
        raw = np.array([np.nan if v.get("value") is None else v["value"] for v in values], float)
        raw[np.isin(raw, (MISSING, *element.fills))] = np.nan
        if units != element.units[0]:
            slope, offset = factors(units, element.units[0])
            raw = raw * slope + offset
        if element.valid:
            raw[(raw < element.valid[0]) | (raw > element.valid[1])] = np.nan
        codes = np.array([CODES.get(v.get("qcFlag") or "", CODES["?"]) for v in values])
        utc = stamps - np.timedelta64(round(self.offsets[column] * 60), "m")
        day = (utc.astype("datetime64[D]") - self.first).astype(int)
        inside = (day >= 0) & (day < self.days) & np.isfinite(raw)
        hourly = element.duration == "HOURLY"
        time = _hours(stamps) if hourly else np.ones(len(stamps))
        good = np.isin(codes, [CODES[letter] for letter in self.good])
        least = self.hours if hourly else 1
        readings = day[inside], raw[inside], codes[inside], good[inside], time[inside]
        mean, flag = daily(*readings, least, self.days)
        is_flagged = element.code == self.flagged
        if not is_flagged:
            mean[~np.isin(flag, [CODES[letter] for letter in self.good])] = np.nan
        else:
            self.arrays["provider_flag"][:, column] = flag
        self.arrays[element.name][:, column] = mean

    def ours(self, elevation: NDArray[np.float64]) -> Arrays:
        """What was taken, float32, in our units.

        Args:
          elevation: (site,) m.
        """
        made: Arrays = {"provider_flag": self.arrays["provider_flag"]}
        for element in sorted(self.elements, key=lambda e: e.temperature is not None):
            values = self.arrays[element.name]
            if element.temperature is not None:
                temperature = made[element.temperature].astype(float)
                values = humidity_in_standard_atmosphere(values, temperature, elevation)
            else:
                slope, offset = factors(element.units[0], element.to, element.times)
                values = values * slope + offset
            made[element.name] = values.astype("float32")
        return made


def _hours(stamps: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """(value,) the hours that each stands for, in whatever order."""
    order = np.argsort(stamps)
    made = np.empty(len(stamps))
    made[order] = cadence.hours(stamps[order])
    return made


def _ordinal(sensor: dict[str, Any]) -> int:
    return int(sensor["stationElement"].get("ordinal") or 1)


def _text(stamp: np.datetime64) -> str:
    return str(stamp).replace("T", " ").removesuffix(" 00:00")
