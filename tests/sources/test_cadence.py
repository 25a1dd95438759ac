"""Records that change their cadence: each value counts for the time that it stands for."""

from __future__ import annotations

import datetime
import json
import tempfile

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from miniatures_forcing import to_zarr
from miniatures_insitu import Sensor, write_ismn

from pipeline.catalog import quality_control
from pipeline.sources.awdb.service import BatchValues, parse_element
from pipeline.sources.gridded import GriddedSource
from pipeline.sources.gridzarr import GridZarrSource
from pipeline.sources.ismn import IsmnSource
from pipeline.sources.shared import time_steps
from pipeline.sources.table import TableSource

FIRST = np.datetime64("2016-01-01", "m")
MINUTE = np.timedelta64(1, "m")
STAMPS = {"start": 0.0, "instant": 0.0, "middle": 0.5, "end": 1.0}


def edges(*segments):
    """When steps begin, and the end of the last, in minutes: (hours of a step, days) in turn."""
    made = [0]
    for hours, days in segments:
        n = round(days * 24 / hours)
        made += [made[-1] + round(60 * hours) * (i + 1) for i in range(n)]
    return np.array(made)


def times_of(edge, stamp):
    """The times of steps in minutes resolution, as datetime64[ns]."""
    length = np.diff(edge)
    at = edge[:-1] + (length * STAMPS[stamp]).astype(int)
    return (FIRST + at * MINUTE).astype("datetime64[ns]")


def grid(times, values, bounds=None):
    """A grid of 2 x 2 cells, all alike."""
    shape = (len(times), 2, 2)
    held = np.broadcast_to(np.asarray(values, "float32")[:, None, None], shape).copy()
    coords = {"time": times, "lat": [40.0, 41.0], "lon": [-100.0, -99.0]}
    dataset = xr.Dataset({"p": (("time", "lat", "lon"), held, {"units": "kg m-2"})}, coords)
    dataset["time"].encoding = {"units": "minutes since 2016-01-01", "dtype": "int64"}
    if bounds is not None:
        dataset["time"].attrs["bounds"] = "time_bnds"
        dataset["time_bnds"] = (("time", "bnds"), bounds)
    return dataset


def entry(folder, times, values, how="sum", bounds=None, more=None, **args):
    """A file of a grid as an entry of a catalog opens it."""
    path = f"{folder}/grid.nc"
    grid(times, values, bounds).to_netcdf(path, engine="h5netcdf")
    spec = {"from": "p", "units": "kg m-2", "daily": how} | (more or {})
    return GriddedSource(path, {"precipitation": spec}, **args)


def by_day(source):
    """{day: value} of the first cell."""
    with source.to_dask() as data:
        days = data.time.values.astype("datetime64[D]").astype(str).tolist()
        return dict(zip(days, data.precipitation.values[:, 0, 0].tolist(), strict=True))


def days(first, values):
    """{day: value}, from a first day on."""
    every = np.datetime64(first) + np.arange(len(values))
    return pytest.approx(dict(zip(every.astype(str).tolist(), values, strict=True)), nan_ok=True)


@pytest.mark.parametrize("stamp", STAMPS)
@pytest.mark.parametrize("order", [((1, 2), (3, 3)), ((3, 3), (1, 2)), ((3, 1), (1, 1), (3, 2))])
def test_one_mm_an_hour_is_24_mm_a_day_at_any_cadence(tmp_path, order, stamp):
    edge = edges(*order)
    source = entry(
        tmp_path, times_of(edge, stamp), np.diff(edge) / 60, day={"stamp": stamp, "offset_hours": 0}
    )
    assert by_day(source) == days("2016-01-01", [24] * sum(n for _, n in order))


def test_a_mean_weighs_each_value_by_its_time(tmp_path):
    edge = edges((1, 1.5), (3, 1.5))
    values = np.where(edge[:-1] < 36 * 60, 1.0, 5.0)  # 1 until noon of the second day, then 5
    found = by_day(entry(tmp_path, times_of(edge, "start"), values, "mean", day={"stamp": "start"}))
    assert found == days("2016-01-01", [1, 3, 5])
    for how, expected in {"max": [1, 5, 5], "min": [1, 1, 5]}.items():
        found = by_day(entry(tmp_path, times_of(edge, "start"), values, how))
        assert found == days("2016-01-01", expected)


