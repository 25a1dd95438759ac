"""The linear baseline against least squares with rows added for the penalty."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from model.ridge import LEAD_DAYS, Ridge, SiteMoments, design_matrix, fit_ridge
from model.sampling import Places

PENALTIES = [1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6]
N_SITES, N_DAYS = 8, 60
N_COLUMNS = tiny.N_REGRESSORS


def regressors(where, site):
    """(day, feature) of one place over the whole record."""
    one = where.split(1)[site]
    forcing = one.days(-LEAD_DAYS, one.n_days)
    return design_matrix(forcing, one.static, one.n_days)[0].double().numpy()


def observed_at(where, noise, seed=0):
    """(site, day) values that the regressors explain but for noise; with gaps."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.05, N_COLUMNS)
    values = np.array([regressors(where, site) @ weights for site in range(len(where.static))])
    values += rng.normal(0, noise, values.shape) + rng.normal(0, noise, (len(values), 1))
    values[rng.random(values.shape) < 0.4] = np.nan
    values[2, 5:] = np.nan  # a site of few values
    return values.astype(np.float32)


def solved(where, observed, sites, penalty):
    """Weights by least squares, each penalised weight with a row of its own."""
    rows, values = [], []
    for site in sites:
        valid = np.isfinite(observed[site])
        rows.append(regressors(where, site)[valid])
        values.append(observed[site][valid])
    shrink = np.full(N_COLUMNS, penalty)
    shrink[-1] = 1e-6
    x = np.vstack([*rows, np.diag(shrink**0.5)])
    y = np.concatenate([*values, np.zeros(N_COLUMNS)])
    return np.linalg.lstsq(x, y, rcond=None)[0]


def mean_square(where, observed, weights, site):
    valid = np.isfinite(observed[site])
    return np.mean((regressors(where, site)[valid] @ weights - observed[site][valid]) ** 2)


def best_penalty(where, observed, groups):
    """The penalty with the least error at sites left out, a group at a time."""
    errors = []
    for penalty in PENALTIES:
        total = 0.0
        for out in groups:
            inside = [site for group in groups for site in group if group is not out]
            weights = solved(where, observed, inside, penalty)
            total += sum(mean_square(where, observed, weights, site) for site in out)
        errors.append(total)
    return PENALTIES[int(np.argmin(errors))]


@pytest.fixture
def where():
    return tiny.places(N_SITES, N_DAYS, seed=4)


