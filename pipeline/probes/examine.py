"""Locate the probes of a table on the grids, and find odd coordinates.

Read a table of probes as guessed, apply quality control, and locate the probes on the grid.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from pipeline.catalog import quality_control
from pipeline.errors import DataError
from pipeline.experiment.config import QcConfig
from pipeline.experiment.variables import VARIABLES
from pipeline.grid import collocated_sites, ease
from pipeline.probes import guess as probes_guess
from pipeline.probes.columns import TARGET
from pipeline.sources.shared import access, http_errors
from pipeline.sources.table import REQUIRED_ROLES, TableSource, rows
from pipeline.sources.table.text import parse_csv

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.probes.guess import Guess


CELLS_PER_SIDE = 4  # 9 km cells along the side of a 36 km footprint

# An offset from UTC places a longitude to within _FAR_DEGREES; others' coordinates are equal to
# within _NEAR_DEGREES.
_DEGREES_PER_HOUR, _FAR_DEGREES, _NEAR_DEGREES = 15.0, 45.0, 5.0


@dataclass(frozen=True)
class ProbePlace:
    """Where a probe is.

    Attributes:
      lat: latitude in degrees.
      lon: longitude in degrees.
      cell: row and column in the global grid M09 (9 km), negative outside it.
      footprint: row and column in the global grid M36 (36 km), negative outside it.
      notes: what the user should know about this place.
    """

    lat: float
    lon: float
    cell: tuple[int, int]
    footprint: tuple[int, int]
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return latitude and longitude on two lines, as `41.2512 N` and `105.5021 W`."""
        ns, ew = "N" if self.lat >= 0 else "S", "E" if self.lon >= 0 else "W"
        return f"{abs(self.lat):.4f} {ns}\n{abs(self.lon):.4f} {ew}"


def locate_probes(
    coordinates: pd.DataFrame, hours: float | None
) -> tuple[dict[str, ProbePlace], list[str]]:
    """Locate every probe.

    Args:
      coordinates: columns lat and lon in degrees and `decimals`, the digits they are written with;
        indexed by id.
      hours: offset from UTC of the probes' clocks; None if it is not known.

    Returns:
      The place of every probe by id, and problems of the coordinates.
    """
    lat, lon = coordinates["lat"].to_numpy(float), coordinates["lon"].to_numpy(float)
    row, col = ease.footprint_position(lat, lon)
    outside = ~((row >= 0) & (row < ease.FOOTPRINT_ROWS)) & (np.abs(lat) <= 90)
    problems = _find_swapped(coordinates) + _find_mirrored(coordinates, hours)
    problems += [
        f"{site}: latitude {value:g} degrees is poleward of the grid's edge, 85.04"
        for site, value in zip(coordinates.index[outside], lat[outside], strict=True)
    ]
    is_zero = (lat == 0) & (lon == 0)
    problems += [
        f"{site}: latitude and longitude are both 0; they are probably missing"
        for site in coordinates.index[is_zero]
    ]
    position = np.nan_to_num(np.stack([row, col], 1), nan=-1.0, posinf=-1.0, neginf=-1.0)
    cells = [(int(y), int(x)) for y, x in np.floor(position * CELLS_PER_SIDE)]
    footprints = [(int(y), int(x)) for y, x in np.floor(position)]
    notes = _note_places(coordinates, cells)
    located = {
        site: ProbePlace(lat[i], lon[i], cells[i], footprints[i], tuple(notes[i]))
        for i, site in enumerate(coordinates.index)
    }
    return located, problems


def _note_places(coordinates: pd.DataFrame, cells: list[tuple[int, int]]) -> list[list[str]]:
    """Note probes that share a cell or a place, and coordinates with few digits."""
    lat, lon = coordinates["lat"].to_numpy(float), coordinates["lon"].to_numpy(float)
    n_in_cell = Counter(cells)
    same = collocated_sites.label_places(len(lat), collocated_sites.find_twins(lat, lon))
    n_same = np.bincount(same, minlength=len(lat))
    notes: list[list[str]] = [[] for _ in cells]
    for i, cell in enumerate(cells):
        if n_in_cell[cell] > 1 and min(cell) >= 0:
            notes[i].append(f"in one cell, {cell[0]}, {cell[1]}")
        if n_same[same[i]] > 1:
            notes[i].append(f"at one place, {lat[same[i]]:g}, {lon[same[i]]:g}")
        if coordinates["decimals"].iloc[i] < 2:
            notes[i].append("coordinates are given to a tenth of a degree, the size of a cell")
    return notes


def clock_hours(text: pd.Series, time_zone: str) -> float | None:
    """Return the offset from UTC of the probes' clocks in hours.

    It comes from the offsets in the times, or from the time zone. None if neither says where the
    probes are, which is the case for UTC.

    Args:
      text: times as written.
      time_zone: time zone of the table.
    """
    if time_zone == rows.OWN_OFFSET:
        ends = text.str.extract(r"([+-])(\d{2}):?(\d{2})?$").dropna(subset=[0])
        if ends.empty:
            return None
        hours = ends[1].astype(float) + ends[2].fillna("0").astype(float) / 60
        mean = float((hours * np.where(ends[0] == "-", -1.0, 1.0)).mean())
        return mean or None  # +00:00 is UTC, which is used everywhere
    zone = rows.parse_time_zone(time_zone)
    if zone is None or time_zone == "UTC":
        return None
    # The smaller offset of winter and summer is standard time.
    january, july = (datetime(2019, month, 1, tzinfo=UTC).astimezone(zone) for month in (1, 7))
    offsets = [moment.utcoffset() for moment in (january, july)]
    return min(offset.total_seconds() / 3600 for offset in offsets if offset is not None)


