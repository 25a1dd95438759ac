"""Rasters of many kinds through their driver: real GeoTIFFs, local, over HTTP and on S3."""

from __future__ import annotations

import datetime

import intake
import miniatures_raster
import numpy as np
import pyproj
import pytest
import rasterio
import yaml

from pipeline.errors import DataError
from pipeline.grid.ease import Window
from pipeline.grid.regrid import ProjectedRegridder, Regridder, edges_between, projected_extent
from pipeline.sources.raster import RasterSource
from pipeline.sources.raster.layers import block_means, metres_per_degree, terrain_slope
from pipeline.sources.shared import http_errors

RNG = np.random.default_rng
SAND = {"sand": {"from": 1, "units": "g kg-1", "to": "percent"}}
WORLDCOVER = "ESA_WorldCover_10m_2021_v200_{ns}{lat:02d}{ew}{lon:03d}_Map.tif"
NAME = "Copernicus_DSM_COG_30_{ns}{lat:02d}_00_{ew}{lon:03d}_00_DEM"
DEM = {"elevation": {"from": "1", "units": "m"}}
STEEP = {"slope": {"from": "1", "units": "degree", "derive": "slope"}}

COVERS = {
    "cover_tree": {"from": 1, "units": "1", "classes": [10, 95]},
    "cover_water": {"from": 1, "units": "1", "classes": [80]},
}


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """A server in a process of its own, and its folder."""
    folder = tmp_path_factory.mktemp("web")
    with miniatures_raster.served(folder) as site:
        yield site, folder


@pytest.fixture
def impatient(monkeypatch):
    """Ask twice, at once."""
    monkeypatch.setattr(http_errors, "ATTEMPTS", 2)
    monkeypatch.setattr(http_errors, "FIRST_WAIT_S", 0.01)


def sand(folder, shape=(130, 203), **options):
    """A raster in SoilGrids' form: Homolosine, 250 m, int16 in g/kg, -32768 for none."""
    values = RNG(1).integers(0, 900, shape).astype("int16")
    values[:4, :8] = -32768
    values[4, 8:12] = values[5, 8] = -32768
    options = {"nodata": -32768, "overviews": (2, 4)} | options
    miniatures_raster.write(
        folder / "sand.tif", values, miniatures_raster.HOMOLOSINE, (-9e6, 4.2e6), 250.0, **options
    )
    return values


def source(path, mapping, region=None, **args):
    opened = RasterSource(str(path), mapping, **args)
    opened.region = region
    return opened


def test_a_projected_raster_is_averaged_and_nodata_left_out(tmp_path):
    values = sand(tmp_path)
    args = {"resolution": 1000, "nodata": -32768, "crs": "ESRI:54052"}
    found = source(tmp_path / "sand.tif", SAND, **args).to_dask()
    assert found.sand.dims == ("y", "x")
    assert found.sand.chunks is not None
    assert found.sand.dtype == np.float32
    assert found.sand.attrs["units"] == "percent"
    blocks = np.where(values == -32768, np.nan, values)[:128, :200].reshape(32, 4, 50, 4)
    valid = np.isfinite(blocks).sum((1, 3))
    expected = np.where(valid >= 8, np.nansum(blocks, (1, 3)) / np.maximum(valid, 1), np.nan)
    np.testing.assert_allclose(found.sand, expected / 10, rtol=1e-6)
    assert np.isnan(found.sand[0, :2]).all()
    assert np.isfinite(found.sand[1, 2])
    np.testing.assert_array_equal(found.y[:2], [4.2e6 - 500, 4.2e6 - 1500])
    np.testing.assert_array_equal(found.x[:2], [-9e6 + 500, -9e6 + 1500])
    assert "Goode Homolosine" in pyproj.CRS(found.attrs["crs"]).coordinate_operation.method_name


def test_a_raster_as_stored_and_by_overviews(tmp_path):
    values = sand(tmp_path, (128, 200), nodata=None)
    whole = source(tmp_path / "sand.tif", SAND, nodata=-32768).to_dask().sand
    expected = np.where(values == -32768, np.nan, values / 10)
    np.testing.assert_allclose(whole, expected, rtol=1e-6)
    some = source(tmp_path / "sand.tif", SAND, resolution=1000, read_step=2).to_dask().sand
    assert some.shape == (32, 50)
    assert abs(float(some[2:].mean()) - float(whole[8:].mean())) < 1


