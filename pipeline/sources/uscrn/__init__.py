"""The U.S. Climate Reference Network: daily texts of the NCEI, one for each site and year.

In: {urlpath}/YYYY/CRND0103-YYYY-{ST_Location_vector}.txt, 28 columns, days of local standard time,
values that did not pass the provider's control left out by it; and the provider's list of sites,
without which a folder of one's own is read by the positions in its files.
Out, as `to_dask()` gives it to anyone:

  dims time, place; coords time (datetime64, a day of local standard time), place (ST_Location_...),
  lat, lon (degrees), elevation, depth_from, depth_to (m; of the target), network;
  attribute time_convention
  our names, float32, in our units
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
    """Intake driver for the daily texts of the U.S. Climate Reference Network.

    Each year's folder is listed, so a site without a file in a year was not yet, or no longer,
    there; files are fetched for the wanted years and region only, when they are asked for.

    Args:
      urlpath: the folder of the years.
      mapping: {our name: {"from": a column, "units": its units, "to": our units}}, or a list of
        such.
      sites: URL of the provider's list, stations.tsv beside the folder by default. Sites that it
        lacks, and all of a folder on this machine without it, lie where their latest file says.
      login: as of Source.
      storage_options: passed to fsspec.
      metadata: what the catalog says of the entry.
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
        """Keep the arguments; nothing is opened yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.sites = sites
        unknown = [
            spec["from"] for spec in self.mapping.values() if spec["from"] not in text.NUMBERS
        ]
        if unknown:
            accepted = ", ".join(text.NUMBERS)
            raise ValueError(f"no column of numbers {', '.join(unknown)}; accepted: {accepted}")

    def digest(self) -> str:
        """Identifies the wanted texts: it fetches them.

        Raises:
          DataError: a file is absent, refused, or its server does not answer.
        """
        urls = [url for held in self._found()[1].values() for url in held]
        texts = fetched(urls, self._access())
        return sha256_of(sorted((_name(url), sha256(text)) for url, text in texts.items()))

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units; the texts are fetched when they are asked for.

        Raises:
          DataError: there are no files for these years and region, or the list of sites is not
            as expected.
        """
        import xarray as xr
        from dask.delayed import delayed

        sites, urls = self._found()
        years = [int(_year(url)) for held in urls.values() for url in held]
        first, last = np.datetime64(f"{min(years)}-01-01"), np.datetime64(f"{max(years)}-12-31")
        if self.period is not None:
            first, last = (np.datetime64(day, "D") for day in self.period)
        days = np.arange(first, last + 1)
        read = delayed(record)
        parts = [read(held, self._access(), days, sites[name].wban) for name, held in urls.items()]
        columns = places.side_by_side(parts, len(days), text.NUMBERS, "float32")
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
        told = {"time_convention": "local standard time day"}
        return xr.Dataset(self.translated(raw), coords, told)

    read = to_dask

    def _access(self) -> Access:
        return self.storage_options, self.login

    def _found(self) -> tuple[dict[str, text.Site], dict[str, list[str]]]:
        """Sites by name, and for those that are wanted the URLs of their files, by year."""
        root = self.urlpath.rstrip("/")
        sites = self._listed(root)
        urls: dict[str, list[str]] = {}
        for year in self._years():
            for url in listed(f"{root}/{year}", self._access()):
                if match := FILE.search(url):
                    urls.setdefault(match[2], []).append(url)
        if not urls:
            raise self.absent(http_errors.shown(root), f"no file of {self._told()}")
        for name in sorted(urls.keys() - sites.keys()):
            sites[name] = unlisted(max(urls[name]), self._access())
        names = sorted(urls)
        kept = places.inside(
            [sites[n].lat for n in names], [sites[n].lon for n in names], self.region
        )
        wanted = {name: urls[name] for name, inside in zip(names, kept, strict=True) if inside}
        if not wanted:
            found = f"none of its {len(names)} sites of {self._told()} lies in the region"
            raise DataError(http_errors.shown(root), found, remedy="choose another region")
        return sites, wanted

    def _listed(self, root: str) -> dict[str, text.Site]:
        """The provider's list of sites; none beside a folder on this machine that lacks it."""
        table = self.sites or f"{root.rpartition('/')[0]}/stations.tsv"
        is_here = table.partition("://")[0] in (table, "file")
        if self.sites is None and is_here and not exists(table):
            return {}
        return text.listed(remote.read(table, *self._access()), http_errors.shown(table))

    def _years(self) -> list[int]:
        if self.period is not None:
            return list(range(self.period[0].year, self.period[1].year + 1))
        names = (_name(url.rstrip("/")) for url in listed(self.urlpath, self._access()))
        return sorted({int(name) for name in names if re.fullmatch(r"\d{4}", name)})

    def _told(self) -> str:
        if self.period is None:
            return "any year"
        return f"the years {self.period[0].year} to {self.period[1].year}"


def _year(url: str) -> str:
    return _name(url).split("-")[1]


def _name(url: str) -> str:
    return url.rsplit("/", 1)[-1]
