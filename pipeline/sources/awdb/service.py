"""Elements of AWDB: their codes, units and quality flags, and how a mapping describes them.

Compute daily means from AWDB's readings, and specific from relative humidity.

Convert AWDB's responses for a batch of sites to daily arrays in soilweave's names and units.

A response is a list of sites, each with `stationTriplet` and `data`. `data` has for each sensor a
`stationElement` (elementCode, heightDepth in inches, ordinal, durationName, storedUnitCode) and
`values` (date, value, qcFlag, qaFlag). Dates are in the local standard time of the site.

Request the values of a batch of AWDB sites over a range of days.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from model.humidity import specific_humidity
from pipeline.errors import DataError
from pipeline.sources.shared import access, http_errors, time_steps
from pipeline.sources.shared.missing_values import declared_fills
from pipeline.sources.shared.units import linear_conversion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.sources.awdb import Site


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
FLAG_CODES = {letter: code for code, letter in enumerate(FLAGS)}
PINT_UNITS = {"pct": "percent", "in": "inch"}  # the service's spelling -> pint's spelling
VALUES_PER_DAY = {"DAILY": 1, "HOURLY": 24}


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


def parse_element(name: str, spec: dict[str, Any]) -> Element:
    """Return the element that a mapping describes.

    Args:
      name: Name of the variable in soilweave.
      spec: Its description in the mapping, as in `AwdbSource`.

    Raises:
      DataError: If its units cannot be converted to soilweave's.
    """
    units, to, times = str(spec["units"]), spec.get("to", spec["units"]), spec.get("times")
    if "temperature" not in spec:
        unit_factors(units, to, times)  # raises now if the units cannot be converted
    return Element(
        name,
        str(spec["from"]),
        (units, *spec.get("also", ())),
        to,
        times,
        spec.get("duration", "DAILY"),
        tuple(spec["valid"]) if "valid" in spec else None,
        spec.get("temperature"),
        declared_fills({name: spec}).get(str(spec["from"]), ()),
    )


def unit_factors(units: str, to: str, times: float | None = None) -> tuple[float, float]:
    """Return the slope and offset that convert the service's units to soilweave's."""
    return (
        (times, 0.0) if times is not None else linear_conversion(PINT_UNITS.get(units, units), to)
    )


def daily_means(
    day: NDArray[np.int64],
    values: NDArray[np.float64],
    codes: NDArray[np.int64],
    good: NDArray[np.bool_],
    duration: NDArray[np.float64],
    min_duration: int,
    days: int,
) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Return the mean of each day's values, weighted by duration, and its least reliable flag.

    Where the good values of a day cover at least `min_duration`, only they are averaged.
    Otherwise all values of the day are, and the flag shows that some of them are not good.

    Args:
      day: (value,) index of the day of each value, from 0.
      values: (value,) the readings.
      codes: (value,) flag codes; a higher code is a less reliable flag.
      good: (value,) whether the flag of the value is good.
      duration: (value,) time that each value stands for: hours, or 1 for a daily value.
      min_duration: Smallest sum of `duration` in a day, in the same unit.
      days: Number of days.

    Returns:
      (days,) the means, NaN where the values of a day cover less than `min_duration`, and (days,)
      the flag codes, 0 where the mean is NaN.
    """
    mean, flag = np.full(days, np.nan), np.zeros(days, "int8")
    for selected in (np.ones_like(good), good):
        covered = np.bincount(day[selected], duration[selected], minlength=days)
        total = np.bincount(day[selected], values[selected] * duration[selected], minlength=days)
        worst = np.zeros(days, "int8")
        np.maximum.at(worst, day[selected], codes[selected].astype("int8"))
        enough = covered >= min_duration - time_steps.TIME_TOLERANCE
        mean[enough], flag[enough] = total[enough] / covered[enough], worst[enough]
    return mean, flag


