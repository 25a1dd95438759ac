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

    from pipeline.files import Json


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
    hint = "give the path or URL of a GeoJSON file with polygons"
    try:
        stored = files.read_json(url)
    except DamagedError as error:
        raise ConfigError(where, f"is not GeoJSON: {error.problems[0]}", remedy=hint) from error
    features = [] if stored is None else stored.get("features", [stored])
    if not features:
        problem = "not found" if stored is None else "has no features"
        raise ConfigError(where, problem, remedy=hint)
    names = np.full(len(lat), ELSEWHERE, object)
    for number, feature in reversed(list(enumerate(features))):
        try:
            polygon = _feature_polygon(feature, where)
        except (AttributeError, LookupError, TypeError, ValueError, ShapelyError) as error:
            problem = f"feature {number} has no rings of longitude and latitude"
            raise ConfigError(where, problem, remedy="expected Polygon or MultiPolygon") from error
        name = (feature.get("properties") or {}).get("name", number)
        shapely.prepare(polygon)
        names[shapely.intersects_xy(polygon, lon, lat)] = str(name)
    return [str(name) for name in names]


def _feature_polygon(feature: Json, where: str) -> BaseGeometry:
    """Return the polygon or polygons of a feature, longitude and latitude in degrees.

    Args:
      feature: The feature, or a geometry.
      where: The setting and the file, for messages.

    Raises:
      ConfigError: If it is not a polygon, or not in degrees.
    """
    geometry: Any = feature.get("geometry") or feature
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        hint = "expected Polygon or MultiPolygon"
        raise ConfigError(where, f"has a feature of type {kind}", remedy=hint)
    polygon = shape(geometry)
    if (np.abs(shapely.get_coordinates(polygon)) > (180.0, 90.0)).any():
        problem = "has corners beyond 180 degrees of longitude or 90 degrees of latitude"
        raise ConfigError(where, problem, remedy="use WGS84 degrees")
    return polygon
