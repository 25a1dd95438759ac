"""Cloud-Optimised GeoTIFF: a file of values and a file of flags for each day or month.

The value and its standard deviation are two bands of one file, because programs read them together
and they have one type, scale and no-data value. The flags are a file of their own: a GeoTIFF has
one type and one no-data value for all bands, and one way to make overviews, and averages would
destroy flags.

In EPSG:4326 every pixel has the value, the standard deviation and the flags of the cell that its
centre lies in: nothing is interpolated, so they belong together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import failures
from pipeline.errors import ConfigError
from pipeline.export.maps import FLAG
from pipeline.export.pieces import Piece, split_days, write_bytes
from pipeline.storage.maps_schema import VALUE_FILL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from pipeline.export.maps import Maps
    from pipeline.export.pieces import Advance
    from pipeline.files import Json


GRID_CRS = "EPSG:6933"
CRS = (GRID_CRS, "EPSG:4326")
FLAG_NODATA = 255  # bits that no flag has
UNITS = {"day": "D", "month": "M"}
CREATION = {"COMPRESS": "DEFLATE", "PREDICTOR": "YES", "BIGTIFF": "IF_SAFER"}
MONTHLY = {
    "": "mean of the days of the month that have a value",
    "_std": "mean of the daily standard deviations, an upper bound of that of the monthly mean",
    FLAG: "all bits that are set on any day of the month",
}


@dataclass(frozen=True)
class Band:
    """One band.

    Attributes:
      name: Its description.
      values: (y, x), packed.
      attrs: Its attributes.
    """

    name: str
    values: NDArray[Any]
    attrs: Json


def plan(maps: Maps, days: range, every: str, crs: str) -> Iterator[Piece]:
    """Yield the pieces of an export.

    Args:
      maps: The maps.
      days: The days to export.
      every: "day" or "month".
      crs: One of CRS.

    Raises:
      ConfigError: If rasterio is not installed.
    """
    try:
        import rasterio  # noqa: F401
    except ImportError as error:
        reason, hint = failures.explain(error).reason, "pip install 'soilweave[export]'"
        raise ConfigError("--format cog", reason, remedy=hint) from error
    made_from = {"format": "cog", "every": every, "crs": crs}
    for label, part in split_days(maps.days, days, UNITS[every]):
        names = (f"{maps.stem}_{label}.tif", f"{maps.stem}_{FLAG}_{label}.tif")
        write = partial(_write, maps, part, names, every == "month", crs)
        yield Piece(names, part, made_from, write)


def _write(
    maps: Maps,
    days: range,
    names: tuple[str, ...],
    monthly: bool,
    crs: str,
    url: str,
    advance: Advance,
) -> dict[str, Json]:
    """Write the files of a day or a month; see `Piece.write`."""
    values, flags = (_month if monthly else _day)(maps, days, advance)
    first, last = str(maps.days[days.start]), str(maps.days[days.stop - 1])
    tags = maps.attrs | {"time_coverage_start": first, "time_coverage_end": last}
    written: dict[str, Json] = {}
    for name, bands, fill in zip(names, (values, flags), (VALUE_FILL, FLAG_NODATA), strict=True):
        data, form = encode(bands, fill, maps.transform, crs, tags)
        record = write_bytes(url, name, data)
        written |= {name: about | form for name, about in record.items()}
    return written


def _day(maps: Maps, days: range, advance: Advance) -> tuple[list[Band], list[Band]]:
    """Return the bands of values and of flags of one day."""
    part, target = slice(days.start, days.stop), maps.target
    bands = [
        Band(name, maps.read(name, part)[0], maps.root[name].attrs)
        for name in (target, f"{target}_std", FLAG)
    ]
    advance(1)
    return bands[:2], bands[2:]


def _month(maps: Maps, days: range, advance: Advance) -> tuple[list[Band], list[Band]]:
    """Return the bands of values and of flags of a month, from one day after the other."""
    names, shape = (maps.target, f"{maps.target}_std"), maps.root[maps.target].shape[1:]
    sums = {name: np.zeros(shape, np.int32) for name in names}
    counts = {name: np.zeros(shape, np.uint8) for name in names}
    flags = np.zeros(shape, np.uint8)
    for day in days:
        part = slice(day, day + 1)
        for name in names:
            packed = maps.read(name, part)[0]
            valid = packed != VALUE_FILL
            sums[name] += np.where(valid, packed, 0)
            counts[name] += valid
        flags |= maps.read(FLAG, part)[0]
        advance(1)
    bands = []
    for name in names:
        mean = np.round(sums[name] / np.maximum(counts[name], 1))
        packed = np.where(counts[name] > 0, mean, VALUE_FILL).astype(np.int16)
        bands.append(_monthly_band(maps, name, name.removeprefix(maps.target), packed))
    number: Json = {"long_name": "number of days with a value", "units": "1"}
    return bands, [_monthly_band(maps, FLAG, FLAG, flags), Band("days", counts[names[0]], number)]


def _monthly_band(maps: Maps, name: str, kind: str, values: NDArray[Any]) -> Band:
    """Return a band whose comment also says what was done with the days."""
    attrs = dict(maps.root[name].attrs)
    comment = "; ".join(filter(None, (MONTHLY[kind], attrs.get("comment"))))
    return Band(name, values, attrs | {"comment": comment})


def encode(
    bands: list[Band], fill: int, transform: tuple[float, float, float], crs: str, tags: Json
) -> tuple[bytes, Json]:
    """Return bands as a Cloud-Optimised GeoTIFF, and its form.

    Args:
      bands: The bands, all of one type.
      fill: The value that stands for no data.
      transform: Side of a cell, left edge and upper edge in metres of EPSG:6933.
      crs: One of CRS.
      tags: Tags of the file.

    Returns:
      The file, and the names of its `layers`, the `shape` (rows, columns) of its pixels, and their
      affine `transform`, six numbers as in STAC.
    """
    import rasterio.shutil
    from rasterio.io import MemoryFile

    stack, affine = _place(np.stack([band.values for band in bands]), fill, transform, crs)
    count, height, width = stack.shape
    form = {"count": count, "height": height, "width": width, "dtype": stack.dtype.name}
    options = CREATION | {"OVERVIEW_RESAMPLING": "NEAREST" if fill == FLAG_NODATA else "AVERAGE"}
    with MemoryFile() as raw, MemoryFile() as made:
        with raw.open(driver="GTiff", crs=crs, transform=affine, nodata=fill, **form) as out:
            out.write(stack)
            out.update_tags(AREA_OR_POINT="Area", **_tags(tags), **_tiff_tags(tags))
            out.descriptions = [band.name for band in bands]
            out.units = [band.attrs.get("units", "") for band in bands]
            out.scales = [band.attrs.get("scale_factor", 1.0) for band in bands]
            out.offsets = [band.attrs.get("add_offset", 0.0) for band in bands]
            for number, band in enumerate(bands, 1):
                out.update_tags(number, **_tags(band.attrs))
        rasterio.shutil.copy(raw.name, made.name, driver="COG", **options)
        layers = [band.name for band in bands]
        about = {"layers": layers, "shape": [height, width], "transform": [*affine][:6]}
        return bytes(made.read()), about


def _place(
    stack: NDArray[Any], fill: int, transform: tuple[float, float, float], crs: str
) -> tuple[NDArray[Any], Any]:
    """Return bands (band, y, x) in a coordinate reference system, and the transform of pixels."""
    from rasterio import warp
    from rasterio.transform import Affine, array_bounds, from_bounds

    size, left, top = transform
    affine = Affine(size, 0.0, left, 0.0, -size, top)
    if crs == GRID_CRS:
        return stack, affine
    count, height, width = stack.shape
    bounds = array_bounds(height, width, affine)
    target, columns, rows = warp.calculate_default_transform(GRID_CRS, crs, width, height, *bounds)
    # Its resolution, but with the edges of the maps: those that it finds lack a part of a globe.
    west, south, east, north = warp.transform_bounds(GRID_CRS, crs, *bounds)
    columns, rows = (math.ceil(n / target.a) for n in (east - west, north - south))
    target = from_bounds(west, south, east, north, columns, rows)
    placed = np.full((count, rows, columns), fill, stack.dtype)
    warp.reproject(
        stack,
        placed,
        src_transform=affine,
        src_crs=GRID_CRS,
        src_nodata=fill,
        dst_transform=target,
        dst_crs=crs,
        dst_nodata=fill,
        resampling=warp.Resampling.nearest,
        tolerance=0,
    )
    return placed, target


# Attributes of variables that GeoTIFF has a place of its own for, or that name other variables.
PLACED = ("scale_factor", "add_offset", "_FillValue", "units", "grid_mapping", "coordinates")
NAMING = ("ancillary_variables", "valid_range")


def _tags(attrs: Json) -> dict[str, str]:
    """Return attributes as tags."""
    kept = {k: v for k, v in attrs.items() if k not in (*PLACED, *NAMING)}
    return {k: " ".join(map(str, v)) if isinstance(v, list) else str(v) for k, v in kept.items()}


def _tiff_tags(attrs: Json) -> dict[str, str]:
    """Return what TIFF itself has tags for."""
    tags = {
        "TIFFTAG_IMAGEDESCRIPTION": attrs.get("title"),
        "TIFFTAG_SOFTWARE": attrs.get("source"),
        "TIFFTAG_COPYRIGHT": attrs.get("license"),
        "TIFFTAG_DATETIME": f"{attrs['time_coverage_start']} 00:00:00".replace("-", ":"),
    }
    return {key: str(value) for key, value in tags.items() if value}
