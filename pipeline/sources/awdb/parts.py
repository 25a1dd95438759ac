"""Request the values of a batch of AWDB sites over a range of days."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import remote
from pipeline.sources.awdb.series import Answers

if TYPE_CHECKING:
    from pipeline.sources.awdb.elements import Arrays, Element
    from pipeline.sources.awdb.sites import Site


@dataclass(frozen=True)
class Part:
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
def fetched(request: Part) -> Arrays:
    """Request the values of a batch.

    Returns:
      For each variable its (day, site) array in soilweave's units, and `provider_flag`.

    Raises:
      DataError: If the service refuses the request, or its response has other units or another
        form than expected.
    """
    triplets = tuple(site.triplet for site in request.sites)
    offsets = tuple(site.offset if request.utc else 0.0 for site in request.sites)
    answers = Answers(
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
            answers.add_response(url, remote.read(url, json.loads(request.options)))
        except DataError as error:
            batch = f"sites {triplets[0]} to {triplets[-1]}, from {request.first}"
            problems = [f"{batch}: {problem}" for problem in error.problems]
            raise DataError(error.place, *problems, remedy=error.remedy) from error
    return answers.to_our_units(np.array([site.elevation for site in request.sites]))
