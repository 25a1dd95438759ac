"""From hours to days: which day a step belongs to, sums and means, amounts since 00 UTC, rules."""

import numpy as np
import pytest
from miniatures_forcing import hours

from pipeline.sources.grids import variables
from pipeline.sources.grids.days import (
    DayCalendar,
    DayDefinition,
    accumulated_increments,
    find_coverage,
    order_problems,
)
from pipeline.sources.grids.days import aggregate_days as days_daily
from pipeline.sources.shared import dates, time_steps
from pipeline.sources.shared.dates import decode_times

HOUR = np.timedelta64(1, "h")


def cube(values):
    """(time, 1, 1)."""
    return np.asarray(values, "float32").reshape(-1, 1, 1)


def by_day(values, labels, how, least=24, full=24):
    days = np.unique(labels)
    calendar = DayCalendar.from_labels(days, {"end": labels}, least, full)
    return days_daily(cube(values), calendar, "end", how, slice(0, len(days))).ravel()


def test_the_stamp_and_the_offset_say_which_day_holds_a_step():
    times = hours("2020-02-28T23", "2020-03-01T02")
    days = {
        stamp: DayDefinition().labels(times, HOUR, stamp) for stamp in ("start", "end", "middle")
    }
    assert str(days["start"][1]) == "2020-02-29"
    assert str(days["end"][1]) == "2020-02-28"  # 00 UTC ends the day before
    assert str(days["end"][2]) == "2020-02-29"
    half_past = times + np.timedelta64(30, "m")
    np.testing.assert_array_equal(DayDefinition().labels(half_past, HOUR, "middle"), days["start"])
    local = DayDefinition(offset_hours=-6).labels(times, HOUR, "start")
    assert [str(day) for day in local[[6, 7]]] == ["2020-02-28", "2020-02-29"]  # 05 and 06 UTC
    assert DayDefinition(offset_hours=-6).convention == "UTC-6 h day"
    with pytest.raises(ValueError, match=r"day\.stamp: 'noon', expected one of start"):
        DayDefinition(stamp="noon")


@pytest.mark.parametrize("stamp", ["instant", "end"])
def test_means_sums_and_extremes_of_whole_days(stamp):
    times = hours("2020-02-28", "2020-03-02")
    values = np.random.default_rng(1).normal(size=len(times))
    labels = DayDefinition().labels(times, HOUR, stamp)
    held = [values[labels == day] for day in np.unique(labels)]
    for how, function in {"mean": np.mean, "sum": np.sum, "max": np.max, "min": np.min}.items():
        expected = [function(part) if len(part) == 24 else np.nan for part in held]
        found = by_day(values, labels, how)
        np.testing.assert_allclose(found, np.array(expected, "float32"), rtol=1e-6)
    assert len(held) == (3 if stamp == "instant" else 4)  # a leap day among them


def test_a_day_needs_all_its_steps_or_as_many_as_are_said():
    times = hours("2020-01-01", "2020-01-03")
    values = np.ones(len(times))
    values[3:5] = np.nan
    labels = DayDefinition().labels(times, HOUR, "start")
    np.testing.assert_array_equal(by_day(values, labels, "sum"), [np.nan, 24])
    np.testing.assert_array_equal(by_day(values, labels, "sum", least=22), [24, 24])
    np.testing.assert_array_equal(by_day(values, labels, "mean", least=23), [np.nan, 1])
    fewer = np.delete(labels, slice(30, 33))
    np.testing.assert_array_equal(by_day(np.ones(45), fewer, "mean"), [1, np.nan])


def test_amounts_since_00_utc_become_those_of_each_hour():
    times = hours("2020-02-28T23", "2020-03-01T03")
    amounts = np.random.default_rng(3).uniform(size=len(times)).astype("float32")
    begun = (times - HOUR).astype("datetime64[D]")
    since = np.concatenate([np.cumsum(amounts[begun == day]) for day in np.unique(begun)])
    found = accumulated_increments(cube(since), times).ravel()
    np.testing.assert_allclose(found, amounts, rtol=1e-5, atol=1e-6)
    holed = np.delete(np.arange(len(times)), 10)
    found = accumulated_increments(cube(since[holed]), times[holed]).ravel()
    assert found[10] == pytest.approx(amounts[10] + amounts[11], rel=1e-5)  # of both hours
    np.testing.assert_allclose(
        np.delete(found, 10), np.delete(amounts, [10, 11]), rtol=1e-5, atol=1e-6
    )
    since[10:12] = np.nan
    found = accumulated_increments(cube(since), times).ravel()
    np.testing.assert_allclose(found[10:13], amounts[10:13].mean(), rtol=1e-5)  # spread evenly
    since[25] = np.nan  # 00 UTC of 1 March: nothing later tells of the hour before it
    found = accumulated_increments(cube(since), times).ravel()
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(found)), [25])


