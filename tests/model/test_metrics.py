"""Scores against pytesmo, known numbers and the obvious formula."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytesmo.metrics import bias, pearson_r, rmsd, ubrmsd
from pytesmo.time_series.anomaly import calc_anomaly
from scipy import stats

from model import metrics

EXACT = {"rtol": 1e-10, "atol": 1e-10}
AWKWARD = [0.0, 0.1, 0.1 + 2**-20, 0.25, 0.3, 0.55, 1.0, np.nan, np.inf]
SERIES = hnp.arrays(np.float64, (3, 40), elements=st.sampled_from(AWKWARD))
QUICK = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def days(n, start="2016-01-01"):
    return np.datetime64(start, "D") + np.arange(n)


def two_series(n_places=5, n_times=400, missing=0.4, seed=0):
    rng = np.random.default_rng(seed)
    season = 0.1 * np.sin(np.arange(n_times) / 58.0)
    observation = 0.25 + season + rng.normal(0, 0.04, (n_places, n_times))
    prediction = 0.2 + 0.7 * observation + rng.normal(0, 0.03, (n_places, n_times))
    for series in (prediction, observation):
        series[rng.random(series.shape) < missing] = np.nan
    return prediction, observation


def common(prediction, observation, place):
    both = np.isfinite(prediction[place]) & np.isfinite(observation[place])
    return prediction[place, both], observation[place, both], both


def assert_pytesmo_agrees(prediction, observation, times):
    got = metrics.scores(prediction, observation, times)
    for place in range(len(prediction)):
        x, y, both = common(prediction, observation, place)
        assert got["n"][place] == len(x)
        if len(x) == 0:
            assert all(np.isnan(got[name][place]) for name in metrics.METRICS)
            continue
        for name, theirs in (("bias", bias), ("rmse", rmsd), ("ubrmse", ubrmsd)):
            np.testing.assert_allclose(got[name][place], theirs(x, y), **EXACT)
        if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
            assert np.isnan(got["correlation"][place])
            continue
        np.testing.assert_allclose(got["correlation"][place], pearson_r(x, y), **EXACT)
        index = pd.DatetimeIndex(times[both])
        x, y = (calc_anomaly(pd.Series(v, index)).to_numpy() for v in (x, y))
        if min(x.std(), y.std()) > 1e-12:
            expected = pearson_r(x, y)
            np.testing.assert_allclose(got["anomaly_correlation"][place], expected, **EXACT)


@pytest.mark.parametrize("missing", [0.0, 0.4, 0.95])
@pytest.mark.parametrize(("n_places", "n_times"), [(5, 400), (1, 36), (11, 7)])
def test_scores_equal_pytesmo(n_places, n_times, missing):
    prediction, observation = two_series(n_places, n_times, missing)
    assert_pytesmo_agrees(prediction, observation, days(n_times))


def test_scores_equal_pytesmo_on_a_calendar_with_gaps():
    prediction, observation = two_series(4, 300, 0.3)
    times = days(900)[np.sort(np.random.default_rng(1).choice(900, 300, replace=False))]
    assert_pytesmo_agrees(prediction, observation, times)


@pytest.mark.parametrize("gap", [17, 18])
def test_the_anomaly_window_reaches_seventeen_days(gap):
    times = days(200)[: 6 * gap : gap]
    rng = np.random.default_rng(2)
    prediction, observation = rng.random((2, 3, 6))
    got = metrics.scores(prediction, observation, times)
    assert np.isnan(got["anomaly_correlation"]).all() == (gap == 18)  # alone: every anomaly is 0
    assert_pytesmo_agrees(prediction, observation, times)


def test_awkward_series():
    ramp, missing = np.arange(6.0), np.full(6, np.nan)
    one, two, endless = missing.copy(), missing.copy(), ramp.copy()
    one[2], two[[1, 4]], endless[3] = 0.3, [0.1, 0.2], np.inf
    prediction = np.stack([ramp, np.full(6, 0.1), ramp, missing, one, two, endless, -ramp])
    observation = np.stack([np.full(6, 0.1), ramp, ramp, ramp, ramp, ramp, ramp, ramp])
    assert_pytesmo_agrees(prediction, observation, days(6))
    got = metrics.scores(prediction, observation, days(6))
    np.testing.assert_array_equal(got["n"], [6, 6, 6, 0, 1, 2, 5, 6])
    nan = np.nan
    np.testing.assert_allclose(got["correlation"], [nan, nan, 1, nan, nan, 1, 1, -1], rtol=1e-12)
    for name in ("anomaly_correlation", "kge"):
        np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(got["correlation"]))
    assert got["rmse"][4] == pytest.approx(1.7)
    assert got["ubrmse"][4] == 0.0


def test_no_places_and_no_times():
    for shape in ((0, 5), (3, 0)):
        got = metrics.scores(np.zeros(shape), np.zeros(shape), days(shape[1]))
        assert set(got) == {"n", *metrics.METRICS}
        assert all(values.shape == shape[:1] for values in got.values())


def test_constant_up_to_rounding_has_no_correlation():
    drifting = np.full((1, 50), 0.1) + np.spacing(0.1) * (np.arange(50) % 3)
    got = metrics.scores(drifting, two_series(1, 50, 0.0)[0], days(50))
    assert np.isnan([got["correlation"][0], got["anomaly_correlation"][0], got["kge"][0]]).all()


def test_ubrmse_survives_a_bias_that_dwarfs_it():
    error = 1e-4 * np.where(np.arange(64) % 2, 1.0, -1.0)
    observation = np.zeros((1, 64))
    got = metrics.scores(observation + 1e5 + error, observation, days(64))
    np.testing.assert_allclose(got["ubrmse"], 1e-4, rtol=1e-6)


def test_kge_of_known_numbers():
    observation = np.array([[1.0, 2.0, 3.0, 4.0], [-1.0, 0.0, 1.0, 0.0]])
    twice, shifted = 2 * observation, observation + 2.5
    # Twice: r 1, alpha 2, beta 2. Shifted: r 1, alpha 1, beta 5 / 2.5. An observed mean of 0: none.
    kge = metrics.scores(twice, observation, days(4))["kge"]
    np.testing.assert_allclose(kge, [1 - np.sqrt(2), np.nan], rtol=1e-12)
    kge = metrics.scores(shifted, observation, days(4))["kge"]
    np.testing.assert_allclose(kge, [0.0, np.nan], atol=1e-12)
    # r of (1, 3, 2, 4) with (1, 2, 3, 4) is 0.8; same values, so alpha = beta = 1.
    kge = metrics.scores([[1.0, 3.0, 2.0, 4.0]], observation[:1], days(4))["kge"]
    np.testing.assert_allclose(kge, [0.8], rtol=1e-12)


def test_float32_is_computed_in_float64():
    prediction, observation = (v.astype(np.float32) for v in two_series())
    got = metrics.scores(prediction, observation, days(400))
    wide = metrics.scores(prediction.astype(float), observation.astype(float), days(400))
    for name, values in got.items():
        np.testing.assert_array_equal(values, wide[name])


@pytest.mark.parametrize(
    ("shapes", "times"),
    [
        (((3, 4), (4, 3)), days(4)),
        (((3, 4), (3, 4)), days(3)),
        (((4,), (4,)), days(4)),
        (((3, 4), (3, 4)), days(4)[::-1]),
        (((3, 2), (3, 2)), days(1).repeat(2)),
    ],
)
def test_shapes_and_days_that_do_not_fit_are_refused(shapes, times):
    with pytest.raises(ValueError, match=r"expected|increasing"):
        metrics.scores(np.zeros(shapes[0]), np.zeros(shapes[1]), times)


@QUICK
@given(prediction=SERIES, observation=SERIES)
def test_identities_hold_for_every_series(prediction, observation):
    got = metrics.scores(prediction, observation, days(40))
    some = got["n"] > 0
    squares = got["bias"] ** 2 + got["ubrmse"] ** 2
    np.testing.assert_allclose((got["rmse"] ** 2)[some], squares[some], rtol=1e-9, atol=1e-15)
    for name in ("correlation", "anomaly_correlation"):
        assert not (np.abs(got[name]) > 1).any()
    assert not (got["kge"] > 1).any()
    swapped = metrics.scores(observation, prediction, days(40))
    np.testing.assert_allclose(swapped["bias"], -got["bias"])
    np.testing.assert_allclose(swapped["correlation"], got["correlation"], atol=1e-12)


@QUICK
@given(prediction=SERIES, observation=SERIES, place=st.integers(0, 2))
def test_a_place_is_scored_the_same_alone(prediction, observation, place):
    together = metrics.scores(prediction, observation, days(40))
    alone = metrics.scores(prediction[[place]], observation[[place]], days(40))
    for name, values in alone.items():
        np.testing.assert_allclose(values[0], together[name][place], rtol=1e-12, atol=1e-14)


def draws_by_repeating(values, blocks, statistic, n_draws, seed):
    """The same draws, place by place."""
    names = np.unique(blocks)
    k = len(names)
    counts = np.random.default_rng(seed).multinomial(k, np.full(k, 1 / k), size=n_draws)
    inside = [values[blocks == name] for name in names]
    return [
        statistic(np.concatenate([np.tile(v, c) for v, c in zip(inside, row, strict=True)]))
        for row in counts
    ]


@QUICK
@given(n_sites=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_a_draw_is_made_of_whole_blocks(statistic, n_sites, seed):
    rng = np.random.default_rng(seed)
    values, blocks = rng.integers(0, 9, n_sites) / 8, rng.integers(-3, 4, n_sites)
    got = metrics.block_bootstrap(values, blocks, statistic, n_draws=20, seed=seed, level=0.8)
    if len(set(blocks)) < 2:
        assert np.isnan(got).all()
    else:
        draws = draws_by_repeating(values, blocks, getattr(np, statistic), 20, seed)
        np.testing.assert_allclose(got, np.quantile(draws, [0.1, 0.9]))


@QUICK
@given(place=st.integers(0, 11), copies=st.integers(1, 5))
def test_a_block_is_never_split(place, copies):
    # The values of a block sum to zero, so the mean of any draw of whole blocks is zero.
    values, blocks = np.tile([1.0, -1.0], 6 * copies), np.repeat(np.arange(6), 2 * copies)
    order = np.roll(np.arange(len(values)), place)
    assert metrics.block_bootstrap(values[order], blocks[order], "mean", 200) == (0.0, 0.0)


def test_bootstrap_is_fixed_by_its_seed_and_blind_to_missing_places():
    rng = np.random.default_rng(3)
    values, blocks = rng.normal(size=60), np.arange(60) // 4
    first = metrics.block_bootstrap(values, blocks)
    assert first == metrics.block_bootstrap(values, blocks, seed=0)
    assert first != metrics.block_bootstrap(values, blocks, seed=1)
    with_missing = np.append(values, [np.nan, np.inf, np.nan]), np.append(blocks, [99, 98, 0])
    assert first == metrics.block_bootstrap(*with_missing)


@pytest.mark.parametrize(
    ("values", "blocks"), [([], []), ([1.0, 2], [5, 5]), ([1, np.nan], [1, 2])]
)
def test_fewer_than_two_blocks_have_no_interval(values, blocks):
    assert np.isnan(metrics.block_bootstrap(values, blocks)).all()


def test_bootstrap_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(4)
    hits, narrow_hits = 0, 0
    for trial in range(150):
        blocks = np.repeat(np.arange(30), 4)
        values = rng.normal(size=30)[blocks] + rng.normal(0, 0.3, 120)  # true median 0
        low, high = metrics.block_bootstrap(values, blocks, n_draws=300, seed=trial, level=0.9)
        hits += low <= 0 <= high
        low, high = metrics.block_bootstrap(values, np.arange(120), n_draws=300, level=0.9)
        narrow_hits += low <= 0 <= high
    assert 0.82 <= hits / 150 <= 0.97
    assert narrow_hits < hits - 20  # sites as if independent claim too much


def test_bootstrap_of_a_network_is_quick():
    values, blocks = np.random.default_rng(5).normal(size=125), np.arange(125) // 3
    start = time.process_time()
    metrics.block_bootstrap(values, blocks)
    assert time.process_time() - start < 0.3


def test_paired_compares_common_sites_only():
    a = np.array([0.5, 0.6, 0.9, np.nan, 0.7, 0.8])
    b = np.array([0.4, 0.4, 0.6, 0.1, np.nan, 0.4])
    blocks = np.array([7, 7, 8, 8, 9, 11])
    got = metrics.paired_difference(a, b, blocks)
    assert got["n_sites"] == 4
    assert got["median_difference"] == pytest.approx(0.25)  # of 0.1, 0.2, 0.3, 0.4
    both = [0, 1, 2, 5]
    assert got["ci95"] == list(metrics.block_bootstrap((a - b)[both], blocks[both]))
    turned = metrics.paired_difference(b, a, blocks)
    assert turned["median_difference"] == pytest.approx(-0.25)


def test_paired_of_nothing_is_nan():
    got = metrics.paired_difference([np.nan, 1.0], [1.0, np.nan], [1, 2])
    assert got["n_sites"] == 0
    assert np.isnan([got["median_difference"], *got["ci95"]]).all()


@QUICK
@given(
    pairs=hnp.arrays(np.float64, (2, 25), elements=st.integers(0, 9).map(float) | st.just(np.nan))
)
def test_spearman_equals_scipy(pairs):
    a, b = pairs[:, np.isfinite(pairs).all(axis=0)]
    got = metrics.spearman(*pairs)
    if len(a) < 2:
        assert np.isnan(got)
    elif np.ptp(a) == 0 or np.ptp(b) == 0:
        assert got == 0.0
    else:
        np.testing.assert_allclose(got, stats.spearmanr(a, b)[0], atol=1e-12)


def test_spearman_sees_only_the_order():
    a = np.random.default_rng(7).normal(size=(4, 9))
    assert metrics.spearman(a, np.exp(a)) == pytest.approx(1.0)
    assert metrics.spearman(a, -(a**3)) == pytest.approx(-1.0)


def test_the_interval_of_a_rank_correlation_holds_it_and_narrows_with_the_blocks():
    rng = np.random.default_rng(8)
    a = rng.normal(size=600)
    b = a + rng.normal(0, 1.5, 600)
    r = metrics.spearman(a, b)
    many = metrics.spearman_interval(a, b, np.arange(600))
    error = (1 - r**2) / np.sqrt(599)
    np.testing.assert_allclose(many, [r - 1.96 * error, r + 1.96 * error], atol=0.03)
    assert metrics.spearman_interval(a, b, np.arange(600) // 30)[0] < r
    few = metrics.spearman_interval(a[:60], b[:60], np.arange(60))
    assert np.diff(few) > 1.5 * np.diff(many)


@pytest.mark.parametrize(("width", "blocks"), [([1.0, 1, 1], [0, 1, 2]), ([1.0, 2, 3], [4, 4, 4])])
def test_no_interval_of_a_rank_correlation_without_ranks_or_blocks(width, blocks):
    assert np.isnan(metrics.spearman_interval(width, [3.0, 1, 2], blocks)).all()
