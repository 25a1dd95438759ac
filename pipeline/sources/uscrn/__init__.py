"""Intake driver for daily data of the U.S. Climate Reference Network (USCRN), published by NCEI.

The driver reads text files {urlpath}/YYYY/CRND0103-YYYY-{ST_Location_vector}.txt, one per site and
year, with 28 columns and days of local standard time. The provider has already removed values that
failed its quality control. Positions are from the provider's list of sites; for a local folder
without the list they are read from the files. `to_dask()` returns daily values of sites:

  dims     time, place
  coords   time (datetime64, a day of local standard time), place (ST_Location_vector), lat, lon
           (degrees), elevation (m), depth_from, depth_to (m, of the target), network
  data     soilweave's variables, float32, in soilweave's units
  attrs    time_convention
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.files import exists, sha256, sha256_of
from pipeline.sources import http_errors, places, remote
from pipeline.sources.form import Mapping, Source
from pipeline.sources.uscrn import text
from pipeline.sources.uscrn.files import Access, fetched, listed, record, unlisted

if TYPE_CHECKING:
    import xarray as xr

DEPTH = re.compile(r"^SOIL_\w+_(\d+)_DAILY$")
FILE = re.compile(r"CRND0103-(\d{4})-(\w[^/]*)\.txt$")


class UscrnSource(Source):
    """Read the daily files of USCRN as points.

    `to_dask()` lists the folder of each year; a site without a file in a year did not operate in
    it. Only files of the requested years and region are read, when values are computed.

    Args:
      urlpath: The folder that contains a folder for each year.
      mapping: {soilweave's name: {"from": column, "units": its units, "to": soilweave's units}},
        or a list of such dictionaries.
      sites: URL of the provider's list of sites; by default stations.tsv in the parent folder of
        `urlpath`. The positions of sites that are not in the list are read from their latest
        files, and those of all sites if a local folder has no list.
      login: As in `Source`.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.
    """

    name = "soilweave_uscrn"

    def __init__(
        self,
        urlpath: str,
        mapping: Mapping | list[Mapping],
        sites: str | None = None,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If the mapping names a column that does not exist or is not numeric.
        """
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.sites = sites
        unknown = [
            spec["from"] for spec in self.mapping.values() if spec["from"] not in text.NUMBERS
        ]
        if unknown:
            accepted = ", ".join(text.NUMBERS)
            raise ValueError(
                f"mapping: no numeric column {', '.join(unknown)}; accepted: {accepted}"
            )

    def digest(self) -> str:
        """Return a digest of the names and contents of all files in the period and region.

        Raises:
          DataError: If a file is missing, access is refused or its server does not answer.
        """
        urls = [url for site_urls in self._find_files()[1].values() for url in site_urls]
        contents = fetched(urls, self._access())
        return sha256_of(sorted((_name(url), sha256(data)) for url, data in contents.items()))

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays.

        Raises:
          DataError: If there are no files for the period and region, or the list of sites does
            not have the expected form.
        """
        import xarray as xr
        from dask.delayed import delayed

        sites, urls = self._find_files()
        years = [int(_year(url)) for site_urls in urls.values() for url in site_urls]
        first, last = np.datetime64(f"{min(years)}-01-01"), np.datetime64(f"{max(years)}-12-31")
        if self.period is not None:
            first, last = (np.datetime64(day, "D") for day in self.period)
        days = np.arange(first, last + 1)
        read = delayed(record)
        records = [
            read(site_urls, self._access(), days, sites[name].wban)
            for name, site_urls in urls.items()
        ]
        columns = places.side_by_side(records, len(days), text.NUMBERS, "float32")
        raw = xr.Dataset({name: (("time", "place"), values) for name, values in columns.items()})
        for name, fills in self.fills.items():
            raw[name] = raw[name].where(~raw[name].isin(np.array(fills, "float32")))
        coords = {
            "time": ("time", days.astype("datetime64[ns]")),
            "place": ("place", list(urls)),
            "network": ("place", [sites[name].network for name in urls]),
        }
        for axis in ("lat", "lon", "elevation"):
            coords[axis] = ("place", np.array([getattr(sites[name], axis) for name in urls]))
        if depth := DEPTH.search(places.by_target(self.mapping)[0]):
            depths = np.full(len(urls), int(depth[1]) / 100)
            coords |= {"depth_from": ("place", depths), "depth_to": ("place", depths)}
        attrs = {"time_convention": "local standard time day"}
        return xr.Dataset(self.translated(raw), coords, attrs)

    read = to_dask

    def _access(self) -> Access:
        """Return what is needed to read files: storage options and login."""
        return self.storage_options, self.login

    def _find_files(self) -> tuple[dict[str, text.Site], dict[str, list[str]]]:
        """Return {name: site}, and {name: URLs of its files, by year} for sites in the region."""
        root = self.urlpath.rstrip("/")
        sites = self._read_site_list(root)
        urls: dict[str, list[str]] = {}
        for year in self._years():
            for url in listed(f"{root}/{year}", self._access()):
                if match := FILE.search(url):
                    urls.setdefault(match[2], []).append(url)
        if not urls:
            raise self.absent(http_errors.shown(root), f"has no file of {self._describe_period()}")
        for name in sorted(urls.keys() - sites.keys()):
            sites[name] = unlisted(max(urls[name]), self._access())
        names = sorted(urls)
        in_region = places.inside(
            [sites[n].lat for n in names], [sites[n].lon for n in names], self.region
        )
        selected = {n: urls[n] for n, inside in zip(names, in_region, strict=True) if inside}
        if not selected:
            problem = (
                f"none of its {len(names)} sites of {self._describe_period()} lies in the region"
            )
            raise DataError(http_errors.shown(root), problem, remedy="choose another region")
        return sites, selected

    def _read_site_list(self, root: str) -> dict[str, text.Site]:
        """Return {name: site} of the provider's list, empty if a local folder has no list."""
        table = self.sites or f"{root.rpartition('/')[0]}/stations.tsv"
        is_local = table.partition("://")[0] in (table, "file")
        if self.sites is None and is_local and not exists(table):
            return {}
        return text.listed(remote.read(table, *self._access()), http_errors.shown(table))

    def _years(self) -> list[int]:
        """Return the requested years, or by default those that have a folder."""
        if self.period is not None:
            return list(range(self.period[0].year, self.period[1].year + 1))
        names = (_name(url.rstrip("/")) for url in listed(self.urlpath, self._access()))
        return sorted({int(name) for name in names if re.fullmatch(r"\d{4}", name)})

    def _describe_period(self) -> str:
        """Return the requested years as text for errors."""
        if self.period is None:
            return "any year"
        return f"the years {self.period[0].year} to {self.period[1].year}"


def _year(url: str) -> str:
    """Return the year in the name of a file."""
    return _name(url).split("-")[1]


def _name(url: str) -> str:
    """Return the last part of a URL."""
    return url.rsplit("/", 1)[-1]
