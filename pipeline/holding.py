"""Which cell of a source, on its own grid, holds a place; or which of its places is nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipeline import distances
from pipeline.errors import DataError
from pipeline.regrid import edges_between

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Places = tuple[NDArray[np.float64], NDArray[np.float64]]  # latitude, longitude, in degrees

_EDGE = 1e-3  # of a cell's width: bounds are often float32


@dataclass(frozen=True)
class Holding:
    """For each of some places the cell of a source, by dim, and the cell's centre.

    `index` (place,) is -1 along one dim or more where no cell holds the place; `lat` and `lon`
    (place,), in degrees, mean nothing there.
    """

    index: dict[str, NDArray[np.int64]]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(place,) whether there is such a cell."""
        return np.asarray(np.all([index >= 0 for index in self.index.values()], axis=0))


def cells(dataset: xr.Dataset, places: Places, max_km: float) -> Holding:
    """The cell of a source that holds each place; of a source of places the nearest.

    Args:
      dataset: in a form that `pipeline.sources` gives, its attribute `entry` the name it has.
      places: latitude and longitude (place,), degrees.
      max_km: farthest place of a source of places that may stand for another.

    Raises:
      DataError: the source is neither of places nor of cells.
    """
    dims = set(dataset.dims)
    if "place" in dims:
        return _nearest(dataset, places, max_km)
    if {"lat", "lon"} <= dims:
        row = _interval(dataset["lat_bnds"].values, places[0])
        col = _interval(dataset["lon_bnds"].values, places[1], turn=360)
        lat, lon = dataset["lat"].values, dataset["lon"].values
        return Holding({"lat": row, "lon": col}, lat[row], lon[col])
    if {"y", "x"} <= dims and "crs" in dataset.attrs:
        return _projected(dataset, places)
    found = f"dims {[str(dim) for dim in dataset.dims]}"
    accepted = "expected time with place, with lat and lon, or with y, x and an attribute crs"
    raise DataError(f"catalog entry {dataset.attrs['entry']}", f"{found}; {accepted}")


def _nearest(dataset: xr.Dataset, places: Places, max_km: float) -> Holding:
    lat, lon = dataset["lat"].values, dataset["lon"].values
    n = len(places[0])
    if not len(lat) or not n:
        return Holding({"place": np.full(n, -1)}, np.full(n, np.nan), np.full(n, np.nan))
    index, distance = distances.nearest(*places, lat, lon)
    near = np.where(distance <= max_km, index, -1)
    return Holding({"place": near}, lat[index], lon[index])


def _projected(dataset: xr.Dataset, places: Places) -> Holding:
    import pyproj

    crs = pyproj.CRS.from_user_input(dataset.attrs["crs"])
    transformer = pyproj.Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = (np.asarray(v, float) for v in transformer.transform(places[1], places[0]))
    row = _interval(_edges(dataset, "y"), y)
    col = _interval(_edges(dataset, "x"), x, turn=360 if crs.is_geographic else 0)
    centre = dataset["x"].values[col], dataset["y"].values[row]
    lon, lat = (np.asarray(v) for v in transformer.transform(*centre, direction="INVERSE"))
    return Holding({"y": row, "x": col}, lat, lon)


def _edges(dataset: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """(n, 2) edges of rows or columns, halfway between their centres."""
    centre = dataset[axis].values.astype("float64")
    if len(centre) < 2:
        found = f"{axis}: {len(centre)} values; two are needed to tell how wide a cell is"
        raise DataError(f"catalog entry {dataset.attrs['entry']}", found, remedy="read more of it")
    edges = edges_between(centre)
    return np.stack([edges[:-1], edges[1:]], 1)


def _interval(
    bounds: NDArray[np.float64], place: NDArray[np.float64], turn: float = 0
) -> NDArray[np.int64]:
    """(place,) index of the interval of (n, 2) bounds that holds each, -1 for none.

    With `turn`, what is so much further east or west is the same place.
    """
    low, high = np.sort(bounds.astype("float64"), axis=1).T
    order = np.argsort(low)
    slack = _EDGE * (high - low)
    held = np.full(len(place), -1)
    for shift in dict.fromkeys((0.0, turn, -turn)):
        moved = place + shift
        index = order[np.maximum(np.searchsorted(low[order], moved, "right") - 1, 0)]
        inside = (moved >= low[index] - slack[index]) & (moved <= high[index] + slack[index])
        held = np.where((held < 0) & inside, index, held)
    return held.astype(np.int64)
