"""Where the probes of a table are: which cell and footprint, and what is odd about it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from pipeline import grid, twins
from pipeline.sources.table import stamps

if TYPE_CHECKING:
    import pandas as pd

REFINEMENT = 4  # 9 km cells along a 36 km footprint's side
_DEGREES_PER_HOUR, _FAR_DEGREES, _NEAR_DEGREES = 15.0, 45.0, 5.0


@dataclass(frozen=True)
class Place:
    """A probe's place, and what to mind of it.

    Rows and columns are those of the global M09 and M36 grids, negative outside them.
    """

    lat: float
    lon: float
    cell: tuple[int, int]
    footprint: tuple[int, int]
    minds: tuple[str, ...]

    @property
    def shown(self) -> str:
        """Latitude and longitude, as people read them, on two lines."""
        ns, ew = "N" if self.lat >= 0 else "S", "E" if self.lon >= 0 else "W"
        return f"{abs(self.lat):.4f} {ns}\n{abs(self.lon):.4f} {ew}"


def places(found: pd.DataFrame, hours: float | None) -> tuple[dict[str, Place], list[str]]:
    """Place of every probe, and problems of coordinates.

    Args:
      found: index id, columns lat and lon in degrees, `decimals` as written.
      hours: offset from UTC of the probes' clocks, where known.
    """
    lat, lon = found["lat"].to_numpy(float), found["lon"].to_numpy(float)
    row, col = grid.footprint_position(lat, lon)
    problems = _swapped(found) + _mirrored(found, hours)
    outside = ~((row >= 0) & (row < grid.FOOTPRINT_ROWS)) & (np.abs(lat) <= 90)
    problems += [
        f"{site}: {value:g} degrees lies poleward of the grid's edge, 85.04"
        for site, value in zip(found.index[outside], lat[outside], strict=True)
    ]
    nowhere = (lat == 0) & (lon == 0)
    problems += [f"{site}: 0, 0 is nobody's probe" for site in found.index[nowhere]]
    at = np.nan_to_num(np.stack([row, col], 1), nan=-1.0, posinf=-1.0, neginf=-1.0)
    cells = [tuple(map(int, pair)) for pair in np.floor(at * REFINEMENT)]
    shared = defaultdict(list)
    for i, site in enumerate(found.index):
        shared[cells[i]].append(site)
    same = twins.places(len(lat), twins.find(lat, lon))
    n_same = np.bincount(same, minlength=len(lat))
    made = {}
    for i, site in enumerate(found.index):
        minds = []
        if len(shared[cells[i]]) > 1 and min(cells[i]) >= 0:
            minds.append(f"in one cell, {cells[i][0]}, {cells[i][1]}")
        if n_same[same[i]] > 1:
            minds.append(f"at one place, {lat[same[i]]:g}, {lon[same[i]]:g}")
        if found["decimals"].iloc[i] < 2:
            minds.append("place to a tenth of a degree: that is a cell's size")
        footprint = (int(np.floor(at[i, 0])), int(np.floor(at[i, 1])))
        made[site] = Place(lat[i], lon[i], (cells[i][0], cells[i][1]), footprint, tuple(minds))
    return made, problems


def clock_hours(text: pd.Series, time_zone: str) -> float | None:
    """Offset from UTC of the probes' clocks, hours, where stamps or their zone tell; else None."""
    if time_zone == stamps.OFFSET:
        ends = text.str.extract(r"([+-])(\d{2}):?(\d{2})?$").dropna(subset=[0])
        if ends.empty:
            return None
        hours = ends[1].astype(float) + ends[2].fillna("0").astype(float) / 60
        mean = float((hours * np.where(ends[0] == "-", -1.0, 1.0)).mean())
        return mean or None  # +00:00 is UTC, which is kept anywhere
    where = stamps.zone(time_zone)
    if where is None or time_zone == "UTC":
        return None
    january, july = (datetime(2019, month, 1, tzinfo=UTC).astimezone(where) for month in (1, 7))
    offsets = [moment.utcoffset() for moment in (january, july)]
    return min(offset.total_seconds() / 3600 for offset in offsets if offset is not None)


def _swapped(found: pd.DataFrame) -> list[str]:
    lat, lon = found["lat"], found["lon"]
    swapped = (lat.abs() > 90) & (lon.abs() <= 90)
    if len(found) > 2:
        usual_lat, usual_lon = lat.median(), lon.median()
        mirror = (lat - usual_lon).abs().lt(_NEAR_DEGREES) & (lon - usual_lat).abs().lt(
            _NEAR_DEGREES
        )
        swapped |= mirror & (lat - usual_lat).abs().gt(2 * _NEAR_DEGREES)
    return [
        f"{site}: lat {lat[site]:g}, lon {lon[site]:g} look swapped: exchange them"
        for site in found.index[swapped]
    ]


def _mirrored(found: pd.DataFrame, hours: float | None) -> list[str]:
    """Longitudes whose sign the clock's offset, or the other probes, contradict."""
    lon = found["lon"]
    by_clock = _FAR_DEGREES, None if hours is None else hours * _DEGREES_PER_HOUR
    usual = lon.median() if len(found) > 2 else None
    problems = []
    for site, value in lon.items():
        for (near, expected), told in (
            (by_clock, f"a clock at UTC{hours or 0:+g} h"),
            ((_NEAR_DEGREES, usual), "most others"),
        ):
            if expected is None or _apart(value, expected) <= near:
                continue
            if _apart(-value, expected) <= near and abs(value) > _NEAR_DEGREES:
                text = f"{site}: lon {value:g} contradicts {told}: west is negative, say {-value:g}"
                problems.append(text)
                break
    return problems


def _apart(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def few(names: list[str]) -> str:
    """Some names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