def test_blocks_follow_one_another(tmp_path, monkeypatch):
    sand(tmp_path, (128, 200))
    args = {"resolution": 1000}
    whole = source(tmp_path / "sand.tif", SAND, **args).to_dask().sand
    monkeypatch.setattr("pipeline.sources.raster.mosaic._BLOCK_SIZE", 28)
    parts = source(tmp_path / "sand.tif", SAND, **args).to_dask().sand
    assert parts.chunks == ((7, 7, 7, 7, 4), (7,) * 7 + (1,))
    np.testing.assert_array_equal(parts, whole)


def test_scale_and_offset_of_the_file_are_honoured(tmp_path):
    values = np.arange(64 * 64, dtype="int16").reshape(64, 64)
    options = {"scale": 0.01, "offset": 5.0, "units": "g/kg", "names": ["sand_mean"]}
    miniatures_raster.write(tmp_path / "a.tif", values, "EPSG:5070", (0, 2e6), 30.0, **options)
    mapping = {"sand": {"from": "sand_mean", "units": "g kg-1"}}
    found = source(tmp_path / "a.tif", mapping, crs="EPSG:5070").to_dask()
    np.testing.assert_allclose(found.sand, values * 0.01 + 5, rtol=1e-6)


def test_stored_values_may_have_a_range_and_a_scale_that_the_file_does_not_say(tmp_path):
    values = np.full((8, 8), 25, "uint8")
    values[0, 0], values[0, 1] = 249, 100
    miniatures_raster.write(tmp_path / "lai.tif", values, "EPSG:4326", (0, 8), 1.0)
    mapping = {"lai": {"from": "1", "units": "1", "scale": 0.1, "valid": [0, 100]}}
    found = source(tmp_path / "lai.tif", mapping).to_dask().lai
    np.testing.assert_allclose(found[0, :3], [np.nan, 10, 2.5], rtol=1e-6)
    miniatures_raster.write(tmp_path / "lai.tif", values, "EPSG:4326", (0, 8), 1.0, scale=0.1)
    np.testing.assert_allclose(source(tmp_path / "lai.tif", mapping).to_dask().lai[1], 2.5)
    miniatures_raster.write(tmp_path / "lai.tif", values, "EPSG:4326", (0, 8), 1.0, scale=0.01)
    with pytest.raises(DataError, match=r"lai: scale 0\.01, expected 0\.1"):
        source(tmp_path / "lai.tif", mapping).to_dask()


def test_one_file_a_variable_through_plain_intake(web):
    site, folder = web
    for n, name in enumerate(("clay", "silt")):
        values = np.full((32, 40), 100 * (n + 1), "int16")
        path = folder / "latest" / name / f"{name}_0-5cm_mean.tif"
        miniatures_raster.write(
            path, values, miniatures_raster.HOMOLOSINE, (-9e6, 4.2e6), 250.0, nodata=-32768
        )
    spec = {
        "driver": "pipeline.sources.raster.RasterSource",
        "args": {
            "urlpath": f"{site.url}/latest/{{from}}/{{from}}_0-5cm_mean.tif",
            "resolution": 1000,
            "mapping": {
                n: {"from": n, "units": "g kg-1", "to": "percent"} for n in ("clay", "silt")
            },
        },
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump({"sources": {"soil": spec}}))
    found = intake.open_catalog(str(folder / "catalog.yaml"))["soil"].to_dask()
    assert set(found) == {"clay", "silt"}
    np.testing.assert_allclose(found.clay, np.full((8, 10), 10.0))
    np.testing.assert_allclose(found.silt, np.full((8, 10), 20.0))


