"""Locate the probes of a table on the grids, and find odd coordinates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from pipeline import grid, twins
from pipeline.sources.table import stamps

if TYPE_CHECKING:
    import pandas as pd

REFINEMENT = 4  # 9 km cells along the side of a 36 km footprint
# An offset from UTC places a longitude to within _FAR_DEGREES; others' coordinates are equal to
# within _NEAR_DEGREES.
_DEGREES_PER_HOUR, _FAR_DEGREES, _NEAR_DEGREES = 15.0, 45.0, 5.0


@dataclass(frozen=True)
class Place:
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


def places(coordinates: pd.DataFrame, hours: float | None) -> tuple[dict[str, Place], list[str]]:
    """Locate every probe.

    Args:
      coordinates: columns lat and lon in degrees and `decimals`, the digits they are written with;
        indexed by id.
      hours: offset from UTC of the probes' clocks; None if it is not known.

    Returns:
      The place of every probe by id, and problems of the coordinates.
    """
    lat, lon = coordinates["lat"].to_numpy(float), coordinates["lon"].to_numpy(float)
    row, col = grid.footprint_position(lat, lon)
    outside = ~((row >= 0) & (row < grid.FOOTPRINT_ROWS)) & (np.abs(lat) <= 90)
    problems = _swapped(coordinates) + _mirrored(coordinates, hours)
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
    cells = [(int(y), int(x)) for y, x in np.floor(position * REFINEMENT)]
    footprints = [(int(y), int(x)) for y, x in np.floor(position)]
    notes = _notes(coordinates, cells)
    located = {
        site: Place(lat[i], lon[i], cells[i], footprints[i], tuple(notes[i]))
        for i, site in enumerate(coordinates.index)
    }
    return located, problems


def _notes(coordinates: pd.DataFrame, cells: list[tuple[int, int]]) -> list[list[str]]:
    """Note probes that share a cell or a place, and coordinates with few digits."""
    lat, lon = coordinates["lat"].to_numpy(float), coordinates["lon"].to_numpy(float)
    n_in_cell = Counter(cells)
    same = twins.places(len(lat), twins.find(lat, lon))
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
    if time_zone == stamps.OFFSET:
        ends = text.str.extract(r"([+-])(\d{2}):?(\d{2})?$").dropna(subset=[0])
        if ends.empty:
            return None
        hours = ends[1].astype(float) + ends[2].fillna("0").astype(float) / 60
        mean = float((hours * np.where(ends[0] == "-", -1.0, 1.0)).mean())
        return mean or None  # +00:00 is UTC, which is used everywhere
    zone = stamps.zone(time_zone)
    if zone is None or time_zone == "UTC":
        return None
    # The smaller offset of winter and summer is standard time.
    january, july = (datetime(2019, month, 1, tzinfo=UTC).astimezone(zone) for month in (1, 7))
    offsets = [moment.utcoffset() for moment in (january, july)]
    return min(offset.total_seconds() / 3600 for offset in offsets if offset is not None)


def _swapped(coordinates: pd.DataFrame) -> list[str]:
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


def _mirrored(coordinates: pd.DataFrame, hours: float | None) -> list[str]:
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
            if expected is None or _apart(value, expected) <= near:
                continue
            if _apart(-value, expected) <= near and abs(value) > _NEAR_DEGREES:
                problems.append(
                    f"{site}: lon {value:g} contradicts {reason}: longitudes in the west are "
                    f"negative; use {-value:g}"
                )
                break
    return problems


def _apart(one: float, other: float) -> float:
    """Return the difference of two longitudes in degrees, 0 to 180."""
    return abs((one - other + 180) % 360 - 180)


def few(names: list[str]) -> str:
    """Join the first three names, and count the others: `A, B, C and 2 more`."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