def test_hourly_amounts_become_three_hourly(tmp_path):
    edge = edges((1, 2), (3, 2))
    more = {"accumulated": "hourly"}
    found = by_day(entry(tmp_path, times_of(edge, "end"), np.diff(edge) / 60, more=more))
    assert found == days("2016-01-01", [24] * 4)


@pytest.mark.parametrize("order", [((1, 2), (3, 2)), ((3, 2), (1, 2)), ((6, 1), (1, 1), (3, 1))])
def test_amounts_since_00_utc_change_their_cadence(tmp_path, order):
    edge = edges(*order)
    since = (edge[1:] / 60 - 1e-9) % 24  # 1 mm an hour since 00 UTC
    more = {"accumulated": "since_00"}
    found = by_day(entry(tmp_path, times_of(edge, "end"), since, more=more))
    assert found == days("2016-01-01", [24] * sum(n for _, n in order))


def test_amounts_since_00_utc_bridge_what_is_missing_within_a_day(tmp_path):
    edge = edges((1, 3))
    times, since = times_of(edge, "end"), (edge[1:] / 60 - 1e-9) % 24
    more = {"accumulated": "since_00"}
    kept = ~np.isin(np.arange(72), [3, 4, 24])  # 04 and 05 UTC, and the first hour of a day
    found = by_day(entry(tmp_path, times[kept], since[kept], more=more))
    assert found == days("2016-01-01", [24] * 3)
    holed = since.copy()
    holed[[30, 31]] = np.nan
    assert by_day(entry(tmp_path, times, holed, more=more)) == days("2016-01-01", [24] * 3)
    holed[47] = np.nan  # 00 UTC: nothing tells of the last hour of the second day
    found = by_day(entry(tmp_path, times, holed, more=more))
    assert found == days("2016-01-01", [24, np.nan, 24])


@pytest.mark.parametrize("stamp", STAMPS)
def test_a_missing_hour_is_no_longer_step_in_a_record_of_two_cadences(tmp_path, stamp):
    edge = edges((1, 3), (3, 3))
    times, amounts = times_of(edge, stamp), np.diff(edge) / 60
    amounts[24:48], amounts[80:88] = 7, 9  # on days that lack a step
    kept = ~np.isin(np.arange(len(times)), [29, 31, 36, 83])
    source = entry(tmp_path, times[kept], amounts[kept], day={"stamp": stamp})
    assert by_day(source) == days("2016-01-01", [24, np.nan, 24, 24, np.nan, 24])
    with source.to_dask() as data:
        assert data.attrs["partial_days"] == "2016-01-02, 2016-01-05"


@pytest.mark.parametrize("stamp", ["start", "end"])
def test_a_sum_over_a_part_of_a_day_is_scaled_by_the_time_that_is_covered(tmp_path, stamp):
    edge = edges((1, 2), (3, 2))
    times, amounts = times_of(edge, stamp), np.diff(edge) / 60
    amounts[:24] = np.arange(24)
    kept = ~np.isin(np.arange(len(times)), [5, 50])
    day = {"stamp": stamp, "min_steps": 21}
    found = by_day(entry(tmp_path, times[kept], amounts[kept], day=day))
    expected = [(np.arange(24).sum() - 5) * 24 / 23, 24, 24, 24]
    assert found == days("2016-01-01", expected)
    day["min_steps"] = 22  # the third day has 21 of 24 hours
    found = by_day(entry(tmp_path, times[kept], amounts[kept], day=day))
    assert found == days("2016-01-01", [expected[0], 24, np.nan, 24])


def test_min_steps_is_a_share_of_the_day_in_usual_steps(tmp_path):
    edge = edges((3, 8), (1, 1))  # 3-hourly is usual
    times, amounts = times_of(edge, "start"), np.diff(edge) / 60
    amounts[64 + 2] = np.nan  # an hour of the last day
    amounts[3] = np.nan  # three hours of the first one
    day = {"stamp": "start", "min_steps": 8}
    found = by_day(entry(tmp_path, times, amounts, day=day))
    assert found == days("2016-01-01", [np.nan, *[24] * 7, np.nan])
    day["min_steps"] = 7
    found = by_day(entry(tmp_path, times, amounts, day=day))
    assert found == days("2016-01-01", [24] * 9)


