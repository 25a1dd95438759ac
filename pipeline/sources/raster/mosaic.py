"""Where the cells lie that are made of rasters, and in which blocks they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import rasterio

    from pipeline.sources.raster.tiles import Corner, Tiles

Axis = tuple[float, float, int]  # first edge, step to the next (either sign), number of cells
_PIECE = 4096  # rows and columns of a raster that are read at once, of one without tiles
_WHOLE = 1e-3  # how far from a whole number a ratio of widths may be


@dataclass(frozen=True)
class Layout:
    """The output's cells, and the blocks of them that are read at once.

    Attributes:
      crs: WKT of a map projection; None for rows of latitude and columns of longitude.
      rows: of the output; `cols`, likewise.
      block: rows and columns of cells in a block; the last ones may be smaller.
      ratio: rows and columns of the raster in a cell; of tiles None, they differ.
    """

    crs: str | None
    rows: Axis
    cols: Axis
    block: tuple[int, int]
    ratio: tuple[int, int] | None

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of the blocks, along rows and columns."""
        made = []
        for (_, _, n), size in zip((self.rows, self.cols), self.block, strict=True):
            made.append((size,) * (n // size) + ((n % size,) if n % size else ()))
        return made[0], made[1]

    @property
    def dims(self) -> tuple[str, str]:
        """Names of the output's dims."""
        return ("y", "x") if self.crs else ("lat", "lon")

    def coords(self) -> dict[str, Any]:
        """Centres of rows and columns, and in degrees their bounds, as xarray takes them."""
        made: dict[str, Any] = {}
        for name, (first, step, n) in zip(self.dims, (self.rows, self.cols), strict=True):
            edges = first + step * np.arange(n + 1)
            made[name] = (name, (edges[1:] + edges[:-1]) / 2)
            if not self.crs:
                edges = np.clip(edges, -90, 90) if name == "lat" else edges
                made[f"{name}_bnds"] = ((name, "bnds"), np.stack([edges[:-1], edges[1:]], 1))
        return made


def alone(dataset: rasterio.DatasetReader, resolution: float | None, read_step: int) -> Layout:
    """The layout of a raster that has no tiles.

    Raises:
      ValueError: its cells, or those that are read, do not fit whole into the resolution's.
    """
    transform, shape = dataset.transform, (dataset.height, dataset.width)
    ratio = []
    for width in (abs(transform.e), abs(transform.a)):
        n = round(resolution / width) if resolution else 1
        if n < 1 or (resolution and abs(resolution / width - n) > _WHOLE * n):
            least = width * max(n, 1)
            raise ValueError(f"resolution {resolution:g}: cells are {width:g}; try {least:g}")
        if n % read_step:
            raise ValueError(f"read_step {read_step}: expected a divisor of {n}, cells in a mean")
        ratio.append(n)
    axes, block = [], []
    for first, step, n, size in zip(
        (transform.f, transform.c), (transform.e, transform.a), ratio, shape, strict=True
    ):
        axes.append((first, step * n, size // n))
        block.append(max(1, min(size // n, _PIECE * read_step // n)))
    crs = None if dataset.crs.is_geographic else dataset.crs.to_wkt()
    return Layout(crs, axes[0], axes[1], (block[0], block[1]), (ratio[0], ratio[1]))


def of_tiles(
    dataset: rasterio.DatasetReader,
    corner: Corner,
    tiles: Tiles,
    resolution: float,
    read_step: int,
) -> Layout:
    """The layout of a mosaic, of which one tile is open: each is a block.

    Its edges are that tile's, which may lie half of its cells off the whole degrees. Tiles of
    other widths, nearer to a pole, may lie a little otherwise; theirs are taken as these.

    Raises:
      ValueError: cells of the resolution do not fill a tile, or a tile is not where it says.
    """
    cells = round(tiles.degrees / resolution)
    if abs(cells * resolution - tiles.degrees) > _WHOLE * resolution:
        raise ValueError(f"resolution {resolution:g}: expected a part of {tiles.degrees} degrees")
    problems = misplaced(dataset, corner, tiles.degrees)
    if any(n % read_step for n in (dataset.height, dataset.width)):
        size = f"{dataset.height} x {dataset.width}"
        problems.append(f"read_step {read_step}: expected a divisor of a tile's {size}")
    if problems:
        raise ValueError("; ".join(problems))
    south, west = corner
    step = tiles.degrees / cells
    top = dataset.transform.f + (tiles.souths[0] - south)
    left = dataset.transform.c + (tiles.wests[0] - west)
    rows, cols = len(tiles.souths) * cells, len(tiles.wests) * cells
    return Layout(None, (top, -step, rows), (left, step, cols), (cells, cells), None)


def misplaced(dataset: rasterio.DatasetReader, corner: Corner, degrees: int) -> list[str]:
    """Whether a tile lies where its name says, to a cell of its own."""
    transform, (south, west) = dataset.transform, corner
    if transform.e > 0 or not dataset.crs.is_geographic:
        return ["expected latitudes from north to south, and longitudes eastward"]
    bounds, wanted = dataset.bounds, (west, south, west + degrees, south + degrees)
    widths = (transform.a, -transform.e, transform.a, -transform.e)
    off = [abs(a - b) > 1.01 * w for a, b, w in zip(bounds, wanted, widths, strict=True)]
    if not any(off):
        return []
    lies = ", ".join(f"{edge:.6g}" for edge in bounds)
    return [f"lies at ({lies}), expected {wanted}: west, south, east, north"]


def crs_problems(dataset: rasterio.DatasetReader, expected: str | None) -> list[str]:
    """Whether a raster has a place on Earth, north up, in the CRS that is expected, if any is."""
    if dataset.crs is None:
        return ["no CRS"]
    transform = dataset.transform
    if transform.b or transform.d:
        return ["its rows do not run along an axis of its CRS"]
    if expected is None or _same_crs(dataset.crs.to_wkt(), expected):
        return []
    return [f"CRS {dataset.crs.to_string()[:200]}, expected {expected}"]


def _same_crs(found: str, expected: str) -> bool:
    """Whether two CRS are one, whatever it is called and in whatever order its axes are."""
    import warnings

    import pyproj

    one, other = pyproj.CRS(found), pyproj.CRS(expected)
    if one.equals(other, ignore_axis_order=True):
        return True
    with warnings.catch_warnings():
        # That PROJ's short form loses details is why it serves here.
        warnings.filterwarnings("ignore", "You will likely lose important", UserWarning)
        return bool(one.to_dict() and one.to_dict() == other.to_dict())
