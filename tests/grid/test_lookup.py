"""Which cell of a source holds a place, whatever the source's form."""

import numpy as np
import pyproj
import pytest
import xarray as xr

from pipeline.errors import DataError
from pipeline.grid import lookup

LAT, LON = np.array([40.2, 39.6, -10.0, 0.0]), np.array([-100.1, 179.95, -179.9, 20.1])


def held(dataset, max_km=36.0):
    made = lookup.find_cells(dataset, (LAT, LON), max_km)
    return made, [tuple(int(i) for i in at) for at in zip(*made.index.values(), strict=True)]


def bounded(lat, lon, width):
    half = np.array([-width / 2, width / 2])
    axes = {"lat": lat, "lon": lon}
    bounds = {f"{n}_bnds": ((n, "bnds"), v[:, None] + half) for n, v in axes.items()}
    return xr.Dataset(coords=axes | bounds, attrs={"entry": "made"})


def test_a_site_is_in_the_cell_whose_bounds_hold_it():
    southward = bounded(np.arange(45, -45, -0.5), np.arange(0.25, 360, 0.5), 0.5)
    made, index = held(southward)
    assert index == [(10, 519), (11, 359), (110, 360), (90, 40)]
    assert made.known.all()
    np.testing.assert_allclose(made.lat, [40.0, 39.5, -10.0, 0.0])
    np.testing.assert_allclose(made.lon, [259.75, 179.75, 180.25, 20.25])
    part = bounded(np.arange(39, 42, 0.5), np.arange(-101, -99, 0.5), 0.5)
    assert held(part)[0].known.tolist() == [True, False, False, False]


def test_or_of_its_projection_even_one_of_degrees():
    x, y = pyproj.Transformer.from_crs(4326, 6933, always_xy=True).transform(LON, LAT)
    size = 9008.055210146
    axis = np.arange(-3, 4) * size
    crs = pyproj.CRS(6933).to_wkt()
    dataset = xr.Dataset(
        coords={"y": y[0] + 0.3 * size - axis, "x": x[0] - 0.4 * size + axis},
        attrs={"crs": crs, "entry": "made"},
    )
    made, index = held(dataset)
    assert index[0] == (3, 3)
    assert made.known.tolist() == [True, False, False, False]
    km = np.hypot(0.3, 0.4) * size / 1000
    lambert = pyproj.CRS("+proj=lcc +lat_1=25 +lat_2=60 +lat_0=42.5 +lon_0=-100 +units=m")
    assert made.lat[0] > LAT[0]
    assert made.lon[0] < LON[0]
    away = lookup.great_circle_km(LAT[0], LON[0], made.lat[0], made.lon[0])
    assert 0.7 * km < away < 1.3 * km
    x, y = pyproj.Transformer.from_crs(4326, lambert, always_xy=True).transform(LON, LAT)
    axis = np.arange(-50, 51) * 1000.0
    near = xr.Dataset(
        coords={"y": y[0] - axis, "x": x[0] + axis},
        attrs={"crs": lambert.to_wkt(), "entry": "made"},
    )
    made, index = held(near)
    assert index[0] == (50, 50)
    np.testing.assert_allclose((made.lat[0], made.lon[0]), (LAT[0], LON[0]), atol=1e-9)
    degrees = xr.Dataset(
        coords={"y": np.arange(45.0, -45, -1), "x": np.arange(0.5, 360)},
        attrs={"crs": "EPSG:4326", "entry": "made"},
    )
    assert held(degrees)[1] == [(5, 259), (5, 179), (55, 180), (45, 20)]


def test_a_site_on_an_edge_is_in_a_cell_though_edges_are_rounded():
    lat = np.float32(np.arange(30, 50, 0.1)).astype(float)
    dataset = xr.Dataset(
        coords={"y": lat, "x": np.linspace(-110, -90, 201)},
        attrs={"crs": "EPSG:4326", "entry": "made"},
    )
    edges = np.arange(30.05, 49, 0.1)
    made = lookup.find_cells(dataset, (edges, np.full(len(edges), -100.05)), 36.0)
    assert made.known.all()
    assert (np.abs(made.lat - edges) < 0.0501).all()


def test_of_places_the_nearest_within_reach_stands_for_a_site():
    coords = {"lat": ("place", [40.0, 39.6, -10.0]), "lon": ("place", [-100.1, -179.95, 179.9])}
    dataset = xr.Dataset(coords=coords, attrs={"entry": "made"})
    _, index = held(dataset)
    assert index == [(0,), (1,), (2,), (-1,)]
    assert lookup.find_cells(dataset, (LAT, LON), 10.0).known.tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_what_has_neither_places_nor_cells_is_refused():
    for dataset, found in (
        (
            xr.Dataset(coords={"y": [0.0, 1.0], "x": [0.0, 1.0]}),
            r"dimensions \['y', 'x'\]; expected",
        ),
        (
            xr.Dataset(coords={"y": [0.0], "x": [0.0, 1]}, attrs={"crs": "EPSG:4326"}),
            "y has 1 values",
        ),
    ):
        with pytest.raises(DataError, match=found):
            held(dataset.assign_attrs(entry="made"))
