"""Regridding from projected grids: against overlaps cut one by one, and its own promises."""

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.grid.ease import Window, project
from pipeline.grid.regrid import ProjectedRegridder, Regridder, edges_between, projected_extent

DAYMET = "+proj=lcc +lat_0=42.5 +lon_0=-100 +lat_1=25 +lat_2=60 +ellps=WGS84 +units=m"
CONUS404 = "+proj=lcc +lat_0=39.1 +lon_0=-97.9 +lat_1=30 +lat_2=50 +R=6370000 +units=m"
NLCD = "EPSG:5070"
SOILGRIDS = "+proj=igh +datum=WGS84 +units=m"
GRIDS = {"daymet": DAYMET, "conus404": CONUS404, "nlcd": NLCD, "soilgrids": SOILGRIDS}


def source_edges(crs, lat, lon, step, margin=1):
    """y (decreasing) and x edges of whole cells over a box, and `margin` cells round it."""
    x_min, y_min, x_max, y_max = projected_extent(crs, lat, lon)
    low_y, high_y = np.floor(y_min / step) - margin, np.ceil(y_max / step) + margin
    low_x, high_x = np.floor(x_min / step) - margin, np.ceil(x_max / step) + margin
    return np.arange(high_y, low_y - 1, -1) * step, np.arange(low_x, high_x + 1) * step


def corners(crs, y_edges, x_edges):
    """(y + 1, x + 1, 2) nodes of a grid in EPSG:6933."""
    to_metres = pyproj.Transformer.from_crs(crs, "EPSG:6933", always_xy=True)
    return np.stack(to_metres.transform(*np.meshgrid(x_edges, y_edges)), -1)


def polygons(crs, y_edges, x_edges):
    """(y, x) polygons of a grid's cells in EPSG:6933, made one by one."""
    nodes = corners(crs, y_edges, x_edges)
    made = np.empty((len(y_edges) - 1, len(x_edges) - 1), object)
    for i, j in np.ndindex(made.shape):
        made[i, j] = shapely.Polygon(
            [nodes[i, j], nodes[i, j + 1], nodes[i + 1, j + 1], nodes[i + 1, j]]
        )
    return made


def plain(values, cells, lat, lon):
    """(lat, lon) means of (y, x) values, each pair of cells cut by itself."""
    made = np.full((len(lat) - 1, len(lon) - 1), np.nan)
    y, x = project(lat, 0.0)[1], project(0.0, lon)[0]
    for i, j in np.ndindex(made.shape):
        box = shapely.box(
            min(x[j : j + 2]), min(y[i : i + 2]), max(x[j : j + 2]), max(y[i : i + 2])
        )
        total = covered = 0.0
        for value, cell in zip(values.ravel(), cells.ravel(), strict=True):
            area = cell.intersection(box).area
            if np.isfinite(value):
                total, covered = total + area * value, covered + area
        if covered >= 0.5 * box.area:
            made[i, j] = total / covered
    return made


def areas(lat, lon):
    """(row, column) area of the target's cells, m2."""
    y, x = project(lat, 0.0)[1], np.asarray(lon) * (project(0.0, 90.0)[0] / 90)
    return np.abs(np.outer(np.diff(y), np.diff(x)))


