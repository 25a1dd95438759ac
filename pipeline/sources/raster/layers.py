"""Compute variables from the bands of a raster: values, slopes or fractions of classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.missing import fills_of
from pipeline.sources.raster.covers import block_means, fractions
from pipeline.sources.raster.terrain import metres_per_degree, slope
from pipeline.sources.units import conversion, same

if TYPE_CHECKING:
    import rasterio
    from numpy.typing import NDArray
    from rasterio.windows import Window

DERIVED = ("slope",)


@dataclass(frozen=True)
class Layer:
    """A variable that is computed from one band of a raster.

    Attributes:
      name: Name of the variable in soilweave.
      band: Number or description of the band.
      units: The file's units.
      to: Soilweave's units.
      classes: Class values; the variable is the fraction of a cell that has them. Empty for a
        band of numbers.
      derive: `slope` to compute the slope from elevations in m; None for the values themselves.
      nodata: Stored value for missing values, where the file states none.
      valid: Smallest and largest stored value that is valid; None if all are.
      scale: Factor of stored values, where the file states none, as for AppEEARS' LAI in tenths.
      fills: Stored values that stand for missing values although the file does not declare them.
    """

    name: str
    band: str
    units: str
    to: str
    classes: tuple[int, ...] = ()
    derive: str | None = None
    nodata: float | None = None
    valid: tuple[float, float] | None = None
    scale: float = 1.0
    fills: tuple[float, ...] = ()

    @classmethod
    def from_mapping(
        cls, name: str, spec: dict[str, Any], band: str, nodata: float | None
    ) -> Layer:
        """Return the layer that a mapping describes.

        Args:
          name: Name of the variable in soilweave.
          spec: Its description in the mapping, as in `RasterSource`.
          band: Number or description of the band.
          nodata: Stored value for missing values, where the file states none.

        Raises:
          ValueError: If `derive` is unknown, or given together with `classes`.
        """
        derive, classes = spec.get("derive"), tuple(spec.get("classes", ()))
        if derive not in (None, *DERIVED):
            raise ValueError(f"{name}: derive: {derive}, expected one of {', '.join(DERIVED)}")
        if derive and classes:
            raise ValueError(f"{name}: both derive and classes are given, expected one of them")
        units = spec["units"]
        valid = tuple(spec["valid"]) if "valid" in spec else None
        return cls(
            name=name,
            band=band,
            units=units,
            to=spec.get("to", units),
            classes=classes,
            derive=derive,
            nodata=nodata,
            valid=valid,
            scale=float(spec.get("scale", 1)),
            fills=fills_of({name: spec}).get(str(spec["from"]), ()),
        )

    def index(self, dataset: rasterio.DatasetReader) -> int:
        """Return the number of the band, from 1; 0 if the raster has no such band."""
        if self.band.isdecimal():
            return int(self.band) if int(self.band) <= dataset.count else 0
        descriptions = list(dataset.descriptions)
        return descriptions.index(self.band) + 1 if self.band in descriptions else 0

    def problems(self, dataset: rasterio.DatasetReader) -> list[str]:
        """Return a message for each way in which the band is not as the catalog says."""
        index = self.index(dataset)
        if not index:
            have = [text or str(n + 1) for n, text in enumerate(dataset.descriptions)]
            return [f"{self.name}: band {self.band} missing; the file has {have}"]
        problems: list[str] = []
        nodata = dataset.nodatavals[index - 1]
        if self.nodata is not None and nodata is not None and not _same(nodata, self.nodata):
            problems.append(f"{self.name}: nodata {nodata:g}, expected {self.nodata:g}")
        units = dataset.units[index - 1]
        expected = "m" if self.derive else self.units
        if units and not self.classes and not same(units, expected):
            problems.append(f"{self.name}: units '{units}', expected '{expected}'")
        if self.classes and np.dtype(dataset.dtypes[index - 1]).kind not in "iu":
            dtype = dataset.dtypes[index - 1]
            problems.append(f"{self.name}: {dtype} values, expected integers that are classes")
        if self.scale != 1 and dataset.scales[index - 1] not in (1, self.scale):
            scale = dataset.scales[index - 1]
            problems.append(f"{self.name}: scale {scale:g}, expected {self.scale:g}")
        try:
            conversion(self.units, self.to)
        except DataError as error:
            problems.append(f"{self.name}: {error}")
        return problems

    def read(
        self,
        dataset: rasterio.DatasetReader,
        window: Window,
        step: int,
        shape: tuple[int, int],
    ) -> NDArray[np.float32]:
        """Read a window and aggregate it to blocks.

        Args:
          dataset: The raster.
          window: The rows and columns to read.
          step: Rows and columns of the raster that are read as one value.
          shape: Numbers of blocks along rows and columns.

        Returns:
          (*shape) means or fractions of the blocks, in soilweave's units, NaN where missing.
        """
        # A slope needs the neighbours of the outer rows and columns too.
        grown, inner = _grown(dataset, window, step) if self.derive else (window, ...)
        values, valid = self._read(dataset, grown, step)
        if self.classes:
            return fractions(values, valid, self.classes, shape)
        index = self.index(dataset) - 1
        numbers = values * self._scale(dataset) + dataset.offsets[index]
        if self.derive == "slope":
            numbers = slope(np.where(valid, numbers, np.nan), *_spacing(dataset, grown, step))
            numbers = numbers[inner]
            valid = np.isfinite(numbers)
        factor, offset = conversion(self.units, self.to)
        return (block_means(numbers, valid, shape) * factor + offset).astype("float32")

    def _scale(self, dataset: rasterio.DatasetReader) -> float:
        """Return the factor of stored values that the file states, or else the entry's."""
        scale = float(dataset.scales[self.index(dataset) - 1])
        return self.scale if scale == 1 else scale

    def _read(
        self, dataset: rasterio.DatasetReader, window: Window, step: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the stored values of a window, one per `step` rows and columns, and which are valid.

        GDAL computes means only where it leaves out all missing values itself. Otherwise the
        window is read in full and averaged here.
        """
        from rasterio.enums import MaskFlags, Resampling

        index = self.index(dataset)
        shape = (window.height // step, window.width // step)
        file_nodata = dataset.nodatavals[index - 1]
        nodata = self.nodata if file_nodata is None else file_nodata
        fills = self.fills if nodata is None else (*self.fills, nodata)
        has_mask = MaskFlags.per_dataset in dataset.mask_flag_enums[index - 1]
        # GDAL's means leave out the file's own nodata, and no other missing values.
        has_others = self.fills or self.valid or has_mask or (file_nodata is None and fills)
        average_here = step > 1 and not self.classes and bool(has_others)
        resampling = Resampling.nearest if self.classes else Resampling.average
        size = (window.height, window.width) if average_here else shape
        values = dataset.read(index, window=window, out_shape=size, resampling=resampling)
        valid = np.isfinite(values)
        if has_mask:
            valid &= dataset.read_masks(index, window=window, out_shape=size) > 0
        if self.valid:
            valid &= (values >= self.valid[0]) & (values <= self.valid[1])
        for fill in fills:
            valid &= values != fill
        if average_here:
            values = block_means(values, valid, shape)
            valid = np.isfinite(values)
        return values, valid


def _grown(
    dataset: rasterio.DatasetReader, window: Window, step: int
) -> tuple[Window, tuple[slice, slice]]:
    """Extend a window by one step on each side, as far as the raster reaches.

    Returns:
      The extended window; and in what is read of it, the rows and columns of the given window.
    """
    from rasterio.windows import Window

    first, sizes, inner = [], [], []
    for start, length, size in (
        (window.row_off, window.height, dataset.height),
        (window.col_off, window.width, dataset.width),
    ):
        before = step if start >= step else 0
        after = step if start + length + step <= size else 0
        first.append(start - before)
        sizes.append(length + before + after)
        inner.append(slice(before // step, before // step + length // step))
    return Window(first[1], first[0], sizes[1], sizes[0]), (inner[0], inner[1])


def _spacing(
    dataset: rasterio.DatasetReader, window: Window, step: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (row,) the distances in metres between the rows that are read, and the columns."""
    transform, rows = dataset.transform, window.height // step
    dy, dx = abs(transform.e) * step, abs(transform.a) * step
    if not dataset.crs.is_geographic:
        metres = dataset.crs.linear_units_factor[1]
        return np.full(rows, dy * metres), np.full(rows, dx * metres)
    lat = transform.f + transform.e * (window.row_off + (np.arange(rows) + 0.5) * step)
    north, east = metres_per_degree(lat)
    return north * dy, east * dx


def _same(one: float, other: float) -> bool:
    """Return whether two numbers are equal up to rounding, or both NaN."""
    return bool(np.isclose(one, other, rtol=1e-6) or (np.isnan(one) and np.isnan(other)))
