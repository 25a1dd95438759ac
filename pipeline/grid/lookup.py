"""Find the nearest places, the cell of a source at a place, and the footprint of a site.

Nearest places are searched with a k-d tree of unit vectors, whose distances are chords. A chord
grows with the great-circle distance, so the nearest place is the same for both. All distances that
are returned are great-circle distances.
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

# Tolerance for chords of the unit sphere, 6 micrometres on the Earth. Their rounding errors are
# below 1e-15.
_ROUNDING = 1e-12

# Tolerance at the edges of cells, as a share of the cell's width: bounds are often float32.
_EDGE_TOLERANCE = 1e-3


def great_circle_km(
    lat1: npt.ArrayLike, lon1: npt.ArrayLike, lat2: npt.ArrayLike, lon2: npt.ArrayLike
) -> FloatArray:
    """Return great-circle distances, by the haversine formula.

    Args:
      lat1: Degrees north; the four arrays broadcast.
      lon1: Degrees east.
      lat2: Degrees north.
      lon2: Degrees east.

    Returns:
      (...) distance in km.
    """
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
    """Find the candidate nearest to each place, the first one if several are equally near.

    Args:
      lat: (place,) degrees north.
      lon: (place,) degrees east.
      candidate_lat: (candidate,) degrees north.
      candidate_lon: (candidate,) degrees east.

    Returns:
      (place,) index of the candidate, and (place,) great-circle distance to it in km.

    Raises:
      ValueError: If there is no candidate, or a coordinate is not finite.
    """
    from scipy.spatial import KDTree

    places = np.array([lat, lon], float)
    candidates = np.array([candidate_lat, candidate_lon], float)
    if not candidates.size or not np.isfinite(places).all() or not np.isfinite(candidates).all():
        counts = f"{places.shape[1]} places and {candidates.shape[1]} candidates"
        raise ValueError(f"{counts}: expected at least one candidate, and finite coordinates")
    tree, vectors = KDTree(unit_vectors(*candidates)), unit_vectors(*places)
    # If there is only one candidate, the chord to the second one is infinite.
    chord, nearest = (np.asarray(result) for result in tree.query(vectors, k=2))
    index = nearest[:, 0].astype(np.int64)
    # The tree's order of equally near candidates is arbitrary, so the first one is selected here.
    for place in np.flatnonzero(chord[:, 1] - chord[:, 0] <= _ROUNDING):
        radius = chord[place, 0] + _ROUNDING
        tied = tree.query_ball_point(vectors[place], radius, return_sorted=True)
        index[place] = tied[great_circle_km(*places[:, place], *candidates[:, tied]).argmin()]
    return index, great_circle_km(*places, *candidates[:, index])


def pairs_within(km: float, lat: npt.ArrayLike, lon: npt.ArrayLike) -> IntArray:
    """Find all pairs of places that are less than `km` apart.

    Args:
      km: Great-circle distance.
      lat: (place,) degrees north.
      lon: (place,) degrees east; places whose position is not finite are in no pair.

    Returns:
      (pair, 2) indices of the two places, the lower one first. The order of pairs is arbitrary.
    """
    from scipy.spatial import KDTree

    places = np.array([lat, lon], float)
    known = np.flatnonzero(np.isfinite(places).all(0))
    chord = 2 * np.sin(km / EARTH_RADIUS_KM / 2) + _ROUNDING
    tree = KDTree(unit_vectors(*places[:, known]))
    pair = np.sort(known[tree.query_pairs(chord, output_type="ndarray").reshape(-1, 2)], axis=1)
    distance = great_circle_km(*places[:, pair[:, 0]], *places[:, pair[:, 1]])
    return np.asarray(pair[distance < km], np.int64)


def unit_vectors(lat: FloatArray, lon: FloatArray) -> FloatArray:
    """Return (place, 3) unit vectors from the centre of the Earth to places in degrees."""
    phi, lam = np.radians(lat), np.radians(lon)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=1)


@dataclass(frozen=True)
class CellLookup:
    """The cell of a source at each of a number of places.

    Attributes:
      index: For each dimension of the source, the (place,) index of the cell; -1 along at least one
        dimension where no cell contains the place.
      lat: (place,) latitude of the cell's centre in degrees north; arbitrary if there is no cell.
      lon: (place,) longitude of the cell's centre in degrees east; arbitrary if there is no cell.
    """

    index: dict[str, NDArray[np.int64]]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(place,) whether a cell contains the place."""
        return np.asarray(np.all([index >= 0 for index in self.index.values()], axis=0))


def find_cells(dataset: xr.Dataset, places: Places, max_km: float) -> CellLookup:
    """Find the cell of a source that contains each place, or the nearest place of the source.

    Args:
      dataset: The source in a form that drivers return, with its name as the attribute `entry`.
      places: Latitude and longitude (place,) in degrees.
      max_km: Largest distance to a place of the source, if the source has places.

    Raises:
      DataError: If the source has neither places nor cells.
    """
    dims = set(dataset.dims)
    if "place" in dims:
        return _find_nearest_places(dataset, places, max_km)
    if {"lat", "lon"} <= dims:
        row = _find_interval(dataset["lat_bnds"].values, places[0])
        col = _find_interval(dataset["lon_bnds"].values, places[1], turn=360)
        lat, lon = dataset["lat"].values, dataset["lon"].values
        return CellLookup({"lat": row, "lon": col}, lat[row], lon[col])
    if {"y", "x"} <= dims and "crs" in dataset.attrs:
        return _find_projected_cells(dataset, places)
    problem = f"it has the dimensions {[str(dim) for dim in dataset.dims]}"
    accepted = "expected place, lat and lon, or y and x with an attribute crs"
    raise DataError(f"catalog entry {dataset.attrs['entry']}", f"{problem}; {accepted}")


