"""Texts of the U.S. Climate Reference Network: its list of sites, and a site's days of a year."""

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
_SHOWN = 5


class Site(NamedTuple):
    """A site: its number, position in degrees, elevation in m, and network; "" for unknown."""

    wban: str
    lat: float
    lon: float
    elevation: float
    network: str


class Year(NamedTuple):
    """A site's text of a year.

    Attributes:
      days: (day,) datetime64[D], increasing, local standard time.
      values: (day, NUMBERS) float64, NaN where missing.
      wban: the site's number.
    """

    days: np.ndarray
    values: np.ndarray
    wban: str


def listed(text: bytes, place: str) -> dict[str, Site]:
    """The provider's list of sites, by the name that their files have: ST_Location_vector.

    Args:
      text: tab-separated, with a header; elevations in feet.
      place: its URL.

    Raises:
      DataError: columns are missing, or a position is no number.
    """
    lines = io.StringIO(text.decode("utf-8", "replace"), newline=None)  # lines end in any way
    rows = csv.DictReader(lines, delimiter="\t")
    lacking = [name for name in LISTED if name not in (rows.fieldnames or ())]
    if lacking:
        found = f"columns {', '.join(lacking)} missing; it has {rows.fieldnames}"
        raise DataError(place, found, remedy="has the list changed? correct the entry's `sites`")
    found_here, problems = {}, []
    for row in rows:
        name = _file_name(f"{row['STATE']}_{row['LOCATION']}_{row['VECTOR']}")
        try:
            position = float(row["LATITUDE"]), float(row["LONGITUDE"])
            elevation = float(row["ELEVATION"] or "nan") * FOOT_M
        except (TypeError, ValueError):
            problems.append(f"line {rows.line_num}: position or elevation of {name} is no number")
            continue
        found_here[name] = Site(row["WBAN"], *position, elevation, row["NETWORK"])
    if problems:
        raise DataError(place, *problems, remedy="fetch the list again")
    return found_here


def year(text: bytes, place: str) -> Year:
    """A site's days of a year.

    Args:
      text: 28 columns separated by blanks, a day in each line.
      place: its URL, ending in CRND0103-YYYY-NAME.txt.

    Raises:
      DataError: naming lines with another number of columns, no number, a bad day or one that is
        there twice.
    """
    wanted = place.rsplit("/", 1)[-1].split("-")[1]
    days: dict[np.datetime64, list[float]] = {}
    problems, wbans = [], set()
    for number, line in enumerate(text.decode("ascii", "replace").splitlines(), 1):
        cells = line.replace("\0", " ").split()
        if not cells:
            continue
        try:
            day, values = _row(cells, wanted)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if day in days:
            problems.append(f"line {number}: day {day} is there twice")
        days[day] = values
        wbans.add(cells[0])
    if len(wbans) > 1:
        problems.append(f"lines of several sites: {', '.join(sorted(wbans))}")
    if not days and not problems:
        problems.append("no lines")
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise DataError(place, *problems[:_SHOWN], *more, remedy="fetch it again")
    order = sorted(days)
    return Year(np.array(order), np.array([days[day] for day in order]), wbans.pop())


def _row(cells: list[str], wanted: str) -> tuple[np.datetime64, list[float]]:
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} columns, expected {len(COLUMNS)}")
    told = dict(zip(COLUMNS, cells, strict=True))
    text = told["LST_DATE"]
    if len(text) != 8 or not text.startswith(wanted):
        raise ValueError(f"day '{text}', expected one of {wanted} as YYYYMMDD")
    try:
        day = datetime.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError as error:
        raise ValueError(f"day '{text}': {error}") from error
    return np.datetime64(day), [_number(name, told[name]) for name in NUMBERS]


def _number(name: str, text: str) -> float:
    """A value; NaN for the lowest integer that the column's format has."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{name} '{text}', expected a number") from None
    fill = -99 if name.startswith("SOIL_MOISTURE") else -9999
    return float("nan") if value <= fill else value


def _file_name(name: str) -> str:
    """A name as files have it: without accents, blanks as underscores."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "_".join(plain.split())