def test_classes_become_fractions_and_an_absent_tile_nothing(web):
    site, folder = web
    classes = np.full((120, 120), 30, "uint8")
    classes[:40, :40], classes[:4, :4], classes[4:8, :4], classes[80:] = 10, 95, 80, 0
    classes[:2, :4] = 0
    miniatures_raster.worldcover(folder, 39, -108, classes)
    opened = source(
        f"{site.url}/{WORLDCOVER}",
        COVERS,
        region=(-107.5, 39.5, -104, 41.5),
        tiles={"degrees": 3, "like": [39, -108]},
        resolution=0.1,
        nodata=0,
    )
    site.asked()
    found = opened.to_dask()
    assert len({path for _, path, _ in site.asked()}) == 1
    assert found.cover_tree.shape == (30, 60)
    np.testing.assert_allclose(found.lat_bnds[[0, -1]], [[42, 41.9], [39.1, 39]])
    np.testing.assert_allclose(found.lon_bnds[[0, -1]], [[-108, -107.9], [-102.1, -102]])
    found = found.compute()
    tree, water = found.cover_tree.values, found.cover_water.values
    assert np.isnan(tree[:, 30:]).all()
    assert np.isnan(tree[20:]).all()
    np.testing.assert_array_equal(tree[1, 2:30], [1] * 8 + [0] * 20)
    assert (tree[0, 0], water[0, 0]) == (1, 0)  # half of it none, the other of class 95
    assert (tree[1, 0], water[1, 0]) == (0, 1)
    zero = source(
        f"{site.url}/{WORLDCOVER}", COVERS, (-107.5, 39.5, -104, 41.5),
        tiles={"degrees": 3}, resolution=0.1, absent=0, read_step=2,
    ).to_dask()  # fmt: skip
    assert (zero.cover_tree[:, 30:] == 0).all()
    assert float(zero.cover_tree[1, 5]) == 1


def test_elevation_and_slope_of_tiles_of_several_widths(web):
    site, folder = web
    rows = np.arange(120)
    hill = np.repeat(rows[::-1, None] * 50.0, 120, 1)  # 50 m a row, up to the north
    miniatures_raster.copernicus(folder, 49, 10, hill)
    miniatures_raster.copernicus(folder, 50, 10, hill[:, :80] + 6000)
    url = f"{site.url}/{NAME}/{NAME}.tif"
    args = {"tiles": {"degrees": 1}, "resolution": 0.1}
    found = source(url, DEM | STEEP, (10.45, 49.5, 10.55, 50.5), **args).to_dask().compute()
    assert found.elevation.shape == (20, 10)
    np.testing.assert_allclose(found.lat_bnds[0, 0], 51 + 0.5 / 120)
    np.testing.assert_allclose(found.elevation[:, 0], 11675 - 600 * np.arange(20), rtol=1e-6)
    north, _ = metres_per_degree(np.array([50.5, 49.5]))
    expected = np.degrees(np.arctan(50 * 120 / north))
    np.testing.assert_allclose(found.slope[[4, 14], 3], expected, rtol=2e-5)
    assert np.ptp(found.slope.values) < 0.1


def test_tiles_reach_over_every_footprint_of_a_region(tmp_path):
    miniatures_raster.worldcover(tmp_path, 39, -108, np.full((30, 30), 10, "uint8"))
    args = {"tiles": {"degrees": 3, "like": [39, -108]}, "resolution": 0.1}
    region = (-107.95, 39.02, -106, 41)
    found = source(tmp_path / WORLDCOVER, COVERS, region, **args).to_dask()
    lat, lon = Window.from_bbox(*region, 1).cell_edges
    assert lon.min() < -108
    assert float(found.lon_bnds.min()) == -111
    assert float(found.lat_bnds.min()) <= lat.min() < 39
    polar = source(tmp_path / WORLDCOVER, COVERS, (-108, 86, -106, 88), **args)
    assert polar._tiles().souths == [87, 84]


def test_slope_of_a_plane_and_beside_nodata():
    lat = np.array([60.0, 60, 60])
    north, east = metres_per_degree(lat)
    np.testing.assert_allclose([north[0], east[0]], [111_412.2, 55_800.0], rtol=1e-5)
    dem = np.add.outer(np.arange(3) * 3.0, np.arange(4) * 4.0)
    np.testing.assert_allclose(
        terrain_slope(dem, np.full(3, 1.0), np.full(3, 1.0)), 78.690067, rtol=1e-6
    )
    dem[1, 3] = np.nan
    assert np.isnan(terrain_slope(dem, np.ones(3), np.ones(3))[1, 2])


def test_slope_in_a_raster_of_blocks_has_no_seams(tmp_path, monkeypatch):
    y, x = np.mgrid[:64, :96]
    dem = (40 * np.sin(y / 5) * np.cos(x / 7)).astype("float32")
    miniatures_raster.write(tmp_path / "dem.tif", dem, "EPSG:5070", (0, 2e6), 30.0, units="metre")
    args = {"resolution": 120}
    whole = source(tmp_path / "dem.tif", STEEP, **args).to_dask().slope.values
    monkeypatch.setattr("pipeline.sources.raster.mosaic._BLOCK_SIZE", 16)
    np.testing.assert_allclose(source(tmp_path / "dem.tif", STEEP, **args).to_dask().slope, whole)
    steep = (
        terrain_slope(dem, np.full(64, 30.0), np.full(64, 30.0)).reshape(16, 4, 24, 4).mean((1, 3))
    )
    np.testing.assert_allclose(whole, steep, rtol=1e-5)
    assert whole.max() > 5


