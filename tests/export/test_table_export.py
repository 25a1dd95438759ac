"""Tables at points and polygons: the values of the cells, and xarray's own weighted means."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from made_maps import FIRST, LAST, TARGET, WINDOW

from pipeline.errors import SoilweaveError
from pipeline.export import Options, export
from pipeline.grid import ease


def table(made, folder, name, text, said):
    places = folder / name
    places.write_text(text if isinstance(text, str) else json.dumps(text))
    export(made.root, str(folder / "out"), Options("csv", places=str(places)), said)
    stem = name.rpartition(".")[0]
    return pd.read_csv(folder / "out" / f"demo_insitu_{TARGET}_{stem}.csv", parse_dates=["date"])


def box(y, x):
    """The corners, in degrees, of a rectangle of cells: edges as positions, such as 1.5."""
    left, _, _, top = WINDOW.bounds
    size = (WINDOW.bounds[2] - left) / WINDOW.cell_shape[1]
    lat, _ = ease.unproject(0.0, [top - each * size for each in y])
    _, lon = ease.unproject([left + each * size for each in x], 0.0)
    corners = [(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)]
    return [[float(lon[j]), float(lat[i])] for j, i in corners]


def feature(name, *rings):
    kind = "Polygon" if len(rings) == 1 else "MultiPolygon"
    coordinates = [rings[0]] if len(rings) == 1 else [[ring] for ring in rings]
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "properties": {"name": name}, "geometry": geometry}


def collection(*features):
    return {"type": "FeatureCollection", "features": [*features]}


def overlap(edges, n):
    """The share of each of n cells in a row that lies between two edges."""
    cells = np.arange(n)
    return np.clip(np.minimum(edges[1], cells + 1) - np.maximum(edges[0], cells), 0, 1)


RECTANGLES = {
    "whole cells": ((2, 5), (40, 44)),
    "parts of cells": ((1.25, 6.5), (10.75, 30.2)),
    "inside a cell": ((3.2, 3.4), (100.1, 100.9)),
    "over the edge of a shard": ((0.5, 8), (250.5, 262.25)),
    "partly outside": ((6.5, 11), (516.5, 523)),
}


def test_a_polygon_has_the_weighted_mean_of_xarray(made, tmp_path, said):
    shapes = collection(*(feature(name, box(*edges)) for name, edges in RECTANGLES.items()))
    rows = table(made, tmp_path, "fields.geojson", shapes, said)
    maps = made.opened()
    assert len(rows) == len(RECTANGLES) * maps.time.size
    for name, edges in RECTANGLES.items():
        found = rows[rows.id == name]
        shares = [overlap(*each) for each in zip(edges, WINDOW.cell_shape, strict=True)]
        weights = xr.DataArray(np.outer(*shares), dims=("y", "x"))
        for column in (TARGET, f"{TARGET}_std"):
            mean = maps[column].weighted(weights).mean(("y", "x"))
            np.testing.assert_allclose(found[column], mean, atol=0.6e-5)
        valid = maps[TARGET].notnull()
        area = float(np.prod([b - a for a, b in edges]))
        share = (weights * valid).sum(("y", "x")) / area
        np.testing.assert_allclose(found.coverage, share, atol=1e-3)
        np.testing.assert_array_equal(found.cells, ((weights > 0) & valid).sum(("y", "x")))
        flags = maps.quality_flag.values.astype(np.uint8)[:, weights.values > 0]
        np.testing.assert_array_equal(found.quality_flag, np.bitwise_or.reduce(flags, axis=1))


def test_whole_cells_have_xarrays_own_mean(made, tmp_path, said):
    (rows_, cols) = RECTANGLES["whole cells"]
    shapes = collection(feature("a", box(rows_, cols)))
    found = table(made, tmp_path, "a.json", shapes, said)
    cells = made.opened()[TARGET].isel(y=slice(*rows_), x=slice(*cols))
    np.testing.assert_allclose(found[TARGET], cells.mean(("y", "x")), atol=0.6e-5)


def test_parts_and_holes_count_by_their_area(made, tmp_path, said):
    outer, inner = box((1, 5), (60, 64)), box((2, 4), (61, 63))
    holed = feature("holed", outer)
    holed["geometry"]["coordinates"].append(inner)
    two = feature("two", box((1, 2), (70, 71)), box((5, 6), (300, 302)))
    rows = table(made, tmp_path, "parts.geojson", collection(holed, two), said)
    maps = made.opened()[TARGET]
    ring = maps.isel(y=slice(1, 5), x=slice(60, 64)).values.copy()
    ring[:, 1:3, 1:3] = np.nan
    np.testing.assert_allclose(
        rows[rows.id == "holed"][TARGET], np.nanmean(ring, axis=(1, 2)), atol=0.6e-5
    )
    three = np.concatenate([maps.values[:, 1, 70:71], maps.values[:, 5, 300:302]], 1)
    expected = pd.DataFrame(three).mean(axis=1)
    np.testing.assert_allclose(rows[rows.id == "two"][TARGET], expected, atol=0.6e-5)


def test_points_have_the_values_of_their_cells(made, tmp_path, said):
    maps = made.opened()
    cells = {"north": (0, 5), "south": (7, 519), "x, y": (3, 300)}
    lines = [
        f'{maps.lat.values[y, 0]};{maps.lon.values[0, x]};"{n}"' for n, (y, x) in cells.items()
    ]
    rows = table(made, tmp_path, "mine.csv", "\n".join(["Latitude;Longitude;ID", *lines]), said)
    for name, (y, x) in cells.items():
        found, cell = rows[rows.id == name], maps.isel(y=y, x=x)
        assert [str(day)[:10] for day in found.date.iloc[[0, -1]]] == [FIRST, LAST]
        np.testing.assert_allclose(found[TARGET], cell[TARGET], atol=1e-6)
        np.testing.assert_allclose(found[f"{TARGET}_std"], cell[f"{TARGET}_std"], atol=1e-6)
        np.testing.assert_array_equal(found.quality_flag, cell.quality_flag)
        np.testing.assert_array_equal(found.cells, cell[TARGET].notnull())
        np.testing.assert_array_equal(found.coverage, cell[TARGET].notnull())
    unnamed = f"lon,lat\n{maps.lon.values[0, 2]},{maps.lat.values[1, 0]}\n"
    assert set(table(made, tmp_path, "unnamed.csv", unnamed, said).id) == {1}


def test_points_on_the_edges_of_the_maps_are_in_their_outer_cells(made, tmp_path, said):
    ny, nx = WINDOW.cell_shape
    corners = box((0, ny), (0, nx))[:4]
    lines = [f"{lat!r},{lon!r}" for lon, lat in corners]
    rows = table(made, tmp_path, "corners.csv", "\n".join(["lat,lon", *lines]), said)
    cells = [(0, 0), (0, nx - 1), (ny - 1, nx - 1), (ny - 1, 0)]
    for number, (y, x) in enumerate(cells, 1):
        found = rows[rows.id == number]
        np.testing.assert_allclose(found[TARGET], made.opened()[TARGET][:, y, x], atol=1e-6)


def test_a_table_at_other_places_is_not_replaced(made, tmp_path, said):
    """Two files of places have one stem: the table of the first stays as it is."""
    (lon, lat), (lon_2, lat_2) = box((0.5, 3.5), (0.5, 9.5))[0:3:2]
    table(made, tmp_path, "fields.csv", f"lat,lon\n{lat},{lon}\n", said)
    written = tmp_path / "out" / f"demo_insitu_{TARGET}_fields.csv"
    before = written.read_bytes()
    other = {"type": "Point", "coordinates": [lon_2, lat_2]}
    with pytest.raises(SoilweaveError, match=r"was made at other places: .*; remove it, or rename"):
        table(made, tmp_path, "fields.geojson", other, said)
    assert written.read_bytes() == before
    written.unlink()
    table(made, tmp_path, "fields.geojson", other, said)
    assert written.read_bytes() != before


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        (
            "p.csv",
            "id,lat,lon\na,0,0\nb,10,10\n",
            "2 of 2 places lie outside of the maps: a, b; leave",
        ),
        ("p.csv", "id,lat\na,0\n", "its columns are id, lat; expected a CSV file with the columns"),
        ("p.csv", "lat,lon\n40,x\n", "row 1 has '40', 'x' for lat, lon"),
        ("p.csv", "lat,lon\n", "has no places"),
        ("p.csv", "id,lat,lon\na,1,1\na,2,2\n", "has several places of one id: a"),
        ("p.csv", "lat,lon\n4000000,5\n", "has places that are not in degrees: 1"),
        ("p.geojson", "{", "cannot be read as places"),
        ("p.geojson", '{"type": "LineString"}', "1 is LineString, not a Point, Polygon"),
        ("p.geojson", collection(feature("far", [[0, 0], [1, 0], [1, 1], [0, 0]])), "1: far;"),
        ("p.geojson", collection(feature("x", [[0, 0], [1, 0]])), "cannot be read as places"),
        ("p.geojson", {"type": "FeatureCollection", "features": [3]}, "cannot be read as places"),
        (
            "p.geojson",
            collection(feature("fiji", [[179, 0], [-179, 0], [-179, 1], [179, 1], [179, 0]])),
            "has polygons with an edge over 180 degrees long: fiji; cut a polygon that crosses",
        ),
        (
            "p.geojson",
            collection(feature("line", [[0, 0], [1, 1], [0, 0], [0, 0]])),
            "has polygons without area: line",
        ),
        ("p.csv", "", "its columns are none; expected a CSV file"),
    ],
)
def test_places_that_cannot_be_used_are_told_in_one_line(made, tmp_path, said, name, text, says):
    says = says.replace("1: far;", "1 of 1 places lie outside of the maps: far;")
    with pytest.raises(SoilweaveError) as caught:
        table(made, tmp_path, name, text, said)
    assert says in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
