"""SCAN and SNOTEL through AWDB's REST service, on made-up values in its exact form."""

from __future__ import annotations

import importlib.resources
from datetime import date

import intake
import miniatures_scan
import numpy as np
import pytest
import web
import yaml

from pipeline.errors import DataError
from pipeline.sources import awdb
from pipeline.sources.awdb import service as awdb_service
from pipeline.sources.awdb.service import humidity_in_standard_atmosphere
from pipeline.sources.shared import http_errors

DAYS = np.arange("2016-02-27", "2016-03-04", dtype="datetime64[D]")  # a leap day
PERIOD = (date(2016, 2, 27), date(2016, 3, 3))
PCT = np.array([20.0, 21.5, 22.0, np.nan, 30.1, 31.0])

MAPPING = {
    "soil_moisture": {"from": "SMS:-2", "units": "pct", "to": "m3 m-3"},
    "soil_temperature": {"from": "STO:-2", "units": "degF", "also": ["degC"], "to": "degC"},
}

FLAG = {"from": "SMS:-2", "good": ["", "V", "N", "E"]}


@pytest.fixture
def service(tmp_path):
    """Three sites of SCAN and one of SNOTEL."""
    mini = miniatures_scan.Awdb()
    for triplet, lat, lon, zone in (
        ("2057:AL:SCAN", 34.9, -86.5, -6.0),
        ("2198:WA:SCAN", 47.0, -118.6, -8.0),
        ("2221:AK:SCAN", 64.7, -148.3, -9.0),
        ("515:WA:SNTL", 48.7, -120.7, -8.0),
    ):
        mini.add_site(triplet, lat, lon, 1000.0, zone)
        mini.add(triplet, "SMS:-2", DAYS, PCT)
        mini.add(triplet, "STO:-2", DAYS, np.full(6, 50.0))
    with web.serve(tmp_path) as site:
        mini.site, mini.url = site, mini.serve(site)
        yield mini


def entry(service, tmp_path, **args):
    """The driver, opened as a stranger opens an entry of a catalog."""
    given = {"urlpath": service.url, "network": "SCAN", "mapping": MAPPING, "flag": FLAG} | args
    driver = "pipeline.sources.awdb.AwdbSource"
    metadata = {"period": "2016-02-27..2016-03-03"}
    sources = {"scan": {"driver": driver, "args": given, "metadata": metadata}}
    path = tmp_path / "catalog.yaml"
    path.write_text(yaml.safe_dump({"metadata": {"version": 1}, "sources": sources}))
    return intake.open_catalog(str(path))["scan"]


def data_requests(service):
    return [path for path in service.site.paths() if "/data?" in path]


def test_values_units_and_flags_of_daily_elements(service, tmp_path):
    service.add("2057:AL:SCAN", "SMS:-2", DAYS, PCT, flags=["V", "E", "S", "V", "N", "X"])
    service.sensors["2198:WA:SCAN", "STO:-2/1", "DAILY"]["stationElement"]["storedUnitCode"] = (
        "degC"
    )
    made = entry(service, tmp_path).to_dask()
    assert not data_requests(service)  # the list of sites alone
    assert made.soil_moisture.dtype == np.float32
    assert made.soil_moisture.attrs["units"] == "m3 m-3"
    assert made.attrs["time_convention"] == "local standard time day"
    assert list(made.place.values) == ["2057", "2198", "2221"]
    np.testing.assert_array_equal(made.time.values.astype("datetime64[D]"), DAYS)
    found = made.load()
    np.testing.assert_allclose(found.soil_moisture.sel(place="2057"), PCT / 100, rtol=1e-6)
    np.testing.assert_allclose(found.soil_temperature[:, 0], 10.0, rtol=1e-6)
    np.testing.assert_allclose(found.soil_temperature[:, 1], 50.0, rtol=1e-6)
    codes = awdb_service.FLAG_CODES
    assert found.provider_flag[:, 0].values.tolist() == [
        codes[x] for x in ("V", "E", "S", "", "N", "X")
    ]
    assert found.provider_flag.attrs["good"] == [codes[x] for x in ("", "V", "N", "E")]
    assert found.provider_flag.attrs["unchecked"] == [codes[x] for x in ("", "N")]
    attrs = found.provider_flag.attrs
    meanings = dict(zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True))
    assert meanings[codes["S"]] == "suspect"
    assert found.network.values.tolist() == ["SCAN"] * 3
    np.testing.assert_allclose(found.elevation, 304.8)
    np.testing.assert_allclose(found.depth_to, 0.0508)
    assert found.utc_offset_hours.values.tolist() == [-6.0, -8.0, -9.0]


