"""Assign sites to regions that are held out together: bands of longitude, names, or polygons."""

from __future__ import annotations

import importlib.resources
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from shapely.errors import ShapelyError
from shapely.geometry import shape

from pipeline import files
from pipeline.errors import ConfigError, DamagedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from shapely.geometry.base import BaseGeometry


MAX_GEOJSON_BYTES = 64 * 2**20
GEOJSON_HINT = "expected Polygon or MultiPolygon in degrees (WGS84)"
ELSEWHERE = "elsewhere"  # the region of sites that are in no polygon


def divide_by_longitude(lon: NDArray[np.float64], n_folds: int) -> NDArray[np.int64]:
    """Divide sites into bands of longitude with about equal numbers of sites.

    The first band begins east of the widest gap between sites, so no band is cut at the
    antimeridian. Sites with the same longitude are in the same band.

    Args:
      lon: (site,) degrees east.
      n_folds: Number of bands.

    Returns:
      (site,) band in [0, n_folds), numbered eastward.

    Raises:
      ValueError: If a band would be empty.
    """
    around = np.mod(lon, 360.0)
    known = np.unique(around)
    gaps = np.diff(known, append=known[:1] + 360.0)
    east = np.mod(around - known[(gaps.argmax() + 1) % len(known)], 360.0)
    _, number, size = np.unique(east, return_inverse=True, return_counts=True)
    middle = (np.cumsum(size) - size / 2) / len(lon)
    band = np.floor(middle * n_folds)[number].astype(np.int64)
    if len(np.unique(band)) < n_folds:
        counts = f"n_folds {n_folds} with {len(lon)} sites at {len(known)} longitudes"
        raise ValueError(f"{counts}: a band would be empty; choose a smaller n_folds")
    return band


def number_regions(names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Number the regions of sites.

    Args:
      names: (site,) name of the region of each site.

    Returns:
      (site,) number of the region, and the names of the regions in that order.

    Raises:
      ValueError: If there is only one region, because no sites would be left for training.
    """
    regions, number = np.unique(np.asarray(names, str), return_inverse=True)
    if len(regions) < 2:
        raise ValueError(f"all {len(number)} sites are in {regions[0]}, expected several regions")
    return number.astype(np.int64), regions.tolist()


def continents_path() -> str:
    """Return the path of the polygons of the continents; the file names its licence and origin."""
    return str(importlib.resources.files("pipeline.experiment") / "continents.geojson")


def regions_from_polygons(
    lat: NDArray[np.float64], lon: NDArray[np.float64], url: str
) -> list[str]:
    """Return the (site,) name of the region of each site, from a GeoJSON file.

    The region of a site is the first polygon that contains it, borders included. Its name is the
    property `name`, or else the number of the feature. Polygons with the same name are one region.
    The region of sites in no polygon is ELSEWHERE.

    Args:
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      url: Path or URL of the file.

    Raises:
      ConfigError: If there is no such file, or it does not contain polygons in degrees.
    """
    where = f"folds.by {url}"
    names = np.full(len(lat), ELSEWHERE, object)
    for number, feature in reversed(list(enumerate(_read_features(url, where)))):
        try:
            polygon = _feature_polygon(feature)
            shapely.prepare(polygon)
            inside = shapely.intersects_xy(polygon, lon, lat)
        except (ValueError, ShapelyError) as error:
            problem = f"feature {number} {' '.join(str(error).split())}"
            raise ConfigError(where, problem, remedy=GEOJSON_HINT) from error
        properties = feature.get("properties")
        name = properties.get("name", number) if isinstance(properties, dict) else number
        names[inside] = str(name)
    return [str(name) for name in names]


def _read_features(url: str, where: str) -> list[Any]:
    """Read the features of a GeoJSON file; a file of one geometry is one feature.

    Args:
      url: Path or URL of the file.
      where: The setting and the file, for messages.

    Raises:
      ConfigError: If there is no such file, it is not GeoJSON, or has no features.
    """
    hint = "give the path or URL of a GeoJSON file with polygons"
    try:
        stored = files.read_json(url, max_bytes=MAX_GEOJSON_BYTES)
    except DamagedError as error:
        raise ConfigError(where, f"is not GeoJSON: {error.problems[0]}", remedy=hint) from error
    if stored is None:
        raise ConfigError(where, "not found", remedy=hint)
    features = stored.get("features", [stored])
    if not isinstance(features, list) or not features:
        raise ConfigError(where, "has no features", remedy=hint)
    return features


def _feature_polygon(feature: Any) -> BaseGeometry:
    """Return the polygon or polygons of a feature, longitude and latitude in degrees.

    Args:
      feature: The feature, or a geometry.

    Raises:
      ValueError: If it is not a polygon, or not in degrees.
    """
    if not isinstance(feature, dict):
        raise ValueError("has no rings of longitude and latitude")
    geometry = feature.get("geometry", feature)
    if not isinstance(geometry, dict):
        raise ValueError("has no geometry")
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"is a feature of type {str(kind)[:40]}")
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if not isinstance(polygons, list) or not polygons:
        raise ValueError("has no rings of longitude and latitude")
    for rings in polygons:
        if not isinstance(rings, list) or not rings or not all(map(_is_ring, rings)):
            raise ValueError("has no rings of longitude and latitude")
    if any(
        abs(lon) > 180 or abs(lat) > 90 for rings in polygons for r in rings for lon, lat, *_ in r
    ):
        raise ValueError("has corners beyond 180 degrees of longitude or 90 degrees of latitude")
    flat = [[[position[:2] for position in ring] for ring in rings] for rings in polygons]
    return shape({"type": "MultiPolygon", "coordinates": flat})


def _is_ring(ring: Any) -> bool:
    """Return whether a value of JSON is a ring: at least three positions of finite numbers."""
    return (
        isinstance(ring, list)
        and len(ring) >= 3
        and all(
            isinstance(position, list)
            and 2 <= len(position) <= 4
            and all(type(x) in (int, float) and abs(x) < float("inf") for x in position)
            for position in ring
        )
    )