def _find_nearest_places(dataset: xr.Dataset, places: Places, max_km: float) -> CellLookup:
    lat, lon = dataset["lat"].values, dataset["lon"].values
    n = len(places[0])
    if not len(lat) or not n:
        return CellLookup({"place": np.full(n, -1)}, np.full(n, np.nan), np.full(n, np.nan))
    index, distance = find_nearest(*places, lat, lon)
    near = np.where(distance <= max_km, index, -1)
    return CellLookup({"place": near}, lat[index], lon[index])


def _find_projected_cells(dataset: xr.Dataset, places: Places) -> CellLookup:
    import pyproj

    crs = pyproj.CRS.from_user_input(dataset.attrs["crs"])
    transformer = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = (np.asarray(v, float) for v in transformer.transform(places[1], places[0]))
    row = _find_interval(_cell_bounds(dataset, "y"), y)
    col = _find_interval(_cell_bounds(dataset, "x"), x, turn=360 if crs.is_geographic else 0)
    centre = dataset["x"].values[col], dataset["y"].values[row]
    lon, lat = (np.asarray(v) for v in transformer.transform(*centre, direction="INVERSE"))
    return CellLookup({"y": row, "x": col}, lat, lon)


def _cell_bounds(dataset: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """Return the (n, 2) edges of rows or columns, halfway between their centres.

    Raises:
      DataError: If there are fewer than two rows or columns.
    """
    centre = dataset[axis].values.astype("float64")
    if len(centre) < 2:
        problem = (
            f"{axis} has {len(centre)} values, but at least two are needed to know the cell size"
        )
        where = f"catalog entry {dataset.attrs['entry']}"
        raise DataError(where, problem, remedy="use a source with more cells")
    edges = edges_between(centre)
    return np.stack([edges[:-1], edges[1:]], 1)


def _find_interval(
    bounds: NDArray[np.float64], place: NDArray[np.float64], turn: float = 0
) -> NDArray[np.int64]:
    """Return the (place,) index of the interval that contains each coordinate, -1 for none.

    Args:
      bounds: (n, 2) bounds of the intervals.
      place: (place,) coordinates.
      turn: Period of the coordinate, such as 360 degrees of longitude; 0 for none.
    """
    low, high = np.sort(bounds.astype("float64"), axis=1).T
    order = np.argsort(low)
    slack = _EDGE_TOLERANCE * (high - low)
    interval = np.full(len(place), -1)
    for shift in dict.fromkeys((0.0, turn, -turn)):
        shifted = place + shift
        index = order[np.maximum(np.searchsorted(low[order], shifted, "right") - 1, 0)]
        inside = (shifted >= low[index] - slack[index]) & (shifted <= high[index] + slack[index])
        interval = np.where((interval < 0) & inside, index, interval)
    return interval.astype(np.int64)


def satellite_at_sites(
    satellite: NDArray[np.float32],
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    sites: tuple[NDArray[np.float64], NDArray[np.float64]],
    holding: NDArray[np.int64],
    max_km: float,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the satellite's values at each site, the baseline without a model.

    They are those of the footprint that contains the site if it has data, otherwise those of the
    nearest footprint with data within `max_km`.

    Args:
      satellite: (footprint, day) values, NaN where missing.
      where: Latitude and longitude (footprint,) of footprint centres in degrees.
      sites: Latitude and longitude (site,) in degrees.
      holding: (site,) index of the footprint that contains the site, -1 for none.
      max_km: Largest distance to the centre of a footprint that does not contain the site.

    Returns:
      (site, day) values, NaN where missing; (site,) distance to the footprint's centre in km, NaN
      for sites without a footprint.
    """
    seen = np.asarray(np.isfinite(satellite).any(axis=1))
    series = np.full((len(sites[0]), satellite.shape[1]), np.nan, np.float32)
    chosen, distance = footprints_of_sites(seen, where, sites, holding, max_km)
    usable = chosen >= 0
    series[usable] = satellite[chosen[usable], :]
    return series, distance


def footprints_of_sites(
    seen: NDArray[np.bool_],
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    sites: tuple[NDArray[np.float64], NDArray[np.float64]],
    holding: NDArray[np.int64],
    max_km: float,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Find the footprint whose values `satellite_at_sites` uses for each site.

    Args:
      seen: (footprint,) whether the footprint has data.
      where: As in `satellite_at_sites`.
      sites: As in `satellite_at_sites`.
      holding: As in `satellite_at_sites`.
      max_km: As in `satellite_at_sites`.

    Returns:
      (site,) index of the footprint, -1 for none; (site,) distance to its centre in km, NaN for
      none.
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
