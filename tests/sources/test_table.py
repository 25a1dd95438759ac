"""A CSV of one's own: days, zones, sensors, flags, and every fault with its line."""

from __future__ import annotations

import datetime
import importlib.resources
import os
import time

import intake
import numpy as np
import pytest
import web
import yaml

from pipeline.catalog import quality_control
from pipeline.errors import DataError
from pipeline.experiment.config import QcConfig
from pipeline.experiment.variables import VARIABLES
from pipeline.sources.table import TableSource

COLUMNS = {"id": "site", "lat": "lat", "lon": "lon", "depth": "depth", "time": "time"}
MAPPING = {"soil_moisture": {"from": "vwc", "units": "m3 m-3"}}

DAILY = """site,lat,lon,depth,time,vwc
A,41.25,-105.5,0.05,2019-05-01,0.21
A,41.25,-105.5,0.05,2019-05-02,0.22
A,41.25,-105.5,0.05,2019-05-04,0.24
B,41.5,-105.25,0.05,2019-05-02,0.31
"""


@pytest.fixture
def table(tmp_path):
    """Opens text as a table, through a catalog, as a stranger would."""

    def opened(text, columns=COLUMNS, mapping=MAPPING, **args):
        path = tmp_path / "probes.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        args = {"urlpath": str(path), "mapping": mapping, "columns": columns, **args}
        entry = {"driver": "pipeline.sources.table.TableSource", "args": args}
        catalog = tmp_path / "catalog.yaml"
        catalog.write_text(yaml.safe_dump({"sources": {"mine": entry}}))
        return intake.open_catalog(str(catalog))["mine"].to_dask()

    return opened


def rows(stamps, values, site="A", depth=0.05, extra=""):
    """Lines of one sensor."""
    return "".join(
        f"{site},41.25,-105.5,{depth},{stamp},{value}{extra}\n"
        for stamp, value in zip(stamps, values, strict=True)
    )


def hourly(first, n, suffix="", hours=1.0):
    start = datetime.datetime.fromisoformat(first)
    steps = (start + datetime.timedelta(hours=hours * i) for i in range(n))
    return [step.strftime("%Y-%m-%dT%H:%M") + suffix for step in steps]


def days_of(dataset):
    return dataset.time.values.astype("datetime64[D]").astype(str).tolist()


HEADER = DAILY.splitlines()[0] + "\n"


def test_daily_rows_are_points_in_our_form(table):
    data = table(DAILY)
    assert dict(data.sizes) == {"time": 4, "place": 2}
    assert data.soil_moisture.dims == ("time", "place")
    assert data.soil_moisture.dtype == np.float32
    assert data.soil_moisture.attrs == {"units": "m3 m-3", "source": "vwc"}
    np.testing.assert_array_equal(
        data.soil_moisture,
        np.float32([[0.21, np.nan], [0.22, 0.31], [np.nan, np.nan], [0.24, np.nan]]),
    )
    assert data.time.dtype == "datetime64[ns]"
    assert days_of(data) == [f"2019-05-0{day}" for day in (1, 2, 3, 4)]
    assert data.place.values.tolist() == ["A", "B"]
    assert data.lat.values.tolist() == [41.25, 41.5]
    assert data.lon.values.tolist() == [-105.5, -105.25]
    assert data.depth_from.values.tolist() == data.depth_to.values.tolist() == [0.05, 0.05]
    assert data.time_convention == "local standard time day"
    assert "provider_flag" not in data


WIDE = """time,w5,w5b,w20,t5,t20
2019-05-01,0.20,0.30,0.40,10,5
2019-05-02,0.22,,0.42,11,6
2019-05-03,,0.36,0.44,12,
"""


