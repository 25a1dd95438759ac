"""Rasters: GeoTIFF, COG or VRT; one, a mosaic of tiles, one a variable, one a day.

In: what GDAL reads, on rows and columns of degrees or of a map projection. Out, as `to_dask()`
gives it to anyone, the grid form of `form.Source` for degrees, the projected form for others:

  dims (time,) lat, lon, bnds; or (time,) y, x, with the attribute crs
  our names, float32, in our units, on cells of `resolution`, each the mean of what lies in it
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.grid import Window
from pipeline.sources import dated, http_errors, tags
from pipeline.sources.form import REMEDY, Mapping, Source
from pipeline.sources.raster import mosaic
from pipeline.sources.raster.geotiff import Absent, opened
from pipeline.sources.raster.layers import Layer
from pipeline.sources.raster.pieces import Reader, located
from pipeline.sources.raster.tiles import Corner, Tiles

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable

    import dask.array
    import rasterio
    import xarray as xr

T = TypeVar("T")
Box = tuple[float, float, float, float]  # west, south, east, north
MOST_LOOKS = 400  # for a tile or a day that has a file


class RasterSource(Source):
    """Intake driver for rasters.

    Args:
      urlpath: the file. It may name a variable, `{from}`; a tile, `{ns}{lat:02d}{ew}{lon:03d}`
        of its south-west corner, or `{south}`, `{west}`, `{north}`, `{east}`; and a day, `%Y%m%d`.
      mapping: {our name: {"from": number or description of the band, or what the URL says,
        "units": the file's, "to": ours, "classes": values of which it is the fraction,
        "derive": "slope", "valid": least and greatest stored value, "scale": of stored values
        where the file says none}}, or a list of such.
      crs: that the file must have.
      nodata: value that stands for none, where the file says none; another one is an error.
      band: that is read, where `from` is in the URL.
      resolution: width of the cells that are made, in units of the file's CRS, each the mean of
        what lies in it; as stored, if not given.
      read_step: every how many rows and columns are read, from overviews where there are any:
        of classes one of them, of numbers their mean.
      tiles: {"degrees": width of a tile, "like": [south, west] of one that exists}.
      absent: value where there is no such tile or day: nan, or a number; not for a single file.
      every: days from one file to the next, counted from each first of January.
      mean_over_time: makes constants of files in time.
      login: `earthdata`, where the provider wants to know who reads.
      storage_options: as fsspec takes them.
    """

    name = "soilweave_raster"

    def __init__(
        self,
        urlpath: str,
        mapping: Mapping | list[Mapping],
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
        """Keep the arguments; nothing is opened yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.crs, self.nodata, self.band = crs, nodata, band
        self.resolution, self.read_step = resolution, read_step
        self.tiles, self.absent_value = tiles, float(absent)
        self.every, self.mean_over_time = every, mean_over_time
        self.layers()
        if tiles and not resolution:
            raise ValueError("tiles: expected a resolution too, in degrees")

    def layers(self) -> dict[str, tuple[Layer, ...]]:
        """The variables of each raster: by URL, in which tile and day are still open."""
        made: dict[str, list[Layer]] = {}
        for name, spec in self.mapping.items():
            in_url = "{from}" in self.urlpath
            url = self.urlpath.replace("{from}", str(spec["from"]))
            band = self.band if in_url else spec["from"]
            made.setdefault(url, []).append(Layer.of(name, spec, str(band), self.nodata))
        return {url: tuple(each) for url, each in made.items()}

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, lazily: one raster of each variable is looked at.

        Raises:
          DataError: listing every way in which the rasters are not as the catalog says.
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
        problems += [f"{http_errors.file_name(url)}: another grid than the first" for url in others]
        if problems:
            raise DataError(http_errors.shown(self.urlpath), *problems, remedy=REMEDY)
        return self._dataset(layouts, days)

    read = to_dask

    def digest(self) -> str:
        """Identifies the content: the names and tags of all rasters of the period and the region.

        Of a VRT it is its own text that counts, and not the rasters which that names.

        Raises:
          DataError: there is none, or their store does not answer.
        """
        days, tiles = self._days(), self._tiles()
        corners: list[Corner | None] = [None]
        if tiles:
            corners = list(
                itertools.islice(tiles.candidates(), None if self.region else MOST_LOOKS)
            )
        held = []
        for pattern in self.layers():
            looked = itertools.product(days or (None,), corners)
            urls = sorted({located(pattern, day, corner, tiles) for day, corner in looked})
            found = tags.of_files(urls, self.storage_options, self.login)
            there = [
                f"{http_errors.file_name(url)} {tag}"
                for url, tag in zip(urls, found, strict=True)
                if tag
            ]
            if not there:
                raise self._none(pattern, len(urls))
            held.append(there)
        return files.sha256_of([http_errors.file_name(self.urlpath), held])

    @property
    def _origin(self) -> str | None:
        return (self.metadata or {}).get("origin")

    def _tiles(self) -> Tiles | None:
        if self.tiles is None:
            return None
        like = self.tiles.get("like")
        region = _of_footprints(self.region) if self.region else None
        return Tiles(int(self.tiles["degrees"]), region, tuple(like) if like else None)

    def _days(self) -> tuple[datetime.datetime, ...]:
        """Days of the files that are wanted; none where the URL names no day."""
        if dated.span(self.urlpath) is None:
            return ()
        first, last = self.period or dated.period_of((self.metadata or {}).get("period", ""))
        if last is None:
            found = "its files go on, and no period is asked for"
            raise DataError(
                http_errors.shown(self.urlpath), found, remedy="set `period` of the source"
            )
        start, end = np.datetime64(first, "D"), np.datetime64(last, "D")
        each = np.arange(start, end + np.timedelta64(1, "D"))
        of_year = (each - each.astype("datetime64[Y]").astype("datetime64[D]")).astype(int)
        return tuple(each[of_year % self.every == 0].astype("datetime64[s]").tolist())

    def _of_one(
        self,
        pattern: str,
        days: tuple[datetime.datetime, ...],
        told: Callable[[str, Corner | None], T],
    ) -> T:
        """What is told of the first raster of a pattern that exists, by its URL and its tile.

        Raises:
          Absent: none does.
        """
        tiles, looked = self._tiles(), 0
        corners = list(itertools.islice(tiles.candidates(), MOST_LOOKS)) if tiles else [None]
        for day, corner in itertools.product(days or (None,), corners):
            looked += 1
            try:
                return told(located(pattern, day, corner, tiles), corner)
            except Absent:
                if looked == MOST_LOOKS:
                    break
        raise self._none(pattern, looked)

    def _none(self, pattern: str, looked: int) -> Absent:
        """The error of a pattern of which no raster exists."""
        found = "not found" if looked == 1 else f"none of the {looked} files looked for is there"
        remedy = f"get it from {self._origin}" if self._origin else "has it moved?"
        return Absent(http_errors.shown(pattern), found, remedy=remedy)

    def _layout(
        self, pattern: str, layers: tuple[Layer, ...], days: tuple[datetime.datetime, ...]
    ) -> mosaic.Layout:
        def layout(url: str, corner: Corner | None) -> mosaic.Layout:
            with opened(url, self.storage_options, self.login, self._origin) as dataset:
                return self._layout_of(dataset, url, corner, layers)

        return self._of_one(pattern, days, layout)

    def _layout_of(
        self,
        dataset: rasterio.DatasetReader,
        url: str,
        corner: Corner | None,
        layers: tuple[Layer, ...],
    ) -> mosaic.Layout:
        problems = mosaic.crs_problems(dataset, self.crs)
        problems += [problem for layer in layers for problem in layer.problems(dataset)]
        tiles, made = self._tiles(), None
        if not problems:
            try:
                if tiles and corner and self.resolution:
                    made = mosaic.of_tiles(dataset, corner, tiles, self.resolution, self.read_step)
                else:
                    made = mosaic.alone(dataset, self.resolution, self.read_step)
            except ValueError as error:
                problems.append(str(error))
        if made is None:
            raise DataError(http_errors.shown(url), *problems, remedy=REMEDY)
        return made

    def _reader(
        self, pattern: str, layout: mosaic.Layout, days: tuple[datetime.datetime, ...]
    ) -> Reader:
        tiles = self._tiles()
        return Reader(
            pattern=pattern,
            layers=self.layers()[pattern],
            layout=layout,
            days=days,
            tiles=tiles,
            step=self.read_step,
            given=self.storage_options,
            login=self.login,
            origin=self._origin,
            absent=self.absent_value if tiles or days else None,
        )

    def _dataset(
        self, layouts: dict[str, mosaic.Layout], days: tuple[datetime.datetime, ...]
    ) -> xr.Dataset:
        import xarray as xr

        layout = next(iter(layouts.values()))
        arrays: dict[str, dask.array.Array] = {}
        for pattern in layouts:
            arrays |= self._reader(pattern, layout, days).arrays()
        dims = ("time", *layout.dims) if days else layout.dims
        made = {}
        for name, spec in self.mapping.items():
            attrs = {"units": spec.get("to", spec["units"]), "source": str(spec["from"])}
            made[name] = (dims, arrays[name], attrs)
        coords = layout.coords()
        if days:
            coords["time"] = ("time", np.array(days, "datetime64[ns]"))
        dataset = xr.Dataset(made, coords, {"crs": layout.crs} if layout.crs else {})
        return dataset.mean("time", keep_attrs=True) if self.mean_over_time else dataset


def _of_footprints(region: Box) -> Box:
    """A region widened to whole footprints, which the cube is made of; or itself, off the grid."""
    try:
        lat, lon = Window.from_bbox(*region, 1).cell_edges
    except ValueError:
        return region
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())
