"""Long series against one day after the other, and the product of several members."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from model import ensemble
from model.ensemble import Prediction, combine_members, merge_predictions
from model.sampling import Places

MEAN, STD = 0.22, 0.07  # of the target


@pytest.fixture(autouse=True)
def one_thread():
    with tiny.one_thread():
        yield


def outputs_by_hand(trained, where):
    """Outputs (place, day, output) of the spin-up and of the record: no block, no batch."""
    n_days = where.forcing.shape[1]
    spinup, record = [], []
    for place in range(len(where.static)):
        state, outputs = None, []
        for day in range(-min(365, n_days), n_days):
            x = tiny.inputs_by_hand(where, place, day)[None, None]
            out, state = tiny.forward_by_hand(trained.network, x, state=state)
            outputs.append(out[0, 0])
        spinup.append(outputs[:-n_days])
        record.append(outputs[-n_days:])
    return np.array(spinup), np.array(record)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_days", [3, 20, 380])
def test_a_series_is_the_network_run_day_by_day_after_a_spin_up(n_days):
    trained, where = tiny.trained(), tiny.places(2, n_days)
    actual = ensemble.predict_series(trained, where)
    spinup, record = outputs_by_hand(trained, where)
    assert actual.site.shape == (2, n_days)
    assert spinup.shape == (2, min(365, n_days), 3)
    close(actual.site, record[..., 0] * STD + MEAN)
    close(actual.satellite, record[..., 1] * STD + MEAN)
    close(actual.width, (np.log(1 + np.exp(record[..., 2])) + 1e-3) * STD)
    close(actual.site_level, spinup[..., 0].mean(1) * STD + MEAN)
    close(actual.satellite_level, spinup[..., 1].mean(1) * STD + MEAN)


@pytest.mark.parametrize(("days", "places"), [(7, 512), (1, 2), (365, 1)])
def test_the_size_of_blocks_changes_nothing(monkeypatch, days, places):
    trained, where = tiny.trained(), tiny.places(5, 23)
    whole = ensemble.predict_series(trained, where)
    monkeypatch.setattr(ensemble, "DAYS_PER_PASS", days)
    monkeypatch.setattr(ensemble, "places_per_pass", lambda device: places)
    for name, values in vars(ensemble.predict_series(trained, where)).items():
        close(values, getattr(whole, name))


def test_the_site_head_has_its_share_of_the_linear_model():
    blended, where = tiny.trained(linear_weight=0.3), tiny.places(2, 40)
    plain = ensemble.predict_series(replace(blended, linear=None), where)
    actual = ensemble.predict_series(blended, where)
    close(actual.site, 0.7 * plain.site + 0.3 * blended.linear.predict(where))
    np.testing.assert_array_equal(actual.satellite, plain.satellite)
    close(actual.site_level, actual.site.mean(1) + 0.7 * (plain.site_level - plain.site.mean(1)))


def test_one_head_without_likelihood_says_the_same_twice():
    actual = ensemble.predict_series(tiny.trained(heads="one", likelihood=False), tiny.places(3, 9))
    np.testing.assert_array_equal(actual.site, actual.satellite)
    np.testing.assert_array_equal(actual.site_level, actual.satellite_level)
    assert actual.width.shape == (3, 9)
    assert (actual.width == 0).all()


def test_predicting_knows_no_dropout_and_no_chance():
    trained, where = tiny.trained(weight_dropout=0.9), tiny.places(3, 9)
    trained.network.train()
    first = ensemble.predict_series(trained, where)
    torch.manual_seed(5)
    np.testing.assert_array_equal(ensemble.predict_series(trained, where).site, first.site)


def test_places_are_independent_of_one_another():
    trained, where = tiny.trained(), tiny.places(4, 15)
    chosen = np.array([False, True, False, True])
    whole, some = (
        ensemble.predict_series(trained, where),
        ensemble.predict_series(trained, where.select(chosen)),
    )
    close(some.site, whole.site[chosen])
    close(some.site_level, whole.site_level[chosen])


def test_no_place_is_no_error():
    actual = ensemble.predict_series(tiny.trained(), tiny.places(4, 15).select(np.zeros(4, bool)))
    assert (actual.site.shape, actual.site_level.shape) == ((0, 15), (0,))


def test_what_is_missing_altogether_still_has_a_prediction():
    forcing = np.full((1, 12, 2), np.nan, np.float16)
    where = Places.from_arrays(forcing, np.full((1, 3), np.nan, np.float32), "cpu")
    assert np.isfinite(ensemble.predict_series(tiny.trained(), where).site).all()


@pytest.fixture
def members():
    """Three members' series of 2 places and 4 days."""
    rng = np.random.default_rng(3)
    series = rng.normal(0.2, 0.05, (3, 2, 2, 4)).astype(np.float32)
    widths = rng.uniform(0.01, 0.03, (3, 2, 4)).astype(np.float32)
    levels = rng.normal(0.2, 0.05, (3, 2, 2)).astype(np.float32)
    return [Prediction(*s, w, *m) for s, w, m in zip(series, widths, levels, strict=True)]


