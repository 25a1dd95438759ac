"""Convert AWDB's responses for a batch of sites to daily arrays in soilweave's names and units.

A response is a list of sites, each with `stationTriplet` and `data`. `data` has for each sensor a
`stationElement` (elementCode, heightDepth in inches, ordinal, durationName, storedUnitCode) and
`values` (date, value, qcFlag, qaFlag). Dates are in the local standard time of the site.
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

MISSING = -99.9  # the service's fill value


@dataclass
class Answers:
    """The (day, site) arrays of a batch of sites, filled from the responses of the service.

    Args:
      triplets: Triplets (`id:state:network`) of the sites.
      elements: The variables.
      first: The first day.
      days: Number of days.
      flag_code: Code of the element whose flags become `provider_flag`.
      good_flags: Letters of the flags to keep.
      min_hours: Fewest hours that the readings of a daily mean must cover, for HOURLY elements.
      offsets: For each site the hours by which its clock is ahead of UTC, to obtain UTC days;
        zeros to obtain days of the site's clock.
      problems: Messages about the responses, collected by `add_response`.
    """

    triplets: tuple[str, ...]
    elements: tuple[Element, ...]
    first: np.datetime64
    days: int
    flag_code: str
    good_flags: tuple[str, ...]
    min_hours: int
    offsets: tuple[float, ...]
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Create arrays without values."""
        shape = (self.days, len(self.triplets))
        self.arrays: Arrays = {e.name: np.full(shape, np.nan) for e in self.elements}
        self.arrays["provider_flag"] = np.zeros(shape, "int8")

    def add_response(self, url: str, content: bytes) -> None:
        """Fill the arrays with the values of one response.

        Args:
          url: URL of the request, for errors.
          content: The response, JSON.

        Raises:
          DataError: If the response is not JSON of the expected form, or has units or times that
            are not accepted; the error lists all of them.
        """
        try:
            for site in json.loads(content):
                if site["stationTriplet"] in self.triplets:
                    column = self.triplets.index(site["stationTriplet"])
                    self._site(column, sorted(site["data"], key=_ordinal))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = (
                "the response does not have the form that AWDB documents "
                f"({type(error).__name__}: {error})"
            )
            raise DataError(http_errors.shown(url), problem, remedy="try again later") from error
        if self.problems:
            hint = "correct the units in the entry's mapping, or leave the site out"
            raise DataError(http_errors.shown(url), *self.problems, remedy=hint)

    def _site(self, column: int, sensors: list[dict[str, Any]]) -> None:
        """Fill the values of one site from its sensors, which are sorted by ordinal.

        Where several sensors measure the same element and depth, the first one is used.
        """
        filled = set()
        for sensor in sensors:
            about = sensor["stationElement"]
            code = str(about["elementCode"])
            full = f"{code}:{about['heightDepth']}" if about.get("heightDepth") else code
            for element in self.elements:
                matches = (
                    element.code in (code, full)
                    and about.get("durationName", element.duration) == element.duration
                )
                if matches and element.name not in filled and sensor["values"]:
                    filled.add(element.name)
                    self._sensor(column, element, about.get("storedUnitCode"), sensor["values"])

    def _sensor(
        self, column: int, element: Element, units: str | None, values: list[dict[str, Any]]
    ) -> None:
        """Fill one column of a variable with the daily values of a sensor."""
        place = f"{self.triplets[column]} {element.code}"
        if units not in element.units:
            accepted = "' or '".join(element.units)
            self.problems.append(f"{place}: units '{units}', expected '{accepted}'")
            return
        stamps = np.array([v["date"] for v in values], "datetime64[m]")
        unique, counts = np.unique(stamps, return_counts=True)
        if (counts > 1).any():
            self.problems.append(f"{place}: the time {_text(unique[counts > 1][0])} occurs twice")
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
        good_codes = [CODES[letter] for letter in self.good_flags]
        mean, flag = daily(
            day[inside],
            raw[inside],
            codes[inside],
            np.isin(codes, good_codes)[inside],
            (_hours(stamps) if hourly else np.ones(len(stamps)))[inside],
            self.min_hours if hourly else 1,
            self.days,
        )
        if element.code == self.flag_code:
            self.arrays["provider_flag"][:, column] = flag
        else:
            mean[~np.isin(flag, good_codes)] = np.nan
        self.arrays[element.name][:, column] = mean

    def to_our_units(self, elevation: NDArray[np.float64]) -> Arrays:
        """Return the arrays as float32 in soilweave's units, and `provider_flag`.

        Args:
          elevation: (site,) elevation above sea level, m.
        """
        # Elements that need a temperature come last, when it has been converted.
        converted: Arrays = {"provider_flag": self.arrays["provider_flag"]}
        for element in sorted(self.elements, key=lambda e: e.temperature is not None):
            values = self.arrays[element.name]
            if element.temperature is not None:
                temperature = converted[element.temperature].astype(float)
                values = humidity_in_standard_atmosphere(values, temperature, elevation)
            else:
                slope, offset = factors(element.units[0], element.to, element.times)
                values = values * slope + offset
            converted[element.name] = values.astype("float32")
        return converted


def _hours(stamps: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Return (value,) the hours that each value stands for; stamps need not be sorted."""
    order = np.argsort(stamps)
    hours = np.empty(len(stamps))
    hours[order] = cadence.hours(stamps[order])
    return hours


def _ordinal(sensor: dict[str, Any]) -> int:
    """Return the number of a sensor among those of the same element and depth, from 1."""
    return int(sensor["stationElement"].get("ordinal") or 1)


def _text(stamp: np.datetime64) -> str:
    """Return a time stamp as text, a date alone at midnight."""
    return str(stamp).replace("T", " ").removesuffix(" 00:00")