def test_a_column_for_each_depth(table):
    """Two sensors at 5 cm, one at 20 cm; temperatures at both depths; one station."""
    mapping = {
        "soil_moisture": {"from": {"w5": 0.05, "w5b": 0.05, "w20": [0.1, 0.2]}, "units": "m3 m-3"},
        "soil_temperature": {"from": {"t5": 0.05, "t20": [0.1, 0.2]}, "units": "degC"},
    }
    station = {"columns": {"time": "time"}, "id": "S", "lat": 41.25, "lon": -105.5}
    data = table(WIDE, mapping=mapping, **station)
    np.testing.assert_allclose(data.soil_moisture.values[:, 0], [0.25, 0.22, 0.36], rtol=1e-6)
    np.testing.assert_allclose(data.soil_temperature.values[:, 0], [10, 11, 12])
    assert sorted(data.soil_moisture.attrs["source"].split(", ")) == ["w20", "w5", "w5b"]
    deep = table(WIDE, mapping=mapping, depth_class_m=(0.1, 0.3), **station)
    np.testing.assert_allclose(deep.soil_moisture.values[:, 0], [0.4, 0.42, 0.44], rtol=1e-6)
    np.testing.assert_allclose(deep.soil_temperature.values[:, 0], [5, 6, np.nan])
    assert (float(deep.depth_from[0]), float(deep.depth_to[0])) == (0.1, 0.2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id": None}, "columns: id missing"),
        ({"lat": 95}, "lat 95: expected -90 to 90 degrees"),
        (
            {"columns": {"time": "time", "id": "site"}},
            "columns.id: expected only one of them",
        ),
        ({"depth": 0.05}, "expected exactly one of columns.depth"),
        (
            {"mapping": {"soil_moisture": {"from": {}, "units": "1"}}},
            "mapping of soil_moisture: expected a column",
        ),
        ({"mapping": {"soil_moisture": {"from": {"w5": "top"}, "units": "1"}}}, "depth 'top'"),
        ({"time_format": "%H:%M"}, "time_format '%H:%M': expected year, month and day"),
    ],
)
def test_a_wide_table_that_makes_no_sense(changes, says):
    mapping = {"soil_moisture": {"from": {"w5": 0.05}, "units": "m3 m-3"}}
    args = {"mapping": mapping, "columns": {"time": "time"}, "id": "S", "lat": 1.0, "lon": 2.0}
    with pytest.raises(ValueError, match=says):
        TableSource("x.csv", **(args | changes))


def test_units_are_those_of_the_entry(table):
    percent = {
        "soil_moisture": {"from": "vwc", "units": "percent", "to": "m3 m-3"},
        "soil_temperature": {"from": "t", "units": "degF", "to": "degC"},
    }
    text = HEADER.strip() + ",t\n" + rows(["2019-05-01"], [21.5], extra=",50")
    data = table(text, mapping=percent)
    assert data.soil_moisture.values.item() == pytest.approx(0.215)
    assert data.soil_temperature.values.item() == pytest.approx(10.0, abs=1e-4)
    assert data.soil_temperature.attrs["units"] == "degC"


def test_a_day_is_that_of_utc_where_stamps_carry_offsets(table):
    # 18:00 at -06:00 is midnight in UTC.
    before = rows(hourly("2019-05-01T00:00", 18, "-06:00"), [0.1] * 18)
    after = rows(hourly("2019-05-01T18:00", 24, "-06:00"), [0.3] * 24)
    data = table(HEADER + before + after)
    assert data.time_convention == "UTC day"
    assert days_of(data) == ["2019-05-01", "2019-05-02"]
    np.testing.assert_allclose(data.soil_moisture[:, 0], [0.1, 0.3], rtol=1e-6)


@pytest.mark.parametrize("zone", ["UTC-06:00", "UTC-6", "Etc/GMT+6", "America/Regina"])
def test_a_zone_without_summer_time_is_an_offset_all_year(table, zone):
    for day in ("2019-01-01", "2019-07-01"):
        first = datetime.datetime.fromisoformat(f"{day}T18:00")
        text = HEADER + rows(hourly(first.isoformat(), 24), [0.3] * 24)
        data = table(text, time_zone=zone)
        assert data.time_convention == "UTC day"
        assert days_of(data) == [(first + datetime.timedelta(hours=6)).date().isoformat()]