def test_flags_count_as_rules_of_qc(service, tmp_path):
    from pipeline.catalog import quality_control
    from pipeline.experiment import config, variables

    service.add("2057:AL:SCAN", "SMS:-2", DAYS, PCT, flags=["V", "?", "S", "V", "N", "B"])
    found, table = entry(service, tmp_path).to_dask().load(), variables.VARIABLES["soil_moisture"]
    values, dropped = quality_control.screen_sites(found, "soil_moisture", table, config.QcConfig())
    told = {rule: int(n.sum()) for rule, n in dropped.items() if n.any()}
    told = {rule.rpartition("provider: ")[2]: n for rule, n in told.items()}
    assert told == {"unknown": 1, "suspect": 1, "back_estimate": 1}
    assert np.isfinite(values[:, 0]).tolist() == [True, False, False, False, True, False]


def test_suspect_values_of_other_elements_are_missing(service, tmp_path):
    letters = ["V", "S", "V", "V", "V", "V"]
    service.add("2057:AL:SCAN", "STO:-2", DAYS, np.full(6, 32.0), flags=letters)
    temperature = entry(service, tmp_path).to_dask().soil_temperature[:, 0].values
    np.testing.assert_array_equal(np.isnan(temperature), np.array(letters) == "S")


def test_region_period_and_a_network_of_its_own_clock(service, tmp_path):
    source = entry(service, tmp_path)
    source.region, source.period = (
        (-125.0, 25.0, -66.5, 50.0),
        (date(2016, 2, 29), date(2020, 1, 1)),
    )
    made = source.to_dask().load()
    assert list(made.place.values) == ["2057", "2198"]
    assert str(made.time.values[0])[:10] == "2016-02-29"
    assert made.sizes["time"] == 4
    (path,) = data_requests(service)
    assert "2221" not in path
    assert "beginDate=2016-02-29&endDate=2016-03-03&periodRef=END" in path
    source.region = (170.0, 50.0, -140.0, 70.0)  # across the antimeridian
    assert list(source.to_dask().place.values) == ["2221"]
    snotel = entry(service, tmp_path, network="SNTL").to_dask()
    assert list(snotel.place.values) == ["515"]
    assert snotel.utc_offset_hours.values.tolist() == [-8.0]


def test_hours_make_days_of_the_clock_or_of_utc(service, tmp_path):
    days = np.arange("2016-02-26", "2016-03-05", dtype="datetime64[D]")
    hours = np.arange(len(days) * 24, dtype=float).reshape(len(days), 24)
    service.add("2057:AL:SCAN", "SMS:-2", days, hours)
    spoiled = hours.copy()
    spoiled[2, :13] = np.nan  # 11 hours are left of 28 February
    letters = np.full(hours.shape, "V")
    letters[3, :5] = "S"
    service.add("2198:WA:SCAN", "SMS:-2", days, spoiled, flags=letters)
    mapping = {"soil_moisture": MAPPING["soil_moisture"] | {"duration": "HOURLY"}}
    local = entry(service, tmp_path, mapping=mapping, sites=[2057, 2198]).to_dask().load()
    np.testing.assert_allclose(local.soil_moisture[:, 0] * 100, hours[1:-1].mean(1), rtol=1e-6)
    expected = spoiled[1:-1].mean(1)
    expected[2] = hours[3, 5:].mean()  # suspect hours are left out
    np.testing.assert_allclose(local.soil_moisture[:, 1] * 100, expected, rtol=1e-6)
    assert (local.provider_flag == awdb_service.FLAG_CODES["V"]).sum() == 11
    assert local.attrs["time_convention"] == "local standard time day"
    utc = entry(service, tmp_path, mapping=mapping, sites=[2057], day="utc").to_dask()
    shifted = hours.ravel()[24 - 6 : -24 - 6].reshape(-1, 24).mean(1)
    np.testing.assert_allclose(utc.soil_moisture[:, 0] * 100, shifted, rtol=1e-6)
    assert utc.attrs["time_convention"] == "UTC day"
    assert "beginDate=2016-02-26&endDate=2016-03-04" in data_requests(service)[-1]


