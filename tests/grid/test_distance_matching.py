"""Folds by nearest neighbour distance matching: held-out sites are as far as cells are."""

import numpy as np
import pytest
from scipy import stats

from pipeline.grid import distance_matching, ease, lookup, spatial_blocks

CONUS = ease.Window.from_bbox(-125, 25, -66.5, 50, 4)
CELLS = distance_matching.sample_cells(
    np.ones(CONUS.cell_shape, bool), CONUS.cell_lat, CONUS.cell_lon
)


def clustered(n_clusters=8, n_each=12, seed=0):
    """Sites in tight clusters, as networks have them."""
    rng = np.random.default_rng(seed)
    lat, lon = rng.uniform([28, -120], [47, -72], (n_clusters, 2)).T
    return tuple(
        (centre[:, None] + rng.normal(0, 0.2, (n_clusters, n_each))).ravel()
        for centre in (lat, lon)
    )


def mismatch(sites, fold):
    """Wasserstein distance in km of held-out sites' distances from those of cells."""
    wanted = lookup.find_nearest(*CELLS, *sites)[1]
    found = distance_matching.distances_to_others(*sites, fold)
    return stats.wasserstein_distance(found, wanted)


@pytest.mark.parametrize("seed", range(3))
def test_clustered_sites_are_held_out_by_clusters(seed):
    sites = clustered(seed=seed)
    place = np.arange(len(sites[0]))
    matched = distance_matching.match_distances(sites, CELLS, 4, 0, place)
    assert set(matched) == {0, 1, 2, 3}
    assert np.bincount(matched).max() <= 0.5 * len(place)
    random = spatial_blocks.assign_random_folds(len(place), 4, 0, place)
    assert mismatch(sites, matched) < 0.5 * mismatch(sites, random)
    again = distance_matching.match_distances(sites, CELLS, 4, 99, place)
    np.testing.assert_array_equal(matched, again)  # nothing of it is random


def test_of_all_numbers_of_clusters_the_best_match_is_used(monkeypatch):
    sites = clustered()
    place = np.arange(len(sites[0]))
    best = mismatch(sites, distance_matching.match_distances(sites, CELLS, 4, 0, place))
    for n_clusters in (4, 8, 20, 60, 96):
        monkeypatch.setattr(distance_matching, "_numbers_of_clusters", lambda *_, n=n_clusters: [n])
        try:
            only = distance_matching.match_distances(sites, CELLS, 4, 0, place)
        except ValueError:
            continue
        assert mismatch(sites, only) >= best - 1e-9


def test_sites_that_are_spread_as_cells_are_get_random_folds():
    rng = np.random.default_rng(2)
    chosen = rng.choice(len(CELLS[0]), 80, replace=False)
    sites = CELLS[0][chosen], CELLS[1][chosen]
    place = np.arange(80)
    found = distance_matching.match_distances(sites, CELLS, 5, 7, place)
    expected = spatial_blocks.assign_random_folds(80, 5, 7, place)
    np.testing.assert_array_equal(found, expected)


def test_sites_at_one_place_stay_together():
    lat, lon = clustered()
    lat, lon = np.repeat(lat, 2), np.repeat(lon, 2)
    place = np.repeat(np.arange(0, len(lat), 2), 2)
    fold = distance_matching.match_distances((lat, lon), CELLS, 4, 0, place)
    np.testing.assert_array_equal(fold[::2], fold[1::2])


def test_distances_are_to_sites_of_other_folds():
    lat, lon = np.array([40.0, 40.0, 40.0]), np.array([-100.0, -99.0, -90.0])
    found = distance_matching.distances_to_others(lat, lon, np.array([0, 0, 1]))
    expected = lookup.great_circle_km(40.0, [-100.0, -99.0, -99.0], 40.0, -90.0)
    np.testing.assert_allclose(found, expected)


def test_too_few_sites_are_an_error():
    with pytest.raises(ValueError, match="n_folds 5 with 3 sites"):
        distance_matching.match_distances(
            (np.full(3, 40.0), np.arange(3.0)), CELLS, 5, 0, np.arange(3)
        )
