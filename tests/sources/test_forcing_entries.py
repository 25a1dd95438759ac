"""Entries of catalogs/forcing.yaml, as a stranger reads them, against providers' miniatures."""

import datetime
from pathlib import Path

import intake
import numpy as np
import pytest
import web
import yaml
from miniatures_forcing import (
    ARCO_NAMES,
    aorc,
    arco,
    conus404,
    daymet,
    era5,
    era5_land_surface,
    gridmet,
    nldas2,
    nldas3,
    since_00,
    to_zarr,
)

import catalogs
from pipeline.errors import DataError
from pipeline.experiment.variables import VARIABLES
from pipeline.sources.grids.variables import parse_mapping
from pipeline.sources.shared.units import FORMULAS

CATALOG = f"{catalogs.__path__[0]}/forcing.yaml"
ENTRIES = yaml.safe_load(Path(CATALOG).read_text())["sources"]

METADATA = {
    *("support", "license", "doi", "auth", "region", "native_grid", "native_units", "origin"),
    *("time_convention", "period", "verified", "volume"),
}


def opened(entry, url, **args):
    """The entry, reading from elsewhere, as anyone opens it."""
    return intake.open_catalog(CATALOG)[entry](urlpath=str(url), storage_options={}, **args)


def per_day(values, how="mean", lag=0):
    """(day, row, column) of (hour, row, column) whose days begin `lag` steps after the first."""
    whole = values[lag:]
    whole = whole[: len(whole) // 24 * 24]
    return getattr(np, how)(whole.reshape(-1, 24, *values.shape[1:]).astype(float), axis=1)


def close(found, expected, rtol=2e-6):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-9)


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_says_what_it_must_and_maps_to_our_units(entry):
    spec = ENTRIES[entry]
    assert spec["metadata"].keys() >= METADATA
    assert spec["metadata"]["verified"] is False
    volume = spec["metadata"]["volume"]
    assert {"days", "per", "megabytes", "basis"} <= volume.keys()
    assert volume["basis"] in ("published", "measured", "estimated")
    if spec["metadata"]["auth"] in ("earthdata", "token"):
        assert spec["metadata"]["auth_note"]
    for name, term in parse_mapping(spec["args"]["mapping"]).items():
        assert term.to == VARIABLES[name].units, name
    source = intake.open_catalog(CATALOG)[entry]()
    assert source.urlpath.startswith(("https://", "s3://", "gs://"))


def test_aorc_in_one_store_for_each_year(tmp_path):
    before = aorc(tmp_path, 2019, "2019-12-30", "2020-01-01")
    after = aorc(tmp_path, 2020, "2020-01-01", "2020-01-03T01")
    found = opened("aorc", tmp_path / "%Y.zarr", period="2019-12-30..2020-01-02").to_dask()
    days = np.arange(np.datetime64("2019-12-30"), np.datetime64("2020-01-03"))
    np.testing.assert_array_equal(found.time, days.astype("datetime64[ns]"))
    assert found.attrs["time_convention"] == "UTC day"
    assert all(values.dtype == np.float32 for values in found.values())
    assert found.precipitation.chunks is not None
    both = {n: np.concatenate([before[n], after[n]]) for n in before}
    close(found.precipitation, per_day(both["APCP_surface"], "sum", lag=1))
    close(found.air_temperature, per_day(both["TMP_2maboveground"]))
    close(found.surface_pressure, per_day(both["PRES_surface"]))
    speed = np.hypot(both["UGRD_10maboveground"], both["VGRD_10maboveground"])
    close(found.wind_speed, per_day(speed), rtol=1e-5)
    assert found.wind_speed.attrs == {
        "units": "m s-1",
        "source": "UGRD_10maboveground, VGRD_10maboveground",
    }
    assert np.isnan(found.precipitation[:, 0, 0]).all()
    np.testing.assert_allclose(found.lat, after.latitude)  # upward, as it is
    assert (np.diff(found.lat_bnds) > 0).all()


def test_the_last_day_of_totals_is_partial_without_the_next_years_store(tmp_path):
    aorc(tmp_path, 2019, "2019-12-30", "2020-01-01")
    found = opened("aorc", tmp_path / "%Y.zarr", period="2019-12-30..2019-12-31").to_dask()
    assert found.attrs["partial_days"] == "2019-12-31"
    assert np.isnan(found.precipitation[1]).all()
    assert np.isfinite(found.air_temperature[1, 1]).all()