def test_a_zone_with_summer_time_is_followed_through_its_changes(table):
    # 24 hours of UTC from 2019-10-27 00:00 are 02:00 summer time to 00:00; 02:00 comes twice.
    clock = ["2019-10-27T02:00", *hourly("2019-10-27T02:00", 23)]
    values = [0.2, *[0.4] * 23]
    data = table(HEADER + rows(clock, values), time_zone="Europe/Berlin")
    assert days_of(data) == ["2019-10-27"]
    assert data.soil_moisture.item() == pytest.approx(np.mean(values))
    summer = table(
        HEADER + rows(hourly("2019-07-01T02:00", 24), [0.4] * 24), time_zone="Europe/Berlin"
    )
    assert days_of(summer) == ["2019-07-01"]
    skipped = HEADER + rows(hourly("2019-03-31T00:00", 24), [0.2] * 24)
    with pytest.raises(DataError, match=r"does not exist in Europe/Berlin.*UTC\+01:00.*line 4"):
        table(skipped, time_zone="Europe/Berlin")


def test_dates_stay_what_they_are_in_any_zone(table):
    assert table(DAILY, time_zone="UTC").time_convention == "UTC day"
    data = table(DAILY, time_zone="Asia/Tokyo")
    assert data.time_convention == "local standard time day"
    assert days_of(data)[0] == "2019-05-01"


def test_a_date_among_times_is_midnight(table):
    stamps = ["2019-05-01", *hourly("2019-05-01T06:00", 3, hours=6)]
    data = table(HEADER + rows(stamps, [0.1, 0.2, 0.2, 0.3]))
    assert data.soil_moisture.item() == pytest.approx(0.2)


def test_leap_days_and_years_end(table):
    data = table(HEADER + rows(["2020-02-28", "2020-02-29", "2020-03-01"], [0.1, 0.2, 0.3]))
    assert days_of(data) == ["2020-02-28", "2020-02-29", "2020-03-01"]
    data = table(HEADER + rows(["2019-12-31T23:30-01:00"], [0.1]))
    assert days_of(data) == ["2020-01-01"]


def test_a_day_needs_half_of_its_rows(table):
    full = hourly("2019-05-01T00:00", 24)
    few, enough = hourly("2019-05-02T00:00", 11), hourly("2019-05-03T00:00", 12)
    text = HEADER + rows([*full, *few, *enough], [0.2] * 47)
    np.testing.assert_array_equal(np.isfinite(table(text).soil_moisture[:, 0]), [1, 0, 1])
    np.testing.assert_array_equal(
        np.isfinite(table(text, min_share=0.4).soil_moisture[:, 0]), [1, 1, 1]
    )
    np.testing.assert_array_equal(
        np.isfinite(table(text, min_share=1).soil_moisture[:, 0]), [1, 0, 0]
    )


def test_what_is_missing_counts_for_nothing(table):
    stamps = hourly("2019-05-01T00:00", 4, hours=6)
    data = table(HEADER + rows(stamps, [0.2, "NA", -9999, 0.4]))
    assert data.soil_moisture.item() == pytest.approx(0.3)
    data = table(HEADER + rows(stamps, [0.2, "", -999, 0.4]), missing=[-999])
    assert data.soil_moisture.item() == pytest.approx(0.3)


def test_rows_outside_the_range_spoil_no_day_and_are_left_to_quality_control(table):
    stamps = hourly("2019-05-01T00:00", 8, hours=6)
    data = table(HEADER + rows(stamps, [0.2, 9.0, 0.2, 0.2, 7.0, 9.0, 8.0, 0.2]))
    np.testing.assert_allclose(data.soil_moisture[:, 0], [0.2, 7.0])
    _, dropped = quality_control.screen_sites(
        data, "soil_moisture", VARIABLES["soil_moisture"], QcConfig()
    )
    assert int(dropped["range"].sum()) == 1


