"""Local adjustment: the offset of a site by plain Bayes, and what other sites say of a new one."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from model import bias_adjustment
from model.bias_adjustment import OffsetPrior

TAU, SIGMA, EFOLDING = 0.08, 0.05, 12.0


def errors(rng, n_sites, n_days, missing=0.3):
    """(site, day) offsets that stay and parts that fade as exp(-lag / EFOLDING), with gaps."""
    alike = np.exp(-1 / EFOLDING)
    x = np.empty((n_sites, n_days))
    x[:, 0] = rng.normal(0, SIGMA, n_sites)
    for day in range(1, n_days):
        fresh = rng.normal(0, SIGMA * np.sqrt(1 - alike**2), n_sites)
        x[:, day] = alike * x[:, day - 1] + fresh
    offset = rng.normal(0, TAU, n_sites)
    e = offset[:, None] + x
    e[rng.random(e.shape) < missing] = np.nan
    return e, offset


def test_the_offset_is_that_of_a_normal_distribution_given_the_mean_of_the_errors():
    e = np.array([[np.nan, 0.1, np.nan, 0.2, 0.06], [0.0, -0.3, np.nan, np.nan, np.nan]])
    found, std = bias_adjustment.posterior_offset(e, OffsetPrior(TAU, SIGMA, EFOLDING, 9))
    for site, days in enumerate(([1, 3, 4], [0, 1])):
        cov = SIGMA**2 * np.exp(-np.abs(np.subtract.outer(days, days)) / EFOLDING)
        cov_of_mean, mean = cov.mean(), e[site, days].mean()
        b = np.linspace(-0.6, 0.6, 20_001)
        weight = stats.norm.pdf(b, 0, TAU) * stats.norm.pdf(mean, b, np.sqrt(cov_of_mean))
        by_hand = (b * weight).sum() / weight.sum()
        assert found[site] == pytest.approx(by_hand, rel=1e-6)
        spread = ((b - by_hand) ** 2 * weight).sum() / weight.sum()
        assert std[site] == pytest.approx(np.sqrt(spread), rel=1e-6)


def test_without_days_nothing_moves_and_with_many_the_mean_stays():
    rng = np.random.default_rng(0)
    prior = OffsetPrior(TAU, SIGMA, EFOLDING, 9)
    found, std = bias_adjustment.posterior_offset(np.full((2, 30), np.nan), prior)
    assert (found == 0).all()
    np.testing.assert_allclose(std, TAU)
    e, _ = errors(rng, 3, 6000)
    found, std = bias_adjustment.posterior_offset(e, prior)
    np.testing.assert_allclose(found, np.nanmean(e, 1), rtol=0.05)
    assert (std < 0.15 * TAU).all()


def test_other_sites_tell_the_variances_and_the_memory_of_errors():
    e, _ = errors(np.random.default_rng(1), 400, 400)
    prior = bias_adjustment.estimate_prior(e)
    assert prior.tau == pytest.approx(TAU, rel=0.1)
    assert prior.sigma == pytest.approx(SIGMA, rel=0.1)
    assert prior.efolding_days == pytest.approx(EFOLDING, rel=0.15)
    assert prior.n_sites == 400


def test_what_comes_and_goes_is_not_taken_for_offsets():
    # Means of 150 days with a memory of 12 vary by .4 sigma: that is no tau.
    e, offset = errors(np.random.default_rng(2), 1000, 150)
    fading = e - offset[:, None]
    means = np.nanmean(fading, 1).std()
    assert means == pytest.approx(0.4 * SIGMA, rel=0.1)
    assert bias_adjustment.estimate_prior(fading).tau < 0.5 * means


def test_shrunk_offsets_beat_none_and_the_mean_and_their_deviation_is_right():
    rng = np.random.default_rng(3)
    prior = bias_adjustment.estimate_prior(errors(rng, 300, 400)[0])
    for k in (3, 10, 40):
        e, offset = errors(rng, 1500, k)
        found, std = bias_adjustment.posterior_offset(e, prior)
        mean = np.nan_to_num(np.nanmean(np.where(np.isfinite(e).any(1)[:, None], e, 0.0), 1))
        wrong = [np.sqrt(np.mean((guess - offset) ** 2)) for guess in (found, mean, 0 * mean)]
        assert wrong[0] < min(wrong[1:])
        assert np.sqrt(np.mean(((found - offset) / std) ** 2)) == pytest.approx(1, abs=0.1)


def test_errors_without_spread_or_offset_are_no_trouble():
    steady = np.tile(np.linspace(-0.1, 0.1, 6)[:, None], 40)
    prior = bias_adjustment.estimate_prior(steady)
    np.testing.assert_allclose(bias_adjustment.posterior_offset(steady, prior)[0], steady[:, 0])
    nothing = bias_adjustment.estimate_prior(0 * steady)
    np.testing.assert_array_equal(
        bias_adjustment.posterior_offset(steady, nothing), np.zeros((2, 6))
    )


def test_too_few_sites_teach_nothing():
    e, _ = errors(np.random.default_rng(4), bias_adjustment.MIN_PRIOR_SITES, 80, missing=0.0)
    assert bias_adjustment.estimate_prior(e) is not None
    e[0, 29:] = np.nan
    assert bias_adjustment.estimate_prior(e) is None