def test_days_of_another_clock(tmp_path):
    edge = edges((1, 2), (3, 3))
    hour = np.arange(5 * 24.0)
    amounts = np.add.reduceat(hour, edge[:-1] // 60)
    day = {"stamp": "start", "offset_hours": -6}
    found = by_day(entry(tmp_path, times_of(edge, "start"), amounts, day=day))
    assert found == days("2016-01-01", hour[6:102].reshape(4, 24).sum(1).tolist())


def test_daily_values_after_hourly_ones(tmp_path):
    edge = edges((1, 2), (24, 4))
    found = by_day(entry(tmp_path, times_of(edge, "start"), np.diff(edge) / 60))
    assert found == days("2016-01-01", [24] * 6)
    edge = edges((24, 60), (1, 2))
    found = by_day(entry(tmp_path, times_of(edge, "start"), np.diff(edge) / 60))
    assert found == days("2016-01-01", [24] * 62)


def test_bounds_of_the_file_tell_the_length_of_a_step(tmp_path):
    edge = np.array([*range(0, 12 * 60, 60), 12 * 60, 14 * 60, 17 * 60, 24 * 60, 25 * 60])
    edge = np.append(edge, range(26 * 60, 49 * 60, 60))  # steps of 2, 3 and 7 hours, once each
    times, amounts = times_of(edge, "start"), np.diff(edge) / 60
    bounds = np.stack(
        [(FIRST + e * MINUTE).astype("datetime64[ns]") for e in (edge[:-1], edge[1:])]
    )
    source = entry(tmp_path, times, amounts, bounds=bounds.T, day={"stamp": "start"})
    assert by_day(source) == days("2016-01-01", [24, 24])
    kept = np.arange(len(times)) != 30  # an hour of the second day is missing
    source = entry(tmp_path, times[kept], amounts[kept], bounds=bounds.T[kept])
    assert by_day(source) == days("2016-01-01", [24])


def test_years_of_several_cadences_in_stores(tmp_path):
    for year, hours in ((2015, 1), (2016, 3)):
        n = 24 // hours
        first = (
            np.datetime64(f"{year}-01-01", "h")
            if year == 2016
            else np.datetime64("2015-12-30", "h")
        )
        times = (first + hours * np.arange(2 * n)).astype("datetime64[ns]")
        to_zarr(grid(times, np.full(2 * n, hours)), tmp_path / f"{year}.zarr", 3)
    mapping = {"precipitation": {"from": "p", "units": "kg m-2", "daily": "sum"}}
    source = GridZarrSource(str(tmp_path / "%Y.zarr"), mapping, period="2015-12-30..2016-01-02")
    assert by_day(source) == days("2015-12-30", [24] * 4)


def test_files_named_by_date_have_steps_of_their_own(tmp_path):
    for i, hours in enumerate([1, 1, 3, 12, 1]):
        edge = edges((hours, 1))
        times = times_of(edge, "start") + np.timedelta64(i, "D")
        grid(times, np.diff(edge) / 60).to_netcdf(
            tmp_path / f"2016010{i + 1}.nc", engine="h5netcdf"
        )
    mapping = {"precipitation": {"from": "p", "units": "kg m-2", "daily": "sum"}}
    source = GriddedSource(
        str(tmp_path / "%Y%m%d.nc"),
        mapping,
        period="2016-01-01..2016-01-05",
        day={"stamp": "start"},
    )
    assert by_day(source) == days("2016-01-01", [24] * 5)


def test_months_named_by_date_have_steps_of_their_own(tmp_path):
    steps = {"2016-01": ((1, 10), (3, 21)), "2016-02": ((3, 29),), "2016-03": ((1, 31),)}
    for month, segments in steps.items():
        edge = edges(*segments)
        times = times_of(edge, "start") + (
            np.datetime64(month, "D") - FIRST.astype("datetime64[D]")
        )
        path = tmp_path / f"{month.replace('-', '')}.nc"
        grid(times, np.diff(edge) / 60).to_netcdf(path, engine="h5netcdf")
    mapping = {"precipitation": {"from": "p", "units": "kg m-2", "daily": "sum"}}
    source = GriddedSource(str(tmp_path / "%Y%m.nc"), mapping, period="2016-01-01..2016-03-31")
    assert by_day(source) == days("2016-01-01", [24] * 91)


HOURS = (0.5, 1, 2, 3, 4, 6, 8, 12, 24)


@pytest.mark.runs  # it takes some seconds
@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(HOURS), st.integers(3, 4)), min_size=1, max_size=4),
    st.sampled_from(sorted(STAMPS)),
    st.sampled_from(["mean", "sum"]),
    st.integers(0, 2**32 - 1),
)
def test_any_mixture_of_cadences_gives_the_days_of_the_finest(segments, stamp, how, seed):
    edge = edges(*segments)
    fine = np.random.default_rng(seed).integers(0, 64, edge[-1] // 30).astype(float)
    at = edge[:-1] // 30
    if stamp == "instant":
        fine = np.repeat(fine[at], np.diff(edge) // 30)  # constant until the next instant
    values = np.add.reduceat(fine, at) / (1 if how == "sum" else np.diff(edge) // 30)
    expected = getattr(np, how)(fine.reshape(-1, 48), axis=1)
    day = {"stamp": stamp, "offset_hours": 0}
    if stamp == "end" and {hours for hours, _ in segments} == {24}:
        stamp = "start"  # of a record of days alone, the stamp is the day
    with tempfile.TemporaryDirectory() as folder:
        found = by_day(entry(folder, times_of(edge, stamp), values, how, day=day))
    assert found == days("2016-01-01", expected.tolist())


COLUMNS = {"id": "site", "lat": "lat", "lon": "lon", "depth": "depth", "time": "time"}
HEADER = "site,lat,lon,depth,time,vwc\n"


def table(tmp_path, edge, values, **args):
    """{day: value} of a table of one probe."""
    rows = zip(times_of(edge, "start").astype("datetime64[s]"), values, strict=True)
    lines = [f"A,41.25,-105.5,0.05,{time}Z,{value}\n" for time, value in rows]
    path = tmp_path / "probes.csv"
    path.write_text(HEADER + "".join(lines))
    mapping = {"soil_moisture": {"from": "vwc", "units": "m3 m-3"}}
    data = TableSource(str(path), mapping, COLUMNS, **args).to_dask()
    found = data.time.values.astype("datetime64[D]").astype(str).tolist()
    return dict(zip(found, data.soil_moisture.values[:, 0].tolist(), strict=True))


def test_a_logger_that_is_set_from_ten_minutes_to_an_hour(tmp_path):
    edge = edges((1 / 6, 1.5), (1, 2.5))
    values = np.where(edge[:-1] < 36 * 60, 0.1, 0.3)
    found = table(tmp_path, edge, values)
    assert found == days("2016-01-01", [0.1, 0.2, 0.3, 0.3])


def test_half_of_a_day_in_a_table_is_half_of_its_time(tmp_path):
    edge = edges((1 / 6, 3), (1, 2))
    values = np.full(len(edge) - 1, 0.2)
    hour = edge[:-1] // 60
    values[(hour >= 3 * 24) & (hour < 3 * 24 + 11)] = np.nan  # 13 hours of the fourth day are left
    values[(hour >= 4 * 24) & (hour < 4 * 24 + 13)] = np.nan  # 11 of the fifth
    values[(hour >= 24) & (hour < 24 + 11)] = np.nan  # 13 of the second
    found = table(tmp_path, edge, values)
    assert found == days("2016-01-01", [0.2, 0.2, 0.2, 0.2, np.nan])


CODES = time_steps.QualityCodes(1, 2, 4)


def sensor_days(edge, values, flags=None, min_hours=12):
    hours = time_steps.SensorRecord(
        times_of(edge, "start"),
        np.asarray(values, "float32"),
        np.full(len(edge) - 1, CODES.good, np.int32) if flags is None else flags,
    )
    first = FIRST.astype("datetime64[D]")
    every = first + np.arange(-(-edge[-1] // 1440))
    return time_steps.average_days(hours, every, CODES, min_hours)


def test_a_sensor_that_changes_its_cadence(tmp_path):
    edge = edges((1, 1.5), (3, 1.5))
    values = np.where(edge[:-1] < 36 * 60, 0.1, 0.4)
    found = sensor_days(edge, values)
    np.testing.assert_allclose(found.values, [0.1, 0.25, 0.4], rtol=1e-6)
    np.testing.assert_array_equal(found.flags, [CODES.good] * 3)


def test_hours_of_a_good_day_are_hours_and_not_values(tmp_path):
    edge = edges((1 / 6, 2))
    values = np.full(288, 0.2)
    values[12:144] = np.nan  # two hours are left of the first day
    found = sensor_days(edge, values)
    np.testing.assert_array_equal(found.flags, [CODES.missing, CODES.good])
    edge = edges((3, 2))
    flags = np.full(16, CODES.good, np.int32)
    found = sensor_days(edge, np.full(16, 0.3), flags)
    np.testing.assert_array_equal(found.flags, [CODES.good] * 2)
    flags[3:8] = 8  # nine hours are left
    found = sensor_days(edge, np.full(16, 0.3), flags)
    np.testing.assert_array_equal(found.flags, [8, CODES.good])


def test_an_ismn_archive_with_two_cadences(tmp_path):
    edge = edges((1, 1.5), (3, 2.5))
    times = times_of(edge, "start").astype("datetime64[m]")
    value = np.where(edge[:-1] < 36 * 60, 0.1, 0.3)
    rows = [(time, f"{v:.4f}", "G") for time, v in zip(times, value, strict=True)]
    folder = write_ismn(
        tmp_path / "Data_separate_files", [Sensor("SCAN", "Here", 40.0, -100.0, rows)]
    )
    mapping = {"soil_moisture": {"from": "soil_moisture", "units": "m3 m-3"}}
    found = IsmnSource(str(folder), mapping).to_dask().load()
    np.testing.assert_allclose(found.soil_moisture[:, 0], [0.1, 0.2, 0.3, 0.3], rtol=1e-6)
    assert set(found.provider_flag.values.ravel()) == set(found.provider_flag.attrs["good"])


def test_hours_of_the_air_and_water_database_with_two_cadences():
    edge = edges((1, 1.5), (3, 2.5))
    times = times_of(edge, "start").astype("datetime64[m]").astype(str)
    value = np.where(edge[:-1] < 36 * 60, 10.0, 30.0)
    values = [
        {"date": time.replace("T", " "), "value": each, "qcFlag": "V"}
        for time, each in zip(times.tolist(), value.tolist(), strict=True)
    ]
    about = {"elementCode": "SMS", "heightDepth": -2, "ordinal": 1, "durationName": "HOURLY"}
    sensor = {"stationElement": about | {"storedUnitCode": "pct"}, "values": values}
    answer = [{"stationTriplet": "2057:AL:SCAN", "data": [sensor]}]
    spec = {"from": "SMS:-2", "units": "pct", "to": "m3 m-3", "duration": "HOURLY"}
    answers = BatchValues(
        ("2057:AL:SCAN",),
        (parse_element("soil_moisture", spec),),
        FIRST.astype("datetime64[D]"),
        *(4, "SMS:-2", ("V",), 12, (0.0,)),
    )
    answers.add_response("awdb", json.dumps(answer).encode())
    found = answers.to_our_units(np.zeros(1))["soil_moisture"][:, 0]
    np.testing.assert_allclose(found, [0.1, 0.2, 0.3, 0.3], rtol=1e-6)


def test_a_gap_elsewhere_hides_no_spike():
    values = np.full((60, 1), 0.2, np.float32)
    values += np.linspace(0, 0.01, 60, dtype=np.float32)[:, None]
    values[40] += 0.1
    times = np.datetime64("2016-01-01") + np.arange(60)
    times[20:] += 3  # three days are missing, long before
    np.testing.assert_array_equal(np.flatnonzero(quality_control.find_spikes(values, times)), [40])


def test_doctor_tells_of_a_change_of_cadence(tmp_path):
    from typer.testing import CliRunner

    from pipeline import cli

    edge = edges((1, 2), (3, 2))
    grid(times_of(edge, "start"), np.diff(edge) / 60).to_netcdf(
        tmp_path / "grid.nc", engine="h5netcdf"
    )
    spec = {"from": "p", "units": "kg m-2", "daily": "sum", "to": "kg m-2 day-1"}
    catalog = {
        "sources": {
            "rain": {
                "driver": "pipeline.sources.gridded.GriddedSource",
                "args": {
                    "urlpath": str(tmp_path / "grid.nc"),
                    "mapping": {"precipitation": spec},
                },
                "metadata": {"period": "2016-01-01..2016-01-04"},
            }
        }
    }
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump(catalog))
    told = CliRunner().invoke(cli.app, ["doctor", str(path)], env={"COLUMNS": "400"})
    assert told.exit_code == 1
    plain = " ".join(told.output.replace("│", " ").split())
    assert "hourly until 2016-01-02, 3-hourly from 2016-01-03" in plain


def test_an_offset_of_a_table_keeps_the_time_of_its_rows(tmp_path):
    edge = edges((1, 2), (3, 2))
    values = np.where(edge[:-1] < 48 * 60, 0.1, 0.3)
    rows = zip(times_of(edge, "start").astype("datetime64[s]").tolist(), values, strict=True)
    shifted = [(time + datetime.timedelta(hours=-6), value) for time, value in rows]
    lines = [f"A,41.25,-105.5,0.05,{t.isoformat()}-06:00,{v}\n" for t, v in shifted]
    path = tmp_path / "probes.csv"
    path.write_text(HEADER + "".join(lines))
    mapping = {"soil_moisture": {"from": "vwc", "units": "m3 m-3"}}
    data = TableSource(str(path), mapping, COLUMNS).to_dask()
    np.testing.assert_allclose(data.soil_moisture[:, 0], [0.1, 0.1, 0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("order", "missing", "lacking"),
    [(((3, 3), (1, 3)), 24, 3), (((6, 4), (1, 3)), 17, 4), (((1, 3), (6, 3), (1, 2)), 84, 6)],
)
@pytest.mark.parametrize("stamp", ["start", "end"])
def test_a_value_missing_at_the_change_is_missing(tmp_path, order, missing, lacking, stamp):
    """The step of 2 or 4 hours that is left is no cadence, and no value counts for all of it."""
    edge = edges(*order)
    times, amounts = times_of(edge, stamp), np.diff(edge) / 60
    kept = np.arange(len(times)) != missing
    if stamp == "end":  # the same record, backward
        whole = np.concatenate([[0], np.cumsum(np.diff(edge)[::-1])])
        times, amounts, kept = times_of(whole, stamp), amounts[::-1], kept[::-1]
        lacking = int(edge[-1] // 1440) - 1 - lacking
    found = by_day(entry(tmp_path, times[kept], amounts[kept], day={"stamp": stamp}))
    expected = np.full(edge[-1] // 1440, 24.0)
    expected[lacking] = np.nan
    assert found == days("2016-01-01", expected.tolist())


@pytest.mark.parametrize(
    ("units", "dtype", "stamp", "offset"),
    [
        ("days since 2016-01-01", "float32", "end", 0),
        ("days since 2016-01-01", "float32", "middle", 0),
        ("days since 2016-01-01", "float32", "start", -5),
        ("days since 1900-01-01", "float64", "end", -7),
        ("days since 0001-01-01", "float64", "middle", -5),
        ("days since 0001-01-01", "float64", "start", -7),
    ],
)
@pytest.mark.parametrize("order", [((1, 4),), ((1, 2), (0.5, 2))])
def test_hours_as_fractions_of_days_are_of_their_day(tmp_path, units, dtype, stamp, offset, order):
    edge = edges(*order)
    half_hour = np.arange(4 * 48.0)
    amounts = np.add.reduceat(half_hour, edge[:-1] // 30)
    data = grid(times_of(edge, stamp), amounts)
    data["time"].encoding = {"units": units, "dtype": dtype}
    data.to_netcdf(tmp_path / "grid.nc", engine="h5netcdf")
    mapping = {"precipitation": {"from": "p", "units": "kg m-2", "daily": "sum"}}
    day = {"stamp": stamp, "offset_hours": offset}
    source = GriddedSource(str(tmp_path / "grid.nc"), mapping, day=day)
    n = 3 if offset else 4
    expected = half_hour[-2 * offset :][: n * 48].reshape(n, 48).sum(1)
    assert by_day(source) == days("2016-01-01", expected.tolist())