def test_flags_are_rules_of_quality_control(table):
    header = HEADER.strip() + ",qc\n"
    columns = {**COLUMNS, "flag": "qc"}
    flags = ["0", "0.0", "", "bad battery", "7", "0"]
    stamps = [f"2019-05-0{i + 1}" for i in range(6)]
    lines = "".join(
        rows([stamp], [0.1], extra=f",{flag}") for stamp, flag in zip(stamps, flags, strict=True)
    )
    data = table(header + lines, columns=columns, good=[0])
    assert data.provider_flag.attrs == {
        "good": [0],
        "flag_values": [0, 1, 2],
        "flag_meanings": "good 7 bad_battery",
    }
    assert data.provider_flag[:, 0].values.tolist() == [0, 0, 0, 2, 1, 0]
    _, dropped = quality_control.screen_sites(
        data, "soil_moisture", VARIABLES["soil_moisture"], QcConfig()
    )
    counts = {rule: int(rejected.sum()) for rule, rejected in dropped.items()}
    assert counts["provider: bad_battery"] == counts["provider: 7"] == 1


def test_flagged_rows_stay_out_of_a_days_mean(table):
    header, columns = HEADER.strip() + ",qc\n", {**COLUMNS, "flag": "qc"}
    stamps = hourly("2019-05-01T00:00", 8, hours=6)
    flags = ["G", "D", "G", "G", "D", "D", "D", "G"]
    lines = "".join(
        rows([s], [0.5 if f == "D" else 0.2], extra=f",{f}")
        for s, f in zip(stamps, flags, strict=True)
    )
    data = table(header + lines, columns=columns, good=["G"])
    np.testing.assert_allclose(data.soil_moisture[:, 0], [0.2, 0.5])
    assert data.provider_flag[:, 0].values.tolist() == [0, 1]


def test_the_depth_class_is_used(table):
    text = HEADER + rows(["2019-05-01"], [0.2], depth=5) + rows(["2019-05-01"], [0.4], depth=20)
    data = table(text + rows(["2019-05-01"], [0.6], "C", 7.5), depth_units="cm")
    np.testing.assert_allclose(data.soil_moisture, [[0.2, 0.6]])
    np.testing.assert_allclose(data.depth_to, [0.05, 0.075])
    deep = table(text, depth_units="cm", depth_class_m=[0.1, 0.3])
    assert deep.soil_moisture.item() == pytest.approx(0.4)
    with pytest.raises(
        DataError, match=r"no sensor between 0 and 0\.01 m; the depths are 0\.05, 0\.2 m"
    ):
        table(text, depth_units="cm", depth_class_m=[0, 0.01])


def test_layers_lie_wholly_in_the_depth_class(table):
    columns = {k: v for k, v in COLUMNS.items() if k != "depth"}
    columns |= {"depth_from": "depth", "depth_to": "bottom"}
    header = HEADER.strip() + ",bottom\n"
    text = header + rows(["2019-05-01"], [0.2], depth=0, extra=",0.05")
    text += rows(["2019-05-01"], [0.4], depth=0, extra=",0.3")
    data = table(text, columns=columns)
    assert data.soil_moisture.item() == pytest.approx(0.2)
    assert (data.depth_from.item(), data.depth_to.item()) == (0, 0.05)
    with pytest.raises(DataError, match="depth_from is deeper than depth_to: line 2"):
        table(header + rows(["2019-05-01"], [0.2], depth=0.1, extra=",0.05"), columns=columns)


def test_one_depth_for_all_may_be_told(table):
    columns = {k: v for k, v in COLUMNS.items() if k != "depth"}
    assert table(DAILY, columns=columns, depth=5, depth_units="cm").depth_to.values.tolist() == [
        0.05,
        0.05,
    ]


