"""Great-circle distances, and which places are nearest: arrays only.

Searches use a k-d tree of unit vectors, which measures chords. A chord grows with the great-circle
distance, so that the nearest by one is the nearest by the other; distances that are returned are
always great-circle distances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    FloatArray = npt.NDArray[np.float64]
    IntArray = npt.NDArray[np.int64]

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


def nearest(
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
