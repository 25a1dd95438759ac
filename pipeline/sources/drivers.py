"""The drivers, by the paths that catalogs have them under: these stay valid when a driver moves."""

from __future__ import annotations

from typing import Any

PACKAGE = "pipeline.sources"

# Path in this package under which catalogs have a driver -> path of the driver today.
# A driver that moves gets another value here, and its key never changes. One that is published
# under a new path as well, in the catalogs of soilweave, gets no further key.
PUBLISHED = {
    "awdb.AwdbSource": "pipeline.sources.awdb.AwdbSource",
    "filled.FilledSource": "pipeline.sources.points.FilledSource",
    "geolearn.GeolearnSource": "pipeline.sources.geolearn.GeolearnSource",
    "gridded.GriddedSource": "pipeline.sources.gridded.GriddedSource",
    "gridzarr.GridZarrSource": "pipeline.sources.gridzarr.GridZarrSource",
    "ismn.IsmnSource": "pipeline.sources.ismn.IsmnSource",
    "points.PointsSource": "pipeline.sources.points.PointsSource",
    "raster.RasterSource": "pipeline.sources.raster.RasterSource",
    "smap.SmapL3Source": "pipeline.sources.smap.SmapL3Source",
    "smap4.SmapL4Source": "pipeline.sources.smap.SmapL4Source",
    "table.TableSource": "pipeline.sources.table.TableSource",
    "uscrn.UscrnSource": "pipeline.sources.uscrn.UscrnSource",
    "zarr.ZarrSource": "pipeline.sources.zarr.ZarrSource",
}


def aliases() -> dict[str, str]:
    """Where the drivers are today that have moved, by the path that catalogs have them under."""
    paths = {f"{PACKAGE}.{old}": new for old, new in PUBLISHED.items()}
    return {old: new for old, new in paths.items() if old != new}


def register() -> None:
    """Let Intake open entries, in this process, that name drivers by paths they have moved from.

    `catalog` does this before it opens a catalog. Call it before `intake.open_catalog` to read a
    catalog of your own that has such paths.
    """
    from intake.source import drivers

    # `intake.register_driver` refuses a dot in a name, with a TypeError in version 2.0.9.
    drivers.registered().update(aliases())


def published_path(path: Any) -> Any:
    """The path under which catalogs have a driver, which does not change when the driver moves.

    Args:
      path: `driver` of an entry: a path, old or new, or whatever else Intake takes.
    """
    return next((old for old, new in aliases().items() if new == path), path)


def name_of(driver: Any) -> str:
    """The name of a driver, which tells it from others wherever it lies: `name` of its class.

    The name of the class itself where it has none, as drivers of users' own may.
    """
    kind = type(driver)
    return str(vars(kind).get("name") or kind.__name__)
