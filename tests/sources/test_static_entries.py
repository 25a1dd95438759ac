"""The catalog of constants: each entry against a small raster in its provider's form."""

from __future__ import annotations

import datetime
from pathlib import Path

import intake
import miniatures_raster
import numpy as np
import pytest
import yaml

from pipeline.experiment.variables import VARIABLES

CATALOG = Path(__file__).parents[2] / "catalogs" / "static.yaml"

ASKED = {
    *("support", "license", "doi", "auth", "region", "native_grid", "native_units"),
    *("time_convention", "period", "origin", "verified", "volume"),
}

ENTRIES = yaml.safe_load(CATALOG.read_text())["sources"]

HOSTS = (
    "https://files.isric.org",
    "http://hydrology.cee.duke.edu",
    "https://esa-worldcover.s3.eu-central-1.amazonaws.com",
    "https://cpdataeuwest.blob.core.windows.net",
    "https://copernicus-dem-90m.s3.eu-central-1.amazonaws.com",
    "https://copernicus-dem-30m.s3.eu-central-1.amazonaws.com",
)

ALBERS = (
    'PROJCS["Albers_Conical_Equal_Area",GEOGCS["WGS 84",DATUM["WGS_1984",'
    'SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Albers_Conic_Equal_Area"],'
    'PARAMETER["latitude_of_center",23],PARAMETER["longitude_of_center",-96],'
    'PARAMETER["standard_parallel_1",29.5],PARAMETER["standard_parallel_2",45.5],'
    'PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1]]'
)


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("static")
    with miniatures_raster.served(folder) as site:
        yield site.url, folder


@pytest.fixture
def entry(web, monkeypatch):
    """Opens an entry through plain intake, its provider's host being ours."""
    url, folder = web
    for name in ("POLARIS_DATA", "NLCD_DATA", "APPEEARS_DATA"):
        monkeypatch.setenv(name, url)
    text = CATALOG.read_text()
    for host in HOSTS:
        assert host in text
        text = text.replace(host, url)
    (folder / "static.yaml").write_text(text)

    def opened(name, region=None):
        source = intake.open_catalog(str(folder / "static.yaml"))[name]
        source.region = region
        return source.to_dask()

    return opened


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_says_everything_of_itself_and_names_our_variables(name):
    spec = ENTRIES[name]
    metadata = spec["metadata"]
    assert metadata.keys() >= ASKED
    assert metadata["support"] == "cell"
    assert metadata["verified"] is False
    assert {"days", "per", "megabytes", "basis"} <= metadata["volume"].keys()
    for ours, held in spec["args"]["mapping"].items():
        assert VARIABLES[ours].kind == "static"
        assert held.get("to", held["units"]) == VARIABLES[ours].units


def test_no_class_of_land_cover_is_counted_twice_or_left_out():
    known = {
        "worldcover": {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100},
        "nlcd2016": {11, 12, 21, 22, 23, 24, 31, 41, 42, 43, 51, 52, 71, 72, 73, 74, 81, 82}
        | {90, 95},
    }
    for name, classes in known.items():
        named = [c for m in ENTRIES[name]["args"]["mapping"].values() for c in m["classes"]]
        assert sorted(named) == sorted(classes)


def test_soilgrids_vrt_of_tiles_over_http(web, entry):
    _, folder = web
    stored = {"sand": 412, "silt": 355, "clay": 233, "bdod": 137, "soc": 254}
    for name, value in stored.items():
        values = np.full((40, 40), value, "int16")
        values[:, 30:] = -32768
        miniatures_raster.soilgrids(folder, name, values, (-9e6, 4.2e6), columns=80)
    found = entry("soilgrids").compute()
    expected = {"sand": 41.2, "silt": 35.5, "clay": 23.3, "bulk_density": 1.37}
    expected["organic_carbon"] = 25.4
    for name, value in expected.items():
        np.testing.assert_allclose(found[name][:, :7], value, rtol=1e-6)
        np.testing.assert_array_equal(np.isnan(found[name][0]), [False] * 8 + [True] * 12)
        assert found[name].attrs["units"] == VARIABLES[name].units
    assert found.sand.shape == (10, 20)


def test_polaris_tiles(web, entry):
    _, folder = web
    stored = {"sand": 41.0, "silt": 36.0, "clay": 23.0, "bd": 1.4, "theta_s": 0.45}
    for name, value in stored.items():
        path = folder / f"POLARIS/PROPERTIES/v1.0/{name}/mean/0_5/lat3839_lon-96-95.tif"
        values = np.full((100, 100), value, "float32")
        values[0] = -9999
        miniatures_raster.write(path, values, "EPSG:4326", (-96, 39), 0.01, nodata=-9999)
    found = entry("polaris", (-95.5, 38.45, -94.5, 38.55)).compute()
    assert found.porosity.shape == (100, 200)
    np.testing.assert_allclose(found.porosity[1:, :100], 0.45, rtol=1e-6)
    np.testing.assert_allclose(found.bulk_density[1:, :100], 1.4, rtol=1e-6)
    assert np.isnan(found.sand[0]).all()
    assert np.isnan(found.sand[:, 100:]).all()


