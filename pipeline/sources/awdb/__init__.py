"""Intake driver for the Air and Water Database (AWDB) of the USDA NRCS: SCAN and SNOTEL sites.

The driver lists the sites of a network and requests their values from AWDB's REST service, many
sites at a time.

DAILY elements are requested with periodRef=END. The daily value of an instantaneous element (soil
moisture, soil temperature) is then the reading at the midnight that ends the day, and the value of
an element that covers a day (precipitation, mean temperature) belongs to that day. HOURLY elements
are requested with periodRef=START, so a time stamp is the instant of the reading. The value of a
day is the mean of its readings from 0:00 to 23:00.

List the sites of a network of AWDB and select from them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.awdb.service import (
    FLAG_CODES,
    FLAGS,
    UNCHECKED,
    VALUES_PER_DAY,
    RequestBatch,
    fetch_batch,
    parse_element,
)
from pipeline.sources.shared import access, http_errors
from pipeline.sources.shared.dates import find_entry_period
from pipeline.sources.shared.driver import EntryMapping, Source
from pipeline.sources.shared.sites import Region
from pipeline.sources.shared.sites import is_inside as sites_is_inside

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


SITES_PER_REQUEST = 60  # sites per request

VALUES_PER_REQUEST = (
    400_000  # values per request; the service refuses requests for more than 500,000
)

METRES_PER_INCH = 0.0254


class AwdbSource(Source):
    """Read the sites of a network of AWDB as points.

    `to_dask()` requests the list of sites. Values are requested when they are computed, all
    variables of a batch of sites together, and the process keeps the results in memory.

    Args:
      urlpath: URL of the service, `.../awdbRestApi/services/v1`.
      network: Code of the network, SCAN or SNTL.
      mapping: For each soilweave variable, a dictionary of
        `from`: the element code, or `element:depth` with the depth in inches;
        `units`: units as the service states them;
        `to`: soilweave's units;
        `also` (optional): further units that the service may state;
        `times` (optional): factor to soilweave's units, instead of a unit conversion;
        `duration` (optional): HOURLY, DAILY by default;
        `valid` (optional): smallest and largest accepted value, in `units`;
        `temperature` (optional): the soilweave variable with the air temperature, which is used
        to compute specific from relative humidity.
      flag: `from`: the element whose quality flags become `provider_flag`; `good`: the flag
        letters to keep. Values of other elements become NaN where their flag is not good.
      day: `local` for days of the site's clock; `utc` is possible if all elements are HOURLY.
      min_hours: Fewest hours that the readings of a daily mean must cover, for HOURLY elements.
      sites: Ids of the sites to read, in this order; by default all sites of the network.
    """

    name = "soilweave_awdb"

    def __init__(
        self,
        urlpath: str,
        network: str,
        mapping: EntryMapping | list[EntryMapping],
        flag: dict[str, Any],
        day: str = "local",
        min_hours: int = 12,
        sites: list[Any] | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; send no request yet.

        Raises:
          ValueError: If the arguments are invalid or contradict each other.
        """
        super().__init__(urlpath, mapping, None, storage_options, metadata)
        self.network, self.flag, self.day, self.min_hours = network, flag, day, min_hours
        self.site_ids = [str(site) for site in sites or []]
        self.elements = tuple(parse_element(name, spec) for name, spec in self.mapping.items())
        problems = [
            f"duration of {e.name}: '{e.duration}', expected one of {', '.join(VALUES_PER_DAY)}"
            for e in self.elements
            if e.duration not in VALUES_PER_DAY
        ]
        if day not in ("utc", "local"):
            problems.append(f"day: '{day}', expected 'utc' or 'local'")
        if day == "utc":
            problems += [
                f"duration of {e.name}: '{e.duration}', but day 'utc' needs HOURLY elements"
                for e in self.elements
                if e.duration != "HOURLY"
            ]
        if unknown := sorted(set(flag["good"]) - set(FLAGS)):
            problems.append(f"flag: unknown letters {unknown}, expected some of {list(FLAGS)}")
        if problems:
            raise ValueError("; ".join(problems))

    def to_dask(self) -> xr.Dataset:
        """Return the sites with their values as lazy arrays.

        Raises:
          DataError: If the service refuses the request or has no such sites.
        """
        import dask.array
        import xarray as xr
        from dask.delayed import delayed

        da: Any = dask.array

        sites, days, batches = self._plan()
        arrays_by_name: dict[str, list[Any]] = {}
        for batch in batches:
            lazy = [(delayed(fetch_batch)(request), request.shape) for request in batch]
            for name in [*self.mapping, "provider_flag"]:
                dtype = "int8" if name == "provider_flag" else "float32"
                blocks = [da.from_delayed(arrays[name], shape, dtype) for arrays, shape in lazy]
                arrays_by_name.setdefault(name, []).append(da.concatenate(blocks))
        variables = {
            name: (("time", "place"), da.concatenate(arrays, axis=1), self._attrs(name))
            for name, arrays in arrays_by_name.items()
        }
        clock = "UTC" if self.day == "utc" else "local standard time"
        dataset = xr.Dataset(variables, attrs={"time_convention": f"{clock} day"})
        return dataset.assign_coords(time=days, **self._coordinates(sites))

    read = to_dask

    def digest(self) -> str:
        """Return the SHA-256 of the sites and all values, after requesting missing values."""
        sites, days, batches = self._plan()
        content = hashlib.sha256(repr((sites, days[0], days[-1])).encode())
        for batch in batches:
            for request in batch:
                for name, values in sorted(fetch_batch(request).items()):
                    content.update(name.encode() + np.ascontiguousarray(values).tobytes())
        return content.hexdigest()

    def _attrs(self, name: str) -> dict[str, Any]:
        """Return the attributes of a variable or of `provider_flag`."""
        if name != "provider_flag":
            spec = self.mapping[name]
            return {"units": spec.get("to", spec["units"]), "source": spec["from"]}
        return {
            "good": [FLAG_CODES[letter] for letter in self.flag["good"]],
            "unchecked": [
                FLAG_CODES[letter] for letter in UNCHECKED if letter in self.flag["good"]
            ],
            "flag_values": list(FLAG_CODES.values()),
            "flag_meanings": " ".join(FLAGS.values()),
        }

    def _coordinates(self, sites: list[Site]) -> dict[str, Any]:
        """Return the coordinates along `place`; the depth is that of the flagged element, in m."""
        _, colon, inches = str(self.flag["from"]).partition(":")
        depth = abs(float(inches)) * METRES_PER_INCH if colon else np.nan
        columns = {
            "place": [site.id for site in sites],
            "lat": [site.lat for site in sites],
            "lon": [site.lon for site in sites],
            "network": [self.network] * len(sites),
            "elevation": [site.elevation for site in sites],
            "depth_from": [depth] * len(sites),
            "depth_to": [depth] * len(sites),
            "utc_offset_hours": [site.offset for site in sites],
        }
        return {name: ("place", values) for name, values in columns.items()}

    def _plan(self) -> tuple[list[Site], NDArray[np.datetime64], list[list[RequestBatch]]]:
        """Return the sites, the days, and for each batch of sites its requests over the days."""
        first, last = find_entry_period(self.urlpath, self.metadata, self.period)
        days = np.arange(first, last + np.timedelta64(1, "D"))
        code, period = str(self.flag["from"]), None if self.site_ids else (first, last)
        sites = list_sites(self.urlpath, self.network, code, period, self.storage_options)
        sites = select_sites(sites, self.site_ids, self.region)
        if not sites:
            problem = (
                f"network {self.network} has no site with element {code} in the region "
                f"between {first} and {last}"
            )
            raise DataError(self.urlpath, problem, remedy="choose a larger region or period")
        per_day = sum(VALUES_PER_DAY[e.duration] for e in self.elements)
        # Requests for UTC days ask for one more day on either side: hence two days fewer.
        days_per_request = max(1, VALUES_PER_REQUEST // (SITES_PER_REQUEST * per_day) - 2)
        batches = []
        for start in range(0, len(sites), SITES_PER_REQUEST):
            batch_sites = tuple(sites[start : start + SITES_PER_REQUEST])
            ranges = [
                (days[i], min(days_per_request, len(days) - i))
                for i in range(0, len(days), days_per_request)
            ]
            batches.append([self._request(batch_sites, begin, n) for begin, n in ranges])
        return sites, days.astype("datetime64[ns]"), batches

    def _request(self, sites: tuple[Site, ...], first: np.datetime64, days: int) -> RequestBatch:
        """Return the request for some sites and days."""
        return RequestBatch(
            service=self.urlpath,
            sites=sites,
            elements=self.elements,
            first=first,
            days=days,
            flag_code=str(self.flag["from"]),
            good_flags=tuple(self.flag["good"]),
            min_hours=self.min_hours,
            utc=self.day == "utc",
            options=json.dumps(self.storage_options, sort_keys=True, default=str),
        )


METRES_PER_FOOT = 0.3048


@dataclass(frozen=True)
class Site:
    """A site of AWDB.

    Attributes:
      id: Identifier of the site in soilweave.
      triplet: Identifier of the site at the service, `id:state:network`.
      lat: Latitude, degrees north.
      lon: Longitude, degrees east.
      elevation: Elevation above sea level, m; NaN if the service does not state it.
      offset: Hours by which the site's clock is ahead of UTC.
    """

    # The digest of a source contains the `repr` of its sites: do not rename the class or a field.

    id: str
    triplet: str
    lat: float
    lon: float
    elevation: float
    offset: float


def list_sites(
    service: str,
    network: str,
    code: str,
    period: tuple[np.datetime64, np.datetime64] | None,
    options: dict[str, Any],
) -> list[Site]:
    """Return the sites of a network that measure an element.

    The id of a site is the first part of its triplet. If two sites share it, ids are the whole
    triplets.

    Args:
      service: URL of the service.
      network: Code of the network.
      code: Code of the element.
      period: First and last day. Sites that did not operate in it are left out; None keeps all.
      options: Storage options of the entry.

    Raises:
      DataError: If the service refuses the request or its response has another form.
    """
    query = f"stationTriplets=*:*:{network}&elements={code}&activeOnly=false"
    url = f"{service}/stations?{query}&returnStationElements=false"
    try:
        stations = json.loads(access.read_file(url, options))
        sites = [
            _parse_site(station)
            for station in stations
            if period is None or _operated_in(station, *period)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = (
            "the list of sites does not have the form that AWDB documents "
            f"({type(error).__name__}: {error})"
        )
        raise DataError(http_errors.format_url(url), problem, remedy="try again later") from error
    if len({site.id for site in sites}) < len(sites):
        return [replace(site, id=site.triplet) for site in sites]
    return sites


def select_sites(sites: list[Site], site_ids: list[str], region: Region | None) -> list[Site]:
    """Return the sites inside a region.

    Args:
      sites: The sites to select from.
      site_ids: Ids of the sites to return, in this order; if empty, all sites are considered.
      region: West, south, east, north in degrees; None for the whole Earth.

    Raises:
      DataError: If an id is not among the sites.
    """
    if site_ids:
        site_by_id = {site.id: site for site in sites}
        if absent := [site_id for site_id in site_ids if site_id not in site_by_id]:
            problem = f"not among the {len(sites)} sites that the service lists with this element"
            hint = "correct `sites` in the catalog entry"
            raise DataError(f"site {', '.join(absent)}", problem, remedy=hint)
        sites = [site_by_id[site_id] for site_id in site_ids]
    lies_inside = sites_is_inside(
        [site.lat for site in sites], [site.lon for site in sites], region
    )
    return [site for site, is_inside in zip(sites, lies_inside, strict=True) if is_inside]


def _parse_site(station: dict[str, Any]) -> Site:
    """Return the site that an element of the service's list describes."""
    triplet, feet = str(station["stationTriplet"]), station.get("elevation")
    return Site(
        triplet.partition(":")[0],
        triplet,
        float(station["latitude"]),
        float(station["longitude"]),
        float("nan") if feet is None else float(feet) * METRES_PER_FOOT,
        float(station["dataTimeZone"]),
    )


def _operated_in(station: dict[str, Any], first: np.datetime64, last: np.datetime64) -> bool:
    """Return whether a station operated on any day from `first` to `last`."""
    begin, end = (station.get(key) or "" for key in ("beginDate", "endDate"))
    begins_later = bool(begin) and np.datetime64(begin[:10]) > last
    ended_before = bool(end) and np.datetime64(end[:10]) < first
    return not (begins_later or ended_before)
