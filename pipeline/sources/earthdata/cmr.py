"""The Common Metadata Repository: the exact names of granules, which cannot be made up.

The version of the production (CRID) and the suffix _001 to _005 vary from day to day, the folders
from collection to collection, and the buckets cannot be listed.
"""

from __future__ import annotations

import warnings
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline.errors import DataError
from pipeline.sources import http_errors
from pipeline.sources.earthdata import sessions
from pipeline.sources.earthdata.named import Granule

if TYPE_CHECKING:
    from collections.abc import Iterator

CMR = "https://cmr.earthdata.nasa.gov"
BEGIN = date(2015, 3, 31)  # SMAP's first day, of which is asked where no period is given
MOST = 1_000_000  # granules of a year
LINKS = {False: "GET DATA", True: "GET DATA VIA DIRECT ACCESS"}


def search(
    collection: dict[str, str],
    period: tuple[date, date] | None,
    region: tuple[float, float, float, float] | None = None,
    *,
    cmr: str = CMR,
    direct: bool = False,
) -> list[Granule]:
    """Every granule of a collection that has to do with a period; no credentials are sent.

    Args:
      collection: its `short_name` and `version`, as "009".
      period: first and last day, None for all since SMAP began.
      region: west, south, east, north in degrees.
      cmr: the repository.
      direct: S3 URLs, which are open within the region of the bucket only, instead of HTTPS.

    Raises:
      DataError: the repository does not answer, or a granule of its has no such URL.
    """
    from earthaccess.search import DataGranules

    first, last = period or (BEGIN, date.today())
    found = []
    for begin, end in _years(first, last):  # an answer of a year at a time is kept small
        query = DataGranules()
        query.mode(f"{cmr.rstrip('/')}/search/")
        sessions.patient(query.session)
        query.short_name(collection["short_name"]).version(collection["version"])
        query.temporal(begin, end)
        if region is not None:
            query.bounding_box(*region)
        with http_errors.answering(cmr), query.session, warnings.catch_warnings():
            # Of earthaccess 0.17, for every granule that it makes, about itself.
            warnings.filterwarnings("ignore", "As of version 1.0", FutureWarning)
            found += [_granule(item, direct=direct) for item in query.get(MOST)]
    return list({(granule.name, granule.made): granule for granule in found}.values())


def _years(first: date, last: date) -> Iterator[tuple[date, date]]:
    for year in range(first.year, last.year + 1):
        yield max(first, date(year, 1, 1)), min(last, date(year, 12, 31))


def _granule(item: Any, *, direct: bool) -> Granule:
    """What counts of an item of CMR's answer in UMM-JSON."""
    meta, umm = item["meta"], item["umm"]
    links = [
        link["URL"] for link in umm.get("RelatedUrls", []) if link.get("Type") == LINKS[direct]
    ]
    url = next((link for link in links if link.endswith((".h5", ".nc", ".nc4", ".hdf"))), None)
    if url is None:
        found = f"has no link of type {LINKS[direct]}"
        remedy = "leave `direct` out of the entry" if direct else "tell the provider"
        raise DataError(f"granule {umm.get('GranuleUR')} in CMR", found, remedy=remedy)
    name = url.rsplit("/", 1)[-1]
    told = umm.get("DataGranule", {})
    archived = told.get("ArchiveAndDistributionInformation", [])
    size = next((part.get("SizeInBytes") for part in archived if part.get("Name") == name), None)
    produced = told.get("ProductionDateTime", "")
    return Granule(name, url, size, (produced, meta.get("revision-date", ""), name))