def test_worldcover_fractions_add_up_to_one(web, entry):
    _, folder = web
    values = np.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], "uint8")
    classes = np.random.default_rng(0).choice(values, (1200, 1200))
    miniatures_raster.worldcover(folder / "v200/2021/map", 39, -108, classes)
    found = entry("worldcover", (-107.5, 39.5, -105.5, 41.5)).compute()
    total = sum(found[name] for name in found)
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert found.cover_tree.shape == (300, 300)
    assert 0.15 < float(found.cover_tree.mean()) < 0.22
    assert 0.07 < float(found.cover_moss.mean()) < 0.11


@pytest.mark.parametrize("name", ["nlcd2016", "nlcd_annual"])
def test_nlcd_in_albers(web, entry, name):
    _, folder = web
    classes = np.full((66, 99), 41, "uint8")
    classes[:33, :11], classes[:, 66:] = 82, 250
    at = {"nlcd2016": "cpdata/raw/nlcd/conus/30m/2016.tif"}
    path = folder / at.get(name, "Annual_NLCD_LndCov_2021_CU_C1V0.tif")
    miniatures_raster.write(path, classes, ALBERS, (-15e5, 2e6), 30.0, nodata=250)
    found = entry(name)
    assert "Albers" in found.attrs["crs"]
    np.testing.assert_allclose(found.cover_crop, [[1 / 3, 0, np.nan], [0, 0, np.nan]], rtol=1e-6)
    np.testing.assert_allclose(found.cover_tree, [[2 / 3, 1, np.nan], [1, 1, np.nan]], rtol=1e-6)


@pytest.mark.parametrize(("name", "arc"), [("copernicus_dem90", 30), ("copernicus_dem30", 10)])
def test_copernicus_dem(web, entry, name, arc):
    _, folder = web
    dem = np.add.outer(np.zeros(200), 10.0 * np.arange(200))
    path = miniatures_raster.copernicus(folder, 40, -105, dem)
    path.parent.mkdir(exist_ok=True)
    if arc != 30:
        named = path.parent.name.replace("_30_", f"_{arc}_")
        (folder / named).mkdir(exist_ok=True)
        path.rename(folder / named / f"{named}.tif")
    found = entry(name, (-104.55, 40.45, -104.45, 40.55)).compute()
    np.testing.assert_allclose(found.elevation[50], 10.0 * (2 * np.arange(100) + 0.5), rtol=1e-6)
    east = 111_320 * np.cos(np.radians(40.5)) / 200
    np.testing.assert_allclose(found.slope[50], np.degrees(np.arctan(10 / east)), rtol=2e-3)


@pytest.mark.parametrize(("name", "every"), [("lai", 8), ("ndvi", 16)])
def test_composites_of_modis(web, entry, name, every):
    _, folder = web
    spec = ENTRIES[name]
    pattern = spec["args"]["urlpath"].rsplit("/", 1)[1]
    for n, stored in ((0, 40), (every, 60)):
        day = datetime.date(2015, 1, 1) + datetime.timedelta(n)
        values = np.full((8, 8), stored if name == "lai" else stored * 100, "int16")
        values[0] = 255 if name == "lai" else -3000
        values[1] = values[1] if n else values[0]
        miniatures_raster.write(
            folder / day.strftime(pattern), values, "EPSG:4326", (-100, 40), 0.01
        )
    source = intake.open_catalog(str(folder / "static.yaml"))[name]
    source.period = (datetime.date(2015, 1, 1), datetime.date(2015, 1, 30))
    found = source.to_dask()[name].values
    one = 1 if name == "lai" else 0.1
    np.testing.assert_allclose(found[2:], 5.0 * one, rtol=1e-6)
    np.testing.assert_allclose(found[1], 6.0 * one, rtol=1e-6)
    assert np.isnan(found[0]).all()


def test_the_aggregate_of_polaris(web, entry):
    _, folder = web
    for name in ("sand", "silt", "clay", "bd", "theta_s"):
        values = np.full((8, 8), 0.4, "float32")
        miniatures_raster.write(folder / f"{name}.tif", values, "EPSG:5070", (0, 2e6), 1000.0)
    np.testing.assert_allclose(entry("polaris_aggregate").porosity, 0.4, rtol=1e-6)
