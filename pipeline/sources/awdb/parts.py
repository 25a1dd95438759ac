"""What is asked of AWDB together, and what comes of it: a batch of sites over some days."""

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
