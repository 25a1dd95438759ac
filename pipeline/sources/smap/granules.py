"""Base class for drivers of granules: files with data of one time, which the file name states.

Granules are found through CMR, NASA's catalog, or are a user's own files. If several granules have
the same time, the one produced last is used. Files are opened when values are computed.
"""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.sources.shared import fingerprints, http_errors
from pipeline.sources.shared.driver import EntryMapping, Source
from pipeline.sources.smap import search

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.sources.smap.search import Granule


class GranuleSource(Source):
    """Base class for drivers of granules.

    Args:
      mapping: {soilweave's name: {"from": provider's name, "units": its units, "to": soilweave's
        units}}, or a list of such dictionaries.
      collection: {"short_name": "SPL3SMP", "version": "009"}, a collection in CMR. Either this or
        `urlpath` is required.
      urlpath: The files: a URL, a URL with `*` (not of HTTP), or a list of URLs.
      direct: Whether to read a collection from S3, which is possible in the region of its bucket,
        instead of over HTTPS.
      repository: URL of CMR.
      login: `earthdata` if the provider requires an Earthdata Login.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.

    Attributes:
      margin_days: Days before and after the period whose granules are read too.
    """

    margin_days = 0

    def __init__(
        self,
        mapping: EntryMapping | list[EntryMapping],
        collection: dict[str, str] | None = None,
        urlpath: str | list[str] = "",
        direct: bool = False,
        repository: str = search.CMR,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If neither files nor a collection are given.
        """
        super().__init__("", mapping, login, storage_options, metadata)
        self.urlpath: Any = urlpath
        self.collection, self.direct, self.repository = collection, direct, repository
        if not urlpath and not {"short_name", "version"} <= (collection or {}).keys():
            msg = "expected `urlpath`, or `collection` with `short_name` and `version`"
            raise ValueError(msg)

    @property
    def units(self) -> dict[str, str]:
        """The provider's units of each of its variables that the mapping names."""
        return {spec["from"]: spec["units"] for spec in self.mapping.values()}

    def granules(self) -> dict[np.datetime64, Granule]:
        """Return {time: granule} in order of time, with the latest production of each time.

        A test production is only used where there is no other.

        Raises:
          DataError: If there is no granule, a file name has no date, or CMR does not answer.
        """
        period = self._padded_period()
        if self.urlpath:
            granules = search.list_files(self.urlpath, self.storage_options, self.login)
        else:
            granules = search.search_cmr(
                self.collection or {}, period, cmr=self.repository, direct=self.direct
            )
        latest: dict[np.datetime64, Granule] = {}
        for granule in sorted(granules, key=lambda granule: granule.rank):
            time = search.parse_granule_time(granule)
            if period is None or period[0] <= time.astype("datetime64[D]").item() <= period[1]:
                latest[time] = granule
        if not latest:
            raise DataError(
                self._place(), f"no granule {_format_period(period)}", remedy=self._hint()
            )
        return dict(sorted(latest.items()))

    def days(self, granules: dict[np.datetime64, Granule]) -> NDArray[np.datetime64]:
        """Return (time,) the days of the period, by default from the first to the last granule."""
        begin, end = (time.astype("datetime64[D]") for time in (min(granules), max(granules)))
        if self.period is not None:
            begin, end = (np.datetime64(day, "D") for day in self.period)
        return np.arange(begin, end + np.timedelta64(1, "D"))

    def digest(self) -> str:
        """Return a digest of the granules without reading them.

        Granules of a collection are identified by their names, which state the production, their
        sizes and when they were produced; a user's own files by their names and tags.

        Raises:
          DataError: If there is no granule, or a file is missing.
        """
        granules = list(self.granules().values())
        if not self.urlpath:
            return files.sha256_of_json([[g.name, g.size, g.produced[0]] for g in granules])
        file_tags = fingerprints.tag_files(
            [g.url for g in granules], self.storage_options, self.login
        )
        absent = [g.name for g, tag in zip(granules, file_tags, strict=True) if tag is None]
        if absent:
            raise DataError(self._place(), f"not found: {', '.join(absent)}", remedy=self._hint())
        return files.sha256_of_json([[g.name, t] for g, t in zip(granules, file_tags, strict=True)])

    def _padded_period(self) -> tuple[date, date] | None:
        """Return the period extended by `margin_days`; None if no period is requested."""
        if self.period is None:
            return None
        margin = timedelta(days=self.margin_days)
        return self.period[0] - margin, self.period[1] + margin

    def _place(self) -> str:
        """Return the files or the collection as text for errors."""
        if self.urlpath:
            is_list = not isinstance(self.urlpath, str)
            return f"{len(self.urlpath)} files" if is_list else http_errors.format_url(self.urlpath)
        collection = self.collection or {}
        return f"collection {collection['short_name']} version {collection['version']}"

    def _hint(self) -> str:
        """Return what a user can do if granules are missing."""
        if self.urlpath:
            return f"get them from {(self.metadata or {}).get('origin', 'the provider')}"
        return f"is there a newer version? see {(self.metadata or {}).get('origin', 'its page')}"


def _format_period(period: tuple[date, date] | None) -> str:
    """Return a period as text for the error that there is no granule."""
    return f"from {period[0]} to {period[1]}" if period else "at all"
