"""Sites at one place: found by distance and by cell, followed from pair to pair, described."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid import collocated_sites, lookup

SEEDS = st.integers(0, 2**32 - 1)


@settings(derandomize=True, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 25), pole=st.booleans(), with_cells=st.booleans())
def test_pairs_and_places_are_those_of_a_plain_search(seed, n, pole, with_cells):
    """Sites within a few km, across the antimeridian, or round the pole."""
    rng = np.random.default_rng(seed)
    lat = (89.98 if pole else 12.0) + rng.uniform(-0.02, 0.02, n)
    lon = (
        rng.uniform(-180, 180, n) if pole else (180 + rng.uniform(-0.02, 0.02, n) + 180) % 360 - 180
    )
    cell = rng.integers(-1, 9, n) if with_cells else None
    found = collocated_sites.find_twins(lat, lon, cell)
    expected = {
        (a, b): float(lookup.great_circle_km(lat[a], lon[a], lat[b], lon[b]))
        for a in range(n)
        for b in range(a + 1, n)
        if lookup.great_circle_km(lat[a], lon[a], lat[b], lon[b]) < 1
        or (with_cells and cell[a] == cell[b] >= 0)
    }
    km = dict(zip(map(tuple, found.pair.tolist()), found.km, strict=True))
    assert km == pytest.approx(expected, rel=1e-12)  # of arrays NumPy may round otherwise
    assert (np.diff(found.km) >= 0).all()
    place = np.arange(n)
    for _ in range(n):
        for a, b in expected:
            place[[a, b]] = place[[a, b]].min()
    np.testing.assert_array_equal(collocated_sites.label_places(n, found), place)


def test_a_site_without_a_position_has_no_twin():
    lat, lon = np.array([np.nan, np.nan, 5.0, 5.0]), np.array([3.0, 3.0, 7.0, 7.0])
    assert collocated_sites.find_twins(lat, lon).pair.tolist() == [[2, 3]]


def test_elsewhere_is_another_fold_and_another_place():
    place, fold = np.array([0, 0, 2, 3, 2]), np.array([0, 1, 1, 2, 1])
    assert collocated_sites.select_elsewhere(place, fold, 0).tolist() == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert collocated_sites.select_elsewhere(place, fold, 1).tolist() == [
        False,
        False,
        False,
        True,
        False,
    ]
    assert collocated_sites.select_elsewhere(place, fold, -1).tolist() == [True] * 5


def test_pairs_are_told_with_distance_and_correlation():
    days = np.datetime64("2020-01-01") + np.arange(60)
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.4, (60, 5)).astype(np.float32)
    values[::3, 1], values[:, 2], values[:30, 3], values[30:, 4] = np.nan, 0.3, np.nan, np.nan
    pair = np.array([[0, 1], [0, 2], [3, 4]])
    found = collocated_sites.describe_twins(
        collocated_sites.Twins(pair, np.array([0.1, 0.2, 0.3])), [*"abcde"], values, days
    )
    both = np.isfinite(values[:, 1])
    r = np.corrcoef(values[both, 0], values[both, 1])[0, 1]
    assert found[0] == {
        "sites": ["a", "b"],
        "km": 0.1,
        "days": 40,
        "correlation": pytest.approx(r, abs=1e-6),
    }
    assert [item["correlation"] for item in found[1:]] == [None, None]
    assert collocated_sites.format_pairs(found) == (
        f"a and b: 0.10 km, r {r:.2f}; a and c: 0.20 km, r undefined; "
        "d and e: 0.30 km, no common days"
    )
    assert collocated_sites.format_pairs(found * 3).endswith("; and 4 more")
