"""Intake driver for grids in NetCDF files, each of which holds some time of the series.

Zarr stores and Icechunk repositories have a driver of their own, `gridzarr`.

The files have the variables that `mapping` names, with dims (time, row, column) or, for constants,
(row, column), in any order and with any names. Rows and columns have `lat` and `lon` (or
`latitude`, `longitude`), or `y` and `x` of a map projection that a grid mapping describes. Steps
are days, or are shorter and become days as the mapping states.

`to_dask()` returns:

  dims time, lat, lon, bnds; coords time (datetime64, day), lat, lon (degrees, in the file's
  order), lat_bnds (lat, bnds), lon_bnds (lon, bnds), those of the file or halfway between centres;
  or dims time, y, x, and the attribute crs (WKT)
  soilweave's names, float32, in soilweave's units, (time, lat, lon) or (lat, lon)
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pipeline.sources.grids.driver import GridSource
from pipeline.sources.shared import access, dates, open_files
from pipeline.sources.shared.driver import NetcdfSource

if TYPE_CHECKING:
    import xarray as xr


class GriddedSource(GridSource, NetcdfSource):
    """Read grids from NetCDF files. The arguments are those of `GridSource`."""

    name = "soilweave_gridded"

    def open_part(self, url: str) -> xr.Dataset:
        """Open one file and rename its coordinates; read only what that needs.

        Raises:
          DataError: If the file does not exist, is refused, or is not NetCDF.
        """
        # Hourly files are small and many; each is read with one request, and none is kept.
        if "://" in url and dates.pattern_unit(self.urlpath) == "h":
            content = io.BytesIO(access.read_file(url, self.storage_options, self.login))
            return self.rename_coordinates(self.open_netcdf(url, chunks=None, content=content))
        return open_files.open_once(self, url, self._open_and_rename)

    def _open_and_rename(self, url: str) -> xr.Dataset:
        return self.rename_coordinates(self.open_netcdf(url, chunks=None))
