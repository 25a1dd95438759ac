"""Published paths of the drivers, which stay valid in catalogs when a driver's module moves."""

from __future__ import annotations

from typing import Any

PACKAGE = "pipeline.sources"

# Published path in this package, which catalogs use -> current path of the driver.
# If a driver moves, change the value and keep the key. Do not add a second key for a driver that
# the catalogs of soilweave also publish under its new path.
PUBLISHED_PATHS = {
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


def moved_drivers() -> dict[str, str]:
    """Return {published path: current path} of the drivers that have moved."""
    paths = {f"{PACKAGE}.{old}": new for old, new in PUBLISHED_PATHS.items()}
    return {old: new for old, new in paths.items() if old != new}


def register_moved_drivers() -> None:
    """Let Intake in this process open entries that use the published path of a moved driver.

    The folder `catalog` calls this before it opens a catalog. Call it before
    `intake.open_catalog` to read a catalog of your own that has such paths.
    """
    from intake.source import drivers

    # `intake.register_driver` of version 2.0.9 raises TypeError if a name contains a dot.
    drivers.registered().update(moved_drivers())


def published_path(path: Any) -> Any:
    """Return the published path of a driver, which does not change when the driver moves.

    Args:
      path: The value of `driver` in a catalog entry: a published or current path. Any other value
        that Intake accepts is returned unchanged.
    """
    return next((old for old, new in moved_drivers().items() if new == path), path)


def driver_name(driver: Any) -> str:
    """Return the name of a driver, which does not depend on the driver's module.

    It is the attribute `name` of the driver's class or, if the class itself has none, as a user's
    own driver may, the name of the class.
    """
    kind = type(driver)
    return str(vars(kind).get("name") or kind.__name__)
