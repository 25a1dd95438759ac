"""The 412-cell set of SMAP and NLDAS-2 over CONUS, as its public repository has it.

`{year}/{VARIABLE}.csv` has cells x days from 1 April of the year to 31 March of the next, without
header, -9999 where missing; `{year}/timeStr.csv` the days, `crd.csv` lat and lon of the cells,
`const/{NAME}.csv` a value per cell.
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
    """Intake driver for the set; gives points, `place` being the row of a cell.

    Coordinates and days are fetched by `to_dask()`, a variable's file of a year when it is
    computed, and kept in memory by the process.

    Args:
      urlpath: the folder that holds `crd.csv`.
      mapping: as of every driver; `from: const/NAME` for what has no time.
      metadata: `period` says which days there are.
    """

    name = "soilweave_geolearn"

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, lazily.

        Raises:
          DataError: a file is absent, or not in this form.
        """
        import xarray as xr

        places, days = self._places(), {year: self._days(year) for year in self._years()}
        made = {name: self._variable(name, len(places), days) for name in self.mapping}
        return xr.Dataset(made).assign_coords(
            time=np.concatenate(list(days.values())).astype("datetime64[ns]"),
            place=[str(row) for row in range(len(places))],
            lat=("place", places[:, 0]),
            lon=("place", places[:, 1]),
        )

    read = to_dask

    def digest(self) -> str:
        """The sha256 of the values in the period; fetches what is not in memory yet."""
        content = hashlib.sha256(self._places().tobytes())
        for year in self._years():
            content.update(str(self._days(year)).encode())
        for url in self._files():
            content.update(self._table(url).tobytes())
        return content.hexdigest()

    def _files(self) -> list[str]:
        """The files of the mapping's variables, in the period."""
        names = sorted(spec["from"] for spec in self.mapping.values())
        return [
            f"{self.urlpath}/{folder}{name}.csv"
            for name in names
            for folder in ([""] if _is_constant(name) else [f"{y}/" for y in self._years()])
        ]

    def _variable(
        self, name: str, cells: int, days: dict[int, NDArray[Any]]
    ) -> tuple[tuple[str, ...], Any, dict[str, str]]:
        """A variable: dims, dask array of float32 in our units, attributes."""
        import dask.array
        from dask.delayed import delayed

        da: Any = dask.array

        spec = self.mapping[name]
        units = spec.get("to", spec["units"])
        attrs = {"units": units, "source": spec["from"]}
        factors = conversion(spec["units"], units)

        def later(folder: str, shape: tuple[int, int]) -> Any:
            url = f"{self.urlpath}/{folder}{spec['from']}.csv"
            fills = self.fills.get(spec["from"], ())
            read = delayed(converted)(url, self._options(), shape, factors, fills)
            return da.from_delayed(read, shape, "float32").T

        if _is_constant(spec["from"]):
            return ("place",), later("", (cells, 1))[0], attrs
        years = [later(f"{year}/", (cells, len(found))) for year, found in days.items()]
        return ("time", "place"), da.concatenate(years), attrs

    def _years(self) -> list[int]:
        """Folders that hold days of the period."""
        first, last = (_folder(day) for day in span(self.urlpath, self.metadata, self.period))
        return list(range(first, last + 1))

    def _places(self) -> NDArray[np.float64]:
        """(cell, 2) lat and lon."""
        return self._table(f"{self.urlpath}/crd.csv")

    def _days(self, year: int) -> NDArray[np.datetime64]:
        return days(f"{self.urlpath}/{year}/timeStr.csv", self.storage_options)

    def _table(self, url: str) -> NDArray[np.float64]:
        return table(url, self._options())

    def _options(self) -> str:
        return json.dumps(self.storage_options, sort_keys=True)


def _is_constant(name: str) -> bool:
    return name.startswith("const/")


def _folder(day: np.datetime64) -> int:
    """The year of the folder that holds a day, from 1 April on."""
    months = int(day.astype("datetime64[M]").astype(int)) - 3
    return 1970 + months // 12
