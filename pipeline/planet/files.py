"""Serialise the planet's data as NetCDF-4 files by the CF conventions: float32, compressed.

One day of retrievals as a file like SMAP's SPL3SMP: HDF5, global M36 grid, AM group.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import xarray as xr

from pipeline.grid import ease

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from pipeline.grid.ease import FloatArray, Window


_UNITS = {
    "APCP": ("kg m-2 h-1", "precipitation"),
    "TMP": ("K", "air temperature at 2 m"),
    "SPFH": ("kg kg-1", "specific humidity at 2 m"),
    "PRES": ("Pa", "surface air pressure"),
    "DLWRF": ("W m-2", "downward longwave radiation"),
    "DSWRF": ("W m-2", "downward shortwave radiation"),
    "SAND": ("percent", "sand"),
    "SILT": ("percent", "silt"),
    "CLAY": ("percent", "clay"),
    "BULK": ("g cm-3", "soil bulk density"),
    "AWC": ("percent", "soil water capacity"),
    "NDVI": ("1", "mean normalised difference vegetation index"),
    "ELEV": ("m", "elevation above sea level"),
    "ALBEDO": ("1", "surface albedo"),
    "LANDCOVER": ("1", "land cover class (IGBP)"),
    "SM": ("m3 m-3", "volumetric soil moisture, 0 to 5 cm"),
    "SM_RETRIEVED": ("m3 m-3", "volumetric soil moisture, 0 to 5 cm, as retrieved"),
    "ST": ("degC", "soil temperature at 5 cm"),
}

_LAT = {"units": "degrees_north", "standard_name": "latitude"}
_LON = {"units": "degrees_east", "standard_name": "longitude"}
_CHUNK_SIZES = (32, 128, 128)  # chunk sizes of the first dimension and of the two of a grid


@dataclass(frozen=True)
class GridAxes:
    """Coordinates of a rectilinear grid.

    Attributes:
      dims: names of the two dimensions, rows first.
      lat_edges: (row + 1) edges of the rows in degrees.
      lon_edges: (col + 1) edges of the columns in degrees.
      lat: (row,) latitudes of the centres.
      lon: (col,) longitudes of the centres.
    """

    dims: tuple[str, str]
    lat_edges: FloatArray
    lon_edges: FloatArray
    lat: FloatArray
    lon: FloatArray

    @classmethod
    def of_cells(cls, window: Window) -> GridAxes:
        """Return the axes of a window's cells: dimensions y and x, rows from north to south."""
        return cls(("y", "x"), *window.cell_edges, window.cell_lat, window.cell_lon)

    def coordinates(self) -> dict[str, Any]:
        """Return the variables lat and lon with their bounds."""
        row, col = self.dims
        return {
            "lat": (row, self.lat, {**_LAT, "bounds": "lat_bnds"}),
            "lon": (col, self.lon, {**_LON, "bounds": "lon_bnds"}),
            "lat_bnds": ((row, "bnds"), _bounds(self.lat_edges)),
            "lon_bnds": ((col, "bnds"), _bounds(self.lon_edges)),
        }


def gridded_netcdf(
    values: Mapping[str, NDArray[Any]],
    axes: GridAxes,
    days: NDArray[np.datetime64] | None = None,
) -> bytes:
    """Return a file of gridded variables as bytes.

    Args:
      values: (day, row, col) values per variable; (row, col) without days.
      axes: coordinates of the grid.
      days: (day,) days; None for variables that are constant in time.
    """
    dims = axes.dims if days is None else ("time", *axes.dims)
    coordinates = axes.coordinates() | ({} if days is None else _time_coordinate(days))
    return _netcdf_bytes({name: (dims, array) for name, array in values.items()}, coordinates)


def point_netcdf(
    values: Mapping[str, NDArray[Any]],
    dim: str,
    lat: FloatArray,
    lon: FloatArray,
    days: NDArray[np.datetime64],
    ids: list[str] | None = None,
) -> bytes:
    """Return a file of time series at points as bytes.

    Args:
      values: (place, day) values per variable.
      dim: name of the dimension of places.
      lat: (place,) latitudes in degrees.
      lon: (place,) longitudes in degrees.
      days: (day,) days.
      ids: names of the places, if they have any.
    """
    coordinates = _time_coordinate(days) | {"lat": (dim, lat, _LAT), "lon": (dim, lon, _LON)}
    if ids is not None:
        coordinates[dim] = (dim, np.array(ids, dtype=object))
    return _netcdf_bytes(
        {name: ((dim, "time"), array) for name, array in values.items()}, coordinates
    )


