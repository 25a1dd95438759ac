"""A member that is unlike the others, by the rule written out for each member."""

from __future__ import annotations

import numpy as np
import pytest

from model.ensemble import find_outlier_members

SHAPE = (4, 300)


def members(*offsets, spread=0.01, seed=0):
    """Members about one series, each moved by its offset."""
    rng = np.random.default_rng(seed)
    common = rng.uniform(0.1, 0.4, SHAPE)
    return [common + offset + rng.normal(0, spread, SHAPE) for offset in offsets]


def by_hand(series, i):
    """How many times the others' a member's median difference from the mean of others is."""
    n = len(series)
    others = [j for j in range(n) if j != i]
    differences = {}
    for j in range(n):
        rest = [series[k] for k in others if k != j]
        differences[j] = np.median(np.abs(series[j] - sum(rest) / len(rest)))
    return differences[i] / np.median([differences[j] for j in others])


@pytest.mark.parametrize("n", [3, 4, 6, 9])
@pytest.mark.parametrize("offset", [0.01, 0.02, 0.15, 0.3, -0.3])
def test_a_member_is_named_from_five_times_the_others_on(n, offset):
    series = members(*[0.0] * (n - 1), offset)
    expected = [i for i in range(n) if by_hand(series, i) > 5]
    assert find_outlier_members(series) == expected
    assert expected == ([n - 1] if abs(offset) > 0.04 else [])


def test_just_under_and_just_over_five_times():
    """Two members are 0.02 apart: a third is at the limit 0.1 away from their mean."""
    pair = [np.full(SHAPE, 0.01), np.full(SHAPE, -0.01)]
    for third, named in ((0.0999, []), (0.1001, [2])):
        assert find_outlier_members([*pair, np.full(SHAPE, third)]) == named


def test_of_two_members_neither_is_named():
    assert find_outlier_members(members(0.0, 5.0)) == []
    assert find_outlier_members(members(0.0)) == []


def test_a_member_that_differs_for_less_than_half_of_the_time_is_like_the_others():
    series = members(0.0, 0.0, 0.0)
    series[1][:, :140] += 1.0
    assert find_outlier_members(series) == []
    series[1][:, :160] += 1.0
    assert find_outlier_members(series) == [1]


def test_values_that_one_member_lacks_are_left_out():
    series = members(0.0, 0.0, 0.5)
    series[0][:, :200] = np.nan
    assert find_outlier_members(series) == [2]
    series[0][:] = np.nan
    assert find_outlier_members(series) == []
    assert find_outlier_members([np.zeros(SHAPE)] * 3) == []
