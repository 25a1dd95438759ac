"""Parse the list of sites and the daily files of the U.S. Climate Reference Network."""

from __future__ import annotations

import csv
import datetime
import io
import unicodedata
from typing import NamedTuple

import numpy as np

from pipeline.errors import DataError

COLUMNS = (
    *("WBANNO", "LST_DATE", "CRX_VN", "LONGITUDE", "LATITUDE"),
    *("T_DAILY_MAX", "T_DAILY_MIN", "T_DAILY_MEAN", "T_DAILY_AVG", "P_DAILY_CALC"),
    *("SOLARAD_DAILY", "SUR_TEMP_DAILY_TYPE"),
    *("SUR_TEMP_DAILY_MAX", "SUR_TEMP_DAILY_MIN", "SUR_TEMP_DAILY_AVG"),
    *("RH_DAILY_MAX", "RH_DAILY_MIN", "RH_DAILY_AVG"),
    *(f"SOIL_MOISTURE_{depth}_DAILY" for depth in (5, 10, 20, 50, 100)),
    *(f"SOIL_TEMP_{depth}_DAILY" for depth in (5, 10, 20, 50, 100)),
)
NUMBERS = tuple(COLUMNS[i] for i in (3, 4, *range(5, 11), *range(12, 28)))
LISTED = ("WBAN", "STATE", "LOCATION", "VECTOR", "LATITUDE", "LONGITUDE", "ELEVATION", "NETWORK")
FOOT_M = 0.3048
_SHOWN = 5  # largest number of problems that an error lists


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


class Year(NamedTuple):
    """The data of a site in one year.

    Attributes:
      days: (day,) datetime64[D], increasing, days of local standard time.
      values: (day, column) float64 values of the numeric columns, NaN where missing.
      wban: Number of the site.
    """

    days: np.ndarray
    values: np.ndarray
    wban: str


def listed(text: bytes, place: str) -> dict[str, Site]:
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
    absent = [name for name in LISTED if name not in (rows.fieldnames or ())]
    if absent:
        problem = f"columns {', '.join(absent)} missing; the list has {rows.fieldnames}"
        raise DataError(place, problem, remedy="has the list changed? correct the entry's `sites`")
    sites, problems = {}, []
    for row in rows:
        name = _file_name(f"{row['STATE']}_{row['LOCATION']}_{row['VECTOR']}")
        try:
            position = float(row["LATITUDE"]), float(row["LONGITUDE"])
            elevation = float(row["ELEVATION"] or "nan") * FOOT_M
        except (TypeError, ValueError):
            message = f"position or elevation of {name} is not a number"
            problems.append(f"line {rows.line_num}: {message}")
            continue
        sites[name] = Site(row["WBAN"], *position, elevation, row["NETWORK"])
    if problems:
        raise DataError(place, *problems, remedy="fetch the list again")
    return sites


def year(text: bytes, place: str) -> Year:
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
            day, values = _row(cells, file_year)
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
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise DataError(place, *problems[:_SHOWN], *more, remedy="fetch it again")
    in_order = sorted(days)
    return Year(np.array(in_order), np.array([days[day] for day in in_order]), wbans.pop())


def _row(cells: list[str], file_year: str) -> tuple[np.datetime64, list[float]]:
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
    return np.datetime64(day), [_number(name, cell_by_column[name]) for name in NUMBERS]


def _number(name: str, text: str) -> float:
    """Return a value, NaN for the column's fill value, which is the lowest that its format has."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} '{text}', expected a number") from None
    fill = -99 if name.startswith("SOIL_MOISTURE") else -9999
    return float("nan") if value <= fill else value


def _file_name(name: str) -> str:
    """Return a name as it is in file names, without accents and with underscores for blanks."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "_".join(plain.split())
