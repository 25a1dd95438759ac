"""Aggregate small cells to large ones, as means or as fractions of classes.

Compute the slope of the ground from elevations.

Compute variables from the bands of a raster: values, slopes or fractions of classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.grid.regrid import MIN_COVERED_SHARE
from pipeline.sources.shared.missing_values import declared_fills
from pipeline.sources.shared.units import are_same_units, linear_conversion

if TYPE_CHECKING:
    from collections.abc import Sequence

    import rasterio
    from numpy.typing import NDArray
    from rasterio.windows import Window


def block_means(
    values: NDArray[np.generic], valid: NDArray[np.bool_], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Return means over equal blocks of an array.

    The number of blocks along an axis need not divide the number of values. For example, 100 blocks
    of 240 values have 2.4 values each; values on the border of two blocks count in both, by parts.

    Args:
      values: (y, x) the values.
      valid: (y, x) which values are valid; the others are left out.
      shape: Numbers of blocks along y and x.

    Returns:
      (*shape) the means, NaN where less than half of a block is valid.
    """
    n_valid, total = _block_sums(valid, shape), _block_sums(np.where(valid, values, 0), shape)
    size = values.size / (shape[0] * shape[1])
    enough = n_valid >= MIN_COVERED_SHARE * size * (1 - 1e-9)
    mean = np.full(shape, np.nan, np.float32)
    return np.divide(total, n_valid, out=mean, where=enough, casting="same_kind")


def class_fractions(
    classes: NDArray[np.integer],
    valid: NDArray[np.bool_],
    class_values: Sequence[int],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Return the fraction of each block whose class is one of some values.

    Args:
      classes: (y, x) the classes.
      valid: (y, x) which of them are valid; the others are left out.
      class_values: The classes to count.
      shape: Numbers of blocks along y and x.

    Returns:
      (*shape) the fractions, 0 to 1, NaN where less than half of a block is valid.
    """
    return block_means(np.isin(classes, class_values), valid, shape)


def _block_sums(values: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return (*shape) sums over blocks.

    Values are repeated until each block has a whole number of them, and weighted accordingly.
    """
    weight = 1.0
    for axis, (n_values, n_blocks) in enumerate(zip(values.shape, shape, strict=True)):
        repeats = lcm(n_values, n_blocks) // n_values
        if repeats > 1:
            values = np.repeat(values, repeats, axis)
        weight /= repeats
    (ny, nx), (rows, cols) = values.shape, shape
    blocks = values.reshape(rows, ny // rows, cols, nx // cols)
    summed: NDArray[np.float64] = blocks.sum((1, 3), dtype="float64") * weight
    return summed


EQUATORIAL_RADIUS_M, ECCENTRICITY2 = 6_378_137.0, 0.00669437999014  # WGS 84


def metres_per_degree(
    lat: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the lengths of a degree of latitude and of longitude on the WGS 84 ellipsoid.

    Args:
      lat: (...) latitudes, degrees.

    Returns:
      (...) metres per degree northward, and (...) metres per degree eastward.
    """
    phi = np.radians(lat)
    bulge = 1 - ECCENTRICITY2 * np.sin(phi) ** 2
    north = EQUATORIAL_RADIUS_M * (1 - ECCENTRICITY2) / bulge**1.5
    east = EQUATORIAL_RADIUS_M * np.cos(phi) / np.sqrt(bulge)
    return np.radians(north), np.radians(east)


def terrain_slope(
    elevation: NDArray[np.floating], north_m: NDArray[np.float64], east_m: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return the slope by central differences, one-sided at the outer rows and columns.

    Args:
      elevation: (y, x) elevation, m.
      north_m: (y,) distance between neighbours in a column, m.
      east_m: (y,) distance between neighbours in a row, m.

    Returns:
      (y, x) the slope in degrees, NaN where a neighbour is NaN.
    """
    along_y = np.gradient(elevation, axis=0) / north_m[:, None]
    along_x = np.gradient(elevation, axis=1) / east_m[:, None]
    radians = np.arctan(np.hypot(along_y, along_x))
    degrees: NDArray[np.float32] = np.degrees(radians).astype("float32")
    return degrees


DERIVATIONS = ("slope",)


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
        if derive not in (None, *DERIVATIONS):
            raise ValueError(f"{name}: derive: {derive}, expected one of {', '.join(DERIVATIONS)}")
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
            fills=declared_fills({name: spec}).get(str(spec["from"]), ()),
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
        if self.nodata is not None and nodata is not None and not _same_number(nodata, self.nodata):
            problems.append(f"{self.name}: nodata {nodata:g}, expected {self.nodata:g}")
        units = dataset.units[index - 1]
        expected = "m" if self.derive else self.units
        if units and not self.classes and not are_same_units(units, expected):
            problems.append(f"{self.name}: units '{units}', expected '{expected}'")
        if self.classes and np.dtype(dataset.dtypes[index - 1]).kind not in "iu":
            dtype = dataset.dtypes[index - 1]
            problems.append(f"{self.name}: {dtype} values, expected integers that are classes")
        if self.scale != 1 and dataset.scales[index - 1] not in (1, self.scale):
            scale = dataset.scales[index - 1]
            problems.append(f"{self.name}: scale {scale:g}, expected {self.scale:g}")
        try:
            linear_conversion(self.units, self.to)
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
        grown, inner = _extend_window(dataset, window, step) if self.derive else (window, ...)
        values, valid = self._read(dataset, grown, step)
        if self.classes:
            return class_fractions(values, valid, self.classes, shape)
        index = self.index(dataset) - 1
        numbers = values * self._scale(dataset) + dataset.offsets[index]
        if self.derive == "slope":
            numbers = terrain_slope(
                np.where(valid, numbers, np.nan), *_cell_spacing(dataset, grown, step)
            )
            numbers = numbers[inner]
            valid = np.isfinite(numbers)
        factor, offset = linear_conversion(self.units, self.to)
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


def _extend_window(
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


def _cell_spacing(
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


def _same_number(one: float, other: float) -> bool:
    """Return whether two numbers are equal up to rounding, or both NaN."""
    return bool(np.isclose(one, other, rtol=1e-6) or (np.isnan(one) and np.isnan(other)))
