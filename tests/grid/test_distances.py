"""Great-circle distances, and searches for what is near: against every distance, one by one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.grid import lookup


def haversine_km(lat1, lon1, lat2, lon2):
    """Of two places, in degrees, on a sphere of the Earth's mean radius."""
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    half = math.sin((phi2 - phi1) / 2) ** 2
    half += math.cos(phi1) * math.cos(phi2) * math.sin(math.radians(lon2 - lon1) / 2) ** 2
    return 2 * 6371.0088 * math.asin(math.sqrt(half))


def random_places(rng, n):
    return rng.uniform(-90, 90, n), rng.uniform(-180, 180, n)


def test_great_circle_distances_are_those_of_vectors_on_a_sphere():
    rng = np.random.default_rng(1)
    lat, lon = rng.uniform(-90, 90, (2, 9)), rng.uniform(-180, 180, (2, 9))
    phi, lam = np.radians(lat), np.radians(lon)
    unit = np.array([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    angle = np.arccos((unit[:, 0] * unit[:, 1]).sum(axis=0))
    found = lookup.great_circle_km(lat[0], lon[0], lat[1], lon[1])
    np.testing.assert_allclose(found, 6371.0088 * angle, rtol=1e-6)
    assert lookup.great_circle_km(0, -180, 0, 180) == pytest.approx(0, abs=1e-6)
    assert lookup.great_circle_km(90, 0, -90, 50) == pytest.approx(math.pi * 6371.0088)
    assert lookup.great_circle_km(np.zeros((3, 1)), 0.0, np.zeros(2), 1.0).shape == (3, 2)


def every_km(lat, lon, among):
    """(place, candidate) distances, which `nearest` must give the first least one of."""
    return lookup.great_circle_km(lat[:, None], lon[:, None], *among)


@given(n_places=st.integers(0, 7), n_candidates=st.integers(1, 5), seed=st.integers(0, 999))
def test_nearest_is_the_least_of_all_distances(n_places, n_candidates, seed):
    rng = np.random.default_rng(seed)
    lat, lon = random_places(rng, n_places)
    among = random_places(rng, n_candidates)
    index, distance = lookup.find_nearest(lat, lon, *among)
    assert index.shape == distance.shape == (n_places,)
    assert index.dtype == np.int64
    every = every_km(lat, lon, among)
    np.testing.assert_array_equal(distance, every.min(1))
    np.testing.assert_array_equal(index, every.argmin(1))


def test_of_equally_near_candidates_the_first_is_taken():
    rng = np.random.default_rng(2)
    few = random_places(rng, 5)
    order = np.concatenate([rng.permutation(5) for _ in range(9)])  # nine candidates at each place
    among = few[0][order], few[1][order]
    index, _ = lookup.find_nearest(*few, *among)
    assert index.tolist() == [order.tolist().index(i) for i in range(5)]


def test_places_between_the_points_of_a_grid_are_given_as_by_all_distances():
    """Midpoints tie by two and four, the poles by all; rounding decides as in the formula."""
    axes = np.meshgrid(np.arange(-90, 91, 15.0), np.arange(-180, 181, 15.0), indexing="ij")
    among = axes[0].ravel(), axes[1].ravel()
    between = np.meshgrid(np.arange(-90, 91, 7.5), np.arange(-180, 181, 7.5), indexing="ij")
    lat, lon = between[0].ravel(), between[1].ravel()
    index, distance = lookup.find_nearest(lat, lon, *among)
    every = every_km(lat, lon, among)
    assert (np.sort(every, 1)[:, 1] == every.min(1)).sum() > 300  # ties to the last bit
    np.testing.assert_array_equal(index, every.argmin(1))
    np.testing.assert_array_equal(distance, every.min(1))


def test_nearest_across_the_antimeridian():
    index, km = lookup.find_nearest([0.0], [179.9], [0.0, 0.0], [170.0, -179.9])
    assert index.tolist() == [1]
    np.testing.assert_allclose(km, math.radians(0.2) * 6371.0088, rtol=1e-12)


@pytest.mark.parametrize("among", [([], []), ([np.nan], [0.0])])
def test_nearest_refuses_candidates_without_a_place(among):
    with pytest.raises(ValueError, match=r"2 places and . candidates: expected at least one"):
        lookup.find_nearest([1.0, 2.0], [3.0, 4.0], *among)


@given(n=st.integers(0, 30), km=st.sampled_from([1.0, 300.0, 5000.0]), seed=st.integers(0, 999))
def test_pairs_are_all_that_are_nearer(n, km, seed):
    rng = np.random.default_rng(seed)
    lat, lon = random_places(rng, n)
    lat[: n // 4], lon[: n // 4] = lat[n // 4 : n // 4 * 2] + 0.002, lon[n // 4 : n // 4 * 2]
    lat[rng.random(n) < 0.1] = np.nan
    found = lookup.pairs_within(km, lat, lon)
    assert found.shape == (len(found), 2)
    near = [
        [a, b]
        for a in range(n)
        for b in range(a + 1, n)
        if haversine_km(lat[a], lon[a], lat[b], lon[b]) < km
    ]
    assert sorted(found.tolist()) == near
