"""Great-circle distances, and which places are nearest: arrays only.

Searches use a k-d tree of unit vectors, which measures chords. A chord grows with the great-circle
distance, so that the nearest by one is the nearest by the other; distances that are returned are
always great-circle distances.

Which cell of a source, on its own grid, holds a place; or which of its places is nearest.

The satellite at a site: the baseline that costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import DataError
from pipeline.grid.regrid import edges_between

if TYPE_CHECKING:
    import numpy.typing as npt
    import xarray as xr
    from numpy.typing import NDArray

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]
    Places = tuple[NDArray[np.float64], NDArray[np.float64]]  # latitude, longitude, in degrees


EARTH_RADIUS_KM = 6371.0088  # mean radius (2a + b) / 3 of the ellipsoid GRS 80

# Rounding errors of a chord of the unit sphere are below 1e-15; this is 6 micrometres.
_ROUNDING = 1e-12


def great_circle_km(
    lat1: npt.ArrayLike, lon1: npt.ArrayLike, lat2: npt.ArrayLike, lon2: npt.ArrayLike
) -> FloatArray:
    """Return the great-circle distance (...) in km of places in degrees that broadcast, (...)."""
    phi1, lambda1, phi2, lambda2 = map(np.radians, (lat1, lon1, lat2, lon2))
    across = np.cos(phi1) * np.cos(phi2) * np.sin((lambda2 - lambda1) / 2) ** 2
    haversine = np.clip(np.sin((phi2 - phi1) / 2) ** 2 + across, 0, 1)
    return np.asarray(2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(haversine)), float)


def find_nearest(
    lat: npt.ArrayLike,
    lon: npt.ArrayLike,
    candidate_lat: npt.ArrayLike,
    candidate_lon: npt.ArrayLike,
) -> tuple[IntArray, FloatArray]:
    """Find the candidate nearest to each place; of equally near ones the first.

    Places are (place,) and candidates (candidate,), in degrees. Returns the (place,) index of the
    candidate, and the (place,) great-circle distance to it in km.

    Raises:
      ValueError: there is no candidate, or a coordinate is not finite.
    """
    from scipy.spatial import KDTree

    places = np.array([lat, lon], float)
    candidates = np.array([candidate_lat, candidate_lon], float)
    if not candidates.size or not np.isfinite(places).all() or not np.isfinite(candidates).all():
        found = f"{places.shape[1]} places and {candidates.shape[1]} candidates"
        raise ValueError(f"{found}: expected at least one candidate, and finite coordinates")
    tree, vectors = KDTree(_unit_vectors(*candidates)), _unit_vectors(*places)
    # A second candidate that does not exist is infinitely far away.
    chord, two = (np.asarray(found) for found in tree.query(vectors, k=2))
    index = two[:, 0].astype(np.int64)
    # The tree's order of equally near candidates is arbitrary.
    for place in np.flatnonzero(chord[:, 1] - chord[:, 0] <= _ROUNDING):
        reach = chord[place, 0] + _ROUNDING
        tied = tree.query_ball_point(vectors[place], reach, return_sorted=True)
        index[place] = tied[great_circle_km(*places[:, place], *candidates[:, tied]).argmin()]
    return index, great_circle_km(*places, *candidates[:, index])


def pairs_within(km: float, lat: npt.ArrayLike, lon: npt.ArrayLike) -> IntArray:
    """Find every two places that are less than `km` apart.

    lat and lon are (place,) in degrees; a place whose position is not finite is in no pair.
    Returns the (pair, 2) indices of the places, the lower first, pairs in no particular order.
    """
    from scipy.spatial import KDTree

    places = np.array([lat, lon], float)
    known = np.flatnonzero(np.isfinite(places).all(0))
    chord = 2 * np.sin(km / EARTH_RADIUS_KM / 2) + _ROUNDING
    tree = KDTree(_unit_vectors(*places[:, known]))
    pair = np.sort(known[tree.query_pairs(chord, output_type="ndarray").reshape(-1, 2)], axis=1)
    apart = great_circle_km(*places[:, pair[:, 0]], *places[:, pair[:, 1]])
    return np.asarray(pair[apart < km], np.int64)


def _unit_vectors(lat: FloatArray, lon: FloatArray) -> FloatArray:
    """(place, 3) vectors of length one from the middle of the Earth to places in degrees."""
    phi, lam = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)


_EDGE = 1e-3  # of a cell's width: bounds are often float32


@dataclass(frozen=True)
class CellLookup:
    """For each of some places the cell of a source, by dim, and the cell's centre.

    `index` (place,) is -1 along one dim or more where no cell holds the place; `lat` and `lon`
    (place,), in degrees, mean nothing there.
    """

    index: dict[str, NDArray[np.int64]]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(place,) whether there is such a cell."""
        return np.asarray(np.all([index >= 0 for index in self.index.values()], axis=0))