@pytest.mark.parametrize("n_days", [7, 100])
def test_design_is_of_forcing_its_lags_and_means_statics_and_a_constant(n_days):
    where = tiny.places(3, n_days, missing=0.3)
    where.forcing[1, :, 0] = np.nan  # never measured there
    for place in range(3):
        x = np.arcsinh(where.forcing[place].double().numpy())
        actual = regressors(where, place)
        assert actual.shape == (n_days, N_COLUMNS)
        for day in range(n_days):
            row = [x[(day - lag) % n_days] for lag in range(4)]
            for length in (3, 7, 30, 90):
                last = np.array([x[(day - back) % n_days] for back in range(length)])
                present = np.isfinite(last)
                total = np.where(present, last, 0).sum(0)
                row.append(total / np.where(present.sum(0) > 0, present.sum(0), np.nan))
            expected = [*np.concatenate(row), *where.static[place].tolist(), 1.0]
            np.testing.assert_allclose(actual[day], np.nan_to_num(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("noise", [0.001, 0.03, 0.3, 3.0])
@pytest.mark.parametrize("folds", [[0, 1, 2, 0, 1, 2, 0, 1], [0] * 8])
def test_weights_and_penalty(where, noise, folds):
    observed, fold = observed_at(where, noise), np.array(folds)
    sites = np.array([0, 1, 2, 4, 5, 6, 7])  # site 3 is held out
    ridge = SiteMoments(where, observed).fit(sites, fold)
    if len(set(folds)) > 1:
        groups = [sites[fold[sites] == k] for k in (0, 1, 2)]
    else:  # five groups of the sites in turn
        groups = [sites[k::5] for k in range(5)]
    assert ridge.penalty == best_penalty(where, observed, groups)
    expected = solved(where, observed, sites, ridge.penalty)
    np.testing.assert_allclose(ridge.weights, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("noise", [0.03, 0.3])
@pytest.mark.parametrize("folds", [[0, 1, 2, 0, 1, 2, 0, 1], [0] * 8])
def test_the_penalty_is_chosen_without_the_sites_of_one_place_apart(where, noise, folds):
    observed, fold = observed_at(where, noise), np.array(folds)
    place = np.array([0, 1, 2, 3, 1, 2, 6, 0])  # of 0 and 7, 1 and 4, 2 and 5
    sites = np.array([0, 1, 2, 4, 5, 6, 7])  # site 3 is held out
    ridge = SiteMoments(where, observed).fit(sites, fold, place)
    groups = [[0, 7, 6], [1, 4], [2, 5]] if len(set(folds)) > 1 else [[0, 7], [1, 4], [2, 5], [6]]
    assert ridge.penalty == best_penalty(where, observed, [np.array(group) for group in groups])


def test_noise_is_answered_by_a_larger_penalty(where):
    fold = np.arange(N_SITES) % 3
    found = [
        SiteMoments(where, observed_at(where, noise)).fit(np.arange(N_SITES), fold).penalty
        for noise in (0.001, 3.0)
    ]
    assert found[0] < found[1]


def test_a_held_out_site_cannot_change_the_weights(where):
    observed, fold = observed_at(where, 0.1), np.arange(N_SITES) % 4
    sites = np.flatnonzero(fold != 3)
    before = SiteMoments(where, observed).fit(sites, fold)
    observed[fold == 3] = 77.0
    after = SiteMoments(where, observed).fit(sites, fold)
    np.testing.assert_array_equal(after.weights, before.weights)
    assert after.penalty == before.penalty


def test_the_constant_is_not_shrunk(where):
    observed = np.full((N_SITES, N_DAYS), 0.3, np.float32)
    ridge = SiteMoments(where, observed).fit(np.arange(N_SITES), np.zeros(N_SITES, np.int64))
    np.testing.assert_allclose(ridge.predict(where), 0.3, atol=1e-4)


def test_sites_without_a_value_do_no_harm(where):
    observed = observed_at(where, 0.1)
    observed[[1, 6]] = np.nan
    fold = np.arange(N_SITES) % 2
    full, less = np.arange(N_SITES), np.array([0, 2, 3, 4, 5, 7])
    with_them, without = (SiteMoments(where, observed).fit(s, fold) for s in (full, less))
    assert with_them.penalty == without.penalty
    np.testing.assert_allclose(with_them.weights, without.weights, rtol=1e-9)


def test_one_site_is_enough(where):
    ridge = SiteMoments(where, observed_at(where, 0.1)).fit(np.array([5]), np.arange(N_SITES))
    assert np.isfinite(ridge.weights).all()


def test_prediction_is_the_sum_of_weighted_regressors(where):
    weights = np.random.default_rng(7).normal(size=N_COLUMNS)
    series = Ridge(weights, 1.0).predict(where)
    assert series.dtype == np.float32
    for site in range(N_SITES):
        expected = [sum(row * weights) for row in regressors(where, site)]
        np.testing.assert_allclose(series[site], expected, rtol=1e-5, atol=1e-5)


def test_no_place_is_no_error():
    nowhere = Places(torch.zeros(0, 9, 2).half(), torch.zeros(0, 3))
    assert Ridge(np.zeros(N_COLUMNS), 1.0).predict(nowhere).shape == (0, 9)


def test_a_window_is_a_part_of_the_series():
    where = tiny.places(N_SITES, N_DAYS)
    ridge = Ridge(np.random.default_rng(1).normal(0, 0.05, N_COLUMNS), 1.0)
    part = ridge.window(where.days(10 - LEAD_DAYS, 30), where.static, 20).numpy()
    np.testing.assert_allclose(part, ridge.predict(where)[:, 10:30], rtol=1e-4, atol=1e-6)


def test_a_window_without_gaps_is_filtered_to_the_same_values():
    where = tiny.places(N_SITES, N_DAYS)
    forcing = torch.nan_to_num(where.days(-LEAD_DAYS, 20), nan=0.3)
    ridge = Ridge(np.random.default_rng(1).normal(0, 0.05, N_COLUMNS), 1.0)
    expected = design_matrix(forcing, where.static, 20).double() @ torch.from_numpy(ridge.weights)
    assert not torch.isnan(forcing).any()
    np.testing.assert_allclose(ridge.window(forcing, where.static, 20), expected, atol=2e-6)


def test_a_regression_on_some_sites_sees_no_other():
    where, fold = tiny.places(N_SITES, N_DAYS), np.arange(N_SITES) % 3
    observed = observed_at(where, 0.02)
    sites = np.array([0, 1, 3, 4, 6])
    expected = SiteMoments(where, observed).fit(sites, fold)
    observed[5] = 1e6
    found = fit_ridge(where, observed, sites, fold)
    assert found.penalty == expected.penalty
    np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-8)
