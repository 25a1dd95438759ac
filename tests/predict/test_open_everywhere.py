"""What a stranger does with the maps: open, test flags, save, reproject, check, and show them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import rioxarray
import web
import xarray as xr
import zarr_cm
from compliance_checker.runner import CheckSuite, ComplianceChecker

BROWSER = Path(__file__).resolve().parents[1] / "browser"
PACKAGES = Path(sys.prefix) / "browser" / "node_modules"  # where `make browser` installs them
PAGE = '<!doctype html><meta charset="utf-8"><script src="bundle.js"></script>'

# What the checkers say although it is right or cannot be otherwise, by the reason.
ALLOWED = {
    "the checker goes through the letters of one name": (
        r"^\w is a required attribute for grid mapping lambert_cylindrical_equal_area",
        r"^_ is a required attribute for grid mapping lambert_cylindrical_equal_area",
    ),
    "attributes of Zarr are JSON, which has one type of integers": (
        r"^flag_(values|masks) \(<class 'numpy.int64'>\) must be the same data type as",
        r"^Attribute 'valid_range' \(type: <class 'numpy.int64'>\) and parent variable",
        r"^Type of soil_moisture:valid_range attribute \(int64\) does not match",
    ),
    "xarray writes a fill value for each array of floats without one": (
        r"^The coordinate variable '[xy]' must not have the _FillValue",
        r"^'depth_bnds' has attr '_FillValue'",
        r"^The Boundary variables 'depth_bnds' should not have the attributes: '\['_FillValue'\]'",
    ),
    "the Zarr conventions for projections name their attributes so": (
        r"^global attribute (proj|spatial):\w+ should begin with a letter",
    ),
    "depth is a scalar with bounds, so the bounds have one dimension": (
        r"^Boundary variable depth_bnds specified by depth should have at least two",
        r"^geospatial_vertical_m(in|ax) != ",
    ),
    "there is no standard name for them": (
        r'^variable "(attribute_distance|probe_gain)" missing .*: standard_name$',
        r'^variable "soil_moisture_(percentile|anomaly)" missing .*: standard_name$',
    ),
    "recommended, and only their maker could say": (
        r"^(acknowledgment/acknowledgement|comment|institution|naming_authority|project) not pres",
        r"^(creator|publisher)_(name|url|email) not present",
        r"^geospatial_bounds_vertical_crs not present",
    ),
}


@pytest.fixture(scope="module")
def maps_url(demo) -> str:
    return str(demo[0] / "demo" / "maps" / "multiscale.zarr")


@pytest.fixture
def opened(maps_url) -> xr.Dataset:
    return xr.open_zarr(maps_url)


def test_the_last_day_has_values_and_flags_have_bits(opened):
    assert int(opened.soil_moisture.isel(time=-1).notnull().sum()) > 100
    assert int(opened.soil_moisture.isel(time=0).notnull().sum()) > 100
    frozen = (opened.quality_flag & 4) > 0
    assert 0 < float(frozen.mean()) < 1
    assert bool(((opened.input_status & 1) == 0).all())


def test_maps_are_reprojected_with_the_coordinates_that_they_have(opened, tmp_path):
    day = opened.soil_moisture.isel(time=100)
    day.rio.to_raster(tmp_path / "day.tif")
    with rioxarray.open_rasterio(tmp_path / "day.tif") as raster:
        assert raster.rio.crs.to_epsg() == 6933
        np.testing.assert_array_equal(np.isnan(raster[0]), np.isnan(day.values))
    few = opened.isel(time=slice(100, 102))
    for maps in (day, few.soil_moisture, few[["soil_moisture", "soil_moisture_std"]]):
        for crs in ("EPSG:5070", "EPSG:4326"):
            moved = maps.rio.reproject(crs)
            assert {"lat", "lon"}.isdisjoint(moved.coords)  # those of the old cells
            assert moved.rio.crs.to_epsg() == int(crs[5:])


def said_by_checkers(file: Path, folder: Path) -> list[str]:
    """All problems that the checkers of CF 1.11 and ACDD 1.3 find, one a line."""
    CheckSuite.load_all_available_checkers()
    names, output = ["cf:1.11", "acdd:1.3"], str(folder / "checked.json")
    ComplianceChecker.run_checker(
        str(file), names, 0, "normal", output_filename=output, output_format="json"
    )
    problems = []
    for found in json.loads(Path(output).read_text()).values():
        for priority in ("high_priorities", "medium_priorities", "low_priorities"):
            for check in found[priority]:
                missed = check["value"][0] < check["value"][1]
                problems += [_in_one_line(check["name"], m) for m in check["msgs"] if missed]
    return problems


def _in_one_line(name: str, message: str) -> str:
    variable = re.match(r'variable "\w+" missing', name)
    return f"{name} {message}" if variable else message


# netCDF4 warns for every array whose type states its byte order, as those of Zarr do.
@pytest.mark.filterwarnings("ignore:endian-ness of dtype")
@pytest.mark.filterwarnings("ignore:Problem fetching standard name table")  # no network
@pytest.mark.filterwarnings("ignore:Passing the dataset to every:DeprecationWarning")
def test_a_netcdf_file_of_xarray_passes_the_checkers(opened, tmp_path):
    opened.to_netcdf(tmp_path / "maps.nc")
    with xr.open_dataset(tmp_path / "maps.nc") as again:
        xr.testing.assert_equal(again.load(), opened.load())
    problems = said_by_checkers(tmp_path / "maps.nc", tmp_path)
    assert len(problems) > 3  # they were run, and say at least what cannot be otherwise
    patterns = [pattern for group in ALLOWED.values() for pattern in group]
    assert [p for p in problems if not any(re.search(q, p) for q in patterns)] == []


def test_the_attributes_are_those_of_the_zarr_conventions(opened):
    zarr_cm.validate_many(opened.attrs, ["proj", "spatial"])
    assert "zarr_conventions" not in opened.attrs
    assert {"spatial:dimensions", "spatial:bbox", "spatial:transform"} <= opened.attrs.keys()
    with pytest.raises((TypeError, ValueError), match="spatial:bbox"):
        zarr_cm.validate_many(opened.attrs | {"spatial:bbox": [1, 2]}, ["spatial"])


def test_attributes_say_what_a_value_means_and_where_it_comes_from(opened, demo):
    std = opened.soil_moisture_std.attrs
    assert "too large for the mean of the cell" in std["comment"]
    assert (std["interval_factor_50"], std["interval_factor_90"]) == (0.6057, 1.6234)
    assert std["uncertainty_of_cell_mean"] == "unknown"
    attrs = opened.attrs
    assert attrs["time_coverage_duration"] == f"P{opened.sizes['time']}D"
    assert (attrs["license"], attrs["creator_name"]) == ("not stated", "not stated")
    logged = json.loads((demo[0] / "demo" / "mlflow.json").read_text())
    assert attrs["mlflow_run"] == logged["parent"]
    for name in ("cube_sha256", "models_sha256", "sources_sha256"):
        assert re.fullmatch(r"[0-9a-f]{64}", attrs[name])
    assert attrs["history"].startswith(attrs["date_created"])


@pytest.fixture
def chromium():
    found = shutil.which("chromium")
    if found is None or not (PACKAGES / "ol").is_dir():
        pytest.skip("needs chromium and the packages that `make browser` installs with npm")
    return found


@pytest.mark.runs  # it needs the whole demo
def test_openlayers_reads_a_map_in_a_browser(maps_url, chromium, tmp_path):
    shutil.copytree(maps_url, tmp_path / "maps.zarr")
    (tmp_path / "page.html").write_text(PAGE)
    bundle = ["--bundle", "--log-level=error", f"--outfile={tmp_path / 'bundle.js'}"]
    environment = os.environ | {"NODE_PATH": str(PACKAGES)}
    command = [PACKAGES / ".bin" / "esbuild", BROWSER / "geozarr.js", *bundle]
    subprocess.run(command, check=True, env=environment)
    wanted = xr.open_zarr(maps_url, mask_and_scale=False)
    asked = {"path": "maps.zarr", "time": 100, "shape": list(wanted.soil_moisture.shape[1:])}
    with web.serve(tmp_path) as site, tempfile.TemporaryDirectory() as profile:
        page = f"{site.url}/page.html?{quote(json.dumps(asked))}"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command = [chromium, *options, f"--user-data-dir={profile}", page]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            try:
                end = time.monotonic() + 120
                while not site.received and time.monotonic() < end:
                    time.sleep(0.1)
            finally:
                browser.terminate()
        result = json.loads(site.received[0])
    assert "error" not in result
    np.testing.assert_array_equal(result["values"], wanted.soil_moisture.isel(time=100))
    assert result["projection"] == "EPSG:6933"
    assert result["extent"] == pytest.approx(wanted.attrs["spatial:bbox"])
