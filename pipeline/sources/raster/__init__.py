"""Intake driver for rasters that GDAL reads, such as GeoTIFF, COG and VRT.

An entry is a single raster, a mosaic of tiles, or one raster per variable or per day. Rows and
columns lie along latitude and longitude or along the axes of a map projection. `to_dask()` returns
the grid form of `Source` for degrees, and its projected form for map projections:

  dims   (time,) lat, lon, bnds; or (time,) y, x, with the attribute crs
  data   soilweave's variables, float32, in soilweave's units, on cells of width `resolution`; the
         value of a cell is the mean of the raster inside it
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.grid.ease import Window
from pipeline.sources.raster import mosaic
from pipeline.sources.raster.geotiff import BlockReader, MissingRasterError, format_url, open_raster
from pipeline.sources.raster.layers import Layer
from pipeline.sources.raster.mosaic import Corner, Tiles
from pipeline.sources.shared import dates, fingerprints, http_errors
from pipeline.sources.shared.driver import CORRECT_FILE_HINT, EntryMapping, Source

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable

    import dask.array
    import rasterio
    import xarray as xr


T = TypeVar("T")
Box = tuple[float, float, float, float]  # west, south, east, north, degrees
MAX_ATTEMPTS = 400  # attempts to find a tile or a day that has a file


class RasterSource(Source):
    """Read rasters on a regular grid.

    Args:
      urlpath: The file, or a pattern of files. A pattern may contain the variable, `{from}`; a
        tile, as `{ns}{lat:02d}{ew}{lon:03d}` of its south-west corner or as `{south}`, `{west}`,
        `{north}` and `{east}`; and a day, such as `%Y%m%d`.
      mapping: For each soilweave variable, or a list of such dictionaries,
        `from`: number or description of the band, or the text for `{from}` in the URL;
        `units`: the file's units;
        `to`: soilweave's units;
        `classes` (optional): class values; the variable is the fraction of a cell that has them;
        `derive` (optional): `slope`, which is computed from elevations in m;
        `valid` (optional): smallest and largest stored value that is valid;
        `scale` (optional): factor of stored values, where the file states none;
        `fill` (optional): as in `Source`.
      crs: The CRS that the file must have; None to accept any.
      nodata: Stored value for missing values, where the file states none. It is an error if the
        file states another one.
      band: The band to read if the URL contains `{from}`.
      resolution: Width of the output cells in units of the file's CRS; None for the raster's own
        cells.
      read_step: Read blocks of this many rows and columns as one value, from overviews if there
        are any: one of the classes, or the mean of numbers.
      tiles: {"degrees": width of a tile, "like": [south, west] of a tile that exists}.
      absent: Value where a tile or a day has no file, NaN or a number. Not used for a single file.
      every: Days from one file to the next, counted from 1 January of each year.
      mean_over_time: Whether to average the files over time, which gives variables without time.
      login: `earthdata` if the provider requires an Earthdata Login.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.
    """

    name = "soilweave_raster"

    def __init__(
        self,
        urlpath: str,
        mapping: EntryMapping | list[EntryMapping],
        crs: str | None = None,
        nodata: float | None = None,
        band: str | int = 1,
        resolution: float | None = None,
        read_step: int = 1,
        tiles: dict[str, Any] | None = None,
        absent: float = float("nan"),
        every: int = 1,
        mean_over_time: bool = False,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If the arguments are invalid or contradict each other.
        """
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.crs, self.nodata, self.band = crs, nodata, band
        self.resolution, self.read_step = resolution, read_step
        self.tiles, self.absent_value = tiles, float(absent)
        self.every, self.mean_over_time = every, mean_over_time
        self.layers()
        if tiles and not resolution:
            raise ValueError("tiles: expected `resolution` in degrees too")

    def layers(self) -> dict[str, tuple[Layer, ...]]:
        """Return {URL pattern: variables of these rasters}; patterns contain tile and day."""
        layers: dict[str, list[Layer]] = {}
        for name, spec in self.mapping.items():
            in_url = "{from}" in self.urlpath
            url = self.urlpath.replace("{from}", str(spec["from"]))
            band = self.band if in_url else spec["from"]
            layer = Layer.from_mapping(name, spec, str(band), self.nodata)
            layers.setdefault(url, []).append(layer)
        return {url: tuple(of_url) for url, of_url in layers.items()}

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays.

        One raster of each variable is opened, to read its grid.

        Raises:
          DataError: If the rasters are not as the catalog says; the error lists all differences.
        """
        days = self._days()
        layouts: dict[str, mosaic.Layout] = {}
        errors: list[DataError] = []
        for pattern, layers in self.layers().items():
            try:
                layouts[pattern] = self._layout(pattern, layers, days)
            except DataError as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        problems = [
            f"{http_errors.file_name(e.place)}: {problem}" for e in errors for problem in e.problems
        ]
        others = [url for url in layouts if layouts[url] != next(iter(layouts.values()))]
        problems += [f"{_file_name(url)}: has another grid than the first raster" for url in others]
        if problems:
            raise DataError(
                http_errors.format_url(self.urlpath), *problems, remedy=CORRECT_FILE_HINT
            )
        return self._dataset(layouts, days)

    read = to_dask

    def digest(self) -> str:
        """Return a digest of the names and tags of all rasters in the period and region.

        For a VRT, the digest depends on its own text and not on the rasters that it refers to.

        Raises:
          DataError: If there is no such raster, or their store does not answer.
        """
        days, tiles = self._days(), self._tiles()
        corners: list[Corner | None] = [None]
        if tiles:
            corners = list(
                itertools.islice(tiles.candidates(), None if self.region else MAX_ATTEMPTS)
            )
        tagged = []
        for pattern in self.layers():
            days_and_corners = itertools.product(days or (None,), corners)
            urls = sorted({format_url(pattern, day, c, tiles) for day, c in days_and_corners})
            file_tags = fingerprints.tag_files(urls, self.storage_options, self.login)
            existing = [
                f"{_file_name(url)} {t}" for url, t in zip(urls, file_tags, strict=True) if t
            ]
            if not existing:
                raise self._not_found(pattern, len(urls))
            tagged.append(existing)
        return files.sha256_of_json([_file_name(self.urlpath), tagged])

    @property
    def _origin(self) -> str | None:
        """Where users get the files, as the catalog entry says."""
        return (self.metadata or {}).get("origin")

    def _tiles(self) -> Tiles | None:
        """Return the tiles of the region; None if the entry has no tiles."""
        if self.tiles is None:
            return None
        like = self.tiles.get("like")
        region = _widen_to_footprints(self.region) if self.region else None
        return Tiles(int(self.tiles["degrees"]), region, tuple(like) if like else None)

    def _days(self) -> tuple[datetime.datetime, ...]:
        """Return the days of the files to read; empty if the URL contains no day."""
        if dates.pattern_unit(self.urlpath) is None:
            return ()
        first, last = self.period or dates.parse_period((self.metadata or {}).get("period", ""))
        if last is None:
            problem = "the period in the catalog entry has no last day, and none is requested"
            raise DataError(
                http_errors.format_url(self.urlpath), problem, remedy="set `period` of the source"
            )
        start, end = np.datetime64(first, "D"), np.datetime64(last, "D")
        days = np.arange(start, end + np.timedelta64(1, "D"))
        day_of_year = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)
        return tuple(days[day_of_year % self.every == 0].astype("datetime64[s]").tolist())

    def _inspect_first(
        self,
        pattern: str,
        days: tuple[datetime.datetime, ...],
        inspect: Callable[[str, Corner | None], T],
    ) -> T:
        """Return the result of `inspect` for the first raster of a pattern that exists.

        Args:
          pattern: The URL pattern.
          days: Days of the files; empty if the URL contains no day.
          inspect: Takes the URL of a raster and the corner of its tile.

        Raises:
          Absent: If no raster exists.
        """
        tiles, n_tried = self._tiles(), 0
        corners = list(itertools.islice(tiles.candidates(), MAX_ATTEMPTS)) if tiles else [None]
        for day, corner in itertools.product(days or (None,), corners):
            n_tried += 1
            try:
                return inspect(format_url(pattern, day, corner, tiles), corner)
            except MissingRasterError:
                if n_tried == MAX_ATTEMPTS:
                    break
        raise self._not_found(pattern, n_tried)

    def _not_found(self, pattern: str, n_tried: int) -> MissingRasterError:
        """Return the error for a pattern of which no raster exists."""
        problem = "not found" if n_tried == 1 else f"not found: none of {n_tried} files exists"
        hint = f"get it from {self._origin}" if self._origin else "has it moved?"
        return MissingRasterError(http_errors.format_url(pattern), problem, remedy=hint)

    def _layout(
        self, pattern: str, layers: tuple[Layer, ...], days: tuple[datetime.datetime, ...]
    ) -> mosaic.Layout:
        """Return the output cells of a pattern, from the first of its rasters that exists."""

        def read_layout(url: str, corner: Corner | None) -> mosaic.Layout:
            with open_raster(url, self.storage_options, self.login, self._origin) as dataset:
                return self._read_layout(dataset, url, corner, layers)

        return self._inspect_first(pattern, days, read_layout)

    def _read_layout(
        self,
        dataset: rasterio.DatasetReader,
        url: str,
        corner: Corner | None,
        layers: tuple[Layer, ...],
    ) -> mosaic.Layout:
        """Return the output cells for an open raster.

        Raises:
          DataError: If the raster is not as the catalog says; the error lists all differences.
        """
        problems = mosaic.crs_problems(dataset, self.crs)
        problems += [problem for layer in layers for problem in layer.problems(dataset)]
        tiles, layout = self._tiles(), None
        if not problems:
            try:
                if tiles and corner and self.resolution:
                    layout = mosaic.mosaic_layout(
                        dataset, corner, tiles, self.resolution, self.read_step
                    )
                else:
                    layout = mosaic.raster_layout(dataset, self.resolution, self.read_step)
            except ValueError as error:
                problems.append(str(error))
        if layout is None:
            raise DataError(http_errors.format_url(url), *problems, remedy=CORRECT_FILE_HINT)
        return layout

    def _reader(
        self, pattern: str, layout: mosaic.Layout, days: tuple[datetime.datetime, ...]
    ) -> BlockReader:
        """Return the reader of the blocks of a pattern."""
        tiles = self._tiles()
        return BlockReader(
            pattern=pattern,
            layers=self.layers()[pattern],
            layout=layout,
            days=days,
            tiles=tiles,
            read_step=self.read_step,
            storage_options=self.storage_options,
            login=self.login,
            origin=self._origin,
            absent_value=self.absent_value if tiles or days else None,
        )

    def _dataset(
        self, layouts: dict[str, mosaic.Layout], days: tuple[datetime.datetime, ...]
    ) -> xr.Dataset:
        """Return the dataset of all patterns, which have equal layouts."""
        import xarray as xr

        layout = next(iter(layouts.values()))
        arrays: dict[str, dask.array.Array] = {}
        for pattern in layouts:
            arrays |= self._reader(pattern, layout, days).arrays()
        dims = ("time", *layout.dims) if days else layout.dims
        variables = {}
        for name, spec in self.mapping.items():
            attrs = {"units": spec.get("to", spec["units"]), "source": str(spec["from"])}
            variables[name] = (dims, arrays[name], attrs)
        coords = layout.coords()
        if days:
            coords["time"] = ("time", np.array(days, "datetime64[ns]"))
        dataset = xr.Dataset(variables, coords, {"crs": layout.crs} if layout.crs else {})
        return dataset.mean("time", keep_attrs=True) if self.mean_over_time else dataset


def _widen_to_footprints(region: Box) -> Box:
    """Return a region widened to whole footprints of the cube's grid.

    A region outside of the grid is returned as it is.
    """
    try:
        lat, lon = Window.from_bbox(*region, 1).cell_edges
    except ValueError:
        return region
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def _file_name(url: str) -> str:
    """Return the file name of a URL, without a query or credentials."""
    return http_errors.format_url(url).rsplit("/", 1)[-1]
