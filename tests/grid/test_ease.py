"""The grid against pyproj, the textbook's authalic latitude, real files and its own promises."""

import math
import os
from pathlib import Path

import numpy as np
import pyproj
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.grid import ease
from pipeline.grid.ease import Window

CONUS = (-125.0, 25.0, -66.5, 50.0)
REFINEMENTS = st.sampled_from(ease.REFINEMENTS)
LATS = st.floats(-85.0, 85.0)
LONS = st.floats(-180.0, 180.0)

needs_data = pytest.mark.skipif(
    "SOILWEAVE_DATA" not in os.environ, reason="SOILWEAVE_DATA is not set"
)


@st.composite
def windows(draw):
    row, col = draw(st.integers(0, 405)), draw(st.integers(0, 963))
    height, width = draw(st.integers(1, 406 - row)), draw(st.integers(1, 964 - col))
    return Window(row, col, min(height, 7), min(width, 5), draw(REFINEMENTS))


@st.composite
def boxes(draw):
    west, east = sorted(draw(st.lists(LONS, min_size=2, max_size=2, unique=True)))
    south, north = sorted(draw(st.lists(LATS, min_size=2, max_size=2, unique=True)))
    # A box thinner than 4 cm may lie on an edge, and then holds nothing.
    return west, south, max(east, min(west + 1e-5, 180.0)), north + 1e-5


def open_data(name):
    return xr.load_dataset(Path(os.environ["SOILWEAVE_DATA"]) / name, engine="h5netcdf")


def ease2(lat, lon):
    """Cylindrical equal area on WGS84, true at 30 degrees, as Snyder (1987) writes it, in m."""
    a, f = 6378137.0, 1 / 298.257223563
    e = math.sqrt(f * (2 - f))
    s, s1 = np.sin(np.radians(lat)), 0.5
    q = (1 - e**2) * (s / (1 - e**2 * s**2) - np.log((1 - e * s) / (1 + e * s)) / (2 * e))
    k0 = math.cos(math.radians(30)) / math.sqrt(1 - e**2 * s1**2)
    return a * k0 * np.radians(lon), a * q / (2 * k0)


def test_projection_is_the_formula_and_pyproj():
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-90, 90, (13, 7)), rng.uniform(-180, 180, (13, 7))
    x, y = ease.project(lat, lon)
    np.testing.assert_allclose((x, y), ease2(lat, lon), rtol=0, atol=1e-6)
    to_metres = pyproj.Proj("EPSG:6933")
    np.testing.assert_allclose((x, y), to_metres(lon, lat), rtol=0, atol=1e-6)
    x, y = rng.uniform(-17e6, 17e6, 11), rng.uniform(-7.3e6, 7.3e6, 11)
    lon, lat = to_metres(x, y, inverse=True)
    np.testing.assert_allclose(ease.unproject(x, y), (lat, lon), rtol=0, atol=1e-9)


def test_projection_broadcasts_and_keeps_shapes():
    x, y = ease.project(np.zeros((3, 1)), np.zeros(2))
    assert x.shape == y.shape == (3, 2)
    lat, lon = ease.unproject(0.0, 0.0)
    assert lat.shape == lon.shape == ()
    x, y = ease.project([91.0, np.nan, 0.0], [0.0, 0.0, np.nan])
    assert np.isnan(y).tolist() == [True, True, True]
    assert np.isnan(x).tolist() == [True, True, True]


@given(lat=LATS, lon=LONS)
def test_projection_round_trip(lat, lon):
    """PROJ's inverse authalic latitude is a series, good to 2 mm on the ground."""
    back = ease.unproject(*ease.project(lat, lon))
    np.testing.assert_allclose(back, (lat, lon), rtol=0, atol=2e-8)


def test_the_grid_ends_where_the_design_says():
    assert pytest.approx(-17367530.4452, abs=1e-4) == ease.LEFT_M
    assert pytest.approx(7314540.8306, abs=1e-4) == ease.TOP_M
    whole = Window.from_bbox(-180, -90, 180, 90, 4)
    assert whole == Window(0, 0, 406, 964, 4)
    assert whole.cell_shape == (1624, 3856)
    assert np.diff(whole.cell_x) == pytest.approx(9008.055210146, abs=1e-6)
    assert np.diff(whole.cell_y) == pytest.approx(-9008.055210146, abs=1e-6)