def humidity_in_standard_atmosphere(
    relative: NDArray[np.float64],
    temperature: NDArray[np.float64],
    elevation: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return specific humidity in kg kg-1, at the pressure of the standard atmosphere.

    The saturation vapour pressure is equation 10 of Bolton (1980, doi:10.1175/1520-0493(1980)108
    <1046:TCOEPT>2.0.CO;2).

    Args:
      relative: Relative humidity, percent.
      temperature: Air temperature, K.
      elevation: Elevation above sea level, m.
    """
    degrees = temperature - 273.15
    vapour = relative / 100 * 611.2 * np.exp(17.67 * degrees / (degrees + 243.5))
    pressure = 101325.0 * (1 - 2.25577e-5 * elevation) ** 5.25588
    return np.asarray(specific_humidity(vapour, pressure))


FILL_VALUE = -99.9  # the service's fill value


@dataclass
class BatchValues:
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
            raise DataError(
                http_errors.format_url(url), problem, remedy="try again later"
            ) from error
        if self.problems:
            hint = "correct the units in the entry's mapping, or leave the site out"
            raise DataError(http_errors.format_url(url), *self.problems, remedy=hint)

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
            self.problems.append(
                f"{place}: the time {_format_stamp(unique[counts > 1][0])} occurs twice"
            )
            return
        raw = np.array([np.nan if v.get("value") is None else v["value"] for v in values], float)
        raw[np.isin(raw, (FILL_VALUE, *element.fills))] = np.nan
        if units != element.units[0]:
            slope, offset = unit_factors(units, element.units[0])
            raw = raw * slope + offset
        if element.valid:
            raw[(raw < element.valid[0]) | (raw > element.valid[1])] = np.nan
        codes = np.array([FLAG_CODES.get(v.get("qcFlag") or "", FLAG_CODES["?"]) for v in values])
        utc = stamps - np.timedelta64(round(self.offsets[column] * 60), "m")
        day = (utc.astype("datetime64[D]") - self.first).astype(int)
        inside = (day >= 0) & (day < self.days) & np.isfinite(raw)
        hourly = element.duration == "HOURLY"
        good_codes = [FLAG_CODES[letter] for letter in self.good_flags]
        mean, flag = daily_means(
            day[inside],
            raw[inside],
            codes[inside],
            np.isin(codes, good_codes)[inside],
            (_hours_per_value(stamps) if hourly else np.ones(len(stamps)))[inside],
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
                slope, offset = unit_factors(element.units[0], element.to, element.times)
                values = values * slope + offset
            converted[element.name] = values.astype("float32")
        return converted


def _hours_per_value(stamps: NDArray[np.datetime64]) -> NDArray[np.float64]:
    """Return (value,) the hours that each value stands for; stamps need not be sorted."""
    order = np.argsort(stamps)
    hours = np.empty(len(stamps))
    hours[order] = time_steps.value_hours(stamps[order])
    return hours


def _ordinal(sensor: dict[str, Any]) -> int:
    """Return the number of a sensor among those of the same element and depth, from 1."""
    return int(sensor["stationElement"].get("ordinal") or 1)


def _format_stamp(stamp: np.datetime64) -> str:
    """Return a time stamp as text, a date alone at midnight."""
    return str(stamp).replace("T", " ").removesuffix(" 00:00")


@dataclass(frozen=True)
class RequestBatch:
    """A batch of sites and a range of days whose values are requested together.

    Attributes:
      service: URL of the service.
      sites: The sites.
      elements: The variables.
      first: The first day.
      days: Number of days.
      flag_code: Code of the element whose flags become `provider_flag`.
      good_flags: Letters of the flags to keep.
      min_hours: Fewest hours that the readings of a daily mean must cover.
      utc: Whether days are UTC days instead of days of each site's clock.
      options: Storage options as JSON, so that instances can be hashed.
    """

    service: str
    sites: tuple[Site, ...]
    elements: tuple[Element, ...]
    first: np.datetime64
    days: int
    flag_code: str
    good_flags: tuple[str, ...]
    min_hours: int
    utc: bool
    options: str

    @property
    def shape(self) -> tuple[int, int]:
        """Number of days and number of sites."""
        return self.days, len(self.sites)

    def urls(self) -> list[str]:
        """Return the URLs of the requests, one per duration (DAILY, HOURLY)."""
        triplets = ",".join(site.triplet for site in self.sites)
        margin = np.timedelta64(1 if self.utc else 0, "D")  # UTC days overlap two local days
        begin, end = self.first - margin, self.first + np.timedelta64(self.days - 1, "D") + margin
        urls = []
        for duration in sorted({element.duration for element in self.elements}):
            codes = dict.fromkeys(e.code for e in self.elements if e.duration == duration)
            query = f"stationTriplets={triplets}&elements={','.join(codes)}&duration={duration}"
            query += f"&beginDate={begin}&endDate={end}"
            query += f"&periodRef={'END' if duration == 'DAILY' else 'START'}"
            urls.append(f"{self.service}/data?{query}&returnFlags=true&returnSuspectData=true")
        return urls


@functools.lru_cache(maxsize=512)
def fetch_batch(request: RequestBatch) -> Arrays:
    """Request the values of a batch.

    Returns:
      For each variable its (day, site) array in soilweave's units, and `provider_flag`.

    Raises:
      DataError: If the service refuses the request, or its response has other units or another
        form than expected.
    """
    triplets = tuple(site.triplet for site in request.sites)
    offsets = tuple(site.offset if request.utc else 0.0 for site in request.sites)
    answers = BatchValues(
        triplets=triplets,
        elements=request.elements,
        first=request.first,
        days=request.days,
        flag_code=request.flag_code,
        good_flags=request.good_flags,
        min_hours=request.min_hours,
        offsets=offsets,
    )
    for url in request.urls():
        try:
            answers.add_response(url, access.read_file(url, json.loads(request.options)))
        except DataError as error:
            batch = f"sites {triplets[0]} to {triplets[-1]}, from {request.first}"
            problems = [f"{batch}: {problem}" for problem in error.problems]
            raise DataError(error.place, *problems, remedy=error.remedy) from error
    return answers.to_our_units(np.array([site.elevation for site in request.sites]))
