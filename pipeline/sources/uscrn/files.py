"""List and read files of the U.S. Climate Reference Network, several at a time."""

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

AT_ONCE = 16  # files that are read at the same time
Access = tuple[dict[str, Any], str | None]  # storage options and login


def listed(folder: str, access: Access) -> list[str]:
    """Return the URLs of the entries of a folder, sorted; an empty list if it does not exist.

    Args:
      folder: URL of the folder.
      access: Storage options and login.

    Raises:
      DataError: If access is refused or the server does not answer.
    """
    given, login = access
    with http_errors.answering(folder, login):
        filesystem, path = fsspec.core.url_to_fs(folder, **remote.options(folder, given, login))
        try:
            entries = filesystem.ls(path.rstrip("/") + "/", detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted({str(filesystem.unstrip_protocol(entry)) for entry in entries})


def fetched(urls: list[str], access: Access) -> dict[str, bytes]:
    """Return {URL: content} of files, several of which are read at the same time.

    Args:
      urls: URLs of the files.
      access: Storage options and login.

    Raises:
      DataError: If a file is missing, access is refused or its server does not answer.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(urls, pool.map(lambda url: remote.read(url, *access), urls), strict=True))


def record(
    urls: list[str], access: Access, days: NDArray[np.datetime64], wban: str
) -> NDArray[np.float32]:
    """Read the values of a site.

    Args:
      urls: URLs of its files, one per year.
      access: Storage options and login.
      days: (time,) the days to read, which are consecutive.
      wban: Number of the site, which the files must have.

    Returns:
      (time, column) values of the numeric columns in the file's units, NaN where missing.

    Raises:
      DataError: If a file is missing, damaged, or belongs to another site.
    """
    values = np.full((len(days), len(NUMBERS)), np.nan, np.float32)
    for url, text in fetched(urls, access).items():
        place = http_errors.shown(url)
        data = year(text, place)
        if data.wban != wban:
            problem = f"the file is of site {data.wban}, expected {wban}"
            raise DataError(place, problem, remedy="does the list of sites belong to these files?")
        index = (data.days - days[0]).astype(np.int64)
        inside = (index >= 0) & (index < len(days))
        values[index[inside]] = data.values[inside]
    return values


def unlisted(url: str, access: Access) -> Site:
    """Return a site that the list lacks, with the last position in one of its files.

    Its elevation is NaN and its network is empty.

    Args:
      url: The latest file of the site.
      access: Storage options and login.

    Raises:
      DataError: If the file is missing or damaged.
    """
    data = year(remote.read(url, *access), http_errors.shown(url))
    lon, lat = data.values[-1, :2]
    return Site(data.wban, float(lat), float(lon), elevation=float("nan"), network="")
