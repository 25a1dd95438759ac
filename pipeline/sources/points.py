"""Points: a NetCDF-4 file of places x days, with lat and lon, under a provider's own names.

In: dims (place, time) in any order; variables named in `mapping`; `lat`, `lon` (place); statics
(place). Out, as `to_dask()` gives it to anyone:

  dims time, place; coords time (datetime64, UTC day), place (id as text), lat, lon (degrees)
  our names, float32, in our units; provider_flag (time, place) with flag_values, flag_meanings

Sites with inputs of their own: what they do not measure comes from the nearest cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.grid import lookup
from pipeline.sources.shared import coordinates
from pipeline.sources.shared.driver import (
    REMEDY,
    Mapping,
    NetcdfSource,
    Source,
    days_of,
    time_problems,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


class PointsSource(NetcdfSource):
    """Intake driver for files of points.

    Args:
      urlpath: the file.
      place: name of the place dim in the file.
      mapping: {our name: {"from": provider's name, "units": its units, "to": our units}}, or a
        list of such.
      flag: {"from": variable of quality flags, "good": values that are kept}.
      storage_options: passed to fsspec.
    """

    name = "soilweave_points"

    def __init__(
        self,
        urlpath: str,
        place: str,
        mapping: Mapping | list[Mapping],
        flag: dict[str, Any] | None = None,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Keep the arguments; nothing is opened yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.place, self.flag = place, flag

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, lazily.

        Raises:
          DataError: listing every way in which the file is not as the catalog says.
        """
        raw = self.open_netcdf(self.urlpath, chunks={})
        variables = [spec["from"] for spec in self.mapping.values()]
        variables += [self.flag["from"]] if self.flag else []
        raw = coordinates.named(raw, variables, {"lat": ("lat",), "lon": ("lon",)}, (self.place,))
        problems = self._problems(raw)
        if problems:
            raw.close()
            raise DataError(self.urlpath, *problems, remedy=REMEDY)
        dataset = self._dataset(raw)
        dataset.set_close(raw.close)
        return dataset

    read = to_dask

    def _problems(self, raw: xr.Dataset) -> list[str]:
        problems = [f"coordinate {name} missing" for name in ("lat", "lon") if name not in raw]
        if self.place not in raw.dims:
            problems.append(f"dim {self.place} missing; dims are {list(raw.dims)}")
        if self.place in raw.dims:
            ids, counts = np.unique(_ids(raw, self.place), return_counts=True)
            problems += [
                f"{self.place} {i}: {n} of that id"
                for i, n in zip(ids, counts, strict=True)
                if n > 1
            ]
        others = (self.flag["from"],) if self.flag else ()
        return problems + self.variable_problems(raw, others) + time_problems(raw)

    def _dataset(self, raw: xr.Dataset) -> xr.Dataset:
        import xarray as xr

        ids = _ids(raw, self.place)
        made = self.translate(raw)
        if self.flag:
            made["provider_flag"] = raw[self.flag["from"]].assign_attrs(good=self.flag["good"])
        dataset = xr.Dataset({k: v.drop_vars(list(v.coords)) for k, v in made.items()})
        dataset = dataset.rename({self.place: "place"})
        dataset = dataset.assign_coords(
            time=days_of(raw),
            place=ids,
            lat=("place", raw["lat"].values.astype("float64")),
            lon=("place", raw["lon"].values.astype("float64")),
        )
        return dataset.transpose("time", "place")


def _ids(raw: xr.Dataset, place: str) -> list[str]:
    """Ids of places: their coordinate, else the variable that says it is an id, else numbers."""
    told = (name for name in raw.variables if raw[name].attrs.get("cf_role") == "timeseries_id")
    name = place if place in raw.coords else next(told, None)
    if name is None or raw[name].dims != (place,):
        return [str(i) for i in range(raw.sizes[place])]
    return [i.decode() if isinstance(i, bytes) else str(i) for i in raw[name].values]


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
        nearest, distance = lookup.find_nearest(*_degrees(made), *_degrees(around))
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
