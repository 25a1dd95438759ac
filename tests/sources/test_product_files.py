"""The products of others in catalogs/products.yaml, read as they are published, through intake.

SMAP's two are read by tests/test_smap.py.
"""

from datetime import date
from pathlib import Path

import intake
import numpy as np
import pytest
import rasterio
import xarray as xr
import yaml
from rasterio.transform import Affine

from pipeline.experiment.variables import VARIABLES

CATALOG = Path(__file__).resolve().parents[2] / "catalogs" / "products.yaml"
DAYS = np.array(["2020-02-29", "2020-03-01"], "datetime64[ns]")
ALWAYS = {"support", "license", "doi", "auth", "region", "native_grid", "native_units"}


ALWAYS |= {"time_convention", "period", "origin", "verified", "volume"}


TARGET = "soil_moisture"


def sources():
    return yaml.safe_load(CATALOG.read_text())["sources"]


def opened(folder, name, url, last=date(2020, 3, 1)):
    """An entry as it is, but for where its files are."""
    spec = sources()[name]
    spec["args"] |= {"urlpath": str(url)}
    for key in ("login", "storage_options"):
        spec["args"].pop(key, None)
    path = folder / "catalog.yaml"
    path.write_text(yaml.safe_dump({"sources": {name: spec}}))
    source = intake.open_catalog(str(path))[name]
    source.period = (date(2020, 2, 29), last)
    return source.to_dask().load()


@pytest.mark.parametrize("name", sources())
def test_an_entry_says_all_that_a_reader_must_know(name):
    metadata = sources()[name]["metadata"]
    assert metadata.keys() >= ALWAYS
    assert "earthdata" != metadata["auth"] != "token" or metadata["auth_note"]


def hours():
    return DAYS[0] + np.arange(48) * np.timedelta64(1, "h")


def test_noah_has_kilograms_in_the_upper_ten_centimetres(tmp_path):
    lat, lon = np.arange(25.0625, 25.5, 0.125), np.arange(-124.9375, -124.5, 0.125)
    pattern = sources()["nldas2_noah"]["args"]["urlpath"].partition("_H.2.0/")[2]
    for i, hour in enumerate(hours()[:24]):
        values = np.full((1, len(lat), len(lon)), 10 + i, "float32")
        values[0, 1, 2] = np.nan
        made = xr.Dataset(
            {"SoilM_0_10cm": (("time", "lat", "lon"), values, {"units": "kg m-2"})},
            {"time": [hour], "lat": lat, "lon": lon},
        )
        made["SoilM_0_10cm"].encoding["_FillValue"] = np.float32(-9999)
        path = tmp_path / hour.astype("datetime64[s]").item().strftime(pattern)
        path.parent.mkdir(parents=True, exist_ok=True)
        made.to_netcdf(path, engine="h5netcdf")
    found = opened(tmp_path, "nldas2_noah", tmp_path / pattern, date(2020, 2, 29))
    assert (tmp_path / "2020/060/NLDAS_NOAH0125_H.A20200229.0000.020.nc").exists()
    assert found[TARGET].attrs["units"] == VARIABLES[TARGET].units
    np.testing.assert_array_equal(found.time.values, DAYS[:1])
    assert found[TARGET].dims == ("time", "lat", "lon")
    np.testing.assert_allclose(found[TARGET][:, 0, 0], [0.215], rtol=1e-6)
    assert np.isnan(found[TARGET][:, 1, 2]).all()
    np.testing.assert_allclose(found.lat_bnds[0], [25.0, 25.125])


def test_era5_land_is_the_mean_of_the_hours_of_a_day(tmp_path):
    values = np.tile(np.linspace(0.1, 0.3, 24), 2)[:, None, None] + np.zeros((1, 3, 4))
    values[:, 0, 0] = np.nan
    made = xr.Dataset(
        {
            "swvl1": (
                ("valid_time", "latitude", "longitude"),
                values.astype("float32"),
                {"units": "m**3 m**-3"},
            )
        },
        {
            "valid_time": hours(),
            "latitude": [90.0, 89.9, 89.8],
            "longitude": [0.0, 0.1, 0.2, 0.3],
        },
    )
    made.to_zarr(tmp_path / "land.zarr", zarr_format=3, consolidated=False)
    found = opened(tmp_path, "era5_land", tmp_path / "land.zarr")
    assert found[TARGET].attrs["units"] == VARIABLES[TARGET].units
    np.testing.assert_array_equal(found.time.values, DAYS)
    np.testing.assert_allclose(found[TARGET][:, 1, 1], [0.2, 0.2], rtol=1e-6)
    assert np.isnan(found[TARGET][:, 0, 0]).all()


def test_gsm3_is_a_raster_for_each_day(tmp_path, monkeypatch):
    monkeypatch.setenv("GSM3_DATA", str(tmp_path))
    for day, base in zip(("20200229", "20200301"), (0.1, 0.3), strict=True):
        values = np.array([[base, base + 0.1], [-9999, base]], "float32")
        with rasterio.open(
            tmp_path / f"GSM3_{day}.tif",
            "w",
            driver="GTiff",
            width=2,
            height=2,
            count=1,
            dtype="float32",
            crs="EPSG:4326",
            transform=Affine(0.1, 0, -100, 0, -0.1, 40),
            nodata=-9999,
        ) as file:
            file.write(values, 1)
    found = opened(tmp_path, "gsm3", sources()["gsm3"]["args"]["urlpath"])
    assert found[TARGET].attrs["units"] == VARIABLES[TARGET].units
    np.testing.assert_array_equal(found.time.values, DAYS)
    np.testing.assert_allclose(found[TARGET][:, 0], [[0.1, 0.2], [0.3, 0.4]], rtol=1e-6)
    assert np.isnan(found[TARGET][:, 1, 0]).all()
    np.testing.assert_allclose(found.lat, [39.95, 39.85])
