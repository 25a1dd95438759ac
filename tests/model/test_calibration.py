"""Level weight and width scale against a search through all of them."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from scipy import stats

from model.calibration import (
    Calibration,
    calibrate,
    fit_width_scale,
    interval_coverage,
    interval_half_width,
    site_rmse,
)
from model.ensemble import Prediction

BOTH = ("site", "satellite")
LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
N_SITES, N_DAYS = 7, 120
ALL = np.ones(N_SITES, bool)
HALF_90 = stats.logistic.ppf(0.95) / stats.logistic.std()  # of the central 90 %, in std


def case(truth_level, seed=0):
    """Two members, and observations whose level lies between those of the two heads."""
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0.1, 0.4, (2, N_SITES))
    signal = 0.05 * rng.normal(size=(N_SITES, N_DAYS))
    members = []
    for _ in range(2):
        own = rng.normal(0, 0.01, (2, N_SITES, 1))
        site = levels[0][:, None] + own[0] + signal
        satellite = levels[1][:, None] + own[1] + signal / 2
        width = rng.uniform(0.01, 0.03, signal.shape)
        means = (site.mean(1), satellite.mean(1))
        arrays = (site, satellite, width, *means)
        members.append(Prediction(*(a.astype(np.float32) for a in arrays)))
    level = truth_level * levels[0] + (1 - truth_level) * levels[1]
    observed = level[:, None] + signal + rng.laplace(0, 0.02, signal.shape)
    observed[rng.random(observed.shape) < 0.3] = np.nan
    observed[3] = np.nan
    observed[4, 29:] = np.nan  # 29 values at most: too few
    return members, observed.astype(np.float32)


def product_by_hand(members, level_weight, site, day):
    told = [
        m.site[site, day] + (1 - level_weight) * (m.satellite_level[site] - m.site_level[site])
        for m in members
    ]
    own = np.mean([2 * m.width[site, day] ** 2 for m in members])
    return np.mean(told), (own + np.var(told)) ** 0.5


def errors_by_hand(members, observed, level_weight, sites):
    """Per usable site, (error, std) of each of its days with a value."""
    rows = []
    for site in np.flatnonzero(sites):
        days = [day for day in range(N_DAYS) if not np.isnan(observed[site, day])]
        if len(days) >= 30:
            told = [product_by_hand(members, level_weight, site, day) for day in days]
            rows.append([(m - observed[site, d], s) for (m, s), d in zip(told, days, strict=True)])
    return rows


def covered(rows, scale):
    """Mean over sites of the share of days inside the scaled 90 % interval."""
    return np.mean([np.mean([abs(e) <= scale * s * HALF_90 for e, s in row]) for row in rows])


@pytest.mark.parametrize("truth", LEVELS)
@pytest.mark.parametrize("sites", [ALL, np.arange(N_SITES) % 3 != 1])
def test_the_level_is_the_best_and_the_width_covers_ninety_percent(truth, sites):
    members, observed = case(truth)
    chosen = calibrate(members, BOTH, observed, sites)
    by_level = {w: errors_by_hand(members, observed, w, sites) for w in LEVELS}
    mean_rmse = {
        w: np.mean([np.mean([e**2 for e, _ in row]) ** 0.5 for row in rows])
        for w, rows in by_level.items()
    }
    assert chosen.calibrated
    assert chosen.level_weight == min(mean_rmse, key=mean_rmse.get) == truth
    rows = by_level[truth]
    assert covered(rows, chosen.width_scale * 1.0001) >= 0.9
    assert covered(rows, chosen.width_scale * 0.9999) < 0.9 + 1e-9


def test_each_site_counts_once_in_the_level():
    """One site with ten times the days prefers the satellite's level, two the site head's."""
    observed = np.full((3, 400), np.nan, np.float32)
    observed[0], observed[1:, :40] = 0.2, 0.3
    member = tiny.prediction(np.full((3, 400), 0.3), 0.2, 0.05, 0.3, 0.2)
    assert calibrate([member], BOTH, observed, np.ones(3, bool)).level_weight == 1
    assert calibrate([member], BOTH, observed, np.array([1, 0, 0], bool)).level_weight == 0


def test_each_site_counts_once_in_the_width():
    error = np.full((11, 500), np.nan, np.float32)
    error[0], error[1:, :50] = 9.0, 1.0  # half of all days, less than a tenth of the sites
    std = np.full((11, 500), 2.0, np.float32)
    assert fit_width_scale(error, std) == pytest.approx(0.5 / HALF_90)
    error[1, :10] = 9.0  # now a little more than a tenth
    assert fit_width_scale(error, std) == pytest.approx(4.5 / HALF_90)


def test_a_perfect_width_is_left_alone_and_covers_every_level():
    rng = np.random.default_rng(1)
    std = rng.uniform(0.01, 0.1, (5, 20_000))
    error = rng.logistic(0, std / stats.logistic.std())
    assert fit_width_scale(error, std) == pytest.approx(1, rel=0.03)
    for level in (0.5, 0.9):
        np.testing.assert_allclose(interval_coverage(error, std, level), level, atol=0.012)


def test_the_interval_lies_between_that_of_a_normal_distribution_and_that_of_laplace():
    for level, nearest in ((0.5, 0.61), (0.9, 1.62)):
        tails = (1 + level) / 2
        assert interval_half_width(level) == pytest.approx(nearest, abs=0.005)
        assert interval_half_width(level) == pytest.approx(
            stats.logistic.ppf(tails) / stats.logistic.std()
        )
    assert stats.laplace.ppf(0.75) / np.sqrt(2) < interval_half_width(0.5) < stats.norm.ppf(0.75)


def test_coverage_of_known_numbers():
    error = 0.1 * HALF_90 * np.array([[0.99, -0.99, 1.01, -1.01, np.nan], [np.nan] * 5, [0.5] * 5])
    std = np.full((3, 5), 0.1)
    std[2, 1:] = np.nan
    np.testing.assert_array_equal(interval_coverage(error, std, 0.9), [0.5, np.nan, 1.0])


def test_a_width_that_is_not_known_is_not_scaled():
    nothing = np.full((2, 40), np.nan, np.float32)
    assert fit_width_scale(np.ones((2, 40), np.float32), nothing) == 1
    alone = [tiny.prediction(np.full((2, 40), 0.3), 0.2)]
    observed = np.full((2, 40), 0.3, np.float32)
    chosen = calibrate(alone, BOTH, observed, np.ones(2, bool))
    assert chosen == Calibration(level_weight=1.0, width_scale=1.0, calibrated=True)


def test_days_without_a_width_are_left_out_of_its_scale():
    error, std = np.ones((2, 3), np.float32), np.full((2, 3), 0.5, np.float32)
    error[0, 0], std[0, 0] = 50.0, np.nan
    assert fit_width_scale(error, std) == pytest.approx(2 / HALF_90)


@pytest.mark.parametrize(
    ("heads", "sites"),
    [
        (("satellite",), ALL),  # an arm that has seen no site
        (BOTH, ~ALL),  # no other fold
        (BOTH, np.isin(np.arange(N_SITES), [3, 4])),  # too few values
    ],
)
def test_uncalibrated(heads, sites):
    members, observed = case(0.5)
    expected = Calibration(level_weight=0.0, width_scale=1.0, calibrated=False)
    assert calibrate(members, heads, observed, sites) == expected


@pytest.mark.parametrize(("n", "enough"), [(29, False), (30, True)])
def test_thirty_values_make_a_site_one_to_calibrate_on(n, enough):
    observed = np.full((1, 40), np.nan, np.float32)
    observed[0, :n] = 0.3
    member = tiny.prediction(np.full((1, 40), 0.3), 0.2, 0.05)
    assert calibrate([member], BOTH, observed, np.ones(1, bool)).calibrated == enough


def test_a_site_head_alone_keeps_its_level():
    members, observed = case(0.0)
    chosen = calibrate(members, ("site",), observed, ALL)
    rows = errors_by_hand(members, observed, 1.0, ALL)
    assert (chosen.level_weight, chosen.calibrated) == (1.0, True)
    assert covered(rows, chosen.width_scale * 1.0001) >= 0.9


def test_one_head_has_but_one_level():
    series = np.random.default_rng(2).normal(0.2, 0.05, (3, 50)).astype(np.float32)
    one = Prediction(series, series, series / 10, *(series.mean(1),) * 2)
    assert calibrate([one], BOTH, series + 0.1, np.ones(3, bool)).level_weight == 1


@pytest.mark.parametrize("junk", [99.0, np.nan])
def test_a_held_out_fold_cannot_change_its_own_calibration(junk):
    members, observed = case(0.25)
    sites = np.arange(N_SITES) % 3 != 1
    chosen = calibrate(members, BOTH, observed, sites)
    observed[~sites] = junk
    for member in members:
        for values in vars(member).values():
            values[~sites] = 5.0
    assert calibrate(members, BOTH, observed, sites) == chosen


def test_errors_of_sites_with_few_values_are_missing():
    observed = np.full((3, 40), 0.2, np.float32)
    observed[1, :11] = np.nan  # leaves 29
    observed[2, :10] = np.nan  # leaves 30
    errors = site_rmse(np.full((3, 40), 0.5, np.float32), observed)
    np.testing.assert_allclose(errors, [0.3, np.nan, 0.3], rtol=1e-6)
