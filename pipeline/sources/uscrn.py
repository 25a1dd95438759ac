"""Parse the list of sites and the daily files of the U.S. Climate Reference Network.

Intake driver for daily data of the U.S. Climate Reference Network (USCRN), published by NCEI.

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

import csv
import datetime
import io
import re
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.files import exists, sha256, sha256_of_json
from pipeline.sources.shared import access as shared_access
from pipeline.sources.shared import http_errors
from pipeline.sources.shared import sites as shared_sites
from pipeline.sources.shared.driver import EntryMapping, Source
from pipeline.sources.shared.folders import fetch_files, list_files

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.shared.folders import Access


COLUMNS = (
    *("WBANNO", "LST_DATE", "CRX_VN", "LONGITUDE", "LATITUDE"),
    *("T_DAILY_MAX", "T_DAILY_MIN", "T_DAILY_MEAN", "T_DAILY_AVG", "P_DAILY_CALC"),
    *("SOLARAD_DAILY", "SUR_TEMP_DAILY_TYPE"),
    *("SUR_TEMP_DAILY_MAX", "SUR_TEMP_DAILY_MIN", "SUR_TEMP_DAILY_AVG"),
    *("RH_DAILY_MAX", "RH_DAILY_MIN", "RH_DAILY_AVG"),
    *(f"SOIL_MOISTURE_{depth}_DAILY" for depth in (5, 10, 20, 50, 100)),
    *(f"SOIL_TEMP_{depth}_DAILY" for depth in (5, 10, 20, 50, 100)),
)

NUMBER_COLUMNS = tuple(COLUMNS[i] for i in (3, 4, *range(5, 11), *range(12, 28)))

SITE_LIST_COLUMNS = (
    "WBAN",
    "STATE",
    "LOCATION",
    "VECTOR",
    "LATITUDE",
    "LONGITUDE",
    "ELEVATION",
    "NETWORK",
)

METRES_PER_FOOT = 0.3048
_MAX_PROBLEMS = 5  # largest number of problems that an error lists


class Site(NamedTuple):
    """A site.

    Attributes:
      wban: Number of the site.
      lat: Latitude, degrees north.
      lon: Longitude, degrees east.
      elevation: Elevation above sea level, m; NaN if unknown.
      network: Name of the network; empty if unknown.
    """

    wban: str
    lat: float
    lon: float
    elevation: float
    network: str


class SiteYear(NamedTuple):
    """The data of a site in one year.

    Attributes:
      days: (day,) datetime64[D], increasing, days of local standard time.
      values: (day, column) float64 values of the numeric columns, NaN where missing.
      wban: Number of the site.
    """

    days: np.ndarray
    values: np.ndarray
    wban: str


def parse_sites(text: bytes, place: str) -> dict[str, Site]:
    """Parse the provider's list of sites.

    Args:
      text: Tab-separated text with a header; elevations are in feet.
      place: URL of the list, for errors.

    Returns:
      {name: site}; names are ST_Location_vector, as in the names of the files.

    Raises:
      DataError: If columns are missing, or a position or elevation is not a number.
    """
    lines = io.StringIO(text.decode("utf-8", "replace"), newline=None)  # accepts any line ends
    rows = csv.DictReader(lines, delimiter="\t")
    absent = [name for name in SITE_LIST_COLUMNS if name not in (rows.fieldnames or ())]
    if absent:
        problem = f"columns {', '.join(absent)} missing; the list has {rows.fieldnames}"
        raise DataError(place, problem, remedy="has the list changed? correct the entry's `sites`")
    sites, problems = {}, []
    for row in rows:
        name = _name_in_files(f"{row['STATE']}_{row['LOCATION']}_{row['VECTOR']}")
        try:
            position = float(row["LATITUDE"]), float(row["LONGITUDE"])
            elevation = float(row["ELEVATION"] or "nan") * METRES_PER_FOOT
        except (TypeError, ValueError):
            message = f"position or elevation of {name} is not a number"
            problems.append(f"line {rows.line_num}: {message}")
            continue
        sites[name] = Site(row["WBAN"], *position, elevation, row["NETWORK"])
    if problems:
        raise DataError(place, *problems, remedy="fetch the list again")
    return sites


def parse_year(text: bytes, place: str) -> SiteYear:
    """Parse the file of a site and year.

    Args:
      text: 28 columns separated by blanks, with one day per line.
      place: URL of the file, which ends in CRND0103-YYYY-NAME.txt.

    Raises:
      DataError: If lines have another number of columns, values that are not numbers, invalid or
        repeated days, or several sites. The error names the first such lines.
    """
    file_year = place.rsplit("/", 1)[-1].split("-")[1]
    days: dict[np.datetime64, list[float]] = {}
    problems, wbans = [], set()
    for line_number, line in enumerate(text.decode("ascii", "replace").splitlines(), 1):
        cells = line.replace("\0", " ").split()
        if not cells:
            continue
        try:
            day, values = _parse_row(cells, file_year)
        except ValueError as error:
            problems.append(f"line {line_number}: {error}")
            continue
        if day in days:
            problems.append(f"line {line_number}: day {day} occurs twice")
        days[day] = values
        wbans.add(cells[0])
    if len(wbans) > 1:
        problems.append(f"the file has lines of several sites: {', '.join(sorted(wbans))}")
    if not days and not problems:
        problems.append("the file is empty")
    if problems:
        more = (
            [f"and {len(problems) - _MAX_PROBLEMS} more"] if len(problems) > _MAX_PROBLEMS else []
        )
        raise DataError(place, *problems[:_MAX_PROBLEMS], *more, remedy="fetch it again")
    in_order = sorted(days)
    return SiteYear(np.array(in_order), np.array([days[day] for day in in_order]), wbans.pop())


def _parse_row(cells: list[str], file_year: str) -> tuple[np.datetime64, list[float]]:
    """Return the day of a line and the values of the numeric columns.

    Raises:
      ValueError: If the line does not have the expected form.
    """
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} columns, expected {len(COLUMNS)}")
    cell_by_column = dict(zip(COLUMNS, cells, strict=True))
    text = cell_by_column["LST_DATE"]
    if len(text) != 8 or not text.startswith(file_year):
        raise ValueError(f"day '{text}', expected a day of {file_year} as YYYYMMDD")
    try:
        day = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError as error:
        raise ValueError(f"day '{text}': {error}") from error
    return np.datetime64(day), [
        _parse_number(name, cell_by_column[name]) for name in NUMBER_COLUMNS
    ]


def _parse_number(name: str, text: str) -> float:
    """Return a value, NaN for the column's fill value, which is the lowest that its format has."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} '{text}', expected a number") from None
    fill = -99 if name.startswith("SOIL_MOISTURE") else -9999
    return float("nan") if value <= fill else value