@pytest.mark.parametrize("refinement", ease.REFINEMENTS)
def test_conus_is_71_by_157_footprints(refinement):
    window = Window.from_bbox(*CONUS, refinement)
    assert window == Window(47, 147, 71, 157, refinement)
    assert window.footprint_shape == (71, 157)
    assert window.cell_shape == (71 * refinement, 157 * refinement)


def test_conus_is_the_m09_rows_and_columns_of_the_design():
    window = Window.from_bbox(*CONUS, 4)
    assert (window.row * 4, window.col * 4) == (188, 588)
    assert window.cell_shape == (471 - 188 + 1, 1215 - 588 + 1) == (284, 628)


@given(box=boxes(), refinement=REFINEMENTS)
def test_snapping_contains_the_box_and_no_footprint_more(box, refinement):
    window = Window.from_bbox(*box, refinement)
    west, south, east, north = box
    left, bottom = ease.project(south, west)
    right, top = ease.project(min(north, 90.0), east)
    size, slack = ease.FOOTPRINT_SIZE_M, 0.05
    x = ease.LEFT_M + size * np.array([window.col, window.col + window.width])
    y = ease.TOP_M - size * np.array([window.row, window.row + window.height])
    assert x[0] - slack <= left < x[0] + size + slack
    assert x[1] - size - slack <= right <= x[1] + slack
    assert y[0] - size - slack <= top <= y[0] + slack
    assert y[1] - slack <= bottom < y[1] + size + slack


@given(window=windows())
def test_a_window_is_the_snapped_box_of_its_own_edges(window):
    size = ease.FOOTPRINT_SIZE_M
    lat, lon = ease.unproject(
        ease.LEFT_M + size * np.array([window.col, window.col + window.width]),
        ease.TOP_M - size * np.array([window.row + window.height, window.row]),
    )
    west, east = np.clip(lon, -180, 180)  # PROJ returns the edge as -180.00000000000117
    assert Window.from_bbox(west, lat[0], east, lat[1], window.refinement) == window