def test_blocks_may_split_values():
    values = np.arange(12.0).reshape(2, 6)
    found = block_means(values, np.ones((2, 6), bool), (1, 4))
    np.testing.assert_allclose(found, [[(3 * 2 + 4) / 3, (4 + 5 * 2) / 3, (6 * 2 + 7) / 3, 23 / 3]])
    valid = np.ones((2, 6), bool)
    valid[:, :1] = False
    assert np.isnan(block_means(values, valid, (1, 4))[0, 0])


def daily(folder, days, name="GSM3_%Y%m%d.tif", size=(8, 16)):
    for n, day in enumerate(days):
        values = np.full(size, 0.1 + 0.01 * n, "float32")
        values[0, 0] = -9999
        path = folder / day.strftime(name)
        miniatures_raster.write(path, values, "EPSG:4326", (-180, 90), 22.5, nodata=-9999)


def test_daily_files_with_a_day_missing_over_a_leap_day(tmp_path):
    days = [datetime.date(2020, 2, 27) + datetime.timedelta(n) for n in range(4)]
    daily(tmp_path, days)
    (tmp_path / "GSM3_20200228.tif").unlink()
    mapping = {"soil_moisture": {"from": 1, "units": "m3 m-3"}}
    args = {"metadata": {"period": "2020-02-27..2020-03-01"}, "nodata": -9999}
    found = source(tmp_path / "GSM3_%Y%m%d.tif", mapping, **args).to_dask()
    assert found.soil_moisture.dims == ("time", "lat", "lon")
    assert found.soil_moisture.chunks[0] == (1, 1, 1, 1)
    np.testing.assert_array_equal(found.time.values.astype("datetime64[D]"), days)
    np.testing.assert_allclose(found.soil_moisture[:, 4, 4], [0.1, np.nan, 0.12, 0.13])
    assert np.isnan(found.soil_moisture[:, 0, 0]).all()
    wanted = source(tmp_path / "GSM3_%Y%m%d.tif", mapping, metadata={"period": "2015-01-01.."})
    with pytest.raises(DataError, match="has no last day, and none is requested"):
        wanted.to_dask()
    wanted.period = (days[2], days[3])
    np.testing.assert_allclose(wanted.to_dask().soil_moisture[:, 4, 4], [0.12, 0.13])


def test_composites_become_a_mean(tmp_path):
    days = [datetime.date(2019, 12, 19), datetime.date(2019, 12, 27), datetime.date(2020, 1, 1)]
    daily(tmp_path, days, "lai_%Y%j.tif")
    mapping = {"lai": {"from": 1, "units": "1"}}
    args = {"every": 8, "mean_over_time": True, "metadata": {"period": "2019-12-19..2020-01-08"}}
    opened = source(tmp_path / "lai_%Y%j.tif", mapping, **args)
    found = opened.to_dask()
    assert found.lai.dims == ("lat", "lon")
    np.testing.assert_allclose(found.lai[4, 4], 0.11, rtol=1e-6)
    assert found.lai.attrs["units"] == "1"


@pytest.mark.parametrize(
    ("statuses", "told"),
    [
        ((503,), None),
        ((403,) * 9, r"refused \(403\)"),
        ((401,) * 9, r"refused \(401\)"),
        ((404,) * 9, "not found"),
        ((503,) * 99, "answers 503"),
    ],
)
def test_what_a_server_answers(web, impatient, caplog, statuses, told):
    site, folder = web
    sand(folder)
    fresh = {"block_size": 1_234_567}  # else its client is that of tests before
    url = f"{site.url}/sand.tif?sig=planted-secret"
    opened = source(url, SAND, resolution=1000, storage_options=fresh)
    site.fails("sand.tif", *statuses)
    if told is None:
        assert float(opened.to_dask().sand.max()) > 40
        return
    with pytest.raises(DataError, match=told) as caught:
        opened.to_dask()
    assert "planted-secret" not in f"{caught.value}{caught.value.__cause__}"
    site.fails("sand.tif")
    lazy = opened.to_dask()
    site.fails("sand.tif", *statuses)
    with pytest.raises(DataError, match=told) as caught:
        lazy.sand.load()
    assert "planted-secret" not in f"{caught.value}{caught.value.__cause__}"
    site.fails("sand.tif")


