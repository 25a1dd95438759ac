"""USDA NRCS's Air and Water Database: SCAN and SNOTEL through its REST service, in batches.

A daily value of an instant (soil moisture, soil temperature) is, with periodRef=END, what was
read at the midnight that ends the day of its date; one of a day (precipitation, mean temperature)
is that day's. HOURLY elements are asked with periodRef=START, so that a stamp is the instant of
the reading; their mean over the readings from 0:00 to 23:00 is the day's.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import remote
from pipeline.sources.awdb_series import CODES, FLAGS, PER_DAY, Answers, Arrays, Element, factors
from pipeline.sources.awdb_sites import Site, chosen, listed
from pipeline.sources.form import Mapping, Source

if TYPE_CHECKING:
    import xarray as xr

BATCH = 60  # sites of one request
VALUES = 400_000  # of one request; the service refuses more than 500,000
INCH = 0.0254


class AwdbSource(Source):
    """Intake driver for networks of AWDB; gives points.

    The list of sites is fetched by `to_dask()`, values when they are computed, and kept in memory
    by the process, so that variables that come together are not asked for one by one.

    Args:
      urlpath: the service, `.../awdbRestApi/services/v1`.
      network: code of a network, SCAN or SNTL.
      mapping: {our name: {"from": element, or element:depth in inches; "units": as the service
        states them; "to": our units; and where needed "also": further units accepted, "times":
        factor to our units, "duration": HOURLY, "valid": [smallest, largest] in `units`,
        "temperature": our name of the air temperature that makes humidity specific}}.
      flag: {"from": the element whose flags are given, "good": letters that are kept}; values of
        other elements whose flag is not good are missing.
      day: `local` for days of the site's clock, `utc` where all elements are HOURLY.
      min_hours: fewest hours that make a day's mean.
      sites: ids wanted, in this order; all of the network by default.
    """

    name = "soilweave_awdb"

    def __init__(
        self,
        urlpath: str,
        network: str,
        mapping: Mapping | list[Mapping],
        flag: dict[str, Any],
        day: str = "local",
        min_hours: int = 12,
        sites: list[Any] | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is asked yet.

        Raises:
          ValueError: the arguments do not fit together.
        """
        super().__init__(urlpath, mapping, None, storage_options, metadata)
        self.network, self.flag, self.day, self.min_hours = network, flag, day, min_hours
        self.wanted = [str(site) for site in sites or []]
        self.elements = tuple(_element(name, spec) for name, spec in self.mapping.items())
        odd = [e.name for e in self.elements if e.duration not in PER_DAY]
        if day == "utc":
            odd += [e.name for e in self.elements if e.duration != "HOURLY"]
        unknown = sorted(set(flag["good"]) - set(FLAGS))
        if odd or unknown or day not in ("utc", "local"):
            msg = f"day '{day}' (utc or local; utc needs HOURLY), {odd}, unknown flags {unknown}"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """The sites, and their values lazily.

        Raises:
          DataError: the service refuses, or has no such sites.
        """
        import dask.array
        import xarray as xr
        from dask.delayed import delayed

        da: Any = dask.array

        sites, days, batches = self._plan()
        columns: dict[str, list[Any]] = {}
        for batch in batches:
            parts = [(delayed(fetched)(part), part.shape) for part in batch]
            for name in [*self.mapping, "provider_flag"]:
                dtype = "int8" if name == "provider_flag" else "float32"
                blocks = [da.from_delayed(arrays[name], shape, dtype) for arrays, shape in parts]
                columns.setdefault(name, []).append(da.concatenate(blocks))
        made = {
            name: (("time", "place"), da.concatenate(found, axis=1), self._attrs(name))
            for name, found in columns.items()
        }
        clock = "UTC" if self.day == "utc" else "local standard time"
        dataset = xr.Dataset(made, attrs={"time_convention": f"{clock} day"})
        return dataset.assign_coords(time=days, **self._coordinates(sites))

    read = to_dask

    def digest(self) -> str:
        """The sha256 of the sites and of all values; fetches what is not in memory yet."""
        sites, days, batches = self._plan()
        content = hashlib.sha256(repr((sites, days[0], days[-1])).encode())
        for part in (part for batch in batches for part in batch):
            for name, values in sorted(fetched(part).items()):
                content.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return content.hexdigest()

    def _attrs(self, name: str) -> dict[str, Any]:
        if name != "provider_flag":
            spec = self.mapping[name]
            return {"units": spec.get("to", spec["units"]), "source": spec["from"]}
        return {
            "good": [CODES[letter] for letter in self.flag["good"]],
            "flag_values": list(CODES.values()),
            "flag_meanings": " ".join(FLAGS.values()),
        }

    def _coordinates(self, sites: list[Site]) -> dict[str, Any]:
        _, colon, inches = str(self.flag["from"]).partition(":")
        depth = abs(float(inches)) * INCH if colon else np.nan
        made = {
            "place": [site.id for site in sites],
            "lat": [site.lat for site in sites],
            "lon": [site.lon for site in sites],
            "network": [self.network] * len(sites),
            "elevation": [site.elevation for site in sites],
            "depth_from": [depth] * len(sites),
            "depth_to": [depth] * len(sites),
            "utc_offset_hours": [site.offset for site in sites],
        }
        return {name: ("place", values) for name, values in made.items()}

    def _plan(self) -> tuple[list[Site], np.ndarray[Any, Any], list[list[Part]]]:
        """Sites, days, and per batch of sites the parts of the period."""
        first, last = self._period()
        days = np.arange(first, last + np.timedelta64(1, "D"))
        code, period = str(self.flag["from"]), None if self.wanted else (first, last)
        sites = listed(self.urlpath, self.network, code, period, self.storage_options)
        sites = chosen(sites, self.wanted, self.region)
        if not sites:
            found = f"no site of {self.network} in the region with {code} within {first}..{last}"
            raise DataError(self.urlpath, found, remedy="widen the region or the period")
        per_day = sum(PER_DAY[e.duration] for e in self.elements)
        step = max(1, VALUES // (BATCH * per_day) - 2)
        batches = []
        for start in range(0, len(sites), BATCH):
            some = tuple(sites[start : start + BATCH])
            ranges = [(days[i], min(step, len(days) - i)) for i in range(0, len(days), step)]
            batches.append([self._part(some, begin, n) for begin, n in ranges])
        return sites, days.astype("datetime64[ns]"), batches

    def _part(self, sites: tuple[Site, ...], first: np.datetime64, days: int) -> Part:
        flag = (str(self.flag["from"]), tuple(self.flag["good"]))
        options = json.dumps(self.storage_options, sort_keys=True, default=str)
        utc = self.day == "utc"
        return Part(
            self.urlpath, sites, self.elements, first, days, *flag, self.min_hours, utc, options
        )

    def _period(self) -> tuple[np.datetime64, np.datetime64]:
        """First and last day wanted, of those the entry has."""
        begin, _, end = str((self.metadata or {}).get("period", "")).partition("..")
        today = datetime.now(UTC).date()
        known = [_day(begin, date(1980, 1, 1)), min(_day(end, today), today)]
        first, last = self.period or known
        if begin:
            first, last = max(first, known[0]), min(last, known[1])
        if first > last:
            asked = f"{self.period[0]}..{self.period[1]}" if self.period else "none"
            found = f"has {begin}..{end}, and {asked} is asked for"
            raise DataError(self.urlpath, found, remedy="change the period, or name another entry")
        return np.datetime64(first, "D"), np.datetime64(last, "D")


@dataclass(frozen=True)
class Part:
    """What is asked together: a batch of sites over a part of the period."""

    service: str
    sites: tuple[Site, ...]
    elements: tuple[Element, ...]
    first: np.datetime64
    days: int
    flagged: str
    good: tuple[str, ...]
    hours: int
    utc: bool
    options: str

    @property
    def shape(self) -> tuple[int, int]:
        """Days and sites."""
        return self.days, len(self.sites)

    def urls(self) -> list[str]:
        """The requests, one for each duration."""
        triplets = ",".join(site.triplet for site in self.sites)
        margin = np.timedelta64(int(self.utc), "D")
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
def fetched(part: Part) -> Arrays:
    """(day, site) arrays of a part, under our names and in our units, and provider_flag.

    Raises:
      DataError: the service refuses, or answers with other units or in another form.
    """
    triplets = tuple(site.triplet for site in part.sites)
    offsets = tuple(site.offset if part.utc else 0.0 for site in part.sites)
    answers = Answers(
        triplets, part.elements, part.first, part.days, part.flagged, part.good, part.hours, offsets
    )
    for url in part.urls():
        try:
            answers.take(url, remote.read(url, json.loads(part.options)))
        except DataError as error:
            where = f"sites {triplets[0]} to {triplets[-1]}, from {part.first}"
            problems = [f"{where}: {problem}" for problem in error.problems]
            raise DataError(error.place, *problems, remedy=error.remedy) from error
    return answers.ours(np.array([site.elevation for site in part.sites]))


def _element(name: str, spec: dict[str, Any]) -> Element:
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
    )


def _day(text: str, otherwise: date) -> date:
    return date.fromisoformat(text) if text else otherwise
