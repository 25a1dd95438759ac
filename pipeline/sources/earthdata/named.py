"""Files that tell by their names what time they hold, and which production they are of."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import fsspec
import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import http_errors, remote

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


def listed(urlpath: str | list[str], given: dict[str, Any], login: str | None) -> list[Granule]:
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
        options = remote.options(url, given, login) | files.FRESH
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
