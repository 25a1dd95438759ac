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
from pipeline.sources.shared.earthdata import configure_session

if TYPE_CHECKING:
    from collections.abc import Iterator


CMR = "https://cmr.earthdata.nasa.gov"
FIRST_DAY = date(2015, 3, 31)  # SMAP's first day, used if no period is requested
MAX_GRANULES = 1_000_000  # largest number of granules of one query; no year has more

# Whether URLs are of S3 -> type of the link in CMR.
LINK_TYPES = {False: "GET DATA", True: "GET DATA VIA DIRECT ACCESS"}

# File names, such as SMAP_L3_SM_P_20150401_R19240_001.h5: the first letter of the identifier of the
# production, and the date and time.
PRODUCTION_PATTERN = re.compile(r"_([A-Z])[A-Za-z0-9]*_\d{3}\.\w+$")
TIME_PATTERN = re.compile(r"_(\d{8})(?:T(\d{6}))?_")


class Granule(NamedTuple):
    """A file of a collection.

    Attributes:
      name: The provider's file name.
      url: URL of the file.
      size: Size in bytes, None if unknown.
      produced: When it was produced. Values are compared, and the greater one is the later.
    """

    name: str
    url: str
    size: int | None
    produced: tuple[str, ...]

    @property
    def rank(self) -> tuple[bool, tuple[str, ...]]:
        """Return a key for sorting; of several granules of a time, the one sorted last is used.

        Test productions, whose identifier begins with T, are sorted before all others, whose
        identifier begins with R (reprocessed or forward) or V (validated).
        """
        match = PRODUCTION_PATTERN.search(self.name)
        return not (match and match[1] == "T"), self.produced


def list_files(
    urlpath: str | list[str], storage_options: dict[str, Any], login: str | None
) -> list[Granule]:
    """Return a user's own files as granules.

    Args:
      urlpath: A URL, a URL with `*`, or a list of URLs.
      storage_options: The entry's `storage_options`.
      login: `earthdata` if the provider requires an Earthdata Login.

    Raises:
      DataError: If a URL of HTTP has `*`, because HTTP servers cannot be listed, or if a store
        refuses or does not answer.
    """
    granules = []
    for url in [urlpath] if isinstance(urlpath, str) else map(str, urlpath):
        if "*" not in url:
            name = url.partition("?")[0].rsplit("/", 1)[-1]
            granules.append(Granule(name, url, None, (name,)))
        elif url.startswith("http"):
            hint = "set `urlpath` to a list of the files, or `collection` to find them through CMR"
            problem = "files of an HTTP server cannot be listed"
            raise DataError(http_errors.format_url(url), problem, remedy=hint)
        else:
            granules += _glob_files(url, storage_options, login)
    return granules


def _glob_files(url: str, storage_options: dict[str, Any], login: str | None) -> list[Granule]:
    """Return the files that match a URL with `*`."""
    with http_errors.plain_http_errors(url, login):
        options = access.fsspec_options(url, storage_options, login) | files.NO_LISTING_CACHE
        filesystem, path = fsspec.core.url_to_fs(url, **options)
        infos = filesystem.glob(path.replace("[", "[[]"), detail=True)
    granules = []
    for file_path, info in infos.items():
        name = file_path.rsplit("/", 1)[-1]
        file_url = str(filesystem.unstrip_protocol(file_path)) if "://" in url else str(file_path)
        granules.append(Granule(name, file_url, info["size"], (name,)))
    return granules


def parse_granule_time(granule: Granule) -> np.datetime64:
    """Return the time in the name of a granule, in seconds.

    Raises:
      DataError: If the name has no date.
    """
    match = TIME_PATTERN.search(granule.name)
    try:
        if match is None:
            raise ValueError
        day, clock = match[1], match[2] or "000000"
        text = f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        return np.datetime64(text, "s")
    except ValueError:
        problem = "the file name has no date; expected a name like "
        problem += "SMAP_L3_SM_P_20150401_R19240_001.h5"
        hint = "keep the provider's file names"
        raise DataError(http_errors.format_url(granule.url), problem, remedy=hint) from None


def search_cmr(
    collection: dict[str, str],
    period: tuple[date, date] | None,
    region: tuple[float, float, float, float] | None = None,
    *,
    cmr: str = CMR,
    direct: bool = False,
) -> list[Granule]:
    """Find all granules of a collection that overlap a period in CMR. No credentials are sent.

    Args:
      collection: `short_name` and `version`, such as "009".
      period: First and last day, None for all days since SMAP's first.
      region: West, south, east, north in degrees, None for the whole Earth.
      cmr: URL of CMR.
      direct: Whether to return URLs of S3, which can be read in the region of the bucket only,
        instead of HTTPS.

    Raises:
      DataError: If CMR does not answer, or a granule has no such URL.
    """
    from earthaccess.search import DataGranules

    first, last = period or (FIRST_DAY, date.today())
    granules = []
    for begin, end in _split_by_year(first, last):  # one query per year limits the size of answers
        query = DataGranules()
        query.mode(f"{cmr.rstrip('/')}/search/")
        configure_session(query.session)
        query.short_name(collection["short_name"]).version(collection["version"])
        query.temporal(begin, end)
        if region is not None:
            query.bounding_box(*region)
        with http_errors.plain_http_errors(cmr), query.session, warnings.catch_warnings():
            # earthaccess 0.17 warns of a change of its own for every granule.
            warnings.filterwarnings("ignore", "As of version 1.0", FutureWarning)
            granules += [_granule_of_item(item, direct=direct) for item in query.get(MAX_GRANULES)]
    # A granule that overlaps two years is in the answers for both.
    return list({(granule.name, granule.produced): granule for granule in granules}.values())


def _split_by_year(first: date, last: date) -> Iterator[tuple[date, date]]:
    """Split a period by calendar years, and yield the first and last day of each part."""
    for year in range(first.year, last.year + 1):
        yield max(first, date(year, 1, 1)), min(last, date(year, 12, 31))


def _granule_of_item(item: Any, *, direct: bool) -> Granule:
    """Return the granule of an item in CMR's answer (UMM-JSON).

    Raises:
      DataError: If the item has no URL of a file.
    """
    meta, umm = item["meta"], item["umm"]
    links = [
        link["URL"] for link in umm.get("RelatedUrls", []) if link.get("Type") == LINK_TYPES[direct]
    ]
    url = next((link for link in links if link.endswith((".h5", ".nc", ".nc4", ".hdf"))), None)
    if url is None:
        problem = f"has no link of type {LINK_TYPES[direct]}"
        hint = "remove `direct` from the entry" if direct else "report it to the provider"
        raise DataError(f"granule {umm.get('GranuleUR')} in CMR", problem, remedy=hint)
    name = url.rsplit("/", 1)[-1]
    details = umm.get("DataGranule", {})
    archived = details.get("ArchiveAndDistributionInformation", [])
    size = next((part.get("SizeInBytes") for part in archived if part.get("Name") == name), None)
    produced = details.get("ProductionDateTime", "")
    return Granule(name, url, size, (produced, meta.get("revision-date", ""), name))