def test_a_moved_mosaic_is_no_ocean(web):
    site, _ = web
    args = {
        "tiles": {"degrees": 3},
        "resolution": 0.1,
        "metadata": {"origin": "esa-worldcover.org"},
    }
    opened = source(f"{site.url}/moved/{WORLDCOVER}", COVERS, (0.5, 40, 5.5, 43), **args)
    with pytest.raises(DataError, match=r"not found: none of 4 files exists.*esa-worldcover"):
        opened.to_dask()


@pytest.mark.parametrize("kept", [100, 5000])
def test_a_truncated_file_is_named(tmp_path, kept):
    values = RNG(0).integers(0, 900, (128, 200)).astype("int16")
    path = miniatures_raster.write(
        tmp_path / "s.tif", values, miniatures_raster.HOMOLOSINE, (-9e6, 4.2e6), 250.0
    )
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    with pytest.raises(DataError, match=r"s\.tif: cannot be read: truncated"):
        source(path, SAND).to_dask().sand.load()


def test_every_way_in_which_a_raster_is_not_as_the_entry_says(tmp_path):
    sand(tmp_path, units="percent")
    mapping = SAND | {"clay": {"from": "clay_mean", "units": "g kg-1"}}
    with pytest.raises(DataError) as caught:
        source(tmp_path / "sand.tif", mapping, crs="EPSG:5070", nodata=-9999).to_dask()
    told = str(caught.value)
    assert "4 problems" in told
    assert "expected EPSG:5070" in told
    assert "sand: nodata -32768, expected -9999" in told
    assert "sand: units 'percent', expected 'g kg-1'" in told
    assert "clay: band clay_mean missing; the file has ['1']" in told


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"resolution": 900}, "expected a multiple of the cell width 250, such as 1000"),
        (
            {"resolution": 1000, "read_step": 3},
            "expected a divisor of 4, the raster's cells",
        ),
    ],
)
def test_a_resolution_that_does_not_fit_is_refused(tmp_path, args, told):
    sand(tmp_path)
    with pytest.raises(DataError, match=told):
        source(tmp_path / "sand.tif", SAND, **args).to_dask()


def test_a_raster_without_a_place_and_a_tile_at_another(tmp_path):
    profile = {"driver": "GTiff", "width": 8, "height": 8, "count": 1, "dtype": "uint8"}
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        rasterio.open(tmp_path / "bare.tif", "w", **profile).close()
    with pytest.raises(DataError, match="has no georeference, neither a transform nor a CRS"):
        source(tmp_path / "bare.tif", COVERS).to_dask()
    path = miniatures_raster.worldcover(tmp_path, 39, -108, np.full((60, 60), 10, "uint8"))
    path.rename(tmp_path / "ESA_WorldCover_10m_2021_v200_N42W108_Map.tif")
    args = {"tiles": {"degrees": 3}, "resolution": 0.1}
    with pytest.raises(DataError, match=r"lies at \(-108, 39, -105, 42\), expected \(-108, 42"):
        source(tmp_path / WORLDCOVER, COVERS, (-107, 43, -106, 44), **args).to_dask()


def test_files_of_another_grid_are_refused(tmp_path):
    for name, shape in (("clay", (8, 8)), ("silt", (8, 12))):
        values = np.zeros(shape, "int16")
        miniatures_raster.write(tmp_path / f"{name}.tif", values, "EPSG:4326", (0, 8), 1.0)
    mapping = {name: {"from": name, "units": "percent"} for name in ("clay", "silt")}
    with pytest.raises(DataError, match=r"silt\.tif: has another grid than the first raster"):
        source(tmp_path / "{from}.tif", mapping).to_dask()
    days = [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]
    daily(tmp_path, days[:1])
    daily(tmp_path, days[1:], size=(8, 12))
    args = {"metadata": {"period": "2020-01-01..2020-01-02"}}
    opened = source(tmp_path / "GSM3_%Y%m%d.tif", {"lai": {"from": 1, "units": "1"}}, **args)
    with pytest.raises(DataError, match=r"GSM3_20200102\.tif: its 8 x 12 cells are not on"):
        opened.to_dask().lai.load()


