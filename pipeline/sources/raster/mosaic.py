"""List the tiles of a mosaic: rasters of equal size in degrees, named by their corners.

Compute the output cells of rasters and the blocks in which they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import rasterio


Corner = tuple[int, int]  # south and west edge, degrees


@dataclass(frozen=True)
class Tiles:
    """The tiles of a mosaic over a region.

    Attributes:
      degrees: Width and height of a tile.
      region: West, south, east, north in degrees; None for the whole Earth.
      like: South-west corner of a tile that exists, which is the first candidate.
    """

    degrees: int
    region: tuple[float, float, float, float] | None = None
    like: Corner | None = None

    @property
    def souths(self) -> list[int]:
        """The south edges of the rows of tiles, from north to south, degrees."""
        _, south, _, north = self.region or (-180, -90, 180, 90)
        return list(reversed(self._over(south, north, 90)))

    @property
    def wests(self) -> list[int]:
        """The west edges of the columns of tiles, eastward, degrees."""
        west, _, east, _ = self.region or (-180, -90, 180, 90)
        return self._over(west, east, 180)

    def _over(self, low: float, high: float, limit: int) -> list[int]:
        """Return the lower edges of the tiles that cover a range within +-limit degrees."""
        step = self.degrees
        first = int(np.floor(max(low, -limit) / step)) * step
        last = int(np.ceil(min(high, limit) / step)) * step
        return list(range(first, last, step))

    def candidates(self) -> Iterator[Corner]:
        """Yield tiles in the order to try them: `like`, then all from the middle of the region."""
        souths, wests = self.souths, self.wests
        if self.like and (self.region is None or self._holds(self.like)):
            yield self.like
        corners = [(south, west) for south in souths for west in wests]
        south, west = np.mean(souths), np.mean(wests)
        yield from sorted(corners, key=lambda c: (c[0] - south) ** 2 + (c[1] - west) ** 2)

    def _holds(self, corner: Corner) -> bool:
        """Return whether a tile is in the region."""
        return corner[0] in self.souths and corner[1] in self.wests


def url_fields(corner: Corner, degrees: int) -> dict[str, str | int]:
    """Return the fields of a tile that a URL pattern may contain.

    Args:
      corner: South-west corner of the tile.
      degrees: Width of the tile.

    Returns:
      `ns` (N or S), `lat`, `ew` (E or W) and `lon` of the south-west corner, in degrees without
      sign; and the edges `south`, `west`, `north`, `east` in degrees with sign.
    """
    south, west = corner
    hemispheres: dict[str, str | int] = {
        "ns": "S" if south < 0 else "N",
        "ew": "W" if west < 0 else "E",
    }
    edges = {"south": south, "west": west, "north": south + degrees, "east": west + degrees}
    return hemispheres | {"lat": abs(south), "lon": abs(west)} | edges


Axis = tuple[float, float, int]  # first edge, step to the next (of either sign), number of cells
_BLOCK_SIZE = 4096  # rows and columns that are read at once from a raster without tiles
_RATIO_TOLERANCE = 1e-3  # largest relative deviation of a ratio of cell widths from a whole number


@dataclass(frozen=True)
class Layout:
    """The output cells, and the blocks in which they are read.

    Attributes:
      crs: WKT of the map projection; None for rows of latitude and columns of longitude.
      rows: The rows of output cells.
      cols: The columns of output cells.
      block: Rows and columns of cells in a block; the last blocks may be smaller.
      ratio: Rows and columns of the raster in a cell; None for a mosaic, whose tiles may differ.
    """

    crs: str | None
    rows: Axis
    cols: Axis
    block: tuple[int, int]
    ratio: tuple[int, int] | None

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The sizes of the blocks along rows and columns, as dask takes them."""
        sizes = []
        for (_, _, n), size in zip((self.rows, self.cols), self.block, strict=True):
            sizes.append((size,) * (n // size) + ((n % size,) if n % size else ()))
        return sizes[0], sizes[1]

    @property
    def dims(self) -> tuple[str, str]:
        """The names of the output dimensions."""
        return ("y", "x") if self.crs else ("lat", "lon")

    def coords(self) -> dict[str, Any]:
        """Return the centres of rows and columns as xarray takes them, and bounds in degrees."""
        coords: dict[str, Any] = {}
        for name, (first, step, n) in zip(self.dims, (self.rows, self.cols), strict=True):
            edges = first + step * np.arange(n + 1)
            coords[name] = (name, (edges[1:] + edges[:-1]) / 2)
            if not self.crs:
                edges = np.clip(edges, -90, 90) if name == "lat" else edges
                bounds = np.stack([edges[:-1], edges[1:]], 1)
                coords[f"{name}_bnds"] = ((name, "bnds"), bounds)
        return coords


def raster_layout(
    dataset: rasterio.DatasetReader, resolution: float | None, read_step: int
) -> Layout:
    """Return the layout of a raster without tiles.

    Args:
      dataset: The raster.
      resolution: Width of the output cells in units of the CRS; None for the raster's own.
      read_step: Rows and columns of the raster that are read as one value.

    Raises:
      ValueError: If the resolution is no multiple of the width of the raster's cells, or that
        multiple is not divisible by `read_step`.
    """
    transform, shape = dataset.transform, (dataset.height, dataset.width)
    ratio = []
    for width in (abs(transform.e), abs(transform.a)):
        n = round(resolution / width) if resolution else 1
        if n < 1 or (resolution and abs(resolution / width - n) > _RATIO_TOLERANCE * n):
            nearest = width * max(n, 1)
            msg = f"resolution {resolution:g}: expected a multiple of the cell width {width:g}"
            raise ValueError(f"{msg}, such as {nearest:g}")
        if n % read_step:
            msg = f"read_step {read_step}: expected a divisor of {n}, the raster's cells per"
            raise ValueError(f"{msg} output cell")
        ratio.append(n)
    axes, block = [], []
    for first, step, n, size in zip(
        (transform.f, transform.c), (transform.e, transform.a), ratio, shape, strict=True
    ):
        axes.append((first, step * n, size // n))
        block.append(max(1, min(size // n, _BLOCK_SIZE * read_step // n)))
    crs = None if dataset.crs.is_geographic else dataset.crs.to_wkt()
    return Layout(crs, axes[0], axes[1], (block[0], block[1]), (ratio[0], ratio[1]))


def mosaic_layout(
    dataset: rasterio.DatasetReader,
    corner: Corner,
    tiles: Tiles,
    resolution: float,
    read_step: int,
) -> Layout:
    """Return the layout of a mosaic, in which each tile is a block.

    The edges of the blocks follow the open tile, which may lie half a cell off the whole degrees.
    Tiles nearer to a pole may have wider cells and slightly different edges, which is ignored.

    Args:
      dataset: One tile.
      corner: South-west corner in the name of that tile.
      tiles: All tiles of the mosaic in the region.
      resolution: Width of the output cells, degrees.
      read_step: Rows and columns of a tile that are read as one value.

    Raises:
      ValueError: If output cells do not divide a tile, `read_step` does not divide its rows and
        columns, or the tile does not lie where its name says.
    """
    cells = round(tiles.degrees / resolution)
    if abs(cells * resolution - tiles.degrees) > _RATIO_TOLERANCE * resolution:
        msg = f"resolution {resolution:g}: expected a divisor of {tiles.degrees} degrees, a tile"
        raise ValueError(msg)
    problems = position_problems(dataset, corner, tiles.degrees)
    if any(n % read_step for n in (dataset.height, dataset.width)):
        size = f"{dataset.height} x {dataset.width}"
        problems.append(f"read_step {read_step}: expected a divisor of a tile's {size} cells")
    if problems:
        raise ValueError("; ".join(problems))
    south, west = corner
    step = tiles.degrees / cells
    top = dataset.transform.f + (tiles.souths[0] - south)
    left = dataset.transform.c + (tiles.wests[0] - west)
    rows, cols = len(tiles.souths) * cells, len(tiles.wests) * cells
    return Layout(None, (top, -step, rows), (left, step, cols), (cells, cells), None)


def position_problems(dataset: rasterio.DatasetReader, corner: Corner, degrees: int) -> list[str]:
    """Return messages if a tile lies more than one of its cells from where its name says."""
    transform, (south, west) = dataset.transform, corner
    if transform.e > 0 or not dataset.crs.is_geographic:
        return ["expected latitudes from north to south and longitudes eastward"]
    bounds, expected = dataset.bounds, (west, south, west + degrees, south + degrees)
    widths = (transform.a, -transform.e, transform.a, -transform.e)
    is_off = [abs(a - b) > 1.01 * w for a, b, w in zip(bounds, expected, widths, strict=True)]
    if not any(is_off):
        return []
    actual = ", ".join(f"{edge:.6g}" for edge in bounds)
    return [f"lies at ({actual}), expected {expected}: west, south, east, north"]


def crs_problems(dataset: rasterio.DatasetReader, expected: str | None) -> list[str]:
    """Return messages if a raster has no CRS, not the expected one, or rows not along its axes."""
    if dataset.crs is None:
        return ["has no CRS"]
    transform = dataset.transform
    if transform.b or transform.d:
        return ["is rotated: its rows do not run along an axis of its CRS"]
    if expected is None or _same_crs(dataset.crs.to_wkt(), expected):
        return []
    return [f"CRS {dataset.crs.to_string()[:200]}, expected {expected}"]


def _same_crs(actual: str, expected: str) -> bool:
    """Return whether two CRSs are equal apart from their names and the order of their axes."""
    import warnings

    import pyproj

    one, other = pyproj.CRS(actual), pyproj.CRS(expected)
    if one.equals(other, ignore_axis_order=True):
        return True
    with warnings.catch_warnings():
        # PROJ's short form omits details such as names, which is what is needed here.
        warnings.filterwarnings("ignore", "You will likely lose important", UserWarning)
        return bool(one.to_dict() and one.to_dict() == other.to_dict())