def test_an_entry_without_a_last_day_asks_for_a_period(tmp_path):
    with pytest.raises(DataError, match=r"has no last day: '1979-02-01\.\.'; expected first"):
        opened("aorc", tmp_path / "%Y.zarr").to_dask()


def test_era5_arco_has_room_for_times_to_come(tmp_path):
    held = arco(tmp_path)
    found = opened("era5_arco", tmp_path / "arco.zarr-v3").to_dask()
    assert str(found.time.values[0])[:10] == "2019-12-30"
    assert str(found.time.values[-1])[:10] == "2020-01-02"  # 2020-01-03 lacks its last hour
    check_era5(found, held.rename({new: old for old, new in ARCO_NAMES.items()}))


def check_era5(found, held):
    """What is found against hours that ERA5 has; sums are of the hour before."""
    n = len(found.time)
    close(found.precipitation, 1000 * per_day(held.tp.values, "sum", 1)[:n], rtol=1e-5)
    close(found.shortwave, per_day(held.ssrd.values, "sum", 1)[:n] / 86400, rtol=1e-5)
    close(found.longwave, per_day(held.strd.values, "sum", 1)[:n] / 86400, rtol=1e-5)
    close(found.air_temperature, per_day(held.t2m.values)[:n])
    speed = np.hypot(held.u10.values, held.v10.values)
    close(found.wind_speed, per_day(speed)[:n], rtol=1e-5)
    vapour = 611.21 * np.exp(17.502 * (held.d2m - 273.16) / (held.d2m - 32.19))
    ratio = 287.0597 / 461.525
    q = ratio * vapour / (held.sp - (1 - ratio) * vapour)
    close(found.specific_humidity, per_day(q.values)[:n], rtol=1e-5)
    np.testing.assert_array_equal(found.lat, held.latitude)
    np.testing.assert_array_equal(found.lon, held.longitude)
    close(found.lat_bnds[0], [52.5, 47.5])


def test_era5_land_over_https_accumulates_from_00_utc(tmp_path):
    held = era5("2020-02-27T23", "2020-03-02T03")
    to_zarr(since_00(held), tmp_path / "land.zarr", version=3)
    with web.serve(tmp_path) as site:
        source = opened("era5_land", f"{site.url}/land.zarr", login=None)
        source.period = (datetime.date(2020, 2, 28), datetime.date(2020, 3, 1))
        found = source.to_dask().load()
    assert [str(day)[:10] for day in found.time.values] == [
        "2020-02-28",
        "2020-02-29",
        "2020-03-01",
    ]
    check_era5(found, held.isel(valid_time=slice(1, None)))


def test_the_land_surface_of_era5_land_is_in_the_store_of_its_forcing(tmp_path):
    forcing = era5("2020-02-28", "2020-03-02")
    held = era5_land_surface(forcing)
    to_zarr(since_00(forcing).merge(held), tmp_path / "land.zarr", version=3)
    found = opened("era5_land_surface", tmp_path / "land.zarr", login=None)
    found.period = (datetime.date(2020, 2, 28), datetime.date(2020, 3, 1))
    found = found.to_dask().load()
    names = {
        "surface_temperature": "skt",
        "surface_albedo": "fal",
        "high_vegetation_lai": "lai_hv",
        "low_vegetation_lai": "lai_lv",
    }
    assert {*found.data_vars} >= {*names}
    for ours, theirs in names.items():
        close(found[ours], per_day(held[theirs].values))
        assert found[ours].attrs["units"] == VARIABLES[ours].units


def test_daymet_lacks_the_last_day_of_a_leap_year(tmp_path):
    held = daymet(tmp_path)
    found = opened("daymet", tmp_path / "na.zarr").to_dask()
    assert found.air_temperature.dims == ("time", "y", "x")
    assert "lat" not in found.coords
    assert [str(day)[:10] for day in found.time.values][2:5] == [
        *("2020-12-30", "2020-12-31", "2021-01-01")
    ]
    there = [0, 1, 2, 4, 5]
    assert np.isnan(found.air_temperature[3]).all()
    assert found.attrs["missing_days"] == "2020-12-31"
    close(found.air_temperature[there], (held.tmin + held.tmax) / 2 + 273.15)
    close(found.precipitation[there], held.prcp)
    close(found.shortwave[there], held.srad * held.dayl / 86400)
    np.testing.assert_array_equal(found.y, held.y)
    assert 'METHOD["Lambert Conic Conformal (2SP)"' in found.attrs["crs"]


