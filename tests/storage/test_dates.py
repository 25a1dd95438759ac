"""Runs of days and periods as text, against runs that are counted one day at a time."""

from datetime import date

import numpy as np
import pytest

from pipeline.dates import period_as_text, runs_as_text, runs_of_days


def one_by_one(days):
    """First and last of each run, by asking of every day whether its neighbours are there."""
    there = set(days)
    firsts = sorted(day for day in there if day - 1 not in there)
    lasts = sorted(day for day in there if day + 1 not in there)
    return list(zip(firsts, lasts, strict=True))


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_runs_are_those_counted_one_by_one(share):
    rng = np.random.default_rng(3)
    days = np.flatnonzero(rng.uniform(size=200) < share) - 50
    shuffled = rng.permutation(np.concatenate([days, days[:7]]))  # twice and in any order
    assert runs_of_days(shuffled.tolist()) == one_by_one(days.tolist())
    dates = shuffled.astype("datetime64[D]")
    found = [(int(a.astype(int)), int(b.astype(int))) for a, b in runs_of_days(dates)]
    assert found == one_by_one(days.tolist())


def test_runs_cross_months_and_leap_days():
    days = np.array(["2020-02-28", "2020-02-29", "2020-03-01", "2021-03-01"], "datetime64[D]")
    assert runs_as_text(runs_of_days(days)) == "2020-02-28..2020-03-01, 2021-03-01"


def test_text_of_runs():
    runs = [(2015, 2018), (2020, 2020), (2022, 2023)]
    assert runs_as_text([]) == ""
    assert runs_as_text(runs) == "2015..2018, 2020, 2022..2023"
    assert runs_as_text(runs, most=3, to=" to ") == "2015 to 2018, 2020, 2022 to 2023"
    assert runs_as_text(runs, most=1, more="more runs") == "2015..2018 and 2 more runs"


def test_text_of_a_period():
    assert period_as_text((date(2016, 1, 1), date(2018, 12, 31))) == "2016-01-01..2018-12-31"
