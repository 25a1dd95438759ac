"""Find SMAP granules: files named by their time, listed from a URL or found through NASA's CMR.

The version of the production (CRID) and the suffix _001 to _005 vary from day to day, so exact
names cannot be composed from the date.
"""

from __future__ import annotations

import re
import warnings
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import fsspec
import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.shared import access, http_errors
from pipeline.sources.shared.earthdata import patient

if TYPE_CHECKING:
    from collections.abc import Iterator


PRODUCTION = re.compile(r"_([A-Z])[A-Za-z0-9]*_\d{3}\.\w+$")
STAMP = re.compile(r"_(\d{8})(?:T(\d{6}))?_")


class Granule(NamedTuple):
    """One file of a collection.

    Attributes:
      name: the provider's file name.
      url: where it is.
      size: its bytes, None where that is not known.
      made: when it was produced; of two for the same time the greater is the later one.
    """

    name: str
    url: str
    size: int | None
    made: tuple[str, ...]

    @property
    def rank(self) -> tuple[bool, tuple[str, ...]]:
        """Of two for the same time the one with the greater rank is used.

        Test productions, whose identifier begins with T, come before all others, which begin with
        R (reprocessed or forward) or V (validated).
        """
        told = PRODUCTION.search(self.name)
        return not (told and told[1] == "T"), self.made


def list_files(urlpath: str | list[str], given: dict[str, Any], login: str | None) -> list[Granule]:
    """The files of a URL, of one with `*` in it, or of a list of URLs.

    Args:
      urlpath: the URLs.
      given: the entry's own `storage_options`.
      login: `earthdata`, where the provider wants to know who reads.

    Raises:
      DataError: a URL of HTTP has `*` in it; the place cannot be listed.
    """
    found = []
    for url in [urlpath] if isinstance(urlpath, str) else map(str, urlpath):
        if "*" not in url:
            name = url.partition("?")[0].rsplit("/", 1)[-1]
            found.append(Granule(name, url, None, (name,)))
        elif url.startswith("http"):
            remedy = "give the URLs of the files, or `collection` to find them through CMR"
            raise DataError(http_errors.shown(url), "HTTP cannot be listed", remedy=remedy)
        else:
            found += _matching(url, given, login)
    return found


def _matching(url: str, given: dict[str, Any], login: str | None) -> list[Granule]:
    with http_errors.answering(url, login):
        options = access.options(url, given, login) | files.FRESH
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        found = filesystem.glob(path.replace("[", "[[]"), detail=True)
    made = []
    for place, info in found.items():
        name = place.rsplit("/", 1)[-1]
        full = str(filesystem.unstrip_protocol(place)) if "://" in url else str(place)
        made.append(Granule(name, full, info["size"], (name,)))
    return made


def stamp(granule: Granule) -> np.datetime64:
    """The time that a file's name tells, in seconds.

    Raises:
      DataError: it tells none.
    """
    told = STAMP.search(granule.name)
    try:
        if told is None:
            raise ValueError
        day, clock = told[1], told[2] or "000000"
        text = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        return np.datetime64(text, "s")
    except ValueError:
        found = "its name tells no date, as SMAP_L3_SM_P_20150401_R19240_001.h5 does"
        remedy = "keep the provider's names"
        raise DataError(http_errors.shown(granule.url), found, remedy=remedy) from None


CMR = "https://cmr.earthdata.nasa.gov"
BEGIN = date(2015, 3, 31)  # SMAP's first day, of which is asked where no period is given
MOST = 1_000_000  # granules of a year
LINKS = {False: "GET DATA", True: "GET DATA VIA DIRECT ACCESS"}


def search_cmr(
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
        patient(query.session)
        query.short_name(collection["short_name"]).version(collection["version"])
        query.temporal(begin, end)
        if region is not None:
            query.bounding_box(*region)
        with http_errors.answering(cmr), query.session, warnings.catch_warnings():
            # Of earthaccess 0.17, for every granule that it makes, about itself.
            warnings.filterwarnings("ignore", "As of version 1.0", FutureWarning)
            found += [_granule_of_item(item, direct=direct) for item in query.get(MOST)]
    return list({(granule.name, granule.made): granule for granule in found}.values())


def _years(first: date, last: date) -> Iterator[tuple[date, date]]:
    for year in range(first.year, last.year + 1):
        yield max(first, date(year, 1, 1)), min(last, date(year, 12, 31))


def _granule_of_item(item: Any, *, direct: bool) -> Granule:
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
