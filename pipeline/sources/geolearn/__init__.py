"""Intake driver for the 412-cell data set of SMAP and NLDAS-2 over the contiguous United States.

The public repository of the data set has these files, all without a header:

  {year}/{VARIABLE}.csv   cells x days, from 1 April of the year to 31 March of the next; -9999
                          where a value is missing
  {year}/timeStr.csv      the days of these columns
  crd.csv                 latitude and longitude of each cell
  const/{NAME}.csv        one value per cell
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources.form import Source
from pipeline.sources.geolearn.tables import converted, days, table
from pipeline.sources.spans import span
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


class GeolearnSource(Source):
    """Read the data set as points; `place` is the row of a cell in the files.

    `to_dask()` reads the coordinates and the days. The file of a variable and year is read when
    it is computed, and the process keeps it in memory.

    Args:
      urlpath: The folder that contains `crd.csv`.
      mapping: As in `Source`; `from: const/NAME` for a variable without time.
      login: Not used.
      storage_options: Options for fsspec.
      metadata: Metadata of the catalog entry; `period` says which days the data set has.
    """

    name = "soilweave_geolearn"

    def to_dask(self) -> xr.Dataset:
        """Return the data set in soilweave's names and units, as lazy arrays.

        Raises:
          DataError: If a file is missing or does not have the expected form.
        """
        import xarray as xr

        places, days = self._places(), {year: self._days(year) for year in self._years()}
        variables = {name: self._variable(name, len(places), days) for name in self.mapping}
        return xr.Dataset(variables).assign_coords(
            time=np.concatenate(list(days.values())).astype("datetime64[ns]"),
            place=[str(row) for row in range(len(places))],
            lat=("place", places[:, 0]),
            lon=("place", places[:, 1]),
        )

    read = to_dask

    def digest(self) -> str:
        """Return the SHA-256 of the values in the period, after reading files not in memory."""
        content = hashlib.sha256(self._places().tobytes())
        for year in self._years():
            content.update(str(self._days(year)).encode())
        for url in self._files():
            content.update(self._table(url).tobytes())
        return content.hexdigest()

    def _files(self) -> list[str]:
        """Return the URLs of the files of all variables in the period."""
        names = sorted(spec["from"] for spec in self.mapping.values())
        return [
            f"{self.urlpath}/{folder}{name}.csv"
            for name in names
            for folder in ([""] if _is_constant(name) else [f"{y}/" for y in self._years()])
        ]

    def _variable(
        self, name: str, cells: int, days: dict[int, NDArray[Any]]
    ) -> tuple[tuple[str, ...], Any, dict[str, str]]:
        """Return a variable: dimensions, float32 dask array in soilweave's units, attributes."""
        import dask.array
        from dask.delayed import delayed

        da: Any = dask.array

        spec = self.mapping[name]
        units = spec.get("to", spec["units"])
        attrs = {"units": units, "source": spec["from"]}
        factors = conversion(spec["units"], units)

        def lazy_file(folder: str, shape: tuple[int, int]) -> Any:
            """Return the (day, cell) dask array of a file that holds (cell, day)."""
            url = f"{self.urlpath}/{folder}{spec['from']}.csv"
            fills = self.fills.get(spec["from"], ())
            read = delayed(converted)(url, self._options(), shape, factors, fills)
            return da.from_delayed(read, shape, "float32").T

        if _is_constant(spec["from"]):
            return ("place",), lazy_file("", (cells, 1))[0], attrs
        years = [lazy_file(f"{year}/", (cells, len(year_days))) for year, year_days in days.items()]
        return ("time", "place"), da.concatenate(years), attrs

    def _years(self) -> list[int]:
        """Return the years whose folders have days of the period."""
        first, last = (_folder(day) for day in span(self.urlpath, self.metadata, self.period))
        return list(range(first, last + 1))

    def _places(self) -> NDArray[np.float64]:
        """Return (cell, 2) latitude and longitude, degrees."""
        return self._table(f"{self.urlpath}/crd.csv")

    def _days(self, year: int) -> NDArray[np.datetime64]:
        """Return the days of the columns in the folder of a year."""
        return days(f"{self.urlpath}/{year}/timeStr.csv", self.storage_options)

    def _table(self, url: str) -> NDArray[np.float64]:
        """Return the numbers in a file."""
        return table(url, self._options())

    def _options(self) -> str:
        """Return the storage options as JSON, so that results can be cached."""
        return json.dumps(self.storage_options, sort_keys=True)


def _is_constant(name: str) -> bool:
    """Return whether the provider's name is that of a variable without time."""
    return name.startswith("const/")


def _folder(day: np.datetime64) -> int:
    """Return the year of the folder that has a day; folders begin on 1 April."""
    months = int(day.astype("datetime64[M]").astype(int)) - 3
    return 1970 + months // 12
