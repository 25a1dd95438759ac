"""Scales of inputs and target."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model import scaling
from model.scaling import Scale, Scaler, fit_plain_scale, fit_trimmed_scale


def moments(values):
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5


def check(scale, values):
    assert (scale.mean, scale.std) == pytest.approx(moments(values))


def percentile(values, share):
    """Linear between the two nearest of the ordered values."""
    ordered, position = sorted(values), share * (len(values) - 1)
    low = int(position)
    high = min(low + 1, len(values) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def test_percentiles_are_inclusive():
    check(fit_trimmed_scale(np.arange(11)), list(range(1, 10)))  # 1 and 9 are the percentiles


def test_tails_do_not_count():
    values = np.random.default_rng(1).gamma(0.5, 8, (7, 13))
    low, high = (percentile(values.ravel().tolist(), share) for share in (0.1, 0.9))
    check(fit_trimmed_scale(values), [v for v in values.ravel() if low <= v <= high])
    spoilt = values.copy()
    spoilt[values == values.max()] = 1e6
    assert fit_trimmed_scale(spoilt) == fit_trimmed_scale(values)


def test_missing_values_do_not_count():
    values = np.random.default_rng(2).normal(size=50)
    holes = np.insert(values, [0, 17, 17, 50], np.nan)
    assert fit_trimmed_scale(holes) == fit_trimmed_scale(values)
    assert fit_plain_scale(holes) == fit_plain_scale(values)


def test_where_the_trimmed_values_are_constant_all_count():
    rain = [0.0] * 38 + [5.0, 12.0]
    check(fit_trimmed_scale(np.array(rain)), rain)


@pytest.mark.parametrize("scale_of", [fit_trimmed_scale, fit_plain_scale])
@pytest.mark.parametrize("value", [0.0, 3.7, -1e-7, 1e12])
def test_a_constant_has_a_deviation_of_one(scale_of, value):
    scale = scale_of(np.array([value, value, np.nan, value]))
    assert (scale.mean, scale.std) == (pytest.approx(value), 1.0)


@pytest.mark.parametrize("scale_of", [fit_trimmed_scale, fit_plain_scale])
@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_without_a_value_nothing_is_scaled(scale_of, values):
    assert scale_of(np.array(values)) == Scale(0.0, 1.0)


def test_small_but_real_variation_is_no_constant():
    values = [280.0, 280.001, 280.002, 280.003]
    assert fit_plain_scale(np.array(values)).std == pytest.approx(moments(values)[1])


def test_the_target_is_scaled_by_all_its_values():
    values = np.random.default_rng(3).gamma(2, 1, (3, 5))
    check(fit_plain_scale(values), values.ravel().tolist())


def test_many_values_are_sampled_over_all_days(monkeypatch):
    season = np.sin(2 * np.pi * np.arange(360) / 360)
    values = np.tile(season, (400, 1))  # a stride of 360 would see one day of the year
    whole = fit_trimmed_scale(values)
    monkeypatch.setattr(scaling, "MAX_SAMPLE", 2000)
    sampled = fit_trimmed_scale(values)
    assert sampled == fit_trimmed_scale(values) != whole
    assert sampled.std == pytest.approx(whole.std, rel=0.05)
    assert sampled.mean == pytest.approx(whole.mean, abs=0.05)


def test_two_byte_values_are_summed_in_full_precision():
    values = np.full(40_000, 1000.0, np.float16)
    values[::2] = 1004.0
    check(fit_trimmed_scale(values), [1000.0, 1004.0])


def test_there_and_back():
    scale = Scale(280.0, 8.0)
    assert scale.apply(296.0) == 2.0
    assert scale.invert(scale.apply(271.3)) == pytest.approx(271.3)


def test_scaler_survives_json_exactly():
    scaler = Scaler({"rain": Scale(0.1 + 0.2, 1 / 3), "sand": Scale(1e-17, 7.0)})
    assert Scaler.from_dict(json.loads(json.dumps(scaler.as_dict()))) == scaler


def test_arrays_come_in_the_order_asked_for():
    scaler = Scaler({"rain": Scale(1.0, 2.0), "sand": Scale(3.0, 4.0), "clay": Scale(5.0, 6.0)})
    mean, std = scaler.arrays(("clay", "rain"))
    assert (mean.tolist(), std.tolist()) == ([5.0, 1.0], [6.0, 2.0])
    assert mean.dtype == std.dtype == np.float32
