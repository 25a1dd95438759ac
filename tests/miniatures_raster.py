"""Small real rasters in the providers' forms, and a server of them in a process of its own.

GDAL holds Python's lock while it opens a file: a server in the same process could not answer.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import processes
import rasterio
import web
from rasterio.enums import Resampling
from rasterio.transform import Affine

if TYPE_CHECKING:
    from collections.abc import Iterator

HOMOLOSINE = (
    'PROJCS["Homolosine",GEOGCS["GCS_unnamed ellipse",DATUM["D_WGS_1984",'
    'SPHEROID["WGS_1984",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["Degree",0.0174532925199433]],PROJECTION["Interrupted_Goode_Homolosine"],'
    'UNIT["metre",1,AUTHORITY["EPSG","9001"]],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
)


def write(path, values, crs, corner, width, **options):
    """A tiled GeoTIFF of values (band, row, column) or (row, column), north up.

    corner: left and top edge; width: of a column, or (of a column, of a row). Also: nodata,
    scale, offset, units, names of bands, overviews.
    """
    values = np.atleast_3d(np.asarray(values)) if values.ndim > 2 else values[None]
    dx, dy = width if isinstance(width, tuple) else (width, width)
    names, overviews = options.pop("names", None), options.pop("overviews", ())
    tags = {key: options.pop(key, None) for key in ("scale", "offset", "units")}
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "crs": crs, "dtype": values.dtype, "count": len(values)}
    profile |= {"height": values.shape[1], "width": values.shape[2], "compress": "deflate"}
    profile |= {"tiled": True, "blockxsize": 64, "blockysize": 64} | options
    transform = Affine(dx, 0, corner[0], 0, -dy, corner[1])
    with rasterio.open(path, "w", transform=transform, **profile) as file:
        file.write(values)
        if names:
            file.descriptions = names
        for key, value in tags.items():
            if value is not None:
                setattr(file, {"scale": "scales", "offset": "offsets"}.get(key, key), [value])
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(overviews, Resampling.nearest)
    return path


def worldcover(folder, south, west, classes):
    """A tile of ESA WorldCover 2021: 3 degrees, uint8, 0 for none; (row, column) classes."""
    name = f"ESA_WorldCover_10m_2021_v200_{corner_name(south, west)}_Map.tif"
    width = 3 / classes.shape[0]
    options = {"nodata": 0, "overviews": (2, 4)}
    return write(folder / name, classes, "EPSG:4326", (west, south + 3), width, **options)


def copernicus(folder, south, west, elevation):
    """A tile of the Copernicus DEM: a degree, float32, no nodata, half a row and column off."""
    lat, lon = corner_name(south, west)[:3], corner_name(south, west)[3:]
    name = f"Copernicus_DSM_COG_30_{lat}_00_{lon}_00_DEM"
    dy, dx = 1 / elevation.shape[0], 1 / elevation.shape[1]
    corner = (west - dx / 2, south + 1 + dy / 2)
    values = elevation.astype("float32")
    return write(folder / name / f"{name}.tif", values, "EPSG:4326", corner, (dx, dy))


def corner_name(south, west):
    """A south-west corner, as in N40W105."""
    return f"{'NS'[south < 0]}{abs(south):02d}{'EW'[west < 0]}{abs(west):03d}"


@dataclass(frozen=True)
class Elsewhere:
    """The server: as `web.Site`, from another process."""

    url: str

    def fails(self, pattern, *statuses):
        """Let the next requests for a path that matches get these statuses, one each."""
        told = json.dumps([pattern, *statuses]).encode().hex()  # is no path that matches
        urllib.request.urlopen(f"{self.url}/--fails?{told}").read()

    def asked(self):
        """Requests since this was last called: method, path with query, Range."""
        return json.loads(urllib.request.urlopen(f"{self.url}/--asked").read())


@contextlib.contextmanager
def served(folder) -> Iterator[Elsewhere]:
    """Serve a folder until the block ends."""
    told = folder / ".url"
    told.unlink(missing_ok=True)
    command = [sys.executable, __file__, str(folder)]
    with processes.running(command, folder / ".log") as server:
        server.wait_for(told.exists)
        yield Elsewhere(told.read_text())


def _serve(folder: Path) -> None:
    with web.serve(folder) as site:

        def fails(path):
            site.answers.clear()
            site.fails(*json.loads(bytes.fromhex(path.partition("?")[2])))
            return b"done"

        def asked(path):
            found, site.asked[:] = [a for a in site.asked if "/--" not in a[1]], []
            return json.dumps(found).encode()

        site.made += [("^/--fails", fails), ("^/--asked", asked)]
        (folder / ".new").write_text(site.url)
        (folder / ".new").rename(folder / ".url")
        threading.Event().wait()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
