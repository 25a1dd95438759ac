"""Read the files of the 412-cell data set: tables of numbers and lists of days.

Intake driver for the 412-cell data set of SMAP and NLDAS-2 over the contiguous United States.

The public repository of the data set has these files, all without a header:

  {year}/{VARIABLE}.csv   cells x days, from 1 April of the year to 31 March of the next; -9999
                          where a value is missing
  {year}/timeStr.csv      the days of these columns
  crd.csv                 latitude and longitude of each cell
  const/{NAME}.csv        one value per cell
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.shared import access, http_errors
from pipeline.sources.shared.dates import find_entry_period
from pipeline.sources.shared.driver import Source
from pipeline.sources.shared.units import linear_conversion

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


FILL_VALUE = -9999.0  # the fill value of every file of the data set


@functools.lru_cache(maxsize=64)
def read_table(url: str, options: str = "{}") -> NDArray[np.float64]:
    """Read a file of numbers without conversion.

    Args:
      url: The file.
      options: Storage options of fsspec as JSON, so that results can be cached.

    Returns:
      (row, column) the numbers.

    Raises:
      DataError: If the file is missing, has rows of different lengths, or contains anything but
        numbers.
    """
    text = access.read_file(url, json.loads(options)).decode()
    try:
        return np.loadtxt(io.StringIO(text), delimiter=",", ndmin=2)
    except ValueError as error:
        problem = f"expected a table of numbers; the file is truncated or damaged: {error}"
        raise DataError(http_errors.format_url(url), problem, remedy="fetch it again") from error


def read_values(
    url: str,
    options: str,
    shape: tuple[int, int],
    factors: tuple[float, float],
    fills: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    """Read a file and convert its units.

    Args:
      url: The file.
      options: Storage options of fsspec as JSON.
      shape: Expected numbers of cells and days.
      factors: Slope and offset of the conversion.
      fills: Values that stand for missing values, in addition to -9999.

    Returns:
      (cell, day) float32 values, NaN where missing.

    Raises:
      DataError: If the file cannot be read as a table, or has another shape.
    """
    values = read_table(url, options)
    if values.shape != shape:
        read_table.cache_clear()  # so that a repaired file is read again
        problem = f"{values.shape[0]} x {values.shape[1]} numbers, expected {shape[0]} x {shape[1]}"
        raise DataError(http_errors.format_url(url), problem, remedy="fetch it again")
    raw = np.where(np.isin(values, (FILL_VALUE, *fills)), np.nan, values).astype("float32")
    return (raw * factors[0] + factors[1]).astype("float32") if factors != (1.0, 0.0) else raw


def read_days(url: str, options: dict[str, Any]) -> NDArray[np.datetime64]:
    """Read a file that lists days.

    Args:
      url: The file.
      options: Storage options of fsspec.

    Returns:
      (day,) the days.

    Raises:
      DataError: If the file is missing, has no days, or its days are not consecutive.
    """
    text = access.read_file(url, options).decode()
    try:
        days = np.array(text.split(), "datetime64[D]")
    except ValueError as error:
        problem = f"expected a list of days such as 2015-04-01: {error}"
        raise DataError(http_errors.format_url(url), problem, remedy="fetch it again") from error
    steps = np.diff(days).astype(int)
    if not days.size or (steps != 1).any():
        after_gap = days[1:][steps != 1]
        problem = "the file lists no days"
        if after_gap.size:
            problem = f"days are not consecutive: day {after_gap[0]} does not follow the day before"
        raise DataError(http_errors.format_url(url), problem, remedy="fetch it again")
    return days


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
        factors = linear_conversion(spec["units"], units)

        def lazy_file(folder: str, shape: tuple[int, int]) -> Any:
            """Return the (day, cell) dask array of a file that holds (cell, day)."""
            url = f"{self.urlpath}/{folder}{spec['from']}.csv"
            fills = self.fills.get(spec["from"], ())
            read = delayed(read_values)(url, self._options(), shape, factors, fills)
            return da.from_delayed(read, shape, "float32").T

        if _is_constant(spec["from"]):
            return ("place",), lazy_file("", (cells, 1))[0], attrs
        years = [lazy_file(f"{year}/", (cells, len(year_days))) for year, year_days in days.items()]
        return ("time", "place"), da.concatenate(years), attrs

    def _years(self) -> list[int]:
        """Return the years whose folders have days of the period."""
        first, last = (
            _folder_year(day) for day in find_entry_period(self.urlpath, self.metadata, self.period)
        )
        return list(range(first, last + 1))

    def _places(self) -> NDArray[np.float64]:
        """Return (cell, 2) latitude and longitude, degrees."""
        return self._table(f"{self.urlpath}/crd.csv")

    def _days(self, year: int) -> NDArray[np.datetime64]:
        """Return the days of the columns in the folder of a year."""
        return read_days(f"{self.urlpath}/{year}/timeStr.csv", self.storage_options)

    def _table(self, url: str) -> NDArray[np.float64]:
        """Return the numbers in a file."""
        return read_table(url, self._options())

    def _options(self) -> str:
        """Return the storage options as JSON, so that results can be cached."""
        return json.dumps(self.storage_options, sort_keys=True)


def _is_constant(name: str) -> bool:
    """Return whether the provider's name is that of a variable without time."""
    return name.startswith("const/")


def _folder_year(day: np.datetime64) -> int:
    """Return the year of the folder that has a day; folders begin on 1 April."""
    months = int(day.astype("datetime64[M]").astype(int)) - 3
    return 1970 + months // 12
