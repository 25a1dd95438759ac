"""Regions that are held out whole: bands of longitude, networks, continents, polygons."""

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


ELSEWHERE = "elsewhere"  # the region of sites that lie in no polygon


def bands(lon: NDArray[np.float64], n_folds: int) -> NDArray[np.int64]:
    """Deal sites into bands of longitude with about equally many sites each.

    The first band begins east of the widest gap between sites, so that none is cut at the
    antimeridian; sites of one longitude are never parted.

    Args:
      lon: (site,) degrees east.
      n_folds: number of bands.

    Returns:
      (site,) band in [0, n_folds), numbered eastward.

    Raises:
      ValueError: there are too few longitudes for so many bands.
    """
    around = np.mod(lon, 360.0)
    known = np.unique(around)
    gaps = np.diff(known, append=known[:1] + 360.0)
    east = np.mod(around - known[(gaps.argmax() + 1) % len(known)], 360.0)
    _, number, size = np.unique(east, return_inverse=True, return_counts=True)
    middle = (np.cumsum(size) - size / 2) / len(lon)
    band = np.floor(middle * n_folds)[number].astype(np.int64)
    if len(np.unique(band)) < n_folds:
        found = f"n_folds {n_folds} with {len(lon)} sites at {len(known)} longitudes"
        raise ValueError(f"{found}, some band would be empty: choose fewer n_folds")
    return band


def numbered(names: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """(site,) number of each site's region, and the regions' names in that order.

    Raises:
      ValueError: there is one region only, so nothing to train on.
    """
    regions, number = np.unique(np.asarray(names, str), return_inverse=True)
    if len(regions) < 2:
        raise ValueError(f"all {len(number)} sites are in {regions[0]}, expected several regions")
    return number.astype(np.int64), regions.tolist()


def continents() -> str:
    """URL of the polygons of the continents, which tell themselves whence they are."""
    return str(importlib.resources.files("pipeline.experiment") / "continents.geojson")


def named(lat: NDArray[np.float64], lon: NDArray[np.float64], url: str) -> list[str]:
    """(site,) name of the first polygon of a GeoJSON file that holds each site.

    A polygon's name is its property `name`, else its number; those of one name are one region.
    A polygon holds what lies on its border. Sites in none are a region of their own, ELSEWHERE.

    Raises:
      ConfigError: there is no such file, or it has no polygons in degrees.
    """
    place = f"folds.by {url}"
    remedy = "give a file or URL of polygons"
    try:
        stored = files.read_json(url)
    except DamagedError as error:
        raise ConfigError(place, f"no GeoJSON there: {error.problems[0]}", remedy=remedy) from error
    features = [] if stored is None else stored.get("features", [stored])
    if not features:
        found = "no GeoJSON there" if stored is None else "no features"
        raise ConfigError(place, found, remedy=remedy)
    names = np.full(len(lat), ELSEWHERE, object)
    for number, feature in reversed(list(enumerate(features))):
        try:
            polygon = _polygon(feature, place)
        except (AttributeError, LookupError, TypeError, ValueError, ShapelyError) as error:
            found = f"feature {number} has no rings of longitude and latitude"
            raise ConfigError(place, found, remedy="expected Polygon or MultiPolygon") from error
        name = (feature.get("properties") or {}).get("name", number)
        shapely.prepare(polygon)
        names[shapely.intersects_xy(polygon, lon, lat)] = str(name)
    return [str(name) for name in names]


def _polygon(feature: Json, place: str) -> BaseGeometry:
    """The polygon or polygons of a feature: longitude and latitude in degrees.

    Raises:
      ConfigError: it is something else, or in other units.
    """
    geometry: Any = feature.get("geometry") or feature
    kind = geometry.get("type")
    if kind not in ("Polygon", "MultiPolygon"):
        remedy = "expected Polygon or MultiPolygon"
        raise ConfigError(place, f"a feature of type {kind}", remedy=remedy)
    polygon = shape(geometry)
    if (np.abs(shapely.get_coordinates(polygon)) > (180.0, 90.0)).any():
        raise ConfigError(place, "corners beyond 180, 90", remedy="give WGS84 degrees")
    return polygon