BOTH = ("site", "satellite")


@pytest.mark.parametrize("level_weight", [0.0, 0.25, 1.0])
def test_the_product_is_the_site_head_with_a_shared_level(members, level_weight):
    mean, std = combine_members(members, BOTH, level_weight)
    assert mean.shape == std.shape == (2, 4)
    for place in range(2):
        for day in range(4):
            told = [
                m.site[place, day]
                + (1 - level_weight) * (m.satellite_level[place] - m.site_level[place])
                for m in members
            ]
            centre = sum(told) / 3
            own = sum(2 * m.width[place, day] ** 2 for m in members) / 3  # of a Laplace
            between = sum((t - centre) ** 2 for t in told) / 3
            close(mean[place, day], centre)
            close(std[place, day], (own + between) ** 0.5)


def test_a_member_whose_level_is_all_the_satellites_has_its_time_mean():
    flat = [tiny.prediction([[0.1, 0.3], [0.5, 0.7]], 0.0, 0.0, [0.2, 0.6], [0.4, 0.3])]
    close(combine_members(flat, BOTH, 0.0)[0].mean(1), [0.4, 0.3])
    close(combine_members(flat, BOTH, 1.0)[0].mean(1), [0.2, 0.6])


def test_where_no_site_was_learnt_from_the_satellite_head_speaks_alone(members):
    mean, std = combine_members(members, ("satellite",), 0.5)
    told = np.stack([m.satellite for m in members])
    close(mean, told.mean(0))
    close(std, told.std(0))  # the width is of a head that was not trained


def test_where_no_footprint_was_learnt_from_its_level_is_left_out(members):
    mean, _ = combine_members(members, ("site",), 0.25)
    close(mean, np.mean([m.site for m in members], 0))


@pytest.mark.parametrize("heads", [BOTH, ("site",), ("satellite",)])
def test_uncertainty_is_missing_where_nothing_says_anything(heads):
    alone = tiny.prediction([[0.1, 0.2, 0.3]], 0.2)
    assert np.isnan(combine_members([alone], heads, 1.0)[1]).all()
    assert np.isnan(combine_members([alone, alone], heads, 1.0)[1]).all()
    known = tiny.prediction([[0.1, 0.2, 0.3]], 0.2, [[0.0, 0.5, 0.0]])
    expected = [[np.nan, np.nan if heads == ("satellite",) else 0.5 * 2**0.5, np.nan]]
    close(combine_members([known], heads, 1.0)[1], expected)


def test_gathered_puts_every_place_back():
    by = np.array([2, -1, 2, 0, -1])
    site = np.arange(15.0).reshape(5, 3)
    whole = tiny.prediction(site, site + 100, site + 200, site[:, 0] + 300, site[:, 0] + 400)
    pieces = {
        label: Prediction(*(a[by == label] for a in vars(whole).values())) for label in (0, -1, 2)
    }
    for name, values in vars(merge_predictions(pieces, by)).items():
        np.testing.assert_array_equal(values, getattr(whole, name))
