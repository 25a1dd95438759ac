"""Intake drivers for points: a NetCDF file of places and days, and points filled from others.

The file has variables that `mapping` names, with dims (place, time) in any order or, for constants,
(place), and the coordinates `lat` and `lon` (place). `to_dask()` returns:

  dims time, place; coords time (datetime64, UTC day), place (id as text), lat, lon (degrees)
  soilweave's names, float32, in soilweave's units; provider_flag (time, place) with the file's
  attributes, such as flag_values and flag_meanings, and `good`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DataError
from pipeline.grid import lookup
from pipeline.sources.shared import coordinates
from pipeline.sources.shared.driver import (
    CORRECT_FILE_HINT,
    EntryMapping,
    NetcdfSource,
    Source,
    read_days,
    time_problems,
)

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


class PointsSource(NetcdfSource):
    """Read a NetCDF file of points.

    Args:
      urlpath: The file.
      place: Name of the dimension of places in the file.
      mapping: {soilweave's name: {"from": provider's name, "units": its units, "to": soilweave's
        units}}, or a list of such dictionaries.
      flag: {"from": variable of quality flags, "good": values of flags that are kept}; None if the
        file has no flags.
      login: `earthdata` if the provider requires an Earthdata Login.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry.

    Raises:
      ValueError: If the mapping is invalid.
    """

    name = "soilweave_points"

    def __init__(
        self,
        urlpath: str,
        place: str,
        mapping: EntryMapping | list[EntryMapping],
        flag: dict[str, Any] | None = None,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet."""
        super().__init__(urlpath, mapping, login, storage_options, metadata)
        self.place, self.flag = place, flag

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays.

        Raises:
          DataError: If the file is not as the catalog says; the error lists all differences.
        """
        raw = self.open_netcdf(self.urlpath, chunks={})
        variables = [spec["from"] for spec in self.mapping.values()]
        variables += [self.flag["from"]] if self.flag else []
        raw = coordinates.rename_coordinates(
            raw, variables, {"lat": ("lat",), "lon": ("lon",)}, (self.place,)
        )
        problems = self._problems(raw)
        if problems:
            raw.close()
            raise DataError(self.urlpath, *problems, remedy=CORRECT_FILE_HINT)
        dataset = self._dataset(raw)
        dataset.set_close(raw.close)
        return dataset

    read = to_dask

    def _problems(self, raw: xr.Dataset) -> list[str]:
        """Return messages about what is not as the catalog says."""
        problems = [f"coordinate {name} missing" for name in ("lat", "lon") if name not in raw]
        if self.place not in raw.dims:
            problems.append(f"dim {self.place} missing; dims are {list(raw.dims)}")
        if self.place in raw.dims:
            ids, counts = np.unique(_read_ids(raw, self.place), return_counts=True)
            problems += [
                f"{self.place} {i}: {n} places with this id; expected unique ids"
                for i, n in zip(ids, counts, strict=True)
                if n > 1
            ]
        others = (self.flag["from"],) if self.flag else ()
        return problems + self.variable_problems(raw, others) + time_problems(raw)

    def _dataset(self, raw: xr.Dataset) -> xr.Dataset:
        """Return the dataset of a file without problems."""
        import xarray as xr

        ids = _read_ids(raw, self.place)
        variables = self.translate(raw)
        if self.flag:
            variables["provider_flag"] = raw[self.flag["from"]].assign_attrs(good=self.flag["good"])
        dataset = xr.Dataset({k: v.drop_vars(list(v.coords)) for k, v in variables.items()})
        dataset = dataset.rename({self.place: "place"})
        dataset = dataset.assign_coords(
            time=read_days(raw),
            place=ids,
            lat=("place", raw["lat"].values.astype("float64")),
            lon=("place", raw["lon"].values.astype("float64")),
        )
        return dataset.transpose("time", "place")


def _read_ids(raw: xr.Dataset, place: str) -> list[str]:
    """Return the ids of places as text.

    They are the coordinate of the dimension or, without one, the variable whose attribute `cf_role`
    is `timeseries_id`. Without either they are the numbers 0, 1, ...
    """
    candidates = (n for n in raw.variables if raw[n].attrs.get("cf_role") == "timeseries_id")
    name = place if place in raw.coords else next(candidates, None)
    if name is None or raw[name].dims != (place,):
        return [str(i) for i in range(raw.sizes[place])]
    return [i.decode() if isinstance(i, bytes) else str(i) for i in raw[name].values]


class FilledSource(Source):
    """Fill the missing values of sites from the nearest cells.

    Sites and cells are two entries of points in the same catalog. The dataset has the sites with
    the variables of both. A missing value of a site is the nearest cell's value if the cells have
    the variable. The coordinate `distance_km` (place) is the distance to that cell.

    Args:
      sites: Name of the entry of sites.
      cells: Name of the entry of cells.
      metadata: Metadata of the catalog entry.
    """

    name = "soilweave_filled"

    def __init__(self, sites: str, cells: str, metadata: dict[str, Any] | None = None) -> None:
        """Keep the arguments; open nothing yet."""
        super().__init__(f"{sites} over {cells}", {}, metadata=metadata)
        self.sites, self.cells = sites, cells

    def to_dask(self) -> xr.Dataset:
        """Return the sites with the variables of both entries, as lazy arrays.

        Raises:
          DataError: If the data of an entry do not exist or are not as the entry says.
          ValueError: If the driver was not opened from a catalog.
        """
        sites, cells = self._drivers()
        result: xr.Dataset = sites.to_dask()
        cell_values = cells.to_dask().reindex(time=result.time)
        nearest, distance = lookup.find_nearest(*_lat_lon(result), *_lat_lon(cell_values))
        cell_values = cell_values.isel(place=nearest).drop_vars("place")
        cell_values = cell_values.assign_coords(place=result.place, lat=result.lat, lon=result.lon)
        for name, values in cell_values.data_vars.items():
            own = result.get(name, values)
            result[name] = own.where(own.notnull(), values).assign_attrs(own.attrs)
        return result.assign_coords(distance_km=("place", distance))

    read = to_dask

    def digest(self) -> str:
        """Return a digest of the content of both entries."""
        return files.sha256_of_json([driver.digest() for driver in self._drivers()])

    def _drivers(self) -> tuple[Any, Any]:
        """Return the drivers of the sites and the cells, with the requested period.

        Only the sites are limited to the requested region, because a cell outside may be the
        nearest to a site inside.
        """
        if self.cat is None:
            msg = f"{self.urlpath}: open this entry from a catalog that has both entries"
            raise ValueError(msg)
        sites, cells = self.cat[self.sites], self.cat[self.cells]
        sites.period = cells.period = self.period
        sites.region = self.region
        return sites, cells


def _lat_lon(dataset: xr.Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (place,) latitudes and (place,) longitudes."""
    return dataset.lat.values, dataset.lon.values
