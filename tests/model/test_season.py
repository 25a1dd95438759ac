"""Percentiles and anomalies against their definition, written plainly."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pytest

from model import climatology

MISSING = -32768


def season_by_hand(day: date, first: date, last: date) -> list[int]:
    """The days of the reference at most 15 from the day's date in any year, one by one."""
    found = []
    for position in range((last - first).days + 1):
        each = first + timedelta(position)
        for year in (each.year - 1, each.year, each.year + 1):
            try:
                centre = day.replace(year=year)
            except ValueError:  # 29 February
                centre = date(year, 3, 1)
            if abs((each - centre).days) <= 15:
                found.append(position)
    return found


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (date(2016, 1, 1), date(2018, 12, 31)),
        (date(2015, 4, 1), date(2018, 9, 12)),
        (date(2016, 2, 29), date(2021, 2, 28)),
    ],
)
def test_the_season_is_31_days_of_each_year_across_its_turn_and_leap_days(first, last):
    for day in (date(2016, 2, 29), date(2016, 2, 28), date(2017, 3, 1), date(2018, 1, 3)):
        windows = climatology.season_windows(day, (first, last))
        positions = [position for w in windows for position in range(w.start, w.stop)]
        assert positions == season_by_hand(day, first, last)
    for each in (date(2024, 2, 29), date(2030, 12, 31)):  # after the reference
        assert sum(w.stop - w.start for w in climatology.season_windows(each, (first, last))) >= 78


def test_a_whole_number_of_years_gives_every_day_as_many_values():
    reference = date(2016, 1, 1), date(2018, 12, 31)
    sizes = {
        sum(w.stop - w.start for w in climatology.season_windows(date(2016, 1, 1) + n, reference))
        for n in map(timedelta, range(366))
    }
    assert sizes == {93}


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_percentile_and_anomaly_are_those_of_the_definition(missing):
    rng = np.random.default_rng(4)
    reference, n_days, n_places = (date(2015, 5, 1), date(2018, 8, 20)), 1208, 5
    values = rng.integers(0, 40, (n_days, n_places)).astype(np.int16)  # with ties
    values[rng.random(values.shape) < missing] = MISSING
    if missing:
        values[200:, 3] = MISSING  # fewer than 31 values in most seasons
    compared = climatology.Reference(reference, values, MISSING)
    for day in (date(2015, 5, 3), date(2016, 2, 29), date(2018, 8, 20), date(2019, 1, 1)):
        today = rng.integers(0, 40, n_places).astype(np.int16)
        today[1] = MISSING
        percentile, anomaly = compared.compare(day, today)
        season = values[season_by_hand(day, *reference)]
        for place in range(n_places):
            known = season[:, place][season[:, place] != MISSING].astype(float)
            if place == 1 or len(known) < 31:
                assert np.isnan([percentile[place], anomaly[place]]).all()
                continue
            smaller, equal = (known < today[place]).mean(), (known == today[place]).mean()
            assert percentile[place] == pytest.approx(100 * (smaller + equal / 2), abs=1e-9)
            assert anomaly[place] == pytest.approx(today[place] - known.mean(), abs=1e-9)
        assert np.isnan(percentile).sum() == 1 + (missing > 0)


def test_extreme_values_do_not_overflow():
    reference = date(2000, 1, 1), date(2039, 12, 31)
    values = np.full((14610, 1), 32767, np.int16)
    compared = climatology.Reference(reference, values, MISSING)
    percentile, anomaly = compared.compare(date(2039, 12, 31), np.array([32767], np.int16))
    assert (percentile[0], anomaly[0]) == (50, 0)
    percentile, anomaly = compared.compare(date(2040, 7, 1), np.array([-32767], np.int16))
    assert (percentile[0], anomaly[0]) == (0, -65534)


def test_three_years_are_enough():
    assert climatology.is_long_enough((date(2017, 1, 1), date(2019, 12, 31)))
    assert not climatology.is_long_enough((date(2017, 1, 1), date(2019, 12, 30)))
