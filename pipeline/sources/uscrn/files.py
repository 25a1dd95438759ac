"""Files of the U.S. Climate Reference Network: listed, and fetched several at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np

from pipeline.errors import DataError
from pipeline.sources import http_errors, remote
from pipeline.sources.uscrn.text import NUMBERS, Site, year

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 16
Access = tuple[dict[str, Any], str | None]  # storage options and login


def listed(folder: str, access: Access) -> list[str]:
    """URLs in a folder; none where there is no such folder.

    Raises:
      DataError: it is refused, or its server does not answer.
    """
    given, login = access
    with http_errors.answering(folder, login):
        filesystem, path = fsspec.core.url_to_fs(folder, **remote.options(folder, given, login))
        try:
            found = filesystem.ls(path.rstrip("/") + "/", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted({str(filesystem.unstrip_protocol(entry)) for entry in found})


def fetched(urls: list[str], access: Access) -> dict[str, bytes]:
    """Files, several at once.

    Raises:
      DataError: one is absent, refused, or its server does not answer.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(urls, pool.map(lambda url: remote.read(url, *access), urls), strict=True))


def record(
    urls: list[str], access: Access, days: NDArray[np.datetime64], wban: str
) -> NDArray[np.float32]:
    """(time, column) values of a site.

    Raises:
      DataError: a file is absent, damaged, or another site's.
    """
    values = np.full((len(days), len(NUMBERS)), np.nan, np.float32)
    for url, text in fetched(urls, access).items():
        place = http_errors.shown(url)
        held = year(text, place)
        if held.wban != wban:
            found = f"of site {held.wban}, expected {wban}"
            raise DataError(place, found, remedy="does the list of sites belong to these files?")
        at = (held.days - days[0]).astype(np.int64)
        inside = (at >= 0) & (at < len(days))
        values[at[inside]] = held.values[inside]
    return values


def unlisted(url: str, access: Access) -> Site:
    """A site that the list lacks, from its latest file.

    Raises:
      DataError: the file is absent or damaged.
    """
    held = year(remote.read(url, *access), http_errors.shown(url))
    lon, lat = held.values[-1, :2]
    return Site(held.wban, float(lat), float(lon), float("nan"), "")
