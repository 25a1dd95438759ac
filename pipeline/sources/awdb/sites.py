"""The sites of a network of AWDB, as its service lists them."""

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
    """A site: id, triplet, degrees, m above the sea, hours to add to UTC for its clock."""

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
    """The sites of a network that have an element, and were there in a period, if one is given.

    A site's id is the first part of its triplet, or all of it where two sites share the first.

    Raises:
      DataError: the service refuses, or answers in another form.
    """
    query = f"stationTriplets=*:*:{network}&elements={code}&activeOnly=false"
    url = f"{service}/stations?{query}&returnStationElements=false"
    try:
        told = json.loads(remote.read(url, options))
        sites = [_site(one) for one in told if period is None or _overlaps(one, *period)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        found = f"no list of sites in the service's form ({type(error).__name__}: {error})"
        raise DataError(http_errors.shown(url), found, remedy="try again later") from error
    if len({site.id for site in sites}) < len(sites):
        return [replace(site, id=site.triplet) for site in sites]
    return sites


def chosen(sites: list[Site], wanted: list[str], region: Region | None) -> list[Site]:
    """The wanted sites in their order, or all, as far as they lie in the region.

    Raises:
      DataError: one that is wanted is not there.
    """
    if wanted:
        known = {site.id: site for site in sites}
        if absent := [name for name in wanted if name not in known]:
            found = f"not among the {len(sites)} sites that the service lists with this element"
            remedy = "correct the entry's `sites`"
            raise DataError(f"site {', '.join(absent)}", found, remedy=remedy)
        sites = [known[name] for name in wanted]
    lies_inside = inside([site.lat for site in sites], [site.lon for site in sites], region)
    return [site for site, is_inside in zip(sites, lies_inside, strict=True) if is_inside]


def _site(told: dict[str, Any]) -> Site:
    triplet, feet = str(told["stationTriplet"]), told.get("elevation")
    return Site(
        triplet.partition(":")[0],
        triplet,
        float(told["latitude"]),
        float(told["longitude"]),
        float("nan") if feet is None else float(feet) * FOOT,
        float(told["dataTimeZone"]),
    )


def _overlaps(told: dict[str, Any], first: np.datetime64, last: np.datetime64) -> bool:
    begin, end = (told.get(key) or "" for key in ("beginDate", "endDate"))
    late = bool(begin) and np.datetime64(begin[:10]) > last
    early = bool(end) and np.datetime64(end[:10]) < first
    return not (late or early)