def test_several_sensors_are_their_mean_or_the_longest(table):
    header, columns = HEADER.strip() + ",port\n", {**COLUMNS, "sensor": "port"}
    stamps = ["2019-05-01", "2019-05-02", "2019-05-03"]
    text = header + rows(stamps, [0.1, 0.1, 0.1], extra=",1")
    text += rows(stamps[1:], [0.3, 0.3], extra=",2")
    text += rows(stamps[1:2], [0.5], depth=0.02, extra=",1")
    mean = table(text, columns=columns)
    np.testing.assert_allclose(mean.soil_moisture[:, 0], [0.1, 0.3, 0.2])
    assert (mean.depth_from.item(), mean.depth_to.item()) == (0.02, 0.05)
    longest = table(text, columns=columns, sensors="longest")
    np.testing.assert_allclose(longest.soil_moisture[:, 0], [0.1, 0.1, 0.1])


def test_temperature_is_kept_where_moisture_is_missing(table):
    mapping = MAPPING | {"soil_temperature": {"from": "t", "units": "degC"}}
    text = HEADER.strip() + ",t\n" + rows(["2019-05-01"], [""], extra=",4.5")
    text += rows(["2019-05-02"], [0.2], extra=",")
    data = table(text, mapping=mapping)
    np.testing.assert_array_equal(data.soil_moisture[:, 0], np.float32([np.nan, 0.2]))
    np.testing.assert_array_equal(data.soil_temperature[:, 0], np.float32([4.5, np.nan]))


def test_a_table_from_a_spreadsheet(table):
    text = DAILY.replace(",", ";").replace("0.", "0,").replace("41.", "41,").replace("5.", "5,")
    data = table(b"\xef\xbb\xbf# exported\r\n\r\n" + text.replace("\n", "\r\n").encode())
    np.testing.assert_array_equal(data.soil_moisture, table(DAILY).soil_moisture)
    np.testing.assert_array_equal(data.lon, [-105.5, -105.25])


def test_numbers_as_ids_stay_text(table):
    assert table(DAILY.replace("\nA,", "\n007,")).place.values.tolist() == ["007", "B"]


def test_every_fault_is_told_at_once_with_its_line(table):
    text = """# a comment
site,lat,lon,depth,time,vwc
A,41.25,-105.5,0.05,2019-05-01,0.21
A,41.25,-105.5,0.05,2019-05-01,0.22
A,41.26,-105.5,0.05,2019-05-02,wet
B,98.5,-205,0.05,01/05/2019,0.2
,41.25,-105.5,-5,2019-13-01,0.2

C,41.25,-105.5,0.05,2019-05-03,0.2,0.3
C,41.25,x,0.05,2019-05-03,0.2
"""
    with pytest.raises(DataError) as caught:
        table(text)
    assert sorted(caught.value.problems) == sorted(
        [
            "more columns than the 6 of the header: line 9",
            "site is empty: line 7",
            "lon is not a number: line 10, 'x'",
            "vwc is not a number: line 5, 'wet'",
            "lat outside -90 to 90: line 6, 98.5",
            "lon outside -180 to 180: line 6, -205",
            "id A: lat or lon differs from its first row: line 5",
            "depth is negative; depths are positive downward from the surface: line 7",
            "time is not in ISO 8601 format, such as 2019-05-01T13:00: line 6, '01/05/2019'; "
            "line 7, '2019-13-01'",
            "an earlier row has the same id, time, depth and sensor: line 4",
        ]
    )
    assert caught.value.place.endswith("probes.csv")
    assert "catalog" in caught.value.remedy


def test_many_lines_of_one_fault_are_counted(table):
    text = HEADER + rows([f"2019-05-{i:02d}" for i in range(1, 13)], ["x"] * 12)
    with pytest.raises(DataError, match=r"line 6, 'x'; and 7 more"):
        table(text)