@given(window=windows())
def test_every_cell_centre_lies_in_its_cell_and_its_footprint(window):
    lat, lon = np.meshgrid(window.cell_lat, window.cell_lon, indexing="ij")
    y, x = window.cells_of(lat, lon)
    np.testing.assert_array_equal((y, x), np.indices(window.cell_shape))
    fy, fx = window.footprints_of(lat, lon)
    np.testing.assert_array_equal(fy, y // window.refinement)
    np.testing.assert_array_equal(fx, x // window.refinement)


@given(window=windows())
def test_footprint_centres_are_the_means_of_their_cells(window):
    y = window.cell_y.reshape(window.height, window.refinement).mean(axis=1)
    x = window.cell_x.reshape(window.width, window.refinement).mean(axis=1)
    np.testing.assert_allclose(ease.project(window.footprint_lat, 0.0)[1], y, rtol=0, atol=5e-3)
    np.testing.assert_allclose(ease.project(0.0, window.footprint_lon)[0], x, rtol=0, atol=5e-3)
    assert (window.footprint_lat.size, window.footprint_lon.size) == window.footprint_shape


@given(window=windows(), lat=LATS, lon=LONS)
def test_footprints_do_not_depend_on_the_refinement(window, lat, lon):
    coarse = Window(window.row, window.col, window.height, window.width, 1)
    assert window.footprints_of(lat, lon) == coarse.cells_of(lat, lon)


@given(window=windows(), lat=LATS, lon=LONS)
def test_a_place_is_inside_exactly_where_the_global_grid_says(window, lat, lon):
    whole = Window(0, 0, 406, 964, window.refinement)
    row, col = whole.cells_of(lat, lon)
    y, x = window.cells_of(lat, lon)
    first_row, first_col = window.row * window.refinement, window.col * window.refinement
    height, width = window.cell_shape
    if 0 <= row - first_row < height and 0 <= col - first_col < width:
        assert (y, x) == (row - first_row, col - first_col)
    else:
        assert (y, x) == (-1, -1)


def test_places_off_the_window_or_the_earth_are_minus_one():
    window = Window.from_bbox(*CONUS, 4)
    lat, lon = [40.0, 60.0, 40.0, 89.0, 91.0, np.nan], [-100.0, -100.0, 10.0, -100.0, 0.0, 0.0]
    y, x = window.cells_of(lat, lon)
    assert (y >= 0).tolist() == (x >= 0).tolist() == [True] + 5 * [False]
    assert (y[1:] == -1).all()
    assert (x[1:] == -1).all()
    assert window.footprints_of(60.0, -100.0) == (-1, -1)
    assert y.dtype == x.dtype == np.int64


def test_an_edge_belongs_to_the_cell_south_and_east_of_it():
    whole = Window(0, 0, 406, 964, 1)
    assert whole.cells_of(0.0, 0.0) == (203, 482)
    first_lat = ease.unproject(0.0, ease.TOP_M)[0]
    assert whole.cells_of([first_lat, -first_lat], 0.0)[0].tolist() == [0, -1]


@given(window=windows(), lat=LATS, lon=LONS)
def test_a_place_and_many_places_are_in_the_same_cells(window, lat, lon):
    inside = window.cells_of(lat, lon)
    if min(inside) >= 0:
        assert window.cell_at(lat, lon) == inside
    centre = window.cell_lat[-1], window.cell_lon[0]
    assert window.cell_at(*centre) == window.cells_of(*centre)


@given(window=windows())
def test_the_outer_edges_of_a_window_belong_to_its_outer_cells(window):
    (lat, lon), (ny, nx) = window.cell_edges, window.cell_shape
    assert window.cell_at(lat[0], lon[0]) == (0, 0)
    assert window.cell_at(lat[-1], lon[0]) == (ny - 1, 0)
    assert window.cell_at(lat[0], lon[-1]) == (0, nx - 1)
    assert window.cell_at(lat[-1], lon[-1]) == (ny - 1, nx - 1)
    assert window.cell_at(np.nan, 0.0) == (-1, -1)
    if window.row + window.height < 406:
        south = ease.unproject(0.0, window.cell_y[-1] - ease.FOOTPRINT_SIZE_M)[0]
        assert window.cell_at(float(south), lon[0]) == (-1, -1)


def test_the_antimeridian_is_one_place_in_the_first_column():
    whole = Window(0, 0, 406, 964, 4)
    y, x = whole.cells_of(10.0, [180.0, -180.0, 179.99, -179.99, 190.0, -170.0])
    assert len(set(y)) == 1
    assert x.tolist() == [0, 0, 3855, 0, x[5], x[5]]
    assert Window.from_bbox(179, 0, 180, 1, 2).col == 961
    assert Window.from_bbox(-180, 0, -179, 1, 2).col == 0


@pytest.mark.parametrize(
    "box",
    [
        (10, 0, 10, 1),
        (0, 5, 1, 5),
        (20, 0, 10, 1),
        (0, 2, 1, 1),
        (170, 0, 190, 1),
        (0, -91, 1, 1),
        (0, 86, 1, 88),
        (0, math.nan, 1, 2),
    ],
)
def test_an_impossible_box_is_refused_with_what_was_found_and_what_is_accepted(box):
    with pytest.raises(ValueError, match=r"expected -180 <= west < east <= 180") as error:
        Window.from_bbox(*box, 4)
    assert str(box) in str(error.value)


@pytest.mark.parametrize(
    "values",
    [(0, 0, 1, 1, 3), (-1, 0, 1, 1, 4), (405, 0, 2, 1, 4), (0, 960, 1, 5, 4), (0, 0, 0, 1, 4)],
)
def test_an_impossible_window_is_refused(values):
    with pytest.raises(
        ValueError, match="expected at least one of the grid's 406 x 964 footprints"
    ):
        Window(*values)


@pytest.mark.data
@needs_data
def test_real_sites_lie_in_the_m36_rows_and_columns_of_their_file():
    sites = open_data("scan_sites.nc")
    row, col = Window(0, 0, 406, 964, 8).footprints_of(sites["lat"], sites["lon"])
    assert row.shape == (124,)
    np.testing.assert_array_equal(row, sites["ease36_row"])
    np.testing.assert_array_equal(col, sites["ease36_col"])


@pytest.mark.data
@needs_data
def test_real_cells_lie_at_the_centres_of_distinct_footprints():
    cells = open_data("conus36_smap_nldas.nc")
    window = Window.from_bbox(*CONUS, 1)
    y, x = window.cells_of(cells["lat"], cells["lon"])
    assert len(set(zip(y.tolist(), x.tolist(), strict=True))) == 412
    assert y.min() >= 0
    np.testing.assert_allclose(window.footprint_lat[y], cells["lat"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(window.footprint_lon[x], cells["lon"], rtol=0, atol=1e-5)
