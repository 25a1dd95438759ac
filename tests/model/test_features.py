"""Trailing means, slow features and the network's input, against loops over days."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from model.features import Features, SlowFeature, assemble_input, slow_features, trailing_means
from model.scaling import Scale, Scaler


def close(actual, expected):
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-4, atol=1e-5)


def series(n_places, n_days, share_missing):
    rng = np.random.default_rng(5)
    values = rng.gamma(1, 3, (n_places, n_days))
    values[rng.random(values.shape) < share_missing] = np.nan
    return values


def mean_of(values):
    present = [v for v in values if not np.isnan(v)]
    return sum(present) / len(present) if present else np.nan


@pytest.mark.parametrize("share_missing", [0, 0.3, 0.9])
def test_trailing_means_are_over_the_days_present(share_missing):
    values, days, n_days = series(3, 13, share_missing), (1, 2, 5), 9
    actual = trailing_means(torch.from_numpy(values), days, n_days)
    expected = [
        [[mean_of(row[day + 1 - length : day + 1]) for length in days] for day in range(4, 13)]
        for row in values
    ]
    assert actual.shape == (3, 9, 3)
    close(actual, expected)


def test_a_mean_without_a_present_day_is_missing():
    values = torch.tensor([[1.0, np.nan, np.nan, 4.0]])
    actual = trailing_means(values, (2,), 3)[0, :, 0]
    np.testing.assert_array_equal(actual.numpy(), [1.0, np.nan, 4.0])


SCALER = Scaler(
    {
        "rain": Scale(1.0, 2.0),
        "warmth": Scale(280.0, 8.0),
        "warmth_mean_3d": Scale(279.0, 5.0),
        "rain_mean_1d": Scale(0.5, 0.25),
        "rain_mean_4d": Scale(0.75, 0.5),
    }
)

FEATURES = Features(
    ("rain", "warmth"),
    ("sand", "clay"),
    (
        SlowFeature(variable="warmth", days=(3,)),
        SlowFeature(variable="rain", days=(1, 4), transform="log1p"),
    ),
)


@pytest.fixture
def forcing():
    """(place, lead + day, forcing) scaled, of 3 places, 3 + 6 days; rain below 0 among them."""
    rng = np.random.default_rng(6)
    values = rng.normal(size=(3, 9, 2))
    values[rng.random(values.shape) < 0.25] = np.nan
    values[0, :, 0] = np.nan  # no rain gauge at all
    return values


def slow_by_hand(forcing, place, day):
    warmth = [forcing[place, day - back, 1] * 8 + 280 for back in range(3)]
    rain = [np.log(1 + np.maximum(forcing[place, day - back, 0] * 2 + 1, 0)) for back in range(4)]
    return [mean_of(warmth), mean_of(rain[:1]), mean_of(rain)]


def test_names_and_lead_days():
    assert FEATURES.names == (
        "rain",
        "warmth",
        "warmth_mean_3d",
        "rain_mean_1d",
        "rain_mean_4d",
        "sand",
        "clay",
    )
    assert FEATURES.lead_days == 3
    assert Features(("rain",), ()).lead_days == 0


def test_slow_features_are_means_of_physical_values(forcing):
    actual = torch.stack(slow_features(torch.from_numpy(forcing), FEATURES, SCALER, 6), 2)
    expected = [[slow_by_hand(forcing, p, day) for day in range(3, 9)] for p in range(3)]
    close(actual, expected)
    assert np.isnan(actual[0, :, 1:].numpy()).all()


def test_assembled_input_is_ordered_scaled_and_complete(forcing):
    static = np.array([[0.5, -1.0], [np.nan, 2.0], [3.0, 0.25]])
    actual = assemble_input(
        torch.from_numpy(forcing), torch.from_numpy(static), FEATURES, SCALER, 6
    )
    assert actual.shape == (3, 6, 7)
    for place in range(3):
        for day in range(6):
            warmth, rain_1, rain_4 = slow_by_hand(forcing, place, day + 3)
            expected = [
                forcing[place, day + 3, 0],
                forcing[place, day + 3, 1],
                (warmth - 279) / 5,
                (rain_1 - 0.5) / 0.25,
                (rain_4 - 0.75) / 0.5,
                *static[place],
            ]
            close(actual[place, day], [0.0 if np.isnan(v) else v for v in expected])


def test_input_without_slow_features_needs_no_lead(forcing):
    features = Features(("rain", "warmth"), ("sand",))
    actual = assemble_input(torch.from_numpy(forcing), torch.full((3, 1), 2.0), features, SCALER, 9)
    close(actual[..., :2], np.nan_to_num(forcing))
    assert (actual[..., 2] == 2).all()


def test_input_by_hand_of_the_other_tests_agrees():
    where = tiny.places(3, 12)
    window = where.window(torch.tensor([2]), torch.tensor([-2]), 5, 4)
    actual = assemble_input(window, where.static[[2]], tiny.FEATURES, tiny.SCALER, 5)
    close(actual[0], [tiny.inputs_by_hand(where, 2, day) for day in range(-2, 3)])
