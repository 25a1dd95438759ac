"""Regridding against overlaps summed cell by cell, its own promises, and xarray-regrid."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from pipeline.grid.ease import Window
from pipeline.grid.regrid import Regridder, edges_between


def ragged(rng, n, low, high):
    """(n + 1,) edges from low to high, unevenly spaced."""
    inner = low + (high - low) * np.cumsum(rng.uniform(0.3, 1, n + 1))[:-1] / (n + 1)
    return np.concatenate([[low], np.sort(inner)[: n - 1], [high]])


def shared(a, b):
    """Length that the intervals (low, high) share."""
    return max(0.0, min(max(a), max(b)) - max(min(a), min(b)))


def overlap_area(rows, cols):
    """Area that two cells share, each given by its two latitudes and its two longitudes."""
    lat = [np.sin(np.radians(row)) for row in rows]
    lon = sum(shared(np.add(cols[0], turn), cols[1]) for turn in (-720, -360, 0, 360, 720))
    return shared(*lat) * lon


def plain(values, source_lat, source_lon, target_lat, target_lon):
    """(target lat, target lon) means of (source lat, source lon) values, cell by cell."""
    made = np.full((len(target_lat) - 1, len(target_lon) - 1), np.nan)
    for i, j in np.ndindex(made.shape):
        row, col = target_lat[i : i + 2], target_lon[j : j + 2]
        total = covered = 0.0
        for k, m in np.ndindex(values.shape):
            area = overlap_area((source_lat[k : k + 2], row), (source_lon[m : m + 2], col))
            if np.isfinite(values[k, m]):
                total, covered = total + area * values[k, m], covered + area
        if covered >= 0.5 * overlap_area((row, row), (col, col)):
            made[i, j] = total / covered
    return made


def areas(lat, lon):
    """(row, column) area of the cells between edges."""
    return np.abs(np.outer(np.diff(np.sin(np.radians(lat))), np.diff(lon)))


@pytest.mark.parametrize("descending", [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 0), (1, 1, 1, 1)])
@pytest.mark.parametrize("turn", [0.0, 360.0, -360.0])
def test_means_are_the_overlaps_summed_cell_by_cell(descending, turn):
    rng = np.random.default_rng(3)
    edges = [ragged(rng, 5, 20, 55), ragged(rng, 7, -20 + turn, 30 + turn)]
    edges += [ragged(rng, 4, 15, 52), ragged(rng, 6, -25, 33)]
    edges = [e[::-1] if down else e for e, down in zip(edges, descending, strict=True)]
    values = rng.normal(size=(3, 2, 5, 7))
    values[1, 0, 2, :4] = values[2, 1, :, 5] = values[2, 0, 1, 1] = np.nan
    found = Regridder(*edges)(values)
    assert found.shape == (3, 2, 4, 6)
    for lead in np.ndindex(3, 2):
        np.testing.assert_allclose(found[lead], plain(values[lead], *edges), rtol=1e-9)
    assert np.isnan(found[1]).sum() > np.isnan(found[0]).sum() > 0


def test_a_source_from_0_to_360_fills_cells_on_both_sides_of_greenwich():
    lat, source_lon = np.array([-30.0, 10, 40]), np.arange(0, 361, 20.0)
    target_lon = np.array([-50.0, -30, -10, 25, 60])
    values = np.random.default_rng(0).normal(size=(2, 18))
    found = Regridder(lat, source_lon, lat, target_lon)(values)
    np.testing.assert_allclose(found, plain(values, lat, source_lon, lat, target_lon), rtol=1e-12)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(
        found[:, 2], (10 * values[:, 17] + 20 * values[:, 0] + 5 * values[:, 1]) / 35
    )


def test_half_a_cell_is_enough_and_less_is_none():
    source, target = np.array([0.0, 10, 20, 30, 40]), np.array([0.0, 20, 40])
    lat = np.array([0.0, 5])
    regridder = Regridder(lat, source, lat, target)
    nan = np.nan
    np.testing.assert_array_equal(regridder(np.array([[3.0, nan, nan, nan]])), [[3.0, nan]])
    shifted = Regridder(lat, source + 11, lat, target)  # covers 9 of the first 20 degrees
    np.testing.assert_array_equal(shifted(np.ones((1, 4))), [[nan, 1.0]])


@given(seed=st.integers(0, 10_000), n=st.tuples(*[st.integers(1, 9)] * 4), down=st.booleans())
def test_totals_are_conserved_and_constants_stay_constant(seed, n, down):
    rng = np.random.default_rng(seed)
    south = rng.uniform(-90, 89)
    north = rng.uniform(south + 0.5, 90)
    west = rng.uniform(-180, 180)
    east = west + rng.uniform(1, 360)
    turn = rng.choice([-360.0, 0.0, 360.0])
    edges = [ragged(rng, n[0], south, north), ragged(rng, n[1], west + turn, east + turn)]
    edges += [ragged(rng, n[2], south, north)[:: -1 if down else 1], ragged(rng, n[3], west, east)]
    values = rng.uniform(0.5, 2, (2, n[0], n[1])).astype("float32")
    regridder = Regridder(*edges)
    found = regridder(values)
    assert found.dtype == np.float32
    total = (areas(*edges[:2]) * values.astype(float)).sum((1, 2))
    np.testing.assert_allclose(
        (areas(*edges[2:]) * found.astype(float)).sum((1, 2)), total, rtol=1e-6
    )
    constant = regridder(np.full((n[0], n[1]), 7.25, np.float32))
    np.testing.assert_allclose(constant, 7.25, rtol=1e-6)
    np.testing.assert_array_less(found, values.max() + 1e-5)


def test_equal_grids_give_the_values_themselves():
    window = Window(row=60, col=180, height=3, width=2, refinement=4)
    values = np.random.default_rng(1).normal(280, 30, (5, *window.cell_shape)).astype("float32")
    values[2, 3:6, 1] = np.nan
    lat, lon = window.cell_edges
    found = Regridder(lat, lon, lat, lon)(values)
    np.testing.assert_array_equal(found, values)
    turned = Regridder(lat[::-1], lon + 360, lat, lon)(values[:, ::-1])
    np.testing.assert_allclose(turned, values, rtol=1e-6)


def test_edges_of_a_window_hold_its_centres():
    for window in (Window(47, 147, 5, 7, 2), Window(0, 0, 406, 964, 1)):
        lat, lon = window.cell_edges
        assert (len(lat) - 1, len(lon) - 1) == window.cell_shape
        assert ((lat[1:] < window.cell_lat) & (window.cell_lat < lat[:-1])).all()
        np.testing.assert_allclose((lon[1:] + lon[:-1]) / 2, window.cell_lon, rtol=0, atol=1e-9)
        cells = areas(lat, lon)
        assert np.ptp(cells) < 2e-3 * cells.mean() * len(lat)  # equal area, but for the ellipsoid


def test_edges_lie_halfway_between_centres():
    np.testing.assert_array_equal(edges_between([1.0, 2.0, 4.0]), [0.5, 1.5, 3.0, 5.0])
    np.testing.assert_array_equal(edges_between([4.0, 2.0]), [5.0, 3.0, 1.0])


@pytest.mark.parametrize(
    ("lat", "lon"), [([0, 1, 1], [0, 1]), ([0, 2, 1], [0, 1]), ([0, 1], [0, 361]), ([0], [0, 1])]
)
def test_edges_that_are_in_no_order_are_refused(lat, lon):
    good = np.array([0.0, 1.0])
    with pytest.raises(ValueError, match="expected"):
        Regridder(np.array(lat, float), np.array(lon, float), good, good)


def test_a_smooth_field_agrees_with_xarray_regrid():
    import xarray_regrid  # noqa: F401, makes the accessor

    lat, lon = np.arange(30.0625, 42, 0.125), np.arange(-110.0625, -94, 0.125)
    y, x = np.meshgrid(np.radians(lat), np.radians(lon), indexing="ij")
    values = 280 + 12 * np.sin(5 * y) * np.cos(7 * x) + 3 * np.sin(11 * x)
    window = Window.from_bbox(-108, 32, -97, 40, 4)
    theirs = (
        xr.DataArray(values, {"lat": lat, "lon": lon}, ("lat", "lon"))
        .to_dataset(name="t")
        .regrid.conservative(
            xr.Dataset(coords={"lat": window.cell_lat[::-1], "lon": window.cell_lon}),
            latitude_coord="lat",
        )["t"]
        .transpose("lat", "lon")
    )
    ours = Regridder(edges_between(lat), edges_between(lon), *window.cell_edges)(values)
    assert ours.shape == window.cell_shape
    np.testing.assert_allclose(ours[::-1], theirs, rtol=0, atol=2e-4 * np.ptp(values))