@pytest.mark.parametrize(
    ("text", "args", "says"),
    [
        ("", {}, "the file is empty: expected a header and rows"),
        (HEADER, {}, "the table has no rows"),
        (DAILY.replace("vwc", "theta"), {}, r"column 'vwc' missing; the header has site, lat"),
        (DAILY.replace("-105", "254"), {}, "-180 to 180 .these are from 0 to 360: subtract 360"),
        (DAILY.replace("depth", "lat", 1), {}, "column 'depth' missing"),
        (
            DAILY.replace("depth", "lat ", 1),
            {"columns": COLUMNS | {"depth": "lat"}},
            "'lat': the header has this name more than once",
        ),
        (
            DAILY,
            {"time_zone": "offset"},
            "time has no offset, .* line 2, '2019-05-01'",
        ),
        (DAILY.replace("-02,", "-02T00:00Z,"), {}, "time has no offset.*line 2"),
        (
            DAILY.replace("-02,", "-02T00:00Z,"),
            {"time_zone": "local standard"},
            "time has an offset; set time_zone to `offset`: line 3, '2019-05-02T00:00Z'; line 5",
        ),
    ],
)
def test_files_that_are_no_such_table(table, text, args, says):
    with pytest.raises(DataError, match=says):
        table(text, **args)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"mapping": {"soil_moisture": {"from": "vwc"}}}, "lacks `from` or `units`"),
        (
            {"mapping": {"soil_moisture": {"from": "vwc", "units": "K", "to": "m3 m-3"}}},
            "units 'K'",
        ),
        ({"columns": {"id": "site"}}, "columns: lat missing; columns: lon missing"),
        (
            {"columns": {**COLUMNS, "colour": "x"}},
            "unknown role colour, expected one of id",
        ),
        ({"columns": {**COLUMNS, "flag": "qc"}}, "columns.flag: expected `good` too"),
        (
            {"columns": {**COLUMNS, "depth_to": "d"}},
            "expected both depth_from and",
        ),
        ({"depth": 0.05}, "expected exactly one of columns.depth"),
        ({"time_zone": "Mars/Olympus"}, "time_zone 'Mars/Olympus': expected `UTC`"),
        ({"time_zone": "UTC+27"}, "time_zone 'UTC.27': expected `UTC`"),
        ({"sensors": "best"}, "expected 'mean' or 'longest'"),
        ({"min_share": 2}, "min_share 2: expected a number from 0 to 1"),
    ],
)
def test_arguments_that_make_no_sense(args, says):
    with pytest.raises(ValueError, match=says):
        TableSource(**({"urlpath": "x.csv", "mapping": MAPPING, "columns": COLUMNS} | args))


def test_a_table_on_a_server(tmp_path):
    (tmp_path / "probes.csv").write_text(DAILY)
    with web.serve(tmp_path) as site:
        site.fails("probes", 503)

        def source(name):
            return TableSource(f"{site.url}/{name}.csv", MAPPING, COLUMNS)

        served = source("probes")
        assert served.to_dask().soil_moisture.values[0, 0] == np.float32(0.21)
        local = TableSource(str(tmp_path / "probes.csv"), MAPPING, COLUMNS)
        assert served.digest() == local.digest()
        with pytest.raises(DataError, match="not found"):
            source("lost").to_dask()
        site.fails("probes", 403)
        with pytest.raises(DataError, match="refused"):
            source("probes").to_dask()


def test_a_truncated_last_line_is_told(table):
    with pytest.raises(DataError, match="time is empty: line 5"):
        table(DAILY[: DAILY.rindex("2019") - 1])


def test_the_machines_own_zone_does_not_matter(table, monkeypatch):
    text = HEADER + rows(hourly("2019-05-01T00:00", 24), [0.2] * 24)
    here = table(text)
    monkeypatch.setitem(os.environ, "TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert table(text).identical(here)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_catalogs_own_entry(tmp_path, monkeypatch):
    path = tmp_path / "mine.csv"
    path.write_text("id,lat,lon,depth_m,time,soil_moisture\n" + rows(["2019-05-01T12:00Z"], [0.2]))
    monkeypatch.setenv("SOILWEAVE_PROBES", str(path))
    catalog = importlib.resources.files("catalogs").joinpath("insitu.yaml")
    data = intake.open_catalog(str(catalog))["probes"].to_dask()
    assert data.soil_moisture.values.tolist() == [[np.float32(0.2)]]
    assert data.time_convention == "UTC day"
