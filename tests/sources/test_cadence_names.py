"""Steps of records: what is a cadence, what is a gap, and what they are called."""

import numpy as np
import pytest

from pipeline.doctor import time_axis
from pipeline.sources.shared import time_steps

FIRST = np.datetime64("2016-01-01T00", "m")


def at(*hours):
    return FIRST + (np.array(hours) * 60).astype(int) * np.timedelta64(1, "m")


def steps(times, stamp="start"):
    return (time_steps.interval_lengths(times, stamp) / np.timedelta64(1, "h")).tolist()


def test_a_distance_that_is_not_repeated_is_a_gap():
    assert steps(at(0, 1, 2, 4, 5, 6)) == [1] * 6
    assert steps(at(0, 1, 2, 3, 5, 7, 8, 9, 10)) == [1] * 9  # two hours are missing, one by one
    assert steps(at(0, 1, 2, 3, 6, 9, 12)) == [1, 1, 1, 3, 3, 3, 3]
    assert steps(at(0, 1, 2, 3, 6, 9, 12), "end") == [1, 1, 1, 1, 3, 3, 3]
    assert steps(at(0.5, 1.5, 2.5, 4.5, 7.5, 10.5, 13.5), "middle") == [1, 1, 1, 3, 3, 3, 3]
    gap = at(0, 3, 6, 9, 15, 18, 19, 20, 21)
    assert steps(gap) == [3, 3, 3, 3, 3, 1, 1, 1, 1]
    assert steps(gap, "end") == [3, 3, 3, 3, 3, 3, 1, 1, 1]
    assert steps(at(0, 1, 2, 3, 6, 12, 15, 18, 21)) == [1, 1, 1, 3, 3, 3, 3, 3, 3]


def test_shorter_distances_are_no_gaps_and_jitter_is_no_change():
    assert steps(at(0, 3, 6, 9, 10, 12, 15)) == [3, 3, 3, 1, 2, 3, 3]
    late = at(*range(48)) + np.random.default_rng(1).integers(-1, 2, 48) * np.timedelta64(1, "m")
    assert time_steps.is_regular(time_steps.interval_lengths(late), np.timedelta64(3600, "s"))
    assert time_steps.value_hours(late).tolist() == [1] * 48
    assert steps(at(5)) == [24]
    assert time_steps.value_hours(at(5)).tolist() == [1]
    assert steps(at()) == []


@pytest.mark.parametrize(
    ("hours", "name"),
    [
        (1, "hourly"),
        (3, "3-hourly"),
        (24, "daily"),
        (0.5, "every 30 minutes"),
        (48, "every 2 days"),
        (1.5, "every 90 minutes"),
        (1 / 60, "every minute"),
    ],
)
def test_cadences_have_names(hours, name):
    assert time_steps.name_cadence(np.timedelta64(round(hours * 3600), "s")) == name


def test_changes_are_told_with_their_days():
    times = at(*range(48), *range(48, 96, 3), *range(96, 144))
    told = time_steps.describe_cadences(times, time_steps.interval_lengths(times))
    assert told == (
        "hourly until 2016-01-02, 3-hourly from 2016-01-03 to 2016-01-04, hourly from 2016-01-05"
    )
    assert [symptom.check for symptom in time_axis.check_cadence(told)] == ["time axis"]
    holed = np.delete(times[:48], [5, 20])
    assert time_steps.describe_cadences(holed, time_steps.interval_lengths(holed)) == "hourly"
    assert time_axis.check_cadence("hourly") == []


def test_a_year_with_another_cadence_than_the_one_before_is_told():
    years = [("2015", "hourly"), ("2016", "hourly until 2016-05-01, 3-hourly from 2016-05-02")]
    assert time_axis.check_cadence_between_years(years) == {}
    ((symptom, at_fault),) = time_axis.check_cadence_between_years(
        [*years, ("2017", "hourly")]
    ).items()
    assert symptom.message == "the cadence changes: 3-hourly until 2016, hourly from 2017"
    assert at_fault == ["2017"]