def test_conus404_on_a_sphere(tmp_path):
    held = conus404(tmp_path)
    found = opened("conus404", tmp_path / "conus404_daily.zarr").to_dask()
    close(found.precipitation, held.PREC_ACC_NC)
    close(found.shortwave, held.ACSWDNB / 86400)
    close(found.specific_humidity, held.Q2 / (1 + held.Q2))
    close(found.wind_speed, np.hypot(held.U10, held.V10))
    assert "6370000" in found.attrs["crs"]
    source = opened("conus404", tmp_path / "conus404_daily.zarr")
    source.region = (-98.0, 39.0, -97.9, 39.1)
    part = source.to_dask()
    assert part.sizes["x"] < 5
    close(part.precipitation, found.precipitation.sel(y=part.y, x=part.x))


def test_gridmet_in_days_that_are_called_day(tmp_path):
    held = gridmet(tmp_path)
    found = opened("gridmet", tmp_path / "gridMET.zarr").to_dask()
    np.testing.assert_array_equal(found.time, held.day)  # 29 February among them
    close(found.precipitation, held.precipitation_amount, rtol=1e-5)
    low, high = held.daily_minimum_temperature, held.daily_maximum_temperature
    close(found.air_temperature, (low + high) / 2, rtol=1e-5)


def test_nldas2_in_a_file_for_each_hour(tmp_path):
    held = nldas2(tmp_path, "2019-12-31", "2020-01-01T01")
    pattern = f"%Y/%j/{ENTRIES['nldas2']['args']['urlpath'].rsplit('/', 1)[-1]}"
    period = "2019-12-31..2019-12-31"
    source = opened("nldas2", tmp_path / pattern, login=None, period=period)
    found = source.to_dask().load()
    close(found.precipitation, per_day(held.Rainf.values, "sum", lag=1))
    close(found.shortwave, per_day(held.SWdown.values))
    close(found.wind_speed, per_day(np.hypot(held.Wind_E.values, held.Wind_N.values)), rtol=1e-5)
    (tmp_path / "2019/365/NLDAS_FORA0125_H.A20191231.0500.020.nc").unlink()
    with pytest.raises(DataError, match="missing: 2019-12-31; get them from https://disc"):
        source.to_dask()
    mapping = {"air_temperature": {"from": "Tair", "units": "K", "daily": "mean"}}
    lenient = {"login": None, "period": period, "gaps": "allowed", "mapping": mapping}
    holed = opened("nldas2", tmp_path / pattern, **lenient).to_dask()
    assert holed.attrs["partial_days"] == "2019-12-31"
    lenient["day"] = {"min_steps": 22}
    enough = opened("nldas2", tmp_path / pattern, **lenient).to_dask()
    expected = np.delete(held.Tair.values[:24], 5, axis=0).mean(0)
    close(enough.air_temperature[0], expected)


def test_nldas3_in_a_file_for_each_day_over_http(tmp_path):
    held = nldas3(tmp_path, "2020-02-28", "2020-03-02")
    with web.serve(tmp_path) as site:
        pattern = f"{site.url}/%Y%m/NLDAS_FOR0010_D.A%Y%m%d.030.beta.nc"
        found = opened("nldas3", pattern, period="2020-02-28..2020-03-01").to_dask()
        assert {path.rsplit("/", 1)[-1] for path in site.paths()} == {
            "NLDAS_FOR0010_D.A20200228.030.beta.nc"
        }
        site.fails("20200301", 503)
        close(found.precipitation, held.Rainf)
        close(found.air_temperature[:, 1:], held.Tair[:, 1:])
        assert np.isnan(found.air_temperature[:, 0, 0]).all()


def test_rules_are_told_in_the_catalogs_own_words():
    used = {
        spec["by"]
        for entry in ENTRIES.values()
        for spec in entry["args"]["mapping"].values()
        if "by" in spec
    }
    assert used < set(FORMULAS)
