"""Granules: files that each hold one time, named in their file name; the latest production wins.

They are found through CMR, or are somebody's own files; only those that are wanted are opened, and
only when their values are asked for.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources import http_errors, tags
from pipeline.sources.earthdata import cmr, named
from pipeline.sources.form import Mapping, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.sources.earthdata.named import Granule


class GranuleSource(Source):
    """What drivers of granules share.

    Args:
      mapping: {our name: {"from": provider's name, "units": its units, "to": our units}}, or a
        list of such.
      collection: {"short_name": "SPL3SMP", "version": "009"}, found through CMR; or
      urlpath: the files: a URL, one with `*` in it (not of HTTP), or a list of URLs.
      direct: read a collection from S3, in the region of its bucket, instead of over HTTPS.
      repository: URL of CMR.
      login: `earthdata`, where the provider wants to know who reads.
      storage_options: passed to fsspec.

    Attributes:
      beside: days before and after the period whose granules are wanted too.
    """

    beside = 0

    def __init__(
        self,
        mapping: Mapping | list[Mapping],
        collection: dict[str, str] | None = None,
        urlpath: str | list[str] = "",
        direct: bool = False,
        repository: str = cmr.CMR,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__("", mapping, login, storage_options, metadata)
        self.urlpath: Any = urlpath
        self.collection, self.direct, self.repository = collection, direct, repository
        if not urlpath and not {"short_name", "version"} <= (collection or {}).keys():
            msg = "neither `urlpath` nor `collection` with `short_name` and `version`"
            raise ValueError(msg)

    @property
    def units(self) -> dict[str, str]:
        """The provider's units of each of its variables that the mapping names."""
        return {spec["from"]: spec["units"] for spec in self.mapping.values()}

    def granules(self) -> dict[np.datetime64, Granule]:
        """The latest production of each time that is no test, in order of time.

        Where there is nothing but a test production, it is that.

        Raises:
          DataError: there is none; a file's name tells no date; CMR does not answer.
        """
        wanted = self._widened()
        if self.urlpath:
            found = named.listed(self.urlpath, self.storage_options, self.login)
        else:
            found = cmr.search(
                self.collection or {}, wanted, cmr=self.repository, direct=self.direct
            )
        latest: dict[np.datetime64, Granule] = {}
        for granule in sorted(found, key=lambda granule: granule.rank):
            time = named.stamp(granule)
            if wanted is None or wanted[0] <= time.astype("datetime64[D]").item() <= wanted[1]:
                latest[time] = granule
        if not latest:
            raise DataError(self._place(), f"no granule {_span(wanted)}", remedy=self._remedy())
        return dict(sorted(latest.items()))

    def days(self, granules: dict[np.datetime64, Granule]) -> NDArray[np.datetime64]:
        """Each day of the period, else from the first granule to the last."""
        begin, end = (time.astype("datetime64[D]") for time in (min(granules), max(granules)))
        if self.period is not None:
            begin, end = (np.datetime64(day, "D") for day in self.period)
        return np.arange(begin, end + np.timedelta64(1, "D"))

    def digest(self) -> str:
        """Identifies the granules: by the provider's names for them, which tell the production.

        Also by what the archive says of their sizes and of when they were produced; of files of
        somebody's own, by their tags.

        Raises:
          DataError: there are none.
        """
        known = list(self.granules().values())
        if not self.urlpath:
            return files.sha256_of([[one.name, one.size, one.made[0]] for one in known])
        found = tags.of_files([one.url for one in known], self.storage_options, self.login)
        absent = [one.name for one, tag in zip(known, found, strict=True) if tag is None]
        if absent:
            raise DataError(self._place(), f"not found: {', '.join(absent)}", remedy=self._remedy())
        return files.sha256_of([[one.name, t] for one, t in zip(known, found, strict=True)])

    def _widened(self) -> tuple[date, date] | None:
        if self.period is None:
            return None
        more = timedelta(days=self.beside)
        return self.period[0] - more, self.period[1] + more

    def _place(self) -> str:
        if self.urlpath:
            several = not isinstance(self.urlpath, str)
            return f"{len(self.urlpath)} files" if several else http_errors.shown(self.urlpath)
        told = self.collection or {}
        return f"collection {told['short_name']} version {told['version']}"

    def _remedy(self) -> str:
        if self.urlpath:
            return f"get them from {(self.metadata or {}).get('origin', 'the provider')}"
        return f"is there a newer version? see {(self.metadata or {}).get('origin', 'its page')}"


def _span(wanted: tuple[date, date] | None) -> str:
    return f"from {wanted[0]} to {wanted[1]}" if wanted else "at all"