def _find_swapped(coordinates: pd.DataFrame) -> list[str]:
    """Find latitudes and longitudes that are exchanged: out of range, or unlike the others."""
    lat, lon = coordinates["lat"], coordinates["lon"]
    swapped = (lat.abs() > 90) & (lon.abs() <= 90)
    if len(coordinates) > 2:
        usual_lat, usual_lon = lat.median(), lon.median()
        lat_like_lon = (lat - usual_lon).abs().lt(_NEAR_DEGREES)
        lon_like_lat = (lon - usual_lat).abs().lt(_NEAR_DEGREES)
        is_far = (lat - usual_lat).abs().gt(2 * _NEAR_DEGREES)
        swapped |= lat_like_lon & lon_like_lat & is_far
    return [
        f"{site}: lat {lat[site]:g}, lon {lon[site]:g} look swapped: exchange them"
        for site in coordinates.index[swapped]
    ]


def _find_mirrored(coordinates: pd.DataFrame, hours: float | None) -> list[str]:
    """Find longitudes whose sign contradicts the clock's offset or the other probes."""
    lon = coordinates["lon"]
    clock_lon = None if hours is None else hours * _DEGREES_PER_HOUR
    usual_lon = lon.median() if len(coordinates) > 2 else None
    expectations = (
        (clock_lon, _FAR_DEGREES, f"a clock at UTC{hours or 0:+g} h"),
        (usual_lon, _NEAR_DEGREES, "most others"),
    )
    problems = []
    for site, value in lon.items():
        for expected, near, reason in expectations:
            if expected is None or _longitude_difference(value, expected) <= near:
                continue
            if _longitude_difference(-value, expected) <= near and abs(value) > _NEAR_DEGREES:
                problems.append(
                    f"{site}: lon {value:g} contradicts {reason}: longitudes in the west are "
                    f"negative; use {-value:g}"
                )
                break
    return problems


def _longitude_difference(one: float, other: float) -> float:
    """Return the difference of two longitudes in degrees, 0 to 180."""
    return abs((one - other + 180) % 360 - 180)


def join_names(names: list[str]) -> str:
    """Join the first three names, and count the others: `A, B, C and 2 more`."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


@dataclass
class ProbeTable:
    """What is known of a table of probes.

    Attributes:
      url: the file, an absolute path or a URL.
      size: size of the file in bytes.
      guess: how it is read.
      places: place of every probe, by id.
      data: daily values; None if the table has errors.
      dropped: (time, place) values that quality control drops, by rule.
      problems: what has to be corrected.
    """

    url: str
    size: int
    guess: Guess
    places: dict[str, ProbePlace] = field(default_factory=dict)
    data: xr.Dataset | None = None
    dropped: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def index_of(self, site: str) -> int | None:
        """Return the index of a probe in the data; None if it has no data."""
        ids = [] if self.data is None else self.data.place.values.tolist()
        return ids.index(site) if site in ids else None


def read_probes(url: str, given: dict[str, Any]) -> ProbeTable:
    """Read a table as guessed, and find everything that is wrong with it.

    Args:
      url: an absolute path or a URL.
      given: arguments that the user states, as for `guessing.guess`.

    Raises:
      DataError: If the file cannot be read or is empty.
    """
    content = access.read_file(url)
    raw, problems = parse_csv(content)
    if raw.empty:
        raise DataError(http_errors.format_url(url), *(problems or ["no rows"]))
    guess = probes_guess.guess_arguments(raw, given)
    result = ProbeTable(url, len(content), guess, problems=list(guess.problems))
    if not guess.args:
        result.problems += problems
        return result
    try:
        data = TableSource(url, **guess.args).to_dask()
        _, result.dropped = quality_control.screen_sites(
            data, TARGET, VARIABLES[TARGET], QcConfig()
        )
        result.data = data
    except DataError as error:
        result.problems += error.problems
    except ValueError as error:
        result.problems.append(str(error))
        return result
    hours = clock_hours(raw[guess.columns["time"]], guess.args["time_zone"])
    result.places, place_problems = locate_probes(_first_coordinates(raw, guess), hours)
    result.problems += place_problems
    if result.data is not None and not count_days(result)[1].any():
        result.problems.append("no value passes quality control")
    return result


def _first_coordinates(raw: pd.DataFrame, guess: Guess) -> pd.DataFrame:
    """Return the first lat and lon of every id, and the decimals they are written with."""
    import pandas as pd

    # A single station's id, lat and lon become columns, as in a table that has them.
    station = {f"({role})": str(guess.args[role]) for role in REQUIRED_ROLES if role in guess.args}
    raw = raw.assign(**station)
    columns = {role: guess.args["columns"].get(role, f"({role})") for role in REQUIRED_ROLES}
    names = {name: columns[name] for name in ("lat", "lon")}
    ids = raw[columns["id"]]
    coordinates = pd.DataFrame(
        {name: probes_guess.to_numbers(raw, c, ()) for name, c in names.items()}
    )
    decimals = [raw[c].str.extract(r"[.,](\d+)$")[0].fillna("").str.len() for c in names.values()]
    coordinates["decimals"] = pd.concat(decimals, axis=1).max(axis=1)
    known = coordinates[ids != ""].dropna()
    first: pd.DataFrame = known.groupby(ids[known.index], sort=False).first()
    return first


def count_days(table: ProbeTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (place,) the number of days with a value, and of those that quality control keeps."""
    assert table.data is not None
    days = np.isfinite(table.data[TARGET].values).sum(0)
    return days, days - sum((bad.sum(0) for bad in table.dropped.values()), np.zeros_like(days))
