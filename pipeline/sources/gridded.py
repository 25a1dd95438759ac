"""What drivers of grids share: which files and days are wanted, and what is wrong with them.

Grids, as NetCDF files that follow one another in time; `gridzarr` has Zarr and Icechunk.

In: variables named in `mapping`, dims (time, row, column), or (row, column) for constants, in any
order and under any names; `lat` and `lon` (or `latitude`, `longitude`) on rows and columns, or
`y` and `x` of a map projection that a grid mapping describes; steps of a day, or of hours, which
become days as the mapping says. Out, as `to_dask()` gives it to anyone:

  dims time, lat, lon, bnds; coords time (datetime64, day), lat, lon (degrees, in the file's
  order), lat_bnds (lat, bnds), lon_bnds (lon, bnds): the file's, or halfway between centres;
  or dims time, y, x, and the attribute crs (WKT)
  our names, float32, in our units, (time, lat, lon) or (lat, lon)
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from pipeline.sources.grids.driver import GridSource
from pipeline.sources.shared import access, dates
from pipeline.sources.shared.driver import NetcdfSource

if TYPE_CHECKING:
    import xarray as xr


class GriddedSource(GridSource, NetcdfSource):
    """Intake driver for grids in NetCDF files; its arguments are those of `GridSource`."""

    name = "soilweave_gridded"

    def open_part(self, url: str) -> xr.Dataset:
        """One file, its time called `time`, nothing read yet.

        Raises:
          DataError: it is absent, refused, or no NetCDF.
        """
        if "://" in url and dates.span(self.urlpath) == "h":  # small, and many: each in one piece
            content = io.BytesIO(access.read(url, self.storage_options, self.login))
            return self.rename_coordinates(self.open_netcdf(url, chunks=None, content=content))
        return self.rename_coordinates(self.open_netcdf(url, chunks=None))
