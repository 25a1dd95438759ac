"""List the sites of a network of AWDB and select from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import http_errors, remote
from pipeline.sources.places import Region, inside

FOOT = 0.3048


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


def listed(
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
        stations = json.loads(remote.read(url, options))
        sites = [
            _site(station) for station in stations if period is None or _overlaps(station, *period)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = (
            "the list of sites does not have the form that AWDB documents "
            f"({type(error).__name__}: {error})"
        )
        raise DataError(http_errors.shown(url), problem, remedy="try again later") from error
    if len({site.id for site in sites}) < len(sites):
        return [replace(site, id=site.triplet) for site in sites]
    return sites


def chosen(sites: list[Site], site_ids: list[str], region: Region | None) -> list[Site]:
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
    lies_inside = inside([site.lat for site in sites], [site.lon for site in sites], region)
    return [site for site, is_inside in zip(sites, lies_inside, strict=True) if is_inside]


def _site(station: dict[str, Any]) -> Site:
    """Return the site that an element of the service's list describes."""
    triplet, feet = str(station["stationTriplet"]), station.get("elevation")
    return Site(
        triplet.partition(":")[0],
        triplet,
        float(station["latitude"]),
        float(station["longitude"]),
        float("nan") if feet is None else float(feet) * FOOT,
        float(station["dataTimeZone"]),
    )


def _overlaps(station: dict[str, Any], first: np.datetime64, last: np.datetime64) -> bool:
    """Return whether a station operated on any day from `first` to `last`."""
    begin, end = (station.get(key) or "" for key in ("beginDate", "endDate"))
    begins_later = bool(begin) and np.datetime64(begin[:10]) > last
    ended_before = bool(end) and np.datetime64(end[:10]) < first
    return not (begins_later or ended_before)