def test_days_that_are_missing_or_partial_are_told():
    times = np.delete(hours("2020-01-01", "2020-01-06"), np.r_[24:48, 60])
    instant, end = (DayDefinition().labels(times, HOUR, stamp) for stamp in ("instant", "end"))
    cover = find_coverage([instant, end], 24, None)
    assert [str(d) for d in cover.days] == [f"2020-01-0{i}" for i in (4,)]
    wanted = (np.datetime64("2020-01-01"), np.datetime64("2020-01-05"))
    cover = find_coverage([instant, end], 24, wanted)
    assert [str(d) for d in cover.missing] == ["2020-01-02"]
    assert [str(d) for d in cover.partial] == ["2020-01-01", "2020-01-03", "2020-01-05"]
    assert dates.format_days(np.array(["2020-01-02", "2020-01-05", "2020-01-03"], "M8[D]")) == (
        "2020-01-02 to 2020-01-03, 2020-01-05"
    )


def test_times_twice_or_shuffled_or_no_dates_are_told():
    times = hours("2020-01-01", "2020-01-02")
    assert order_problems(times) == []
    assert "2020-01-01T01:00 comes after 2020-01-01T02:00" in order_problems(times[[0, 2, 1]])[0]
    assert "2020-01-01T01:00 is repeated" in order_problems(times[[0, 1, 1]])[0]
    assert "int64 values; expected dates" in order_problems(np.arange(3))[0]
    assert time_steps.median_step(times[[0, 1, 2, 9]]) == HOUR


def test_calendars_without_leap_days_are_dates_and_those_of_360_days_are_not():
    import cftime

    noleap = np.array([cftime.DatetimeNoLeap(2020, 2, 28, 12), cftime.DatetimeNoLeap(2020, 3, 1)])
    np.testing.assert_array_equal(
        decode_times(noleap), np.array(["2020-02-28T12", "2020-03-01"], "datetime64[ns]")
    )
    other = np.array([cftime.Datetime360Day(2020, 2, 30)])
    assert decode_times(other).dtype == object
    assert order_problems(decode_times(other))


def test_urls_of_a_period():
    first, last = np.datetime64("2019-12-31"), np.datetime64("2020-01-01")
    daily = dates.dated_urls("s3://b/%Y%m/D.A%Y%m%d.nc", first, last)
    assert [url for url, _ in daily] == [
        "s3://b/201912/D.A20191231.nc",
        "s3://b/202001/D.A20200101.nc",
    ]
    hourly = dates.dated_urls("https://h/%Y/%j/%20x.%H00.nc", first, last)
    assert len(hourly) == 48
    assert hourly[-1][0] == "https://h/2020/001/%20x.2300.nc"
    assert (hourly[5][1] == hours("2019-12-31T05", "2019-12-31T07")).all()
    assert [url for url, _ in dates.dated_urls("%Y.zarr", first, last)] == [
        "2019.zarr",
        "2020.zarr",
    ]
    assert dates.pattern_unit("a*.nc") is None
    with pytest.raises(ValueError, match=r"expected first\.\.last"):
        dates.parse_period("unknown")


def made(by, units, *values, to=None):
    spec = {"from": [f"v{i}" for i in range(len(values))], "units": units, "by": by}
    (term,) = variables.parse_mapping({"x": spec | ({"to": to} if to else {})}).values()
    return term.apply_formula([np.float32(value) for value in values])


def test_rules_against_published_values():
    """Saturation at 20 degC is 2336 Pa (Bolton 1980: 2337); its q at 1000 hPa is 14.7 g/kg."""
    assert made("dew_point", ["degC", "hPa"], 20, 1000) == pytest.approx(0.01468, rel=2e-3)
    bolton = 611.2 * np.exp(17.67 * 5 / (5 + 243.5))
    assert made("dew_point", ["degC", "Pa"], 5, 9e4) == pytest.approx(
        0.622 * bolton / (9e4 - 0.378 * bolton), rel=2e-3
    )
    q = made("relative_humidity", ["percent", "K", "Pa"], 40, 293.15, 1e5)
    assert q == pytest.approx(made("vapour_pressure", ["hPa", "Pa"], 0.4 * 23.36, 1e5), rel=1e-3)
    assert made("speed", "m s-1", -3, 4) == 5
    assert made("middle", "degrees C", -3, 4) == 0.5
    assert made("daylight", ["W/m2", "s"], 400, 43200) == 200
    assert made("water", "mm", 12.5) == pytest.approx(12.5)
    assert made("water", "m", 0.01) == pytest.approx(10)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"daily": "median"}, "daily 'median', expected mean, sum, max, min"),
        ({"by": "magic"}, "by 'magic', expected speed"),
        ({"from": ["a", "b"]}, "from 2 variables, expected 1 without `by`"),
        ({"accumulated": "hourly"}, "accumulated amounts need `daily: sum`"),
        ({"unit": "K"}, "unknown key 'unit'"),
        ({"from": ["a", "b"], "units": ["K"] * 3, "by": "speed"}, "2 names and 3 units"),
    ],
)
def test_mappings_that_cannot_be_understood_are_refused(spec, told):
    with pytest.raises(ValueError, match="mapping: x: ") as caught:
        variables.parse_mapping({"x": {"from": "a", "units": "K"} | spec})
    assert told in str(caught.value)
