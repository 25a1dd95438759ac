"""The public scan on values of the real files, put into the providers' form."""

from __future__ import annotations

import importlib.resources

import intake
import numpy as np
import pytest
import xarray as xr
from miniatures_scan import CONSTANTS, DAYS, PERIOD, Awdb, geolearn, opened, published

from pipeline.catalog import quality_control
from pipeline.experiment import config, variables
from pipeline.sources.awdb.service import humidity_in_standard_atmosphere

# Half a step of what the service states: 0.01 in, 0.1 degF, 0.1 langley.
RAIN, DEGREES, LIGHT = 0.128, 0.0279, 0.025
ROWS = [8, 15, 26, 30, 58, 66]  # sites with frozen soil or values out of range


@pytest.fixture(scope="module")
def real(real_data, tmp_path_factory):
    """Some real sites and their nearest cells in the providers' form; and the files' own."""
    folder = tmp_path_factory.mktemp("public")
    cells, sites = (
        xr.open_dataset(real_data / file, engine="h5netcdf").load()
        for file in ("conus36_smap_nldas.nc", "scan_sites.nc")
    )
    sites = sites.isel(site=ROWS)
    used = np.unique(sites.cell.values)
    cells = cells.sel(cell=used)
    inside = cells.sel(time=slice(*map(str, PERIOD)))
    varying = [n for n in cells.data_vars if "time" in cells[n].dims]
    geolearn(
        folder / "set",
        np.stack([cells.lat, cells.lon], 1),
        DAYS,
        {n: inside[n].transpose("cell", "time").values for n in varying},
        {n: cells[n].values for n in CONSTANTS},
    )
    mini = measured(sites.sel(time=slice(*map(str, PERIOD))))
    ids = [str(i) for i in sites.site.values]
    with published(folder, mini, ids) as (_, path):
        yield path, ids, used


def measured(sites):
    """AWDB's series with the stations' own values, in inches, degF, percent and langleys."""
    mini = Awdb()
    for number in range(sites.sizes["site"]):
        one = sites.isel(site=number)
        triplet = f"{one.site.item()}:XX:SCAN"
        feet = one.elev_m.item() / 0.3048
        mini.add_site(triplet, one.lat.item(), one.lon.item(), feet, -6.0)

        def own(name, one=one):
            values = one[name].values.astype(float)
            flag = f"{name}_from_station"
            return np.where(one[flag].values == 1, values, np.nan) if flag in one else values

        kelvin, humidity = own("TMP_2_FORA"), own("SPFH_2_FORA")
        saturated = humidity_in_standard_atmosphere(100.0, kelvin, one.elev_m.item())
        pressure = 101325.0 * (1 - 2.25577e-5 * one.elev_m.item()) ** 5.25588
        vapour, most = (q * pressure / (0.622 + 0.378 * q) for q in (humidity, saturated))
        hourly = {
            "SMS:-2": (own("sm_insitu") * 100, 1),
            "STO:-2": (own("st_2in") * 1.8 + 32, 1),
            "RHUM": (100 * vapour / most, 0),
        }
        daily = {
            "PRCP": (own("APCP_FORA") * 24 / 25.4, 2),
            "TAVG": ((kelvin - 273.15) * 1.8 + 32, 1),
            "LRADT": (own("DSWRF_FORA") / 0.4842593, 1),
        }
        for element, (values, digits) in daily.items():
            mini.add(triplet, element, DAYS, np.round(values, digits))
        for element, (values, digits) in hourly.items():
            hours = np.repeat(np.round(values, digits)[:, None], 24, 1)
            mini.add(triplet, element, DAYS, hours)
    return mini


def held(name, real_data, monkeypatch):
    """What the files give, through the catalog of `scan`."""
    monkeypatch.setenv("SOILWEAVE_DATA", str(real_data))
    path = importlib.resources.files("catalogs").joinpath("scan.yaml")
    return intake.open_catalog(str(path))[name].to_dask().sel(time=slice(*map(str, PERIOD)))


@pytest.mark.data
@pytest.mark.parametrize("name", ["cells36", "smap36"])
def test_cells_are_those_of_the_files(real, real_data, monkeypatch, name):
    path, _, used = real
    found, wanted = opened(path, name).to_dask(), held(name, real_data, monkeypatch)
    wanted = wanted.isel(place=used)
    assert set(found.data_vars) == set(wanted.data_vars)
    np.testing.assert_array_equal(found.lat, wanted.lat)
    np.testing.assert_array_equal(found.time, wanted.time)
    for variable in wanted.data_vars:
        np.testing.assert_array_equal(found[variable], wanted[variable], err_msg=variable)


@pytest.mark.data
def test_sites_are_those_of_the_files_within_the_services_rounding(real, real_data, monkeypatch):
    path, ids, _ = real
    found = opened(path, "scan_sites").to_dask().load()
    wanted = held("scan_sites", real_data, monkeypatch).isel(place=ROWS).load()
    assert list(found.place.values) == ids == list(wanted.place.values)
    assert set(found.data_vars) == set(wanted.data_vars)
    within = {
        "precipitation": {"atol": RAIN},
        "air_temperature": {"atol": DEGREES},
        "soil_temperature": {"atol": DEGREES},
        "shortwave": {"atol": LIGHT},
        "specific_humidity": {"rtol": 2.5e-3},  # of the temperature's rounding
        "soil_moisture": {"rtol": 1e-6},
    }
    for name in set(wanted.data_vars) - {"provider_flag"}:
        close = {"rtol": 1e-6, "atol": 1e-6} | within.get(name, {})
        if name not in within:
            close = {"rtol": 0, "atol": 0}
        np.testing.assert_allclose(found[name], wanted[name], err_msg=name, **close)
    assert (wanted.precipitation.values > 1).any()


@pytest.mark.data
def test_own_rules_of_qc_drop_what_the_files_flags_drop(real, real_data, monkeypatch):
    path, _, _ = real
    found = opened(path, "scan_sites").to_dask()
    wanted = held("scan_sites", real_data, monkeypatch).isel(place=ROWS)
    kept, dropped = [], []
    for dataset in (found, wanted):
        variable = variables.VARIABLES["soil_moisture"]
        values, told = quality_control.screen_sites(
            dataset, "soil_moisture", variable, config.QcConfig()
        )
        kept.append(values)
        dropped.append({rule: int(n.sum()) for rule, n in told.items() if n.any()})
    np.testing.assert_allclose(kept[0], kept[1], rtol=1e-6)
    mine, theirs = dropped
    assert mine == {"range": 7, "frozen": 152}
    assert theirs == {"provider: out_of_range": 7, "provider: frozen_soil": 152}
