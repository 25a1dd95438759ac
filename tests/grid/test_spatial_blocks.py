"""Dealing sites into folds: nothing is split, nothing is empty, nothing depends on the order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.grid import ease, lookup, spatial_blocks

CONUS = ease.Window.from_bbox(-125, 25, -66.5, 50, 4)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def dealt(draw):
    """Labels of sites, and a number of folds that their blocks can fill."""
    labels = draw(st.lists(st.integers(-5, 25), min_size=1, max_size=60))
    return np.array(labels), draw(st.integers(1, len(set(labels))))


def scattered(n_sites, seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(-89, 89, n_sites), rng.uniform(-180, 180, n_sites)


@given(
    seed=SEEDS,
    block_km=st.floats(1, 3000),
    offset=st.tuples(st.integers(-90, 90), st.integers(-90, 90)),
)
def test_sites_share_a_label_exactly_where_they_share_a_block(seed, block_km, offset):
    lat, lon = scattered(17, seed)
    labels = spatial_blocks.block_labels(lat, lon, block_km, offset)
    row, col = ease.footprint_position(lat, lon)
    side = max(1, round(block_km / 36.03222))
    block = [
        (np.floor((np.floor(r) - offset[0]) / side), np.floor((np.floor(c) - offset[1]) / side))
        for r, c in zip(row, col, strict=True)
    ]
    same = [[one == other for other in block] for one in block]
    np.testing.assert_array_equal(labels[:, None] == labels, same)
    assert labels.dtype == np.int64
    assert labels.min() >= 0


@pytest.mark.parametrize(("block_km", "side"), [(1, 1), (36, 1), (60, 2), (108, 3), (400, 11)])
def test_a_block_is_a_square_of_whole_footprints(block_km, side):
    whole = ease.Window(0, 0, 6 * side, 4 * side, 1)
    lat, lon = np.meshgrid(whole.cell_lat, whole.cell_lon, indexing="ij")
    labels = spatial_blocks.block_labels(lat.ravel(), lon.ravel(), block_km)
    assert np.unique(labels, return_counts=True)[1].tolist() == 24 * [side * side]


def test_an_offset_moves_the_layout_and_a_whole_side_does_not():
    lat, lon = scattered(200, 0)
    plain = spatial_blocks.block_labels(lat, lon, 400)
    moved = spatial_blocks.block_labels(lat, lon, 400, (5, 3))
    assert ((plain[:, None] == plain) != (moved[:, None] == moved)).any()
    around = spatial_blocks.block_labels(lat, lon, 400, (11, -22))
    np.testing.assert_array_equal(plain[:, None] == plain, around[:, None] == around)


@pytest.mark.parametrize("block_km", [0.0, -4.0, np.nan, np.inf])
def test_a_block_without_a_size_is_refused(block_km):
    with pytest.raises(ValueError, match="expected a positive number of km"):
        spatial_blocks.block_labels([40.0], [-100.0], block_km)


def test_sites_without_a_place_are_refused_by_number():
    with pytest.raises(ValueError, match=r"2 sites have no valid latitude .* index \[1, 2\]"):
        spatial_blocks.block_labels([40.0, np.nan, 91.0], [-100.0, 0.0, 0.0], 100)


@given(case=dealt(), seed=SEEDS)
def test_a_block_is_never_split_and_no_fold_is_empty(case, seed):
    labels, n_folds = case
    fold = spatial_blocks.assign_blocks(labels, n_folds, seed)
    assert fold.shape == labels.shape
    assert set(fold) == set(range(n_folds))
    for label in set(labels.tolist()):
        assert len(set(fold[labels == label])) == 1


@given(case=dealt(), seed=SEEDS)
def test_fold_sizes_differ_by_at_most_the_largest_block(case, seed):
    labels, n_folds = case
    sizes = np.bincount(spatial_blocks.assign_blocks(labels, n_folds, seed))
    assert np.ptp(sizes) <= np.unique(labels, return_counts=True)[1].max()


@given(case=dealt(), seed=SEEDS)
def test_the_deal_depends_on_the_blocks_and_not_on_the_order_of_sites(case, seed):
    labels, n_folds = case
    order = np.random.default_rng(seed).permutation(len(labels))
    fold = spatial_blocks.assign_blocks(labels, n_folds, seed)
    np.testing.assert_array_equal(
        spatial_blocks.assign_blocks(labels[order], n_folds, seed), fold[order]
    )


def test_another_seed_deals_otherwise():
    labels = np.repeat(np.arange(12), 3)
    deals = {tuple(spatial_blocks.assign_blocks(labels, 4, seed)) for seed in range(5)}
    assert len(deals) == 5


@pytest.mark.parametrize("n_folds", [0, 4])
def test_too_few_blocks_are_refused_with_the_remedy(n_folds):
    with pytest.raises(ValueError, match=r"3 blocks .* smaller block_km or a smaller n_folds"):
        spatial_blocks.assign_blocks([7, 7, 8, 9], n_folds, 0)


@given(n_sites=st.integers(1, 60), n_folds=st.integers(1, 60), seed=SEEDS)
def test_random_folds_are_balanced(n_sites, n_folds, seed):
    if n_folds > n_sites:
        with pytest.raises(ValueError, match=f"{n_sites} sites, expected 1 <= n_folds"):
            spatial_blocks.assign_random_folds(n_sites, n_folds, seed)
        return
    fold = spatial_blocks.assign_random_folds(n_sites, n_folds, seed)
    sizes = np.bincount(fold, minlength=n_folds)
    assert sizes.sum() == n_sites
    assert len(sizes) == n_folds
    assert np.ptp(sizes) <= 1
    np.testing.assert_array_equal(fold, spatial_blocks.assign_random_folds(n_sites, n_folds, seed))


@given(n_sites=st.integers(1, 60), n_folds=st.integers(1, 9), seed=SEEDS)
def test_sites_that_are_all_apart_are_dealt_as_they_always_were(n_sites, n_folds, seed):
    n_folds = min(n_folds, n_sites)
    before = np.random.default_rng(seed).permutation(np.arange(n_sites) % n_folds)
    np.testing.assert_array_equal(
        spatial_blocks.assign_random_folds(n_sites, n_folds, seed), before
    )
    apart = spatial_blocks.assign_random_folds(n_sites, n_folds, seed, np.arange(n_sites))
    np.testing.assert_array_equal(apart, before)


@given(case=dealt(), seed=SEEDS)
def test_sites_of_one_place_are_dealt_together_and_folds_stay_balanced(case, seed):
    place, n_folds = case
    fold = spatial_blocks.assign_random_folds(len(place), n_folds, seed, place)
    assert set(fold) == set(range(n_folds))
    for label in set(place.tolist()):
        assert len(set(fold[place == label])) == 1
    assert np.ptp(np.bincount(fold)) <= np.unique(place, return_counts=True)[1].max()


def test_more_folds_than_places_are_refused():
    with pytest.raises(ValueError, match="n_folds 3 with 4 sites at 2 places, expected 1 <="):
        spatial_blocks.assign_random_folds(4, 3, 0, [0, 0, 1, 1])


@given(case=dealt(), links=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=6))
def test_blocks_that_share_a_place_are_joined_and_no_others(case, links):
    labels, _ = case
    place = np.arange(len(labels))
    for a, b in links:
        place[place == place[a % len(labels)]] = place[b % len(labels)]
    made = spatial_blocks.merge_blocks(labels, place)
    expected = labels.copy()  # walked from site to site, until nothing changes
    for _ in labels:
        for i, _ in enumerate(labels):
            near = (place == place[i]) | (labels == labels[i])
            expected[near] = expected[near].min()
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(
        spatial_blocks.merge_blocks(labels, np.arange(len(labels))), labels
    )


@given(seed=SEEDS, buffer_km=st.floats(0, 20_000), k=st.integers(0, 2))
def test_what_the_buffer_leaves_is_far_from_every_held_out_site(seed, buffer_km, k):
    lat, lon = scattered(13, seed)
    fold = spatial_blocks.assign_random_folds(13, 3, seed)
    dropped = spatial_blocks.select_buffer(lat, lon, fold, k, buffer_km)
    for site in range(13):
        away = lookup.great_circle_km(lat[site], lon[site], lat[fold == k], lon[fold == k])
        assert dropped[site] == (fold[site] != k and (away < buffer_km).any())


def test_no_buffer_drops_nothing_even_at_the_same_place():
    lat, lon, fold = [40.0, 40.0, 45.0], [-100.0, -100.0, -90.0], [0, 1, 1]
    assert not spatial_blocks.select_buffer(lat, lon, fold, 0, 0.0).any()
    assert spatial_blocks.select_buffer(lat, lon, fold, 0, 1.0).tolist() == [False, True, False]


def test_a_fold_without_sites_is_refused():
    with pytest.raises(ValueError, match=r"fold 5 has no sites, expected one of \[0, 1\]"):
        spatial_blocks.select_buffer([1.0, 2.0], [3.0, 4.0], [0, 1], 5, 100.0)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    share=st.floats(0.01, 1),
    seed=SEEDS,
)
def test_every_block_has_its_share_of_places(sizes, share, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    n = max(1, int(share * len(labels)))
    drawn = spatial_blocks.draw_by_block(labels, n, seed)
    assert len(set(drawn.tolist())) == n
    assert (np.diff(drawn) > 0).all()
    counts = np.bincount(labels[drawn], minlength=len(sizes))
    assert (np.abs(counts - np.array(sizes) * n / len(labels)) < 1 + 1e-9).all()
