"""Places at which a table is made: points of a CSV file, points and polygons of a GeoJSON file.

The cells of a polygon have weights: the area in which they overlap, in EPSG:6933, where areas are
true. Straight lines in degrees are curves there, so edges are divided before they are projected.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from pipeline import files
from pipeline.errors import ConfigError, DataError
from pipeline.grid import ease

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from pipeline.files import Json

    Transform = tuple[float, float, float]
    Cells = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], float]


MAX_BYTES = 256 * 2**20  # of a file of places
LAT, LON = ("lat", "latitude"), ("lon", "lng", "long", "longitude")
ID = ("id", "name", "site", "station")
MIN_OVERLAP = 1e-6  # of a cell; less is an edge that lies on that of the cell, but for rounding
MAX_EDGE_DEGREES = 0.05  # longer edges are divided before they are projected
POSITION_DECIMALS = 6  # of positions in cells, as in `grid.ease`: a place on an edge stays there
POLYGONS = ("Polygon", "MultiPolygon")
NOT_PLACES = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
SHOWN = 5  # places that an error names
ACCEPTED = (
    "expected a CSV file with the columns lat and lon (degrees), and id if you like, or a GeoJSON "
    "file of points and polygons in degrees"
)


@dataclass(frozen=True)
class Places:
    """Places, and the cells that they consist of.

    Attributes:
      ids: Their ids, in the order of the file.
      place: (n,) which place each entry belongs to, sorted.
      row, col: (n,) the cell of each entry.
      weight: (n,) the area in m2 of the cell that is in the place; 1 for points.
      area: (place,) the whole area in m2; 1 for points.
    """

    ids: list[str]
    place: NDArray[np.int64]
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    weight: NDArray[np.float64]
    area: NDArray[np.float64]


def read_places(url: str, transform: Transform, shape: tuple[int, int]) -> tuple[Places, str]:
    """Read places, and find their cells.

    Args:
      url: A CSV or GeoJSON file.
      transform: Side of a cell, left edge and upper edge of the maps, in metres of EPSG:6933.
      shape: Number of rows and columns of the maps.

    Returns:
      The places, and the SHA-256 of the file.

    Raises:
      DataError: If the file cannot be read as places.
      ConfigError: If places lie outside of the maps.
    """
    try:
        data = files.read_limited(url, MAX_BYTES)
    except FileNotFoundError as error:
        raise DataError(url, "not found", remedy="correct the path or URL") from error
    shapes = _parse(url, data)
    if not shapes:
        raise DataError(url, "has no places", remedy=ACCEPTED)
    found = [_cells(geometry, transform, shape) for _, geometry in shapes]
    outside = [name for (name, _), (rows, *_) in zip(shapes, found, strict=True) if not rows.size]
    if outside:
        more = f" and {len(outside) - SHOWN} more" if len(outside) > SHOWN else ""
        named = f"{', '.join(outside[:SHOWN])}{more}"
        problem = f"{len(outside)} of {len(shapes)} places lie outside of the maps: {named}"
        raise ConfigError(url, problem, remedy="leave them out")
    rows, cols, weights = (np.concatenate([cells[i] for cells in found]) for i in range(3))
    owner = np.repeat(np.arange(len(found)), [len(each[0]) for each in found])
    area = np.array([each[3] for each in found])
    ids = [name for name, _ in shapes]
    return Places(ids, owner, rows, cols, weights, area), files.sha256(data)


def _parse(url: str, data: bytes) -> list[tuple[str, Any]]:
    """Return the id and the geometry, in degrees, of each place.

    Raises:
      DataError: If the file is neither a table of points nor GeoJSON, or a place is not valid.
    """
    try:
        text = data.decode("utf-8-sig")
        shapes = [*(_geojson if text.lstrip()[:1] == "{" else _table)(text)]
    except (*NOT_PLACES, shapely.errors.ShapelyError) as error:
        problem = f"cannot be read as places: {' '.join(str(error).split())}"
        raise DataError(url, problem, remedy=ACCEPTED) from error
    repeated = [name for name, n in Counter(name for name, _ in shapes).items() if n > 1]
    if repeated:
        problem = f"has several places of one id: {', '.join(repeated[:SHOWN])}"
        raise DataError(url, problem, remedy="give each an id of its own")
    for is_wrong, problem, hint in CHECKS:
        if wrong := [name for name, geometry in shapes if is_wrong(geometry)]:
            raise DataError(url, f"{problem}: {', '.join(wrong[:SHOWN])}", remedy=hint)
    return shapes


def _may_cross_180(geometry: Any) -> bool:
    """Return whether an edge is so long that it was probably meant to go the other way around.

    An edge of 360 degrees, as of a box around the Earth, can only go one way.
    """
    parts = shapely.get_parts(geometry)
    rings = shapely.get_rings(parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON])
    edges = (np.abs(np.diff(shapely.get_coordinates(ring)[:, 0])) for ring in rings)
    return any(((length > 180) & (length < 360)).any() for length in edges)


def _has_no_area(geometry: Any) -> bool:
    """Return whether a polygon is a line or a point."""
    return geometry.geom_type in POLYGONS and shapely.make_valid(geometry).area == 0


def _is_not_in_degrees(geometry: Any) -> bool:
    """Return whether a geometry has coordinates that cannot be longitude and latitude, or none."""
    west, south, east, north = geometry.bounds  # NaN if there are none
    return not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90)


CHECKS = (
    (
        _is_not_in_degrees,
        "has places that are not in degrees",
        "give latitudes from -90 to 90, and longitudes from -180 to 180",
    ),
    (
        _may_cross_180,
        "has polygons with an edge over 180 degrees long",
        "cut a polygon that crosses the meridian of 180 degrees into two there, as RFC 7946 says, "
        "and divide a long edge by a point on it",
    ),
    (_has_no_area, "has polygons without area", "correct them or leave them out"),
)


def _table(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the points of a CSV text."""
    rows = csv.DictReader(io.StringIO(text), dialect=_dialect(text))
    names = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
    lat, lon, name = (_first(names, known) for known in (LAT, LON, ID))
    if lat is None or lon is None:
        raise ValueError(f"its columns are {', '.join(names) or 'none'}")
    for number, row in enumerate(rows, 1):
        try:
            y, x = float(row[lat]), float(row[lon])
        except (TypeError, ValueError) as error:
            raise ValueError(f"row {number} has {row[lat]!r}, {row[lon]!r} for lat, lon") from error
        yield str(row[name]).strip() if name else str(number), shapely.Point(x, y)


