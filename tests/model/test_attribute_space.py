"""Attribute distance by hand, and where a further probe tells most by trying them all."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import threadpoolctl

from model import probe_gain
from model.attribute_space import AttributeSpace, RunningSum, nearest_distances

RNG = np.random.default_rng(0)
CELLS = RNG.normal([3.0, -20.0, 7.0], [1.0, 50.0, 0.0], (400, 3))  # the last is constant


def by_hand(a, b):
    z = (np.asarray(a) - np.asarray(b)) / np.where(CELLS.std(0) > 1e-6, CELLS.std(0), 1)
    return float(np.sqrt((z**2).sum()))


@pytest.fixture(scope="module")
def space():
    sites = np.concatenate([CELLS[:9], CELLS[2:3]])  # two sites share a cell
    return AttributeSpace.from_attributes(CELLS, sites, np.arange(10) != 4)


def test_distance_is_to_the_nearest_site_learnt_from_in_typical_steps(space):
    learnt = CELLS[[0, 1, 2, 3, 5, 6, 7, 8]]
    apart = [[by_hand(a, b) for b in learnt if b is not a and (a != b).any()] for a in learnt]
    unit = np.median([min(row) for row in apart])
    assert space.unit == pytest.approx(unit)
    expected = [min(by_hand(cell, site) for site in learnt) / unit for cell in CELLS]
    np.testing.assert_allclose(space.distance(space.scaled(CELLS)), expected, atol=1e-6)
    assert expected[4] > 0


def test_a_held_out_site_is_as_far_as_the_nearest_of_another_fold(space):
    fold = np.arange(10) % 3
    sites = np.concatenate([CELLS[:9], CELLS[2:3]])
    for i, found in enumerate(space.held_out(fold)):
        others = [s for k, s in enumerate(sites) if fold[k] != fold[i] and k != 4]
        assert found * space.unit == pytest.approx(min(by_hand(sites[i], s) for s in others))
    assert np.isnan(space.held_out(np.zeros(10, int))).all()


def test_a_site_at_the_place_of_a_held_out_one_is_not_its_nearest(space):
    fold, place = np.arange(10) % 3, np.array([0, 0, 2, 3, 4, 5, 6, 7, 8, 2])
    sites = np.concatenate([CELLS[:9], CELLS[2:3]])
    for i, found in enumerate(space.held_out(fold, place)):
        taken = set(place[fold == fold[i]])
        others = [s for k, s in enumerate(sites) if place[k] not in taken and k != 4]
        assert found * space.unit == pytest.approx(min(by_hand(sites[i], s) for s in others))


def test_the_area_of_applicability_ends_at_the_upper_whisker_of_held_out_distances(space):
    fold = np.arange(10) % 3
    limited = space.with_limit(fold)
    known = np.delete(space.held_out(fold), 4)  # site 4 is not trained on
    first, third = np.quantile(known, (0.25, 0.75))
    assert limited.limit == pytest.approx(min(third + 1.5 * (third - first), known.max()))
    assert AttributeSpace.from_dict(limited.as_dict()).limit == limited.limit
    assert space.with_limit(np.zeros(10, int)).limit is None
    before = {k: v for k, v in limited.as_dict().items() if k != "limit"}
    assert AttributeSpace.from_dict(before).limit is None
    far = np.r_[CELLS, [[90.0, 900.0, 7.0]]]  # one site is unlike all others: an outlier
    outlier = AttributeSpace.from_attributes(far, far[[*range(9), -1]], np.ones(10, bool))
    assert outlier.with_limit(fold).limit < np.nanmax(outlier.held_out(fold)) / 2


def test_what_is_missing_is_average_and_a_space_survives_json(space):
    odd = np.array([[np.nan, -20.0, 7.0], [3.0, np.nan, np.nan]])
    mean = CELLS.mean(0)
    filled = np.where(np.isnan(odd), mean, odd)
    again = AttributeSpace.from_dict(space.as_dict())
    np.testing.assert_allclose(again.scaled(odd), space.scaled(filled), atol=1e-12)
    assert again.unit == space.unit
    nobody = AttributeSpace.from_attributes(CELLS, CELLS[:0], np.zeros(0, bool))
    assert np.isnan(AttributeSpace.from_dict(nobody.as_dict()).distance(CELLS[:3])).all()
    assert nearest_distances(CELLS[:0], CELLS).shape == (0,)


def test_a_mean_over_days_arrives_in_parts():
    values = RNG.normal(size=(5, 40, 2)).astype(np.float16)
    values[RNG.random(values.shape) < 0.3] = np.nan
    values[3, :, 1] = np.nan
    parts = RunningSum()
    for days in np.split(values, [7, 30], 1):
        parts.add(days)
    present = [[v[np.isfinite(v)].astype(float) for v in place.T] for place in values]
    expected = [[v.mean() if v.size else np.nan for v in place] for place in present]
    np.testing.assert_allclose(parts.mean, expected)
    np.testing.assert_array_equal(parts.mean, RunningSum.from_array(values).mean)


def explained_by_hand(places, probes, distance, variance):
    """Share of the variance that the sites and some probes explain."""
    share = np.nan_to_num(np.exp(-2 * distance**2))
    for probe in probes:
        d = np.linalg.norm(places - places[probe], axis=1) / 0.7
        share = np.maximum(share, np.exp(-2 * d**2))
    return (share * variance).sum() / variance.sum()


@pytest.mark.parametrize("known", [True, False])
def test_each_probe_gains_most_given_those_before(known):
    places = RNG.normal(size=(12, 2))
    variance = RNG.uniform(0.5, 2, 12)
    distance = nearest_distances(places, places[:2]) / 0.7 if known else np.full(12, np.nan)
    weight = probe_gain.variance_shares(variance)
    index, gain = probe_gain.rank_probes(places, weight, distance, 0.7, 3)
    before = explained_by_hand(places, [], distance, variance)
    for k in range(3):
        tried = [
            explained_by_hand(places, [*index[:k], p], distance, variance) - before
            for p in range(12)
        ]
        assert index[k] == np.argmax(tried)
        assert gain[k] == pytest.approx(max(tried))
        before += gain[k]
        if k == 0:
            found = probe_gain.probe_gains(places, places, weight, distance, 0.7)
            np.testing.assert_allclose(found, tried, atol=1e-12)
    best = max(
        explained_by_hand(places, chosen, distance, variance)
        for chosen in combinations(range(12), 3)
    )
    none = explained_by_hand(places, [], distance, variance)
    assert gain.sum() >= (1 - np.exp(-1)) * (best - none)


def test_a_wide_and_unfamiliar_group_of_cells_is_where_the_next_probe_belongs():
    places = np.repeat([[0.0], [10.0], [20.0]], [50, 30, 20], 0) + RNG.normal(0, 0.05, (100, 1))
    distance = nearest_distances(places, np.zeros((1, 1)))
    variance = np.repeat([9.0, 1.0, 3.0], [50, 30, 20])
    index, gain = probe_gain.rank_probes(
        places, probe_gain.variance_shares(variance), distance, 1.0, 3
    )
    assert places[index[0]] == pytest.approx(20, abs=0.3)
    assert places[index[1]] == pytest.approx(10, abs=0.3)
    assert gain[2] < gain[1] / 20 < gain[0] / 20
    alike = probe_gain.variance_shares(np.full(4, np.nan))  # no width is known
    np.testing.assert_array_equal(alike, 0.25)


def test_gains_and_distances_do_not_depend_on_the_number_of_threads():
    rng = np.random.default_rng(0)
    places = rng.normal(size=(15, 3072)).astype("float32").T  # as stored
    weight = probe_gain.variance_shares(rng.random(len(places)))
    distance = rng.random(len(places)).astype("float32")
    found = []
    for n_threads in (1, 2, 3):
        with threadpoolctl.threadpool_limits(n_threads):
            gain = probe_gain.probe_gains(places, places, weight, distance, 1.3)
            index, ranked = probe_gain.rank_probes(places, weight, distance, 1.3, 3)
            nearest = nearest_distances(places[500:], places[:500])
        found.append([array.tobytes() for array in (gain, index, ranked, nearest)])
    assert found[0] == found[1] == found[2]
