"""Signs of a fault, one by one: in errors, days, positions, values and coverage."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyproj
import pytest
import xarray as xr

from pipeline.doctor import coverage, findings, time_axis
from pipeline.doctor import values as doctor_values
from pipeline.errors import DataError
from pipeline.experiment.variables import VARIABLES

YEAR = (date(2020, 1, 1), date(2020, 12, 31))
DAYS = np.arange(np.datetime64("2020-01-01"), np.datetime64("2021-01-01"))


def checks(found):
    return [symptom.check for symptom in found]


@pytest.mark.parametrize(
    ("problem", "check"),
    [
        ("refused (401): missing, wrong or expired credentials", "credentials"),
        ("lat: -125 to -67, expected degrees of at most 90", "latitude"),
        ("T2: units 'degC', expected 'K'", "units"),
        ("T2: missing; the file has ['t2m']", "variables"),
        ("a.nc: time: day 2020-01-02 comes after 2020-01-03; days must increase", "time axis"),
        ("coordinate lat or latitude missing", "coordinates"),
        ("not found", "opening"),
        ("2015.zarr: does not answer (EndpointConnectionError)", "opening"),
        ("cannot be read, truncated or no NetCDF-4: time", "opening"),
    ],
)
def test_a_drivers_problem_has_a_name_a_place_and_a_remedy(problem, check):
    [symptom] = findings.findings_from_error(DataError("s3://b/a.nc", problem))
    assert symptom.check == check
    assert symptom.message == f"s3://b/a.nc: {problem}"
    assert symptom.hint


def test_every_problem_of_an_error_is_told_with_the_errors_own_remedy():
    error = DataError("a.nc", "T2: units 'degC', expected 'K'", "not found", remedy="do this")
    assert [(s.check, s.hint) for s in findings.findings_from_error(error)] == [
        ("units", "do this"),
        ("opening", "do this"),
    ]


def test_no_secret_is_in_a_symptom(monkeypatch):
    monkeypatch.setenv("CLINIC_TOKEN", "hushhush")
    text = "GET https://me:pass@host/a.nc?X-Amz-Signature=abc, with hushhush: failed"
    [symptom] = findings.findings_from_error(OSError(text))
    assert symptom.check == "opening"
    assert symptom.message == ("cannot be read: OSError: GET https://host/a.nc, with ***: failed")
    [symptom] = findings.findings_from_error(
        DataError("https://h/a?token=abc", "hushhush is wrong")
    )
    assert symptom.message == "https://h/a: *** is wrong"


def test_an_error_of_a_library_in_decoding_time_is_of_the_time_axis():
    assert checks(findings.findings_from_error(ValueError("unable to decode time units"))) == [
        "time axis"
    ]


@pytest.mark.parametrize(
    ("times", "sparse", "found"),
    [
        (DAYS, False, []),
        (DAYS[::-1], False, ["time axis"]),
        (np.delete(DAYS, slice(30, 60)), False, ["gaps"]),
        (np.delete(DAYS, slice(30, 60)), True, []),
        (np.delete(DAYS, slice(30, 130)), True, ["gaps"]),
        (DAYS - np.timedelta64(400, "D"), True, ["missing year"]),
        (DAYS + np.timedelta64(12, "h"), False, ["time axis"]),
    ],
)
def test_days(times, sparse, found):
    assert (
        checks(time_axis.check_days(times.astype("datetime64[ns]"), YEAR, sparse=sparse)) == found
    )


def test_times_that_are_no_dates():
    assert checks(time_axis.check_days(np.arange(4.0), YEAR, sparse=False)) == ["time axis"]


def test_missing_days_are_reported_as_runs():
    lost = np.array(
        ["2020-01-01", "2020-01-02", "2020-01-05", "2020-02-01", "2020-03-01"], "M8[ns]"
    )
    days = np.setdiff1d(np.arange("2020-01-01", "2021-01-01", dtype="M8[D]").astype("M8[ns]"), lost)
    (gap,) = time_axis.check_days(days, YEAR, sparse=False)
    runs = "2020-01-01..2020-01-02, 2020-01-05, 2020-02-01 and 1 more"
    assert gap.message == f"5 of 366 days missing: {runs}"


def grid(lat, lon, **bounds):
    made = xr.Dataset(coords={"lat": lat, "lon": lon})
    return made.assign_coords({k: ((k[:3], "bnds"), v) for k, v in bounds.items()})


def test_bounds_in_the_opposite_order_of_latitude():
    lat = np.array([40.5, 41.5, 42.5])
    bounds = np.stack([lat - 0.5, lat + 0.5], 1)
    assert coverage.check_positions(grid(lat, [1.0], lat_bnds=bounds), None) == []
    [found] = coverage.check_positions(grid(lat, [1.0], lat_bnds=bounds[::-1]), None)
    assert found.check == "latitude"
    assert "2 of 3 do not contain their lat" in found.message


def test_latitude_and_longitude_exchanged_where_both_may_be_latitudes():
    region = (10.0, 50.0, 20.0, 60.0)
    lat, lon = np.linspace(51, 59, 9), np.linspace(11, 19, 9)
    assert coverage.check_positions(grid(lat, lon), region) == []
    assert checks(coverage.check_positions(grid(lon, lat), region)) == ["latitude"]


@pytest.mark.parametrize(
    ("name", "values", "check", "says"),
    [
        ("air_temperature", [250.0, 300.0], None, ""),
        ("air_temperature", [-20.0, 25.0], "units", "'degC'"),
        ("air_temperature", [290.0] * 99 + [400.0], "range", "1 % of the sample"),
        ("surface_pressure", [850.0, 1013.0], "units", "'hPa'"),
        ("specific_humidity", [2.0, 12.0], "units", "'g kg-1'"),
        ("porosity", [38.0, 52.0], "units", "'percent'"),
        ("sand", [200.0, 700.0], "units", "'g kg-1'"),
        ("sand", [0.2, 0.7], "units", "fractions"),
        ("sand", [0.0, 0.0], None, ""),
        ("bulk_density", [1300.0, 1500.0], "units", "'kg m-3'"),
        ("precipitation", [0.0, 1900.0], None, ""),
        ("precipitation", [0.0, 2400.0], "units", "24 times"),
        ("precipitation", [-5.0, 3.0], "range", "-5 to 3"),
        ("soil_moisture", [0.2] * 96 + [0.9] * 4, None, ""),
        ("soil_moisture", [0.2] * 80 + [0.9] * 20, "range", "20 % of the sample"),
        ("elevation", [100.0, np.nan, -9999.0], "range", "-9999"),
        ("elevation", [100.0, np.inf], "range", "infinite"),
    ],
)
def test_values(name, values, check, says):
    found = doctor_values.check_values(name, np.array(values, "float32"), VARIABLES[name])
    assert checks(found) == ([check] if check else [])
    assert all(says in symptom.message for symptom in found)
    assert all(symptom.message.startswith(f"{name}: ") for symptom in found)


def climate(lat, days):
    """(day, row) K, coldest in the winter of each hemisphere."""
    season = np.cos(2 * np.pi * ((days - days[0]).astype(int) - 200) / 365.25)
    return 302 - 55 * np.sin(np.radians(lat[None] - 14 * season[:, None])) ** 2


@pytest.mark.parametrize(
    "lat", [np.linspace(25, 50, 12), np.linspace(-20, -45, 12), np.linspace(88, -88, 40)]
)
def test_a_climate_upside_down_is_seen_where_there_is_one(lat):
    days = DAYS[[15, 196, 350]]
    rows = climate(lat, days) + np.random.default_rng(0).normal(0, 1, (3, len(lat)))
    assert doctor_values.check_orientation("air_temperature", rows, lat, days) == []
    turned = doctor_values.check_orientation("air_temperature", rows[:, ::-1], lat, days)
    assert checks(turned) == ["latitude"]


def test_a_small_region_tells_nothing_of_north_and_south():
    lat, days = np.linspace(40, 45, 12), DAYS[[15, 196, 350]]
    rows = climate(lat, days)[:, ::-1]
    assert doctor_values.check_orientation("air_temperature", rows, lat, days) == []


def field(lat, lon, days=20):
    shape = (days, len(lat), len(lon))
    values = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), values)}, {"time": DAYS[:days], "lat": lat, "lon": lon}
    )


def test_the_part_over_a_region_and_its_samples():
    dataset = field(np.arange(49.5, 24, -0.25), np.arange(235.5, 294, 0.5))
    part = coverage.find_coverage(dataset, (-105.0, 31.0, -93.0, 43.0))
    assert part.share == pytest.approx(1)
    assert {dim: len(index) for dim, index in part.indices.items()} == {"lat": 49, "lon": 25}
    looked = coverage.select_first_sample(dataset, part)
    assert looked.sizes == {"time": 3, "lat": 32, "lon": 25}
    assert 31 <= looked.lat.min() <= looked.lat.max() <= 43
    assert coverage.describe_sample(looked, dataset) == "3 of 20 days, 32 of 102 lat, 25 of 117 lon"
    wider = coverage.select_wider_sample(dataset, part)
    assert wider.sizes == {"time": 12, "lat": 49, "lon": 25}
    assert coverage.select_profile(dataset, part).sizes == {"time": 3, "lat": 12, "lon": 8}


def test_a_region_across_the_edge_of_a_grid_of_0_to_360():
    dataset = field(np.arange(40.5, 50, 1.0), np.arange(0.5, 360, 1.0))
    part = coverage.find_coverage(dataset, (-5.0, 42.0, 5.0, 48.0))
    assert part.share == pytest.approx(1)
    lon = dataset.lon.values[part.indices["lon"]]
    assert sorted((lon + 180) % 360 - 180) == list(np.arange(-4.5, 5))


def test_a_projected_grid_is_found_under_a_region():
    crs = pyproj.CRS("EPSG:5070")
    x, y = np.arange(-2.3e6, 2.3e6, 5e4), np.arange(3.2e6, 0.2e6, -5e4)
    values = np.zeros((len(y), len(x)), "float32")
    dataset = xr.Dataset({"t": (("y", "x"), values)}, {"x": x, "y": y}, {"crs": crs.to_wkt()})
    region = (-100.0, 38.0, -92.0, 42.0)
    part = coverage.find_coverage(dataset, region)
    assert part.share == pytest.approx(1)
    to = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    looked = coverage.select_first_sample(dataset, part)
    lon, lat = to.transform(looked.x.values.mean(), looked.y.values.mean())
    assert (lon, lat) == (pytest.approx(-96, abs=0.5), pytest.approx(40, abs=0.5))
    away = (0.0, 45.0, 10.0, 50.0)
    part = coverage.find_coverage(dataset, away)
    assert checks(coverage.check_coverage(dataset, part, away)) == ["domain"]


@pytest.mark.parametrize(
    ("mean", "days", "found"),
    [(2.0, 366, False), (30.0, 366, False), (48.0, 366, True), (48.0, 12, True), (48.0, 11, False)],
)
def test_precipitation_of_more_than_the_wettest_place_is_scaled_too_far(mean, days, found):
    """From the driest of regions to 11,000 mm a year; 48 mm a day is 24 times 2."""
    values = np.random.default_rng(1).gamma(1.0, mean, (days, 6, 5)).astype("float32")
    made = doctor_values.check_values("precipitation", values, VARIABLES["precipitation"])
    assert checks(made) == (["units"] if found else [])
    assert all("24 times too far" in symptom.message for symptom in made)