def _first(names: Json, known: tuple[str, ...]) -> Any:
    """Return the value of the first of some keys that is there; None if none is."""
    return next((names[key] for key in known if names.get(key) is not None), None)


def _dialect(text: str) -> Any:
    """Return the dialect of a CSV text: separated by commas, semicolons or tabs."""
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    return type("Dialect", (csv.excel,), {"delimiter": separator})


def _geojson(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the points and polygons of a GeoJSON text."""
    tree = json.loads(text)
    features: Sequence[Json] = tree.get("features", [tree])
    for number, feature in enumerate(features, 1):
        properties = feature.get("properties") or {}
        known = {str(key).lower(): value for key, value in properties.items()}
        given = _first({"": feature.get("id")} | known, ("", *ID))
        name = str(number if given is None else given)
        described = feature.get("geometry", feature)
        kind = (described or {}).get("type")
        if kind not in ("Point", *POLYGONS):
            raise ValueError(f"{name} is {kind or 'nothing'}, not a Point, Polygon or MultiPolygon")
        yield name, shapely.from_geojson(json.dumps(described))


def _cells(geometry: Any, transform: Transform, shape: tuple[int, int]) -> Cells:
    """Return rows, columns and weights of the cells of a place, and its area; see `Places`."""
    size, left, top = transform
    if geometry.geom_type == "Point":
        x, y = ease.project(geometry.y, geometry.x)
        position = np.array([[(top - y) / size], [(x - left) / size]]).round(POSITION_DECIMALS)
        n_cells = np.array([shape]).T
        # A point on the southern or eastern edge of the maps is in their last row or column.
        cell = np.where(position == n_cells, n_cells - 1, np.floor(position)).astype(np.int64)
        row, col = cell[:, ((cell >= 0) & (cell < n_cells)).all(0)]
        return row, col, np.ones(len(row)), 1.0
    polygon = _project(geometry)
    west, south, east, north = polygon.bounds
    rows = np.arange(max(0, (top - north) // size), min(shape[0], -((south - top) // size)))
    cols = np.arange(max(0, (west - left) // size), min(shape[1], -((left - east) // size)))
    row, col = (part.ravel().astype(np.int64) for part in np.meshgrid(rows, cols, indexing="ij"))
    x_left, y_top = left + col * size, top - row * size
    boxes = shapely.box(x_left, y_top - size, x_left + size, y_top)
    shapely.prepare(polygon)
    weight = np.where(shapely.contains_properly(polygon, boxes), size * size, 0.0)
    edge = (weight == 0) & shapely.intersects(polygon, boxes)
    weight[edge] = shapely.area(shapely.intersection(polygon, boxes[edge]))
    used = weight > MIN_OVERLAP * size * size
    return row[used], col[used], weight[used], float(polygon.area)


def _project(geometry: Any) -> Any:
    """Return a polygon in EPSG:6933, valid, from one in degrees."""
    divided = shapely.segmentize(shapely.make_valid(geometry), MAX_EDGE_DEGREES)

    def project(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(ease.project(points[:, 1], points[:, 0]), 1)

    return shapely.transform(divided, project)