def test_days_of_utc_need_hours(service, tmp_path):
    with pytest.raises(ValueError, match="day 'utc' needs HOURLY elements"):
        awdb.AwdbSource(service.url, "SCAN", MAPPING, FLAG, day="utc")


def test_a_request_holds_many_sites_and_never_too_many_values(service, tmp_path, monkeypatch):
    for number in range(3000, 3130):
        service.add_site(f"{number}:XX:SCAN", 40.0, -100.0, 10.0, -6.0)
        service.add(f"{number}:XX:SCAN", "SMS:-2", DAYS, np.full(6, float(number % 50)))
    source = entry(service, tmp_path)
    made = source.to_dask().load()
    assert len(data_requests(service)) == 3  # 133 sites, not one request each
    np.testing.assert_allclose(made.soil_moisture.sel(place="3129")[0], 0.29, rtol=1e-6)
    source.digest()
    source.to_dask().soil_temperature.load()
    assert len(data_requests(service)) == 3  # in memory
    monkeypatch.setattr(awdb, "VALUES_PER_REQUEST", 60 * 2 * 5)
    again = source.to_dask()
    assert again.chunks["time"] == (3, 3)
    np.testing.assert_array_equal(again.soil_moisture, made.soil_moisture)
    source.metadata["period"] = "1990-01-01..2020-12-31"  # the miniature refuses 500,000 values
    monkeypatch.undo()
    assert np.isfinite(source.to_dask().soil_moisture.values).sum() == 3 * 5 + 130 * 6


def test_the_digest_tells_revised_values_and_not_where_they_are(service, tmp_path):
    first = entry(service, tmp_path).digest()
    with web.serve(tmp_path) as other:
        url = service.serve(other)
        assert entry(service, tmp_path, urlpath=url).digest() == first
    service.add("2057:AL:SCAN", "SMS:-2", DAYS, PCT + 0.1)
    awdb_service.fetch_batch.cache_clear()
    assert entry(service, tmp_path).digest() != first


def test_the_first_of_several_sensors_is_the_one(service, tmp_path):
    del service.sensors["2057:AL:SCAN", "SMS:-2/1", "DAILY"]
    service.add("2057:AL:SCAN", "SMS:-2", DAYS, PCT + 1, ordinal=2)
    service.add("2057:AL:SCAN", "SMS:-2", DAYS, PCT)
    found = entry(service, tmp_path, sites=[2057]).to_dask().soil_moisture[:, 0]
    np.testing.assert_allclose(found, PCT / 100, rtol=1e-6)


def test_a_site_without_a_sensor_and_a_missing_day_are_missing(service, tmp_path):
    del service.sensors["2198:WA:SCAN", "SMS:-2/1", "DAILY"]
    values = service.sensors["2057:AL:SCAN", "SMS:-2/1", "DAILY"]["values"]
    values[1]["value"] = -99.9
    values[2] = {"date": values[2]["date"], "value": None, "qcFlag": "M"}
    found = entry(service, tmp_path).to_dask().soil_moisture.values
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_array_equal(np.isnan(found[:, 0]), [False, True, True, True, False, False])


def test_other_units_and_a_day_twice_are_told_together(service, tmp_path):
    about = service.sensors["2057:AL:SCAN", "SMS:-2/1", "DAILY"]["stationElement"]
    about["storedUnitCode"] = "fraction"
    values = service.sensors["2198:WA:SCAN", "STO:-2/1", "DAILY"]["values"]
    values.append(values[0])
    with pytest.raises(DataError) as error:
        entry(service, tmp_path).to_dask().load()
    told = str(error.value)
    assert "2057:AL:SCAN SMS:-2: units 'fraction', expected 'pct'" in told
    assert "2198:WA:SCAN STO:-2: the time 2016-02-27 occurs twice" in told


def test_units_that_cannot_be_ours_are_refused_at_once(service, tmp_path):
    mapping = {"soil_moisture": {"from": "SMS:-2", "units": "degF", "to": "m3 m-3"}}
    with pytest.raises(DataError, match="cannot be converted to"):
        awdb.AwdbSource(service.url, "SCAN", mapping, FLAG)