def _netcdf_bytes(variables: dict[str, Any], coordinates: dict[str, Any]) -> bytes:
    data, encoding = {}, {}
    for name, (dims, array) in variables.items():
        data[name] = (dims, array, _variable_attributes(name))
        chunks = _CHUNK_SIZES[-array.ndim :] if "time" in dims[:1] else (4096, *_CHUNK_SIZES[:1])
        if "time" not in dims:
            chunks = array.shape
        encoding[name] = {
            "zlib": True,
            "complevel": 1,
            "shuffle": True,
            "chunksizes": tuple(map(min, zip(chunks, array.shape, strict=True))),
        }
        if array.dtype.kind == "f":
            data[name] = (dims, array.astype(np.float32, copy=False), _variable_attributes(name))
            encoding[name]["_FillValue"] = np.float32(np.nan)
    for name, (_, array, *_) in coordinates.items():
        if array.dtype.kind == "f":
            encoding[name] = {"_FillValue": None}
    if "time" in coordinates:
        encoding["time"] = {"units": "days since 1970-01-01", "dtype": "int32"}
    attributes = {"Conventions": "CF-1.11", "title": "soilweave OSSE: a planet, no observation"}
    dataset = xr.Dataset(data, coordinates, attributes)
    return bytes(dataset.to_netcdf(engine="h5netcdf", encoding=encoding))


def _variable_attributes(name: str) -> dict[str, Any]:
    if name == "qc":
        return {
            "long_name": "quality flag of the provider",
            "flag_values": np.array([0, 1, 3], np.int8),
            "flag_meanings": "good missing frozen_soil",
        }
    units, long_name = _UNITS[name]
    return {"units": units, "long_name": long_name}


def _time_coordinate(days: NDArray[np.datetime64]) -> dict[str, Any]:
    attributes = {"standard_name": "time", "long_name": "UTC day"}
    return {"time": ("time", days.astype("datetime64[ns]"), attributes)}


def _bounds(edges: FloatArray) -> FloatArray:
    return np.stack([edges[:-1], edges[1:]], axis=1)


_FILL_VALUE = np.float32(-9999)
_NOT_ATTEMPTED = 7


def spl3smp_name(day: np.datetime64) -> str:
    """Return the provider's file name of a day."""
    return f"SMAP_L3_SM_P_{str(day)[:10].replace('-', '')}_R18290_001.h5"


def fullest_day(retrieved: NDArray[np.float32]) -> int:
    """Return the index of the day with most observations near the middle of the period.

    Days up to 16 days from the middle are considered.

    Args:
      retrieved: (day, fy, fx) retrievals, NaN where there is none.
    """
    middle = len(retrieved) // 2
    first = max(middle - 16, 0)
    n = np.isfinite(retrieved[first : middle + 17]).sum((1, 2))
    return int(first + n.argmax())


def spl3smp_bytes(
    retrieved: NDArray[np.float32], window: Window, day: np.datetime64, target: str
) -> bytes:
    """Return the file of one day as bytes.

    Args:
      retrieved: (fy, fx) retrievals in m3 m-3, NaN where there is none.
      window: window of the grid.
      day: the day.
      target: name of the dataset of retrievals.
    """
    shape = (ease.FOOTPRINT_ROWS, ease.FOOTPRINT_COLS)
    global_window = ease.Window(0, 0, *shape, 1)
    here = (
        slice(window.row, window.row + window.height),
        slice(window.col, window.col + window.width),
    )
    observed = np.zeros(shape, bool)
    observed[here] = np.isfinite(retrieved)
    value = np.full(shape, _FILL_VALUE, np.float32)
    value[here] = np.where(np.isfinite(retrieved), retrieved, _FILL_VALUE)
    rows, cols = np.indices(shape, np.uint16)
    lat, lon = np.broadcast_arrays(global_window.cell_lat[:, None], global_window.cell_lon)
    datasets = {
        target: (value, {"units": "cm**3/cm**3", "_FillValue": _FILL_VALUE, "valid_min": 0.02}),
        "latitude": (lat.astype(np.float32), {"units": "degrees", "_FillValue": _FILL_VALUE}),
        "longitude": (lon.astype(np.float32), {"units": "degrees", "_FillValue": _FILL_VALUE}),
        "EASE_row_index": (rows, {}),
        "EASE_column_index": (cols, {}),
        "retrieval_qual_flag": (np.where(observed, 0, _NOT_ATTEMPTED).astype(np.uint16), {}),
        "tb_time_utc": (np.where(observed, f"{str(day)[:10]}T12:00:00.000Z".encode(), b"N/A"), {}),
    }
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("Soil_Moisture_Retrieval_Data_AM")
        for key, (values, attributes) in datasets.items():
            data = group.create_dataset(key, data=values, compression="gzip", compression_opts=1)
            data.attrs.update(attributes)
    return buffer.getvalue()
