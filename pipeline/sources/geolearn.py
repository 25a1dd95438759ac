"""The 412-cell set of SMAP and NLDAS-2 over CONUS, as its public repository has it.

`{year}/{VARIABLE}.csv` has cells x days from 1 April of the year to 31 March of the next, without
header, -9999 where missing; `{year}/timeStr.csv` the days, `crd.csv` lat and lon of the cells,
`const/{NAME}.csv` a value per cell.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import remote
from pipeline.sources.form import Source
from pipeline.sources.units import conversion

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

MISSING = -9999.0


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
            read = delayed(_converted)(url, self._options(), shape, factors)
            return da.from_delayed(read, shape, "float32").T

        if _is_constant(spec["from"]):
            return ("place",), later("", (cells, 1))[0], attrs
        years = [later(f"{year}/", (cells, len(found))) for year, found in days.items()]
        return ("time", "place"), da.concatenate(years), attrs

    def _years(self) -> list[int]:
        """Folders that hold days of the period."""
        begin, _, end = str((self.metadata or {})["period"]).partition("..")
        first, last = date.fromisoformat(begin), date.fromisoformat(end)
        if self.period:
            first, last = max(first, self.period[0]), min(last, self.period[1])
        if first > last:
            found = f"has {begin}..{end}, nothing of {self.period[0]}..{self.period[1]}"  # type: ignore[index]
            raise DataError(self.urlpath, found, remedy="change the period, or name another entry")
        return list(range(_folder(first), _folder(last) + 1))

    def _places(self) -> NDArray[np.float64]:
        """(cell, 2) lat and lon."""
        return self._table(f"{self.urlpath}/crd.csv")

    def _days(self, year: int) -> NDArray[Any]:
        url = f"{self.urlpath}/{year}/timeStr.csv"
        text = remote.read(url, self.storage_options).decode()
        try:
            days = np.array(text.split(), "datetime64[D]")
        except ValueError as error:
            raise DataError(
                remote.shown(url), f"no days: {error}", remedy="fetch it again"
            ) from error
        steps = np.diff(days).astype(int)
        if not days.size or (steps != 1).any():
            at = days[1:][steps != 1]
            found = f"days do not follow one another at {at[0]}" if at.size else "no days"
            raise DataError(remote.shown(url), found, remedy="fetch it again")
        return days

    def _table(self, url: str) -> NDArray[np.float64]:
        return table(url, self._options())

    def _options(self) -> str:
        return json.dumps(self.storage_options, sort_keys=True)


@functools.lru_cache(maxsize=64)
def table(url: str, options: str = "{}") -> NDArray[np.float64]:
    """A file of numbers, (row, column), as it is.

    Raises:
      DataError: it is absent, or truncated: rows of several lengths, or no numbers.
    """
    text = remote.read(url, json.loads(options)).decode()
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    except ValueError as error:
        found = f"no table of numbers, truncated or damaged: {error}"
        raise DataError(remote.shown(url), found, remedy="fetch it again") from error


def _converted(
    url: str, options: str, shape: tuple[int, int], factors: tuple[float, float]
) -> NDArray[np.float32]:
    values = table(url, options)
    if values.shape != shape:
        table.cache_clear()  # a damaged file may be mended
        found = f"{values.shape[0]} x {values.shape[1]} numbers, expected {shape[0]} x {shape[1]}"
        raise DataError(remote.shown(url), found, remedy="fetch it again")
    raw = np.where(values == MISSING, np.nan, values).astype("float32")
    return (raw * factors[0] + factors[1]).astype("float32") if factors != (1.0, 0.0) else raw


def _is_constant(name: str) -> bool:
    return name.startswith("const/")


def _folder(day: date) -> int:
    """The year of the folder that holds a day."""
    return day.year if day.month >= 4 else day.year - 1