def test_the_digest_is_that_of_the_content_wherever_it_lies(tmp_path, web):
    site, folder = web
    sand(folder)
    sand(tmp_path)
    there = source(f"{site.url}/sand.tif?sig=1", SAND).digest()
    here = source(tmp_path / "sand.tif", SAND).digest()
    assert here == there
    sand(tmp_path, nodata=None)
    assert source(tmp_path / "sand.tif", SAND).digest() != here


def test_a_raster_on_s3(s3, tmp_path):
    sand(tmp_path)
    client = s3.client()
    client.upload_file(str(tmp_path / "sand.tif"), s3.bucket, "rasters/sand.tif")
    found = source(s3.url("rasters", "sand.tif"), SAND, resolution=1000)
    here = source(tmp_path / "sand.tif", SAND, resolution=1000).to_dask()
    np.testing.assert_array_equal(found.to_dask().sand, here.sand)
    with pytest.raises(DataError, match="not found"):
        source(s3.url("rasters", "other.tif"), SAND).to_dask()
    keys = {"key": "nobody", "secret": "planted-secret"}
    with pytest.raises(DataError, match="refused") as caught:
        source(s3.url("rasters", "sand.tif"), SAND, storage_options=keys).to_dask()
    assert "planted-secret" not in str(caught.value)


@pytest.mark.parametrize("step", [0.01, 0.125, 0.25])
def test_boxes_as_rasters_of_any_resolution_give_the_same_means(tmp_path, step):
    window = Window.from_bbox(-98.9, 38.1, -98.2, 38.6, 4)
    boxes = RNG(4).normal(280, 20, (8, 8))
    n = round(0.25 / step)
    values = np.repeat(np.repeat(boxes, n, 0), n, 1)
    miniatures_raster.write(tmp_path / "t.tif", values, "EPSG:4326", (-99.5, 39.25), step)
    args = {"resolution": 0.05 if step == 0.01 else None}
    found = source(tmp_path / "t.tif", DEM, **args).to_dask()
    edges = (np.append(b[:, 0], b[-1, 1]) for b in (found.lat_bnds.values, found.lon_bnds.values))
    means = Regridder(*edges, *window.cell_edges)(found.elevation.values)
    lat, lon = 39.25 - 0.25 * np.arange(9), -99.5 + 0.25 * np.arange(9)
    expected = Regridder(lat, lon, *window.cell_edges)(boxes)
    np.testing.assert_allclose(means, expected, rtol=1e-6)


def test_a_smooth_field_as_a_projected_raster_keeps_its_integral(tmp_path):
    window = Window.from_bbox(-98.9, 38.1, -98.2, 38.6, 4)
    x_min, _, _, y_max = projected_extent("EPSG:5070", *window.cell_edges)
    left, top = np.floor(x_min / 1000 - 1) * 1000, np.ceil(y_max / 1000 + 1) * 1000
    x, y = np.meshgrid(left + 125 + 250 * np.arange(600), top - 125 - 250 * np.arange(640))
    to_metres = pyproj.Transformer.from_crs("EPSG:5070", "EPSG:6933", always_xy=True)
    e, n = to_metres.transform(x, y)
    a, b = 2 * np.pi / 210_000, 2 * np.pi / 170_000
    values = 280 + 9 * np.sin(a * e + b * n)
    miniatures_raster.write(tmp_path / "f.tif", values, "EPSG:5070", (left, top), 250.0)
    found = source(tmp_path / "f.tif", DEM, resolution=1000).to_dask()
    edges = edges_between(found.y.values), edges_between(found.x.values)
    regridder = ProjectedRegridder(found.attrs["crs"], *edges, *window.cell_edges)
    means = regridder(found.elevation.values.astype(float))
    west, south, east, north = window.bounds
    wave = [np.sin(a * i + b * j) for i in (west, east) for j in (south, north)]
    size = (east - west) * (north - south)
    exact = 280 - 9 / (a * b) * (wave[0] - wave[1] - wave[2] + wave[3]) / size
    rows = np.abs(np.diff(np.sin(np.radians(window.cell_edges[0]))))
    assert np.isfinite(means).all()
    np.testing.assert_allclose(means.mean(), exact, rtol=1e-6)
    assert np.ptp(rows) < 1e-3 * rows.mean()