@pytest.mark.parametrize("crs", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("step", [11_000, 60_000])
def test_means_are_the_overlaps_cut_one_by_one(crs, step):
    rng = np.random.default_rng(step)
    lat, lon = np.array([38.0, 37.5, 37.1, 36.9]), np.array([-99.0, -98.6, -97.7, -97.5])
    y_edges, x_edges = source_edges(crs, lat, lon, step)
    values = rng.normal(size=(2, 2, len(y_edges) - 1, len(x_edges) - 1))
    y_edges, values = y_edges[:-2], values[..., :-2, :]  # a southern part without the source
    values[1, 0, : len(y_edges) // 2, : len(x_edges) // 2] = np.nan
    found = ProjectedRegridder(crs, y_edges, x_edges, lat, lon)(values)
    cells = polygons(crs, y_edges, x_edges)
    for lead in np.ndindex(2, 2):
        np.testing.assert_allclose(found[lead], plain(values[lead], cells, lat, lon), rtol=1e-8)
    assert found.shape == (2, 2, 3, 3)
    assert np.isfinite(found[0]).any()


def test_order_of_rows_and_columns_and_turns_of_longitude_change_nothing():
    lat, lon = np.array([38.0, 37.5, 37.1, 36.9]), np.array([-99.0, -98.6, -97.7, -97.5])
    y_edges, x_edges = source_edges(DAYMET, lat, lon, 9_000)
    values = np.random.default_rng(1).normal(size=(len(y_edges) - 1, len(x_edges) - 1))
    expected = ProjectedRegridder(DAYMET, y_edges, x_edges, lat, lon)(values)
    up = ProjectedRegridder(DAYMET, y_edges[::-1], x_edges[::-1], lat, lon)(values[::-1, ::-1])
    np.testing.assert_allclose(up, expected, rtol=1e-9)
    turned = ProjectedRegridder(DAYMET, y_edges, x_edges, lat[::-1], lon[::-1] + 360)(values)
    np.testing.assert_allclose(turned[::-1, ::-1], expected, rtol=1e-8)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    crs=st.sampled_from(sorted(GRIDS.values())),
    step=st.sampled_from([3_000, 8_000, 20_000]),
)
def test_totals_are_conserved_and_constants_stay_constant(seed, crs, step):
    rng = np.random.default_rng(seed)
    south, west = rng.uniform(26, 46), rng.uniform(-122, -70)
    lat = south + np.cumsum(rng.uniform(0.1, 0.3, 6))[::-1]
    lon = west + np.cumsum(rng.uniform(0.1, 0.3, 7))
    y_edges, x_edges = source_edges(crs, lat, lon, step)
    cells = polygons(crs, y_edges, x_edges)
    x, y = project(0.0, lon)[0], project(lat, 0.0)[1]
    shapely.prepare(box := shapely.box(x[0], y[-1], x[-1], y[0]))
    inside = shapely.contains(box, cells)
    values = np.where(inside, rng.uniform(0.5, 2, cells.shape), 0).astype("float32")
    regridder = ProjectedRegridder(crs, y_edges, x_edges, lat, lon)
    found = regridder(values)
    assert found.dtype == np.float32
    total = (shapely.area(cells) * values).sum()
    assert total > 0
    np.testing.assert_allclose((areas(lat, lon) * found.astype(float)).sum(), total, rtol=1e-6)
    exact = regridder(values.astype(float))
    assert exact.dtype == np.float64
    np.testing.assert_allclose((areas(lat, lon) * exact).sum(), total, rtol=1e-10)
    np.testing.assert_allclose(regridder(np.full(cells.shape, 7.25)), 7.25, rtol=1e-10)


@pytest.mark.parametrize("crs", GRIDS.values(), ids=GRIDS)
def test_a_smooth_field_keeps_its_integral_over_the_domain(crs):
    window = Window.from_bbox(-98.9, 38.1, -98.2, 38.6, 4)
    lat, lon = window.cell_edges
    y_edges, x_edges = source_edges(crs, lat, lon, 1000)
    nodes = corners(crs, y_edges, x_edges)
    x, y = np.moveaxis(nodes[:-1, :-1] + nodes[1:, 1:] + nodes[1:, :-1] + nodes[:-1, 1:], -1, 0) / 4
    a, b = 2 * np.pi / 210_000, 2 * np.pi / 170_000
    found = ProjectedRegridder(crs, y_edges, x_edges, lat, lon)(280 + 9 * np.sin(a * x + b * y))
    left, bottom, right, top = window.bounds
    wave = [np.sin(a * i + b * j) for i in (left, right) for j in (bottom, top)]
    size = (right - left) * (top - bottom)
    exact = 280 * size - 9 / (a * b) * (wave[0] - wave[1] - wave[2] + wave[3])
    np.testing.assert_allclose((areas(lat, lon) * found).sum(), exact, rtol=1e-6)
    assert np.ptp(found) > 5


@pytest.mark.parametrize("step", [0.01, 0.125])
def test_boxes_give_the_same_means_at_any_resolution(step):
    window = Window.from_bbox(-98.9, 38.1, -97.2, 39.2, 4)
    lat, lon = np.arange(37.5, 40.01, 0.25), np.arange(-100, -95.9, 0.25)
    boxes = np.random.default_rng(4).normal(280, 20, (len(lat) - 1, len(lon) - 1))
    n = round(0.25 / step)
    fine = (
        edges_between(lat[0] + (np.arange(n * (len(lat) - 1)) + 0.5) * step),
        edges_between(lon[0] + (np.arange(n * (len(lon) - 1)) + 0.5) * step),
    )
    given_ = np.repeat(np.repeat(boxes, n, 0), n, 1)
    expected = Regridder(lat, lon, *window.cell_edges)(boxes)
    np.testing.assert_allclose(Regridder(*fine, *window.cell_edges)(given_), expected, rtol=1e-6)
    degrees = ProjectedRegridder("EPSG:4326", *fine, *window.cell_edges)(given_)
    np.testing.assert_allclose(degrees, expected, rtol=1e-6)  # that one knows of the ellipsoid
    assert np.isfinite(expected).all()


def test_a_grid_of_our_own_projection_gives_what_rows_and_columns_give():
    window = Window.from_bbox(-98.9, 38.1, -97.2, 39.2, 4)
    left, bottom, right, top = window.bounds
    ny, nx = window.cell_shape
    y_edges, x_edges = np.linspace(top, bottom, 2 * ny + 1), np.linspace(left, right, 2 * nx + 1)
    values = np.random.default_rng(5).normal(size=(2 * ny, 2 * nx))
    found = ProjectedRegridder("EPSG:6933", y_edges, x_edges, *window.cell_edges)(values)
    np.testing.assert_allclose(found, values.reshape(ny, 2, nx, 2).mean((1, 3)), atol=1e-6)


@pytest.mark.parametrize("west", [170.0, 172.5, -185.0, -190.0])
def test_a_source_across_the_antimeridian_fills_both_sides(west):
    crs = "+proj=lcc +lat_0=60 +lon_0=180 +lat_1=50 +lat_2=70 +ellps=WGS84"
    lat, lon = np.array([62.0, 61, 60, 59]), west + np.arange(0, 15.1, 2.5)
    y_edges = np.arange(600_000, -600_001, -40_000.0)
    x_edges = np.arange(-900_000, 900_001, 40_000.0)
    to_lonlat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    x, y = (e[:-1] + np.diff(e) / 2 for e in (x_edges, y_edges))
    longitude = to_lonlat.transform(*np.meshgrid(x, y))[0] % 360
    found = ProjectedRegridder(crs, y_edges, x_edges, lat, lon)(longitude)
    centres = (lon[1:] + lon[:-1]) / 2 % 360
    assert np.isfinite(found).sum() >= 3 * 5
    np.testing.assert_allclose(np.nanmean(found, 0), centres, atol=0.2)


def test_cells_where_the_map_is_interrupted_are_left_out():
    lat, lon = np.arange(20.0, 31, 1), np.arange(-45.0, -34, 1)  # the Atlantic lobes part at 40 W
    x_min, y_min, x_max, y_max = projected_extent(SOILGRIDS, lat, lon)
    y_edges, x_edges = np.arange(y_min, y_max, 20_000), np.arange(x_min, x_max, 20_000)
    values = np.ones((len(y_edges) - 1, len(x_edges) - 1))
    found = ProjectedRegridder(SOILGRIDS, y_edges, x_edges, lat, lon)(values)
    nodes = corners(SOILGRIDS, y_edges, x_edges)
    assert not np.isfinite(nodes).all()
    np.testing.assert_allclose(found[1:-1, 1:-1], 1, rtol=1e-9)


def test_half_a_cell_is_enough_and_less_is_none():
    y_edges, x_edges = np.array([0.0, 10_000]), np.array([0.0, 10_000, 20_000, 30_000, 40_000])
    (south, north), _ = project_back(0.0, y_edges)
    lon = project_back(np.array([0.0, 20_000, 40_000]), 0.0)[1]
    lat = np.array([north, south])
    nan = np.nan
    found = ProjectedRegridder("EPSG:6933", y_edges, x_edges, lat, lon)
    np.testing.assert_allclose(found(np.array([[3.0, nan, nan, nan]])), [[3.0, nan]], rtol=1e-6)
    shifted = ProjectedRegridder("EPSG:6933", y_edges, x_edges + 11_000, lat, lon)
    np.testing.assert_allclose(shifted(np.ones((1, 4))), [[nan, 1.0]], rtol=1e-6)
    beside = ProjectedRegridder("EPSG:6933", y_edges + 1e6, x_edges, lat, lon)
    assert np.isnan(beside(np.ones((1, 4)))).all()


def project_back(x, y):
    """Latitudes and longitudes of EPSG:6933."""
    lon, lat = pyproj.Transformer.from_crs("EPSG:6933", "EPSG:4326", always_xy=True).transform(
        *np.broadcast_arrays(x, y)
    )
    return lat, lon


@pytest.mark.parametrize("crs", GRIDS.values(), ids=GRIDS)
def test_a_reach_holds_the_box_and_little_more(crs):
    lat, lon = np.array([49.0, 40, 25]), np.array([-124.0, -100, -67])
    x_min, y_min, x_max, y_max = projected_extent(crs, lat, lon)
    to_source = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to_source.transform(*np.meshgrid(np.linspace(-124, -67, 777), np.linspace(25, 49, 555)))
    assert x_min - 5 <= x.min() <= x_min + 2000
    assert y_min - 5 <= y.min() <= y_min + 2000
    assert x_max - 2000 <= x.max() <= x_max + 5
    assert y_max - 2000 <= y.max() <= y_max + 5


def test_a_box_that_is_nowhere_in_the_crs_has_no_reach():
    with pytest.raises(ValueError, match="no part of -80"):
        projected_extent("+proj=ortho +lat_0=90 +lon_0=0", [-80, -70], [0, 10])


@pytest.mark.parametrize("spoiled", ["y_edges", "x_edges", "target_lat_edges", "target_lon_edges"])
def test_edges_that_are_in_no_order_are_refused(spoiled):
    edges = dict.fromkeys(("y_edges", "x_edges", "target_lat_edges", "target_lon_edges"))
    edges = {name: np.array([0.0, 1, 2]) for name in edges} | {spoiled: np.array([0.0, 2, 1])}
    with pytest.raises(ValueError, match=f"{spoiled}: expected two or more"):
        ProjectedRegridder("EPSG:6933", **edges)
    if spoiled == "target_lon_edges":
        with pytest.raises(ValueError, match="360 degrees at most"):
            ProjectedRegridder("EPSG:6933", **edges | {spoiled: np.array([0.0, 361])})
