"""Analytic intervals against pytesmo, and effective numbers of days against what days do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pytesmo.metrics import bias, has_analytical_ci, pearson_r, rmsd, ubrmsd, with_analytical_ci

from model import metrics, score_intervals

EXACT = {"rtol": 1e-10, "atol": 1e-10}
NAN = np.nan
AWKWARD = [0.0, 0.1, 0.25, 1.0, 1e6, NAN, np.inf]
SERIES = hnp.arrays(np.float64, (2, 8), elements=st.sampled_from(AWKWARD))
QUICK = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])


def days(n, start="2016-01-01"):
    return np.datetime64(start, "D") + np.arange(n)


def pytesmos(metric, x, y, level):
    """Its bounds; nan where it raises, or has a correlation of a constant up to rounding."""
    constant = len(x) < 2 or min(np.std(v) - 1e-13 * np.abs(v).max() for v in (x, y)) <= 0
    if len(x) < 2 or (metric is pearson_r and constant):
        return NAN, NAN
    if metric is pearson_r and len(x) == 3:  # it subtracts infinities where r is -1 or 1
        return -1.0, 1.0
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        return with_analytical_ci(metric, x, y, alpha=1 - level)[1:]


def assert_pytesmo_agrees(prediction, observation, level):
    got = metrics.scores(prediction, observation, days(prediction.shape[1]))
    r, b, u, n = (got[name] for name in ("correlation", "bias", "ubrmse", "n"))
    both = np.isfinite(prediction) & np.isfinite(observation)
    for mine, theirs in (
        (score_intervals.pearson_interval(r, n, level), pearson_r),
        (score_intervals.bias_interval(b, u, n, level), bias),
        (score_intervals.ubrmse_interval(u, n, level), ubrmsd),
    ):
        expected = [
            pytesmos(theirs, x[ok], y[ok], level)
            for x, y, ok in zip(prediction, observation, both, strict=True)
        ]
        np.testing.assert_allclose(np.transpose(mine), expected, **EXACT)


@pytest.mark.parametrize("level", [0.5, 0.95])
@pytest.mark.parametrize("n_times", [0, 1, 2, 3, 4, 5, 60, 3000])
def test_analytic_intervals_equal_pytesmo(n_times, level):
    rng = np.random.default_rng(n_times)
    observation = rng.normal(0.25, 0.08, (4, n_times))
    prediction = 0.2 + 0.7 * observation + rng.normal(0, 0.03, (4, n_times))
    prediction[1], observation[2] = 0.1, NAN
    prediction[3] = observation[3] + 0.05
    assert_pytesmo_agrees(prediction, observation, level)


@QUICK
@given(pair=SERIES)
def test_they_do_so_on_awkward_series(pair):
    assert_pytesmo_agrees(pair[:1], pair[1:], 0.95)


@pytest.mark.parametrize("r", [-1.0, -0.5, 0.0, 1.0])
def test_three_pairs_leave_every_correlation_possible(r):
    assert score_intervals.pearson_interval(r, 3) == (-1.0, 1.0)


def test_analytic_intervals_at_their_limits():
    n = np.array([0, 1, 2, 3, 4])
    low, high = score_intervals.pearson_interval(np.full(5, 0.5), n)
    np.testing.assert_array_equal(low[:4], [NAN, NAN, NAN, -1])
    np.testing.assert_array_equal(high[:4], [NAN, NAN, NAN, 1])
    np.testing.assert_array_equal(score_intervals.pearson_interval(1.0, 9), (1.0, 1.0))
    for interval in (
        score_intervals.bias_interval(np.zeros(5), np.ones(5), n),
        score_intervals.ubrmse_interval(np.ones(5), n),
    ):
        np.testing.assert_array_equal(np.isfinite(interval), [n > 1] * 2)
    assert np.isnan(score_intervals.bias_interval(NAN, NAN, 9)).all()


def test_pytesmo_still_has_no_analytic_interval_for_rmse():
    assert not has_analytical_ci(rmsd)  # once it has, intervals.py may follow


def persistent(r1, shape, rng):
    """Series (place, time) whose days are alike with r1, of mean 0 and variance 1."""
    made = np.empty(shape)
    made[:, 0] = rng.normal(size=shape[0])
    for day in range(1, shape[1]):
        made[:, day] = r1 * made[:, day - 1] + rng.normal(0, np.sqrt(1 - r1**2), shape[0])
    return made


def analytic(prediction, observation, times):
    scored = metrics.scores(prediction, observation, times)
    return score_intervals.analytic_intervals(prediction, observation, times, scored)


def effective_n(alike, valid, day):
    """The definition, by pairs of days."""
    apart = np.abs(day[:, None] - day)
    return [
        ok.sum() ** 2 / (a**apart)[ok][:, ok].sum() if ok.any() else NAN
        for a, ok in zip(alike, valid, strict=True)
    ]


def test_effective_n_is_the_sum_over_pairs_of_days():
    rng = np.random.default_rng(0)
    day = np.sort(rng.choice(200, 90, replace=False))
    valid = rng.random((6, 90)) < np.array([[1.0], [0.7], [0.3], [0.05], [0.0], [0.5]])
    alike = np.array([0.9, 0.5, 0.99, 0.3, 0.5, 1.0])
    got = score_intervals.effective_sample_size(alike, valid, day)
    np.testing.assert_allclose(got, effective_n(alike, valid, day), **EXACT)
    assert got[5] == pytest.approx(1.0)
    independent = score_intervals.effective_sample_size(np.array([0.0, -0.4, NAN]), valid[:3], day)
    np.testing.assert_array_equal(independent, [*valid[:2].sum(1), NAN])


@pytest.mark.parametrize("alike", [0.3, 0.8, 0.95])
def test_effective_n_of_a_long_record_is_that_of_bretherton(alike):
    n = 20000
    got = score_intervals.effective_sample_size(
        np.array([alike]), np.ones((1, n), bool), np.arange(n)
    )
    np.testing.assert_allclose(got, n * (1 - alike) / (1 + alike), rtol=2e-3)


def test_how_alike_days_are_is_told_by_the_shortest_step_that_many_have():
    rng = np.random.default_rng(1)
    values, day = persistent(0.9, (5, 3000), rng), np.arange(3000)
    valid = np.ones(values.shape, bool)
    valid[1] = rng.random(3000) < 0.5
    valid[2] = day % 3 == 0
    valid[3] = np.isin(day % 30, (0, 1, 5, 9, 14, 19, 24))  # few have the next day
    valid[4] = day % 8 == 0
    got = score_intervals.autocorrelation(np.where(valid, values, 0.0), valid, day)
    np.testing.assert_allclose(got[:4], 0.9, atol=0.04)
    assert np.isnan(got[4])
    every_other = score_intervals.autocorrelation(values, np.ones(values.shape, bool), day * 2)
    np.testing.assert_allclose(every_other, 0.9**0.5, atol=0.02)
    few = score_intervals.autocorrelation(values[:, :10], np.ones((5, 10), bool), day[:10])
    assert np.isnan(few).all()  # nine pairs


@pytest.mark.parametrize("missing", [0.0, 0.6])
def test_intervals_of_persistent_series_cover_the_truth_as_often_as_they_say(missing):
    rng = np.random.default_rng(2)
    a, b = persistent(0.85, (300, 400), rng), persistent(0.7, (300, 400), rng)
    prediction = np.where(rng.random(a.shape) < missing, NAN, 0.6 * a + 0.8 * b)
    truth = {"correlation": 0.6, "bias": 0.0, "ubrmse": np.sqrt(0.4**2 + 0.8**2)}
    got = analytic(prediction, a, days(400))
    for name, value in truth.items():
        covered = np.mean((got[name].low <= value) & (value <= got[name].high))
        assert 0.88 <= covered <= 0.98, name
    scored = metrics.scores(prediction, a, days(400))
    low, high = score_intervals.pearson_interval(scored["correlation"], scored["n"])
    if not missing:
        assert np.mean((low <= 0.6) & (high >= 0.6)) < 0.85  # days taken as independent


def test_analytic_of_awkward_series_is_nan():
    ramp = np.arange(6.0)
    prediction = np.stack([ramp, np.full(6, 0.1), np.full(6, NAN), [NAN, 1, NAN, 2, NAN, 1]])
    got = analytic(prediction, np.tile(ramp, (4, 1)), days(6))
    for name, nothing in (("correlation", [1, 2, 3]), ("bias", [2, 3]), ("ubrmse", [2, 3])):
        assert np.isnan(got[name].n_eff[nothing]).all()
        assert np.isnan([got[name].low[nothing], got[name].high[nothing]]).all()
