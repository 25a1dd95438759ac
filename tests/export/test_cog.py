"""Cloud-Optimised GeoTIFF: valid, and the same as the maps, in both reference systems."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
import rioxarray
from made_maps import TARGET, WINDOW, Said
from pyproj import Transformer
from rasterio.io import MemoryFile
from rasterio.windows import Window as Part
from rio_cogeo import cog_validate

from pipeline.export import Options, cog, export
from pipeline.grid import ease

DAY, MONTH = "2016-12-31", "2017-01"


@pytest.fixture(scope="module")
def exported(made, tmp_path_factory):
    """A day and two months in the grid of the maps, and a day in degrees."""
    folder = tmp_path_factory.mktemp("cog")
    for place, options in {
        "day": Options("cog", period=f"{DAY}..{DAY}"),
        "month": Options("cog", every="month", period="2016-12-30.."),
        "degrees": Options("cog", period=f"{DAY}..{DAY}", crs="EPSG:4326"),
    }.items():
        export(made.root, str(folder / place), options, Said())
    return folder


def files_of(folder):
    values = next(p for p in sorted(folder.glob("*.tif")) if "quality_flag" not in p.name)
    return values, next(folder.glob(f"*quality_flag_{values.name.rpartition('_')[2]}"))


def test_all_are_valid_and_have_overviews(exported):
    paths = sorted(exported.rglob("*.tif"))
    assert len(paths) == 2 + 6 + 2
    for path in paths:
        valid, errors, warnings = cog_validate(path, strict=True, quiet=True)
        assert (valid, errors, warnings) == (True, [], []), path
        with rasterio.open(path) as file:
            assert file.overviews(1) == [2], path


def test_a_day_has_the_values_of_the_maps_and_what_they_mean(exported, made):
    values, flags = files_of(exported / "day")
    assert values.name == f"demo_insitu_{TARGET}_{DAY}.tif"
    day = made.opened().sel(time=DAY)
    opened = rioxarray.open_rasterio(values, mask_and_scale=True)
    np.testing.assert_allclose(opened.values[0], day[TARGET].values, atol=1e-6)
    np.testing.assert_allclose(opened.values[1], day[f"{TARGET}_std"].values, atol=1e-6)
    np.testing.assert_allclose(opened.x, day.x)
    np.testing.assert_allclose(opened.y, day.y)
    with rasterio.open(values) as file:
        assert file.crs.to_epsg() == 6933
        assert file.descriptions == (TARGET, f"{TARGET}_std")
        assert file.units == ("m3 m-3", "m3 m-3")
        assert (file.scales, file.offsets, file.nodata) == ((1e-4, 1e-4), (0.0, 0.0), -32768)
        assert file.dtypes == ("int16", "int16")
        assert file.tags(1)["comment"] == day[TARGET].attrs["comment"]
        assert file.tags()["arm"] == "insitu"
        assert file.tags()["time_coverage_start"] == DAY
        assert file.tags()["TIFFTAG_DATETIME"] == "2016:12:31 00:00:00"
    with rasterio.open(flags) as file:
        assert (file.dtypes, file.nodata) == (("uint8",), 255)
        np.testing.assert_array_equal(file.read(1), day.quality_flag.values)
        assert file.tags(1)["flag_masks"] == "1 2 4 8 16 32"


def test_overviews_average_values_and_pick_flags(exported, made):
    values, flags = files_of(exported / "day")
    with rasterio.open(values, overview_level=0) as file, rasterio.open(values) as full:
        cells = np.ma.mean(full.read(1, masked=True, window=Part(0, 0, 2, 2)))
        assert abs(file.read(1)[0, 0] - cells) <= 1
    with rasterio.open(flags, overview_level=0) as file, rasterio.open(flags) as full:
        assert file.read(1)[0, 0] in full.read(1, window=Part(0, 0, 2, 2))
        assert set(np.unique(file.read(1))) <= {0, 1, 2, 4, 6}


def test_a_month_is_the_mean_of_its_days_with_their_number(exported, made):
    folder = exported / "month"
    month = made.opened().sel(time=MONTH)
    opened = rioxarray.open_rasterio(folder / f"demo_insitu_{TARGET}_{MONTH}.tif", masked=True)
    for band, name in zip(opened, (TARGET, f"{TARGET}_std"), strict=True):
        mean = month[name].mean("time").values
        np.testing.assert_allclose(band * 1e-4, mean, atol=0.5e-4 + 1e-9)
    with rasterio.open(folder / f"demo_insitu_{TARGET}_quality_flag_{MONTH}.tif") as file:
        assert file.descriptions == ("quality_flag", "days")
        flags, days = file.read()
        assert file.tags(1)["comment"].startswith("all bits that are set on any day")
    np.testing.assert_array_equal(days, month[TARGET].notnull().sum("time"))
    stored = month.quality_flag.values.astype(np.uint8)
    np.testing.assert_array_equal(flags, np.bitwise_or.reduce(stored, axis=0))
    # The first and the last month are what the period has of them.
    with rasterio.open(folder / f"demo_insitu_{TARGET}_quality_flag_2016-12.tif") as file:
        assert file.read(2).max() == 2
        assert file.tags()["time_coverage_end"] == "2016-12-31"


def test_in_degrees_a_pixel_has_value_deviation_and_flags_of_its_cell(exported, made):
    paths = files_of(exported / "degrees")
    day = made.opened().sel(time=DAY)
    with rasterio.open(paths[0]) as values, rasterio.open(paths[1]) as flags:
        assert values.crs.to_epsg() == flags.crs.to_epsg() == 4326
        assert values.transform == flags.transform
        rows, cols = np.indices(values.shape)
        lon, lat = (v.reshape(values.shape) for v in values.xy(rows.ravel(), cols.ravel()))
        y, x = WINDOW.cells_of(lat, lon)
        # PROJ's versions may differ by a hair, so the centres on an edge are left out.
        east, north = Transformer.from_crs(4326, 6933, always_xy=True).transform(lon, lat)
        left, _, _, top = WINDOW.bounds
        size = values_size(made)
        off_edge = [
            np.abs(p / size - np.round(p / size)) > 1e-3 for p in (east - left, top - north)
        ]
        inside = (y >= 0) & (x >= 0) & off_edge[0] & off_edge[1]
        assert inside.mean() > 0.9
        step = 1e-4
        for band, name in enumerate((TARGET, f"{TARGET}_std"), 1):
            found = values.read(band, masked=True).filled(-32768)[inside]
            expected = np.nan_to_num(np.round(day[name].values / step), nan=-32768)
            np.testing.assert_array_equal(found, expected[y, x][inside])
        np.testing.assert_array_equal(flags.read(1)[inside], day.quality_flag.values[y, x][inside])
        assert (flags.read(1)[(y < 0) | (x < 0)] == 255).all()


def test_maps_of_the_globe_in_degrees_reach_from_180_to_180():
    globe = ease.Window(0, 0, 406, 964, refinement=1)
    left, bottom, _, top = globe.bounds
    columns = np.broadcast_to(np.arange(964, dtype=np.int16), globe.cell_shape)
    size = (top - bottom) / 406
    tags = {"time_coverage_start": DAY}
    bands = [cog.Band("column", columns, {})]
    data, _ = cog.encode(bands, -1, (size, left, top), "EPSG:4326", tags)
    with MemoryFile(data) as raw, raw.open() as file:
        bounds, values = file.bounds, file.read(1)
    lats, lons = globe.cell_edges
    np.testing.assert_allclose(bounds, [lons[0], lats[-1], lons[-1], lats[0]], atol=1e-6)
    assert (values[:, 0] == 0).all()
    assert (values[:, -1] == 963).all()
    assert (values >= 0).all()


def values_size(made) -> float:
    return made.opened().attrs["spatial:transform"][0]


def test_gdalinfo_reads_all_of_it(exported):
    """The program of GDAL itself, of whatever version the system has."""
    gdalinfo = shutil.which("gdalinfo")
    if gdalinfo is None:
        pytest.skip("gdalinfo is not installed: apt-get install gdal-bin")
    path = files_of(exported / "day")[0]
    command = [gdalinfo, "-json", "-stats", "--config", "GDAL_PAM_ENABLED", "NO", str(path)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert told["size"] == [520, 8]
    assert told["metadata"]["IMAGE_STRUCTURE"]["LAYOUT"] == "COG"
    assert '"EPSG",6933' in told["coordinateSystem"]["wkt"]
    value, std = told["bands"]
    assert (value["description"], std["description"]) == (TARGET, f"{TARGET}_std")
    assert (value["type"], value["noDataValue"], value["unit"]) == ("Int16", -32768, "m3 m-3")
    assert (value["scale"], value["offset"]) == (1e-4, 0)
    assert value["overviews"] == [{"size": [260, 4]}]
    assert 500 <= value["minimum"] <= value["maximum"] <= 4000
