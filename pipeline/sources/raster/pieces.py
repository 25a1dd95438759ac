"""Blocks of rasters, read when they are asked for."""

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
    """What reads a block: given to dask with everything it needs.

    Attributes:
      pattern: URL, which may name a tile and a day.
      layers: the variables that are read.
      layout: of the output.
      days: of the pattern; none for constants.
      tiles: of the pattern; None for one raster.
      step: every how many rows and columns of the raster are read.
      given: the entry's `storage_options`; `login` and `origin`, likewise the entry's.
      absent: value where there is no such tile or day; None where there must be one.
    """

    pattern: str
    layers: tuple[Layer, ...]
    layout: mosaic.Layout
    days: tuple[datetime.datetime, ...]
    tiles: Tiles | None
    step: int
    given: dict[str, Any]
    login: str | None
    origin: str | None
    absent: float | None

    def __call__(self, block_id: tuple[int, ...]) -> NDArray[np.float32]:
        """The block (time, variable, row, column), or without time; see `Layout.chunks`.

        Raises:
          DataError: naming the file that is refused or cannot be read.
        """
        *time, _, i, j = block_id
        chunks = self.layout.chunks
        shape = (chunks[0][i], chunks[1][j])
        corner = (self.tiles.souths[i], self.tiles.wests[j]) if self.tiles else None
        url = located(self.pattern, self.days[time[0]] if time else None, corner, self.tiles)
        try:
            with opened(url, self.given, self.login, self.origin) as dataset:
                self._check(dataset, url, corner)
                window = self._window(dataset, i, j, shape)
                read = [layer.read(dataset, window, self.step, shape) for layer in self.layers]
        except Absent:
            if self.absent is None:
                raise
            read = [np.full(shape, self.absent, np.float32) for _ in self.layers]
        made = np.stack(read)
        return made[None] if time else made

    def arrays(self) -> dict[str, dask.array.Array]:
        """(time, row, column), or (row, column), of each layer, of which nothing is read yet."""
        import dask.array

        chunks: tuple[Any, ...] = ((len(self.layers),), *self.layout.chunks)
        if self.days:
            chunks = ((1,) * len(self.days), *chunks)
        meta = np.empty((0,) * len(chunks), "float32")
        make: Any = dask.array.map_blocks
        read = make(self, chunks=chunks, dtype="float32", meta=meta)
        return {layer.name: read[..., n, :, :] for n, layer in enumerate(self.layers)}

    def _check(self, dataset: rasterio.DatasetReader, url: str, corner: Corner | None) -> None:
        problems = [problem for layer in self.layers for problem in layer.problems(dataset)]
        if corner and self.tiles:
            problems += mosaic.misplaced(dataset, corner, self.tiles.degrees)
        elif self.layout.ratio:
            ratio, size = self.layout.ratio, (dataset.height, dataset.width)
            axes = (self.layout.rows, self.layout.cols)
            held = [n // r for n, r in zip(size, ratio, strict=True)]
            if held != [n for *_, n in axes] or not np.allclose(
                [dataset.transform.f, dataset.transform.c], [axes[0][0], axes[1][0]]
            ):
                problems.append(f"{size[0]} x {size[1]} at another place than the first")
        if problems:
            raise DataError(http_errors.shown(url), *problems, remedy=REMEDY)

    def _window(
        self, dataset: rasterio.DatasetReader, i: int, j: int, shape: tuple[int, int]
    ) -> Window:
        from rasterio.windows import Window

        if self.layout.ratio is None:
            return Window(0, 0, dataset.width, dataset.height)
        (ry, rx), (by, bx) = self.layout.ratio, self.layout.block
        return Window(j * bx * rx, i * by * ry, shape[1] * rx, shape[0] * ry)


def located(
    pattern: str, day: datetime.datetime | None, corner: Corner | None, tiles: Tiles | None
) -> str:
    """The URL of a tile and a day."""
    url = pattern
    if corner is not None and tiles is not None:
        url = url.format(**fields(corner, tiles.degrees))
    return dated.filled(url, day) if day else url