def _name_in_files(name: str) -> str:
    """Return a name as it is in file names, without accents and with underscores for blanks."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "_".join(plain.split())


def read_site(
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
    values = np.full((len(days), len(NUMBER_COLUMNS)), np.nan, np.float32)
    for url, text in fetch_files(urls, access).items():
        place = http_errors.format_url(url)
        data = parse_year(text, place)
        if data.wban != wban:
            problem = f"the file is of site {data.wban}, expected {wban}"
            raise DataError(place, problem, remedy="does the list of sites belong to these files?")
        index = (data.days - days[0]).astype(np.int64)
        inside = (index >= 0) & (index < len(days))
        values[index[inside]] = data.values[inside]
    return values


def site_from_file(url: str, access: Access) -> Site:
    """Return a site that the list lacks, with the last position in one of its files.

    Its elevation is NaN and its network is empty.

    Args:
      url: The latest file of the site.
      access: Storage options and login.

    Raises:
      DataError: If the file is missing or damaged.
    """
    data = parse_year(shared_access.read_file(url, *access), http_errors.format_url(url))
    lon, lat = data.values[-1, :2]
    return Site(data.wban, float(lat), float(lon), elevation=float("nan"), network="")


DEPTH_PATTERN = re.compile(r"^SOIL_\w+_(\d+)_DAILY$")
FILE_PATTERN = re.compile(r"CRND0103-(\d{4})-(\w[^/]*)\.txt$")


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
        mapping: EntryMapping | list[EntryMapping],
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
            spec["from"] for spec in self.mapping.values() if spec["from"] not in NUMBER_COLUMNS
        ]
        if unknown:
            accepted = ", ".join(NUMBER_COLUMNS)
            raise ValueError(
                f"mapping: no numeric column {', '.join(unknown)}; accepted: {accepted}"
            )

    def digest(self) -> str:
        """Return a digest of the names and contents of all files in the period and region.

        Raises:
          DataError: If a file is missing, access is refused or its server does not answer.
        """
        urls = [url for site_urls in self._find_files()[1].values() for url in site_urls]
        contents = fetch_files(urls, self._access())
        return sha256_of_json(
            sorted((_last_part(url), sha256(data)) for url, data in contents.items())
        )

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays.

        Raises:
          DataError: If there are no files for the period and region, or the list of sites does
            not have the expected form.
        """
        import xarray as xr
        from dask.delayed import delayed

        sites, urls = self._find_files()
        years = [int(_year_of(url)) for site_urls in urls.values() for url in site_urls]
        first, last = np.datetime64(f"{min(years)}-01-01"), np.datetime64(f"{max(years)}-12-31")
        if self.period is not None:
            first, last = (np.datetime64(day, "D") for day in self.period)
        days = np.arange(first, last + 1)
        read = delayed(read_site)
        records = [
            read(site_urls, self._access(), days, sites[name].wban)
            for name, site_urls in urls.items()
        ]
        columns = shared_sites.stack_records(records, len(days), NUMBER_COLUMNS, "float32")
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
        if depth := DEPTH_PATTERN.search(shared_sites.target_first(self.mapping)[0]):
            depths = np.full(len(urls), int(depth[1]) / 100)
            coords |= {"depth_from": ("place", depths), "depth_to": ("place", depths)}
        attrs = {"time_convention": "local standard time day"}
        return xr.Dataset(self.translate(raw), coords, attrs)

    read = to_dask

    def _access(self) -> Access:
        """Return what is needed to read files: storage options and login."""
        return self.storage_options, self.login

    def _find_files(self) -> tuple[dict[str, Site], dict[str, list[str]]]:
        """Return {name: site}, and {name: URLs of its files, by year} for sites in the region."""
        root = self.urlpath.rstrip("/")
        sites = self._read_site_list(root)
        urls: dict[str, list[str]] = {}
        for year in self._years():
            for url in list_files(f"{root}/{year}", self._access()):
                if match := FILE_PATTERN.search(url):
                    urls.setdefault(match[2], []).append(url)
        if not urls:
            raise self.absence_error(
                http_errors.format_url(root), f"has no file of {self._describe_period()}"
            )
        for name in sorted(urls.keys() - sites.keys()):
            sites[name] = site_from_file(max(urls[name]), self._access())
        names = sorted(urls)
        in_region = shared_sites.is_inside(
            [sites[n].lat for n in names], [sites[n].lon for n in names], self.region
        )
        selected = {n: urls[n] for n, inside in zip(names, in_region, strict=True) if inside}
        if not selected:
            problem = (
                f"none of its {len(names)} sites of {self._describe_period()} lies in the region"
            )
            raise DataError(http_errors.format_url(root), problem, remedy="choose another region")
        return sites, selected

    def _read_site_list(self, root: str) -> dict[str, Site]:
        """Return {name: site} of the provider's list, empty if a local folder has no list."""
        table = self.sites or f"{root.rpartition('/')[0]}/stations.tsv"
        is_local = table.partition("://")[0] in (table, "file")
        if self.sites is None and is_local and not exists(table):
            return {}
        return parse_sites(
            shared_access.read_file(table, *self._access()), http_errors.format_url(table)
        )

    def _years(self) -> list[int]:
        """Return the requested years, or by default those that have a folder."""
        if self.period is not None:
            return list(range(self.period[0].year, self.period[1].year + 1))
        names = (_last_part(url.rstrip("/")) for url in list_files(self.urlpath, self._access()))
        return sorted({int(name) for name in names if re.fullmatch(r"\d{4}", name)})

    def _describe_period(self) -> str:
        """Return the requested years as text for errors."""
        if self.period is None:
            return "any year"
        return f"the years {self.period[0].year} to {self.period[1].year}"


def _year_of(url: str) -> str:
    """Return the year in the name of a file."""
    return _last_part(url).split("-")[1]


def _last_part(url: str) -> str:
    """Return the last part of a URL."""
    return url.rsplit("/", 1)[-1]
