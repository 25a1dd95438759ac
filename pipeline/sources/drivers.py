"""The drivers that a catalog may name.

These are soilweave's, by paths that stay valid when a driver's module moves, and those that
installed packages register as entry points. A catalog cannot import anything else.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from typing import Any

PACKAGE = "pipeline.sources"
ENTRY_POINTS = "intake.drivers"  # the group in which packages, such as intake-xarray, register

# Published path in this package, which catalogs use -> current path of the driver.
# If a driver moves, change the value and keep the key. Do not add a second key for a driver that
# the catalogs of soilweave also publish under its new path.
PUBLISHED_PATHS = {
    "awdb.AwdbSource": "pipeline.sources.awdb.AwdbSource",
    "core_sites.CoreSitesSource": "pipeline.sources.core_sites.CoreSitesSource",
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


def driver_class(name: str) -> Any:
    """Return the class of the driver that a catalog names.

    Args:
      name: Short name or path of one of soilweave's drivers, such as `points.PointsSource` or
        `pipeline.sources.points.PointsSource`; or the name or the path of a driver that an
        installed package registers.

    Raises:
      ImportError: If the package of the driver cannot be imported.
      LookupError: If there is no such driver.
    """
    ours = _our_drivers()
    if name in ours:
        module, _, kind = ours[name].rpartition(".")
        return getattr(importlib.import_module(module), kind)
    registered = importlib.metadata.entry_points(group=ENTRY_POINTS)
    for point in registered:
        if name in (point.name, point.value.replace(":", ".")):
            kind = point.load()
            if getattr(kind, "container", None) == "xarray":
                return kind
            raise LookupError(f"driver '{name}' does not read data into xarray")
    known = [*ours, *(point.name for point in registered)]
    close = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    accepted = f"{', '.join(PUBLISHED_PATHS)}, and those that installed packages register"
    raise LookupError(f"there is no driver '{name}'{hint}; accepted: {accepted}")


def _our_drivers() -> dict[str, str]:
    """Return {short name, published path or current path: current path} of soilweave's drivers."""
    paths: dict[str, str] = {}
    for short, current in PUBLISHED_PATHS.items():
        names = (short, f"{PACKAGE}.{short}", current, current.removeprefix(f"{PACKAGE}."))
        paths |= dict.fromkeys(names, current)
    return paths


def moved_drivers() -> dict[str, str]:
    """Return {published path: current path} of the drivers that have moved."""
    paths = {f"{PACKAGE}.{old}": new for old, new in PUBLISHED_PATHS.items()}
    return {old: new for old, new in paths.items() if old != new}


def register_moved_drivers() -> None:
    """Let Intake in this process open entries that use the published path of a moved driver.

    soilweave does not need this. Call it before `intake.open_catalog` to read a catalog of your
    own that has such paths.
    """
    from intake.source import drivers

    # `intake.register_driver` of version 2.0.9 raises TypeError if a name contains a dot.
    drivers.registered().update(moved_drivers())


def published_path(path: Any) -> Any:
    """Return the published path of a driver, which does not change when the driver moves.

    Args:
      path: The value of `driver` in a catalog entry: a published or current path, or a short name.
        Any other value is returned unchanged.
    """
    current = _our_drivers().get(path, path)
    return next((old for old, new in moved_drivers().items() if new == current), current)


def driver_name(driver: Any) -> str:
    """Return the name of a driver, which does not depend on the driver's module.

    It is the attribute `name` of the driver's class or, if the class itself has none, as a user's
    own driver may, the name of the class.
    """
    kind = type(driver)
    return str(vars(kind).get("name") or kind.__name__)
