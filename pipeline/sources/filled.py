"""Sites with inputs of their own: what they do not measure comes from the nearest cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pipeline import distances, files
from pipeline.sources.form import Source

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from numpy.typing import NDArray


class FilledSource(Source):
    """Intake driver that lays one entry of points over another of the same catalog.

    Gives the sites with every variable of both: where and when a site has no value of a variable
    of the cells, the value of the nearest cell stands; `distance_km` (place) says how far it is.

    Args:
      sites: name of the entry of sites.
      cells: name of the entry of cells.
    """

    name = "soilweave_filled"

    def __init__(self, sites: str, cells: str, metadata: dict[str, Any] | None = None) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(f"{sites} over {cells}", {}, metadata=metadata)
        self.sites, self.cells = sites, cells

    def to_dask(self) -> xr.Dataset:
        """The sites, lazily.

        Raises:
          DataError: one of the two is absent or not as its entry says.
        """
        sites, cells = self._parts()
        made: xr.Dataset = sites.to_dask()
        around = cells.to_dask().reindex(time=made.time)
        nearest, distance = distances.nearest(*_degrees(made), *_degrees(around))
        around = around.isel(place=nearest).drop_vars("place")
        around = around.assign_coords(place=made.place, lat=made.lat, lon=made.lon)
        for name, values in around.data_vars.items():
            own = made.get(name, values)
            made[name] = own.where(own.notnull(), values).assign_attrs(own.attrs)
        return made.assign_coords(distance_km=("place", distance))

    read = to_dask

    def digest(self) -> str:
        """Of both entries."""
        return files.sha256_of([part.digest() for part in self._parts()])

    def _parts(self) -> tuple[Any, Any]:
        """The drivers of both; cells beyond the region may be the nearest to a site in it."""
        if self.cat is None:
            msg = f"{self.urlpath}: entries of a catalog, and this driver was opened without one"
            raise ValueError(msg)
        sites, cells = self.cat[self.sites], self.cat[self.cells]
        sites.period = cells.period = self.period
        sites.region = self.region
        return sites, cells


def _degrees(dataset: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return dataset.lat.values, dataset.lon.values