def cells(dataset: xr.Dataset, places: Places, max_km: float) -> CellLookup:
    """The cell of a source that holds each place; of a source of places the nearest.

    Args:
      dataset: in a form that `pipeline.sources` gives, its attribute `entry` the name it has.
      places: latitude and longitude (place,), degrees.
      max_km: farthest place of a source of places that may stand for another.

    Raises:
      DataError: the source is neither of places nor of cells.
    """
    dims = set(dataset.dims)
    if "place" in dims:
        return _nearest(dataset, places, max_km)
    if {"lat", "lon"} <= dims:
        row = _interval(dataset["lat_bnds"].values, places[0])
        col = _interval(dataset["lon_bnds"].values, places[1], turn=360)
        lat, lon = dataset["lat"].values, dataset["lon"].values
        return CellLookup({"lat": row, "lon": col}, lat[row], lon[col])
    if {"y", "x"} <= dims and "crs" in dataset.attrs:
        return _projected(dataset, places)
    found = f"dims {[str(dim) for dim in dataset.dims]}"
    accepted = "expected time with place, with lat and lon, or with y, x and an attribute crs"
    raise DataError(f"catalog entry {dataset.attrs['entry']}", f"{found}; {accepted}")


def _nearest(dataset: xr.Dataset, places: Places, max_km: float) -> CellLookup:
    lat, lon = dataset["lat"].values, dataset["lon"].values
    n = len(places[0])
    if not len(lat) or not n:
        return CellLookup({"place": np.full(n, -1)}, np.full(n, np.nan), np.full(n, np.nan))
    index, distance = find_nearest(*places, lat, lon)
    near = np.where(distance <= max_km, index, -1)
    return CellLookup({"place": near}, lat[index], lon[index])


def _projected(dataset: xr.Dataset, places: Places) -> CellLookup:
    import pyproj

    crs = pyproj.CRS.from_user_input(dataset.attrs["crs"])
    transformer = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = (np.asarray(v, float) for v in transformer.transform(places[1], places[0]))
    row = _interval(_edges(dataset, "y"), y)
    col = _interval(_edges(dataset, "x"), x, turn=360 if crs.is_geographic else 0)
    centre = dataset["x"].values[col], dataset["y"].values[row]
    lon, lat = (np.asarray(v) for v in transformer.transform(*centre, direction="INVERSE"))
    return CellLookup({"y": row, "x": col}, lat, lon)


def _edges(dataset: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """(n, 2) edges of rows or columns, halfway between their centres."""
    centre = dataset[axis].values.astype("float64")
    if len(centre) < 2:
        found = f"{axis}: {len(centre)} values; two are needed to tell how wide a cell is"
        raise DataError(f"catalog entry {dataset.attrs['entry']}", found, remedy="read more of it")
    edges = edges_between(centre)
    return np.stack([edges[:-1], edges[1:]], 1)


def _interval(
    bounds: NDArray[np.float64], place: NDArray[np.float64], turn: float = 0
) -> NDArray[np.int64]:
    """(place,) index of the interval of (n, 2) bounds that holds each, -1 for none.

    With `turn`, what is so much further east or west is the same place.
    """
    low, high = np.sort(bounds.astype("float64"), axis=1).T
    order = np.argsort(low)
    slack = _EDGE * (high - low)
    held = np.full(len(place), -1)
    for shift in dict.fromkeys((0.0, turn, -turn)):
        moved = place + shift
        index = order[np.maximum(np.searchsorted(low[order], moved, "right") - 1, 0)]
        inside = (moved >= low[index] - slack[index]) & (moved <= high[index] + slack[index])
        held = np.where((held < 0) & inside, index, held)
    return held.astype(np.int64)


def at_sites(
    satellite: NDArray[np.float32],
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    sites: tuple[NDArray[np.float64], NDArray[np.float64]],
    holding: NDArray[np.int64],
    max_km: float,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The footprint that holds each site, else the nearest with data within `max_km`.

    Args:
      satellite: (footprint, day) values, NaN where missing.
      where: latitude and longitude (footprint,), degrees.
      sites: latitude and longitude (site,), degrees.
      holding: (site,) index of the footprint that holds the site, -1 for none.
      max_km: farthest centre that may stand for a site.

    Returns:
      (site, day) values, NaN where there is none; (site,) distance to the footprint's centre, km.
    """
    seen = np.asarray(np.isfinite(satellite).any(axis=1))
    series = np.full((len(sites[0]), satellite.shape[1]), np.nan, np.float32)
    chosen, distance = standing_for(seen, where, sites, holding, max_km)
    usable = chosen >= 0
    series[usable] = satellite[chosen[usable], :]
    return series, distance


def standing_for(
    seen: NDArray[np.bool_],
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    sites: tuple[NDArray[np.float64], NDArray[np.float64]],
    holding: NDArray[np.int64],
    max_km: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The footprint of each site, -1 for none, and how far its centre is away, km, NaN for none.

    As of `at_sites`; `seen` (footprint,) says which have data.
    """
    n = len(sites[0])
    if not seen.any() or not n:
        return np.full(n, -1), np.full(n, np.nan)
    nearest, _ = find_nearest(*sites, where[0][seen], where[1][seen])
    inside = (holding >= 0) & seen[holding]
    chosen = np.asarray(np.where(inside, holding, np.flatnonzero(seen)[nearest]))
    distance = great_circle_km(*sites, where[0][chosen], where[1][chosen])
    usable = inside | (distance <= max_km)
    return np.where(usable, chosen, -1), np.where(usable, distance, np.nan)
