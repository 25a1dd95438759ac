"""Intake driver for match-ups of SMAP's core validation sites: averages over cells, not probes.

Intake driver for the SMAP/In Situ Core Validation Site Land Surface Parameters Match-Up Data
(NSIDC-0712). At a core validation site, many probes in one reference pixel of 3, 9, 33 or 36 km are
averaged with weights, after quality control, to the mean of the pixel at the times of SMAP.

The driver reads text files NSIDC-0712_{pixel}_{product}_{version}_{first day}_{last day}.txt, in
one folder or in folders named YYYY.MM.DD, as the provider has them. The pixel is four digits for
the site, two for the size of the pixel in km, and two for its number. The first line of a file is a
title and the second has the headings, among them Yr, Mo, Day, Hr and Min; further lines without a
date may follow before the first record. Values of -99 and lower are missing.

The files have no coordinates. They are read from a CSV with the columns `pixel` (or `RPID`), `lat`
and `lon`. `to_dask()` returns daily values of pixels:

  dims     time, place
  coords   time (datetime64, a UTC day), place (the pixel's eight digits), lat, lon (degrees, of
           the pixel's centre), network, depth_from, depth_to (m)
  data     soilweave's variables, float32, in soilweave's units
  attrs    time_convention; notes, which name the pixels that have no coordinates
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.files import exists, sha256, sha256_of_json
from pipeline.sources.shared import access as shared_access
from pipeline.sources.shared import folders, http_errors
from pipeline.sources.shared import sites as shared_sites
from pipeline.sources.shared.driver import EntryMapping, Source
from pipeline.sources.table.text import parse_csv

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.shared.folders import Access


GRIDS = (3, 9, 33, 36)  # sizes of reference pixels, km
NETWORK = "SMAP core validation sites"
DEPTH_M = (0.0, 0.05)  # the layer of the surface values
TIME_HEADINGS = ("Yr", "Mo", "Day", "Hr", "Min")
HIGHEST_MISSING = -99.0  # this value and lower ones are missing
FILE_PATTERN = re.compile(r"NSIDC-0712_(\d{4})(\d{2})(\d{2})_[^/]*_(\d{8})_(\d{8})\.txt$")
DAY_FOLDER_PATTERN = re.compile(r"/\d{4}\.\d{2}\.\d{2}/?$")
POSITIONS_HINT = "docs/how-to/real-sources.md says where positions are published"
MAX_NAMED = 5  # largest number of places that a problem names


class MatchUpFile(NamedTuple):
    """What the name of a file says.

    Attributes:
      pixel: The eight digits of the reference pixel.
      grid: Size of the pixel, km.
      first: First day of the record.
      last: Last day of the record.
      url: URL of the file.
    """

    pixel: str
    grid: int
    first: str
    last: str
    url: str

    @property
    def order(self) -> tuple[str, str, str]:
        """Sort key by which the file with the latest last day comes last."""
        return self.last, self.first, http_errors.file_name(self.url)


class MatchUps(NamedTuple):
    """The records of a file.

    Attributes:
      times: (record,) datetime64[m], UTC.
      values: (record, column) float64 in the file's units, NaN where missing.
      problems: {what is wrong: the lines, or the whole file, where it is}.
    """

    times: NDArray[np.datetime64]
    values: NDArray[np.float64]
    problems: dict[str, list[str]]


def parse_match_ups(text: bytes, columns: Sequence[str]) -> MatchUps:
    """Parse a file of match-ups.

    Args:
      text: The content of the file.
      columns: Headings of the values to read.

    Returns:
      The records. If there are problems, the records are not complete.
    """
    nothing = np.empty(0, "datetime64[m]"), np.empty((0, len(columns)))
    _, _, table = text.partition(b"\n")
    frame, told = parse_csv(b"\n" + table)  # an empty line keeps the numbers of the others
    if told:
        parts = (problem.partition(": ") for problem in told)
        return MatchUps(*nothing, {what: [where] for what, _, where in parts})
    absent = [name for name in (*TIME_HEADINGS, *columns) if name not in frame]
    if absent:
        problem = f"the second line has no heading {', '.join(absent)}"
        return MatchUps(*nothing, {problem: [f"(it has {', '.join(frame.columns)})"]})
    import pandas as pd

    numbers = frame.apply(pd.to_numeric, errors="coerce")
    # Lines with units or depths may stand between the headings and the first record.
    rows = numbers["Yr"].notna().cummax().astype(bool)
    frame, numbers = frame[rows], numbers[rows]
    times, exists_ = _times_of(numbers)
    problems = {"the date or time does not exist": _quote(frame, ~exists_, TIME_HEADINGS)}
    for name in columns:
        wrong = ((frame[name] != "") & numbers[name].isna()).to_numpy()
        problems[f"{name} is not a number"] = _quote(frame, wrong, [name])
    if frame.empty:
        problems["there are no records"] = [""]
    values = numbers[list(columns)].to_numpy("float64", copy=True)
    values[~np.isfinite(values) | (values <= HIGHEST_MISSING)] = np.nan
    return MatchUps(times, values, {what: where for what, where in problems.items() if where})


def _times_of(numbers: pd.DataFrame) -> tuple[NDArray[np.datetime64], NDArray[np.bool_]]:
    """Return the times of rows, (row,) datetime64[m]; and (row,) whether these exist."""
    stamps = numbers[list(TIME_HEADINGS)].to_numpy("float64")
    whole = ((np.abs(stamps) < 1e4) & (np.round(stamps) == stamps)).all(1)
    year, month, day, hour, minute = np.where(whole[:, None], stamps, 0).astype(np.int64).T
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1)
    is_day = (month >= 1) & (month <= 12) & (days.astype("datetime64[M]") == months)
    is_time = (hour >= 0) & (minute >= 0) & (minute < 60) & (60 * hour + minute <= 24 * 60)
    times = days.astype("datetime64[m]") + (60 * hour + minute)
    return times, whole & is_day & is_time & (year >= 1900)


def _quote(frame: pd.DataFrame, wrong: NDArray[np.bool_], columns: Sequence[str]) -> list[str]:
    """Return the line of each wrong row, with its cells."""
    cells = frame.loc[wrong, list(columns)]
    return [f"line {line}, '{' '.join(row)}'" for line, *row in cells.itertuples()]


def parse_positions(text: bytes, place: str) -> dict[str, tuple[float, float]]:
    """Parse the table of the positions of pixels.

    Args:
      text: A CSV with the columns pixel (or RPID), lat and lon, whatever their case; others are
        ignored. Leading zeros of a pixel, which spreadsheets remove, may be missing.
      place: URL of the table, for errors.

    Returns:
      {pixel: (latitude, longitude)} in degrees.

    Raises:
      DataError: If columns are missing, or rows are not a pixel and its position; all are named.
    """
    import pandas as pd

    frame, problems = parse_csv(text)
    frame = frame.rename(columns=lambda name: name.lower().replace("rpid", "pixel"))
    absent = [name for name in ("pixel", "lat", "lon") if name not in frame]
    if absent and not problems:
        problems = [f"no column {', '.join(absent)}; it has {', '.join(frame.columns)}"]
    if problems:
        raise DataError(place, *problems, remedy="write a CSV with the columns pixel, lat and lon")
    lat, lon = (pd.to_numeric(frame[name], errors="coerce") for name in ("lat", "lon"))
    pixel = frame["pixel"].str.zfill(8)
    wrong = {
        "the pixel is not a number of eight digits": ~pixel.str.fullmatch(r"\d{8}"),
        "the pixel occurs twice": pixel.duplicated(),
        "the latitude is not between -90 and 90": ~lat.between(-90, 90),
        "the longitude is not between -180 and 360": ~lon.between(-180, 360),
    }
    names = ["pixel", "lat", "lon"]
    told = {what: _quote(frame, rows.to_numpy(), names) for what, rows in wrong.items()}
    problems = [_join_places(what, lines) for what, lines in told.items() if lines]
    if problems:
        raise DataError(place, *problems, remedy="correct the table")
    return dict(zip(pixel, zip(lat.tolist(), lon.tolist(), strict=True), strict=True))


def daily_means(
    times: NDArray[np.datetime64], values: NDArray[np.float64], days: NDArray[np.datetime64]
) -> NDArray[np.float32]:
    """Return the mean of the records of each day.

    Records are snapshots at the times of the satellite, one or two on some days, so that a day has
    a value if it has any record.

    Args:
      times: (record,) UTC. Of several records at one time, the first counts.
      values: (record, column) NaN where missing.
      days: (day,) consecutive days.

    Returns:
      (day, column) NaN where a day has no value.
    """
    import pandas as pd

    index = pd.DatetimeIndex(times.astype("datetime64[s]"))
    frame = pd.DataFrame(values, index=index)[~index.duplicated()]
    daily = frame.groupby(pd.DatetimeIndex(frame.index).normalize()).mean()
    return daily.reindex(pd.DatetimeIndex(days.astype("datetime64[s]"))).to_numpy(np.float32)


class CoreSitesSource(Source):
    """Read match-ups of SMAP's core validation sites as points.

    The files are small and are read when `to_dask` is called, so that the problems of all of them
    are told together. Of several files of a pixel, as of several versions, each gives its records.
    Where they have records at the same time, that of the file with the latest last day counts.

    Args:
      urlpath: The folder of the files.
      mapping: {soilweave's name: {"from": heading, "units": its units, "to": soilweave's units}},
        or a list of such dictionaries.
      grid: Size of the reference pixels to read, km: 3, 9, 33 or 36. Take the one nearest to the
        cells that are judged.
      pixels: URL of the CSV with the positions of the pixels' centres; by default pixels.csv in
        `urlpath`. Pixels that are not in it are not read.
      login: As in `Source`.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.
    """

    name = "soilweave_core_sites"

    def __init__(
        self,
        urlpath: str,
        mapping: EntryMapping | list[EntryMapping],
        grid: int = 9,
        pixels: str | None = None,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If an argument is not accepted.
        """
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        if grid not in GRIDS:
            raise ValueError(f"grid: {grid}; accepted: {', '.join(map(str, GRIDS))} (km)")
        if self.fills:
            raise ValueError("fill: not accepted; values of -99 and lower are missing")
        self.grid, self.pixels = grid, pixels

    def digest(self) -> str:
        """Return a digest of the positions and files in the period and region.

        Raises:
          DataError: If there are no files, or they or the positions cannot be read.
        """
        positions, found, _ = self._find_files()
        contents = folders.fetch_files([file.url for file in found], self._access())
        rows = [(http_errors.file_name(url), sha256(data)) for url, data in contents.items()]
        return sha256_of_json([sorted(rows), sorted(positions.items())])

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units.

        Raises:
          DataError: If there are no files of the grid, period and region, or files or the table of
            positions are not as expected; all problems are named, by kind.
        """
        import xarray as xr

        positions, found, notes = self._find_files()
        columns = shared_sites.target_first(self.mapping)
        records = self._read(found, columns)
        days = self._days(records)
        series = np.stack([daily_means(*records[pixel], days) for pixel in positions], axis=1)
        raw = xr.Dataset(
            {name: (("time", "place"), series[:, :, i]) for i, name in enumerate(columns)}
        )
        lat, lon = np.array(list(positions.values())).T
        n = len(positions)
        coords = {
            "time": ("time", days.astype("datetime64[ns]")),
            "place": ("place", list(positions)),
            "lat": ("place", lat),
            "lon": ("place", lon),
            "network": ("place", [NETWORK] * n),
            "depth_from": ("place", np.full(n, DEPTH_M[0])),
            "depth_to": ("place", np.full(n, DEPTH_M[1])),
        }
        attrs: dict[str, Any] = {"time_convention": "UTC day"}
        return xr.Dataset(self.translate(raw), coords, attrs | ({"notes": notes} if notes else {}))

    read = to_dask

    def _access(self) -> Access:
        """Return what is needed to read files: storage options and login."""
        return self.storage_options, self.login

    def _find_files(
        self,
    ) -> tuple[dict[str, tuple[float, float]], list[MatchUpFile], list[str]]:
        """Select the pixels and files to read.

        Returns:
          {pixel: (latitude, longitude)}, sorted; the files of these pixels, of which later ones
          count; and notes for users.
        """
        root = self.urlpath.rstrip("/")
        place = http_errors.format_url(root)
        listed = list(self._list_files(root))
        if not listed:
            raise self.absence_error(place, "has no file NSIDC-0712_*.txt")
        of_grid = [file for file in listed if file.grid == self.grid]
        if not of_grid:
            sizes = ", ".join(str(size) for size in sorted({file.grid for file in listed}))
            problem = f"no file of {self.grid} km pixels; the folder has {sizes} km"
            raise DataError(place, problem, remedy="set `grid` in the entry, or get those files")
        of_period = [file for file in of_grid if self._is_in_period(file)]
        if not of_period:
            ends = f"{min(f.first for f in of_grid)} to {max(f.last for f in of_grid)}"
            problem = f"no file has days of the period; their names say {ends}"
            raise DataError(place, problem, remedy="choose another period")
        known, table = self._read_positions(root)
        pixels = sorted({file.pixel for file in of_period})
        unknown = [pixel for pixel in pixels if pixel not in known]
        if len(unknown) == len(pixels):
            problem = _join_places("has none of the pixels of the files", unknown)
            raise DataError(table, problem, remedy=f"add their positions; {POSITIONS_HINT}")
        positions = {pixel: known[pixel] for pixel in pixels if pixel in known}
        lat, lon = np.array(list(positions.values())).T
        inside = shared_sites.is_inside(lat, lon, self.region)
        if not inside.any():
            problem = f"none of its {len(positions)} pixels lies in the region"
            raise DataError(place, problem, remedy="choose another region")
        positions = {p: at for (p, at), i in zip(positions.items(), inside, strict=True) if i}
        found = sorted((f for f in of_period if f.pixel in positions), key=lambda f: f.order)
        left_out = "not read, as the table has no position of the pixels"
        return positions, found, [_join_places(left_out, unknown)] if unknown else []

    def _list_files(self, root: str) -> Iterable[MatchUpFile]:
        """Yield the files in the folder, and in its folders that are named by a day."""
        for url in folders.list_files(root, self._access()):
            is_day_folder = DAY_FOLDER_PATTERN.search(url)
            within = folders.list_files(url, self._access()) if is_day_folder else [url]
            for name in within:
                if match := FILE_PATTERN.search(name):
                    site, grid, number, first, last = match.groups()
                    yield MatchUpFile(site + grid + number, int(grid), first, last, name)

    def _is_in_period(self, file: MatchUpFile) -> bool:
        """Return whether a file may have days of the requested period."""
        if self.period is None:
            return True
        first, last = (day.strftime("%Y%m%d") for day in self.period)
        return file.first <= last and file.last >= first

    def _read_positions(self, root: str) -> tuple[dict[str, tuple[float, float]], str]:
        """Return the positions of pixels, and the table that has them."""
        url = self.pixels or f"{root}/pixels.csv"
        place = http_errors.format_url(url)
        is_local = url.partition("://")[0] in (url, "file")
        if is_local and not exists(url):
            problem = "not found; the match-ups have no coordinates"
            hint = f"write a CSV with the columns pixel, lat and lon; {POSITIONS_HINT}"
            raise DataError(place, problem, remedy=hint)
        return parse_positions(shared_access.read_file(url, *self._access()), place), place

    def _read(
        self, found: Sequence[MatchUpFile], columns: Sequence[str]
    ) -> dict[str, tuple[NDArray[np.datetime64], NDArray[np.float64]]]:
        """Return the times and values of each pixel; of equal times, the first one counts.

        Raises:
          DataError: If files are not as expected; the problems are named by kind.
        """
        contents = folders.fetch_files([file.url for file in found], self._access())
        parts: dict[str, list[MatchUps]] = {}
        problems: dict[str, list[str]] = {}
        for file in reversed(found):
            part = parse_match_ups(contents[file.url], columns)
            parts.setdefault(file.pixel, []).append(part)
            for what, where in part.problems.items():
                name = http_errors.file_name(file.url)
                problems.setdefault(what, []).extend(f"{name} {text}".strip() for text in where)
        if problems:
            told = [_join_places(what, places) for what, places in sorted(problems.items())]
            place = http_errors.format_url(self.urlpath)
            raise DataError(place, *told, remedy="get these files again, or correct the mapping")
        return {
            pixel: (
                np.concatenate([part.times for part in of_pixel]),
                np.concatenate([part.values for part in of_pixel]),
            )
            for pixel, of_pixel in parts.items()
        }

    def _days(self, records: dict[str, tuple[Any, Any]]) -> NDArray[np.datetime64]:
        """Return (time,) the requested days, by default all from the first to the last record."""
        if self.period is not None:
            first, last = (np.datetime64(day, "D") for day in self.period)
        else:
            times = np.concatenate([times for times, _ in records.values()])
            first, last = (end.astype("datetime64[D]") for end in (times.min(), times.max()))
        return np.arange(first, last + 1)


def _join_places(what: str, places: Sequence[str]) -> str:
    """Return a problem with the first places that have it, and the number of others."""
    more = len(places) - MAX_NAMED
    named = "; ".join(places[:MAX_NAMED])
    return f"{what}: {named}{f'; and {more} more' if more > 0 else ''}"
