"""What is made of a raster's bands: values, slopes or fractions of classes, on larger cells."""

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
    """One variable of a raster.

    Attributes:
      name: ours.
      band: number of the band, or its description.
      units: those of the file; `to`, ours.
      classes: values of the band of which it is the fraction.
      derive: `slope`, of elevations in m.
      nodata: value that stands for none, where the file does not say.
      valid: least and greatest stored value that is one; None for all.
      scale: of stored values, where the file does not say: AppEEARS' LAI is in tenths.
      fills: stored values that are missing, though the file does not declare them.
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
    def of(cls, name: str, spec: dict[str, Any], band: str, nodata: float | None) -> Layer:
        """A layer as the entry's mapping says.

        Raises:
          ValueError: it wants what there is not.
        """
        derive, classes = spec.get("derive"), tuple(spec.get("classes", ()))
        if derive not in (None, *DERIVED):
            raise ValueError(f"{name}: derive: {derive}, expected one of {', '.join(DERIVED)}")
        if derive and classes:
            raise ValueError(f"{name}: both derive and classes, expected one")
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
        """Number of the band, 0 for none."""
        if self.band.isdecimal():
            return int(self.band) if int(self.band) <= dataset.count else 0
        named = list(dataset.descriptions)
        return named.index(self.band) + 1 if self.band in named else 0

    def problems(self, dataset: rasterio.DatasetReader) -> list[str]:
        """What is wrong with the band."""
        index = self.index(dataset)
        if not index:
            have = [text or str(n + 1) for n, text in enumerate(dataset.descriptions)]
            return [f"{self.name}: band {self.band} missing; the file has {have}"]
        found: list[str] = []
        held = dataset.nodatavals[index - 1]
        if self.nodata is not None and held is not None and not _same(held, self.nodata):
            found.append(f"{self.name}: nodata {held:g}, expected {self.nodata:g}")
        units = dataset.units[index - 1]
        expected = "m" if self.derive else self.units
        if units and not self.classes and not same(units, expected):
            found.append(f"{self.name}: units '{units}', expected '{expected}'")
        if self.classes and np.dtype(dataset.dtypes[index - 1]).kind not in "iu":
            kind = dataset.dtypes[index - 1]
            found.append(f"{self.name}: {kind} values, expected whole numbers of classes")
        if self.scale != 1 and dataset.scales[index - 1] not in (1, self.scale):
            found.append(f"{self.name}: scale {dataset.scales[index - 1]:g}, not {self.scale:g}")
        try:
            conversion(self.units, self.to)
        except DataError as error:
            found.append(f"{self.name}: {error}")
        return found

    def read(
        self,
        dataset: rasterio.DatasetReader,
        window: Window,
        step: int,
        shape: tuple[int, int],
    ) -> NDArray[np.float32]:
        """(*shape) values of a window, in our units, each the mean of a block; NaN for none.

        step: every how many rows and columns are read.
        """
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
        """The file's own, else the entry's."""
        held = float(dataset.scales[self.index(dataset) - 1])
        return self.scale if held == 1 else held

    def _read(
        self, dataset: rasterio.DatasetReader, window: Window, step: int
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        from rasterio.enums import MaskFlags, Resampling

        index = self.index(dataset)
        shape = (window.height // step, window.width // step)
        told = dataset.nodatavals[index - 1]
        none = self.nodata if told is None else told
        fills = self.fills if none is None else (*self.fills, none)
        has_mask = MaskFlags.per_dataset in dataset.mask_flag_enums[index - 1]
        # GDAL leaves out of its means what has the file's own nodata, and nothing else.
        ours = self.fills or self.valid or has_mask or (told is None and fills)
        alone = step > 1 and not self.classes and bool(ours)
        how = Resampling.nearest if self.classes else Resampling.average
        size = (window.height, window.width) if alone else shape
        values = dataset.read(index, window=window, out_shape=size, resampling=how)
        valid = np.isfinite(values)
        if has_mask:
            valid &= dataset.read_masks(index, window=window, out_shape=size) > 0
        if self.valid:
            valid &= (values >= self.valid[0]) & (values <= self.valid[1])
        for fill in fills:
            valid &= values != fill
        if alone:
            values = block_means(values, valid, shape)
            valid = np.isfinite(values)
        return values, valid


def _grown(
    dataset: rasterio.DatasetReader, window: Window, step: int
) -> tuple[Window, tuple[slice, slice]]:
    """A window with one more row and column read on each side that the raster has.

    Also the part of what is then read that is the window's.
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
    """(row,) metres between the rows that are read, and between the columns."""
    transform, rows = dataset.transform, window.height // step
    dy, dx = abs(transform.e) * step, abs(transform.a) * step
    if not dataset.crs.is_geographic:
        metres = dataset.crs.linear_units_factor[1]
        return np.full(rows, dy * metres), np.full(rows, dx * metres)
    lat = transform.f + transform.e * (window.row_off + (np.arange(rows) + 0.5) * step)
    north, east = metres_per_degree(lat)
    return north * dy, east * dx


def _same(one: float, other: float) -> bool:
    return bool(np.isclose(one, other, rtol=1e-6) or (np.isnan(one) and np.isnan(other)))
