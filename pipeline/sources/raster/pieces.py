"""Read blocks of rasters lazily."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import dated, http_errors
from pipeline.sources.form import REMEDY
from pipeline.sources.raster import mosaic
from pipeline.sources.raster.geotiff import Absent, opened
from pipeline.sources.raster.tiles import Corner, Tiles, fields

if TYPE_CHECKING:
    import datetime

    import dask.array
    import rasterio
    from numpy.typing import NDArray
    from rasterio.windows import Window

    from pipeline.sources.raster.layers import Layer


@dataclass(frozen=True)
class Reader:
    """A function that reads one block, which dask calls, with all that it needs.

    Attributes:
      pattern: URL pattern, which may contain a tile and a day.
      layers: The variables to read.
      layout: The output cells and blocks.
      days: Days of the files; empty if the pattern contains no day.
      tiles: Tiles of the mosaic; None for a single raster.
      read_step: Rows and columns of the raster that are read as one value.
      storage_options: Options for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.
      origin: Where users get the files, for errors.
      absent_value: Value where a tile or a day has no file; None if that is an error.
    """

    pattern: str
    layers: tuple[Layer, ...]
    layout: mosaic.Layout
    days: tuple[datetime.datetime, ...]
    tiles: Tiles | None
    read_step: int
    storage_options: dict[str, Any]
    login: str | None
    origin: str | None
    absent_value: float | None

    def __call__(self, block_id: tuple[int, ...]) -> NDArray[np.float32]:
        """Read a block.

        Args:
          block_id: Indices of the block along (time,) variable, row and column. There is one
            block of variables; `Layout.chunks` has the sizes along rows and columns.

        Returns:
          ((time,) variable, row, column) the values.

        Raises:
          DataError: If access to a file is refused, or it cannot be read.
        """
        *time, _, i, j = block_id
        chunks = self.layout.chunks
        shape = (chunks[0][i], chunks[1][j])
        corner = (self.tiles.souths[i], self.tiles.wests[j]) if self.tiles else None
        url = located(self.pattern, self.days[time[0]] if time else None, corner, self.tiles)
        try:
            with opened(url, self.storage_options, self.login, self.origin) as dataset:
                self._check(dataset, url, corner)
                window = self._window(dataset, i, j, shape)
                arrays = [
                    layer.read(dataset, window, self.read_step, shape) for layer in self.layers
                ]
        except Absent:
            if self.absent_value is None:
                raise
            arrays = [np.full(shape, self.absent_value, np.float32) for _ in self.layers]
        block = np.stack(arrays)
        return block[None] if time else block

    def arrays(self) -> dict[str, dask.array.Array]:
        """Return {variable: lazy ((time,) row, column) array}."""
        import dask.array

        chunks: tuple[Any, ...] = ((len(self.layers),), *self.layout.chunks)
        if self.days:
            chunks = ((1,) * len(self.days), *chunks)
        meta = np.empty((0,) * len(chunks), "float32")
        map_blocks: Any = dask.array.map_blocks
        stacked = map_blocks(self, chunks=chunks, dtype="float32", meta=meta)
        return {layer.name: stacked[..., n, :, :] for n, layer in enumerate(self.layers)}

    def _check(self, dataset: rasterio.DatasetReader, url: str, corner: Corner | None) -> None:
        """Check that an open raster is as the catalog says, and on the same grid as the first.

        Raises:
          DataError: If it is not; the error lists all differences.
        """
        problems = [problem for layer in self.layers for problem in layer.problems(dataset)]
        if corner and self.tiles:
            problems += mosaic.misplaced(dataset, corner, self.tiles.degrees)
        elif self.layout.ratio:
            ratio, size = self.layout.ratio, (dataset.height, dataset.width)
            axes = (self.layout.rows, self.layout.cols)
            n_cells = [n // r for n, r in zip(size, ratio, strict=True)]
            if n_cells != [n for *_, n in axes] or not np.allclose(
                [dataset.transform.f, dataset.transform.c], [axes[0][0], axes[1][0]]
            ):
                problems.append(
                    f"its {size[0]} x {size[1]} cells are not on the grid of the first raster"
                )
        if problems:
            raise DataError(http_errors.shown(url), *problems, remedy=REMEDY)

    def _window(
        self, dataset: rasterio.DatasetReader, i: int, j: int, shape: tuple[int, int]
    ) -> Window:
        """Return the rows and columns of the raster for block (i, j), which has `shape` cells."""
        from rasterio.windows import Window

        if self.layout.ratio is None:
            return Window(0, 0, dataset.width, dataset.height)
        (ry, rx), (by, bx) = self.layout.ratio, self.layout.block
        return Window(j * bx * rx, i * by * ry, shape[1] * rx, shape[0] * ry)


def located(
    pattern: str, day: datetime.datetime | None, corner: Corner | None, tiles: Tiles | None
) -> str:
    """Return the URL of a tile and a day.

    Args:
      pattern: URL pattern, which may contain a tile and a day.
      day: The day; None if the pattern contains none.
      corner: South-west corner of the tile; None if there are no tiles.
      tiles: Tiles of the mosaic; None for a single raster.
    """
    url = pattern
    if corner is not None and tiles is not None:
        url = url.format(**fields(corner, tiles.degrees))
    return dated.filled(url, day) if day else url