def test_a_busy_service_is_asked_again_and_a_failed_batch_is_named(service, tmp_path, monkeypatch):
    monkeypatch.setattr(http_errors, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(http_errors, "LONGEST_WAIT_S", 0.02)
    service.site.fails(r"/data\?", 503)
    found = entry(service, tmp_path).to_dask().soil_moisture.values
    assert np.isfinite(found).sum() == 15
    awdb_service.fetch_batch.cache_clear()
    for status, words in ((404, "not found"), (403, "refused"), (400, "answers 400")):
        service.site.fails(r"/data\?", status)
        with pytest.raises(DataError) as error:
            entry(service, tmp_path).to_dask().load()
        told = str(error.value)
        assert words in told
        assert "sites 2057:AL:SCAN to 2221:AK:SCAN, from 2016-02-27" in told


@pytest.mark.parametrize("text", ['[{"stationTriplet": "2057:AL:SCAN", "da', '[{"a": 1}]', "<p>"])
def test_what_is_no_answer_is_refused(service, tmp_path, text):
    service.site.made.insert(0, (r"/data\?", lambda path: text.encode()))
    with pytest.raises(DataError, match="the response does not have the form that AWDB documents"):
        entry(service, tmp_path).to_dask().load()
    service.site.made.insert(0, (r"/stations\?", lambda path: text.encode()))
    with pytest.raises(
        DataError, match="the list of sites does not have the form that AWDB documents"
    ):
        entry(service, tmp_path).to_dask()


def test_sites_that_are_not_there_are_told(service, tmp_path):
    with pytest.raises(DataError, match=r"site 9999: not among the 3 sites"):
        entry(service, tmp_path, sites=[2057, 9999]).to_dask()
    with pytest.raises(DataError, match="network COOP has no site with element SMS:-2"):
        entry(service, tmp_path, network="COOP").to_dask()
    source = entry(service, tmp_path)
    source.period = (date(2018, 1, 1), date(2018, 2, 1))
    with pytest.raises(DataError, match=r"the entry's period is 2016-02-27\.\.2016-03-03"):
        source.to_dask()


def test_a_site_that_ended_before_is_left_out(service, tmp_path):
    service.sites[0]["endDate"] = "2015-12-31 00:00"
    assert list(entry(service, tmp_path).to_dask().place.values) == ["2198", "2221"]


def test_one_number_in_two_states_is_told_by_its_triplet(service, tmp_path):
    service.add_site("2057:MS:SCAN", 33.0, -90.0, 100.0, -6.0)
    assert "2057:AL:SCAN" in entry(service, tmp_path).to_dask().place.values


def test_humidity_is_that_of_the_tables():
    made = humidity_in_standard_atmosphere(np.array([100.0, 50.0]), np.array([293.15, 273.15]), 0.0)
    # Saturation at 20 degC is 23.37 hPa, at 0 degC 6.112 hPa, at 1013.25 hPa.
    np.testing.assert_allclose(made, [0.01448, 0.001877], rtol=2e-3)


@pytest.mark.parametrize(
    ("name", "place", "convention"),
    [
        ("scan", "2198", "local standard time day"),
        ("scan_hourly", "2198", "UTC day"),
        ("snotel", "515", "local standard time day"),
    ],
)
def test_entries_of_the_catalog_open(service, tmp_path, name, place, convention):
    text = importlib.resources.files("catalogs").joinpath("insitu.yaml").read_text()
    path = tmp_path / "insitu.yaml"
    path.write_text(
        text.replace("https://wcc.sc.egov.usda.gov/awdbRestApi/services/v1", service.url)
    )
    for triplet in ("2198:WA:SCAN", "515:WA:SNTL"):
        service.add(triplet, "SMS:-2", DAYS, np.repeat(PCT[:, None], 24, 1))
    source = intake.open_catalog(str(path))[name]
    source.period, source.region = (DAYS[1].item(), DAYS[1].item()), (-125.0, 45.0, -110.0, 50.0)
    made = source.to_dask().load()
    assert list(made.place.values) == [place]
    assert made.attrs["time_convention"] == convention
    mean = (PCT[0] * 8 + PCT[1] * 16) / 24 if name == "scan_hourly" else PCT[1]
    np.testing.assert_allclose(made.soil_moisture, mean / 100, rtol=1e-6)
