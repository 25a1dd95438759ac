"""A part of a source, small enough to read for a look at it: some days, some of its region."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.symptoms import Symptom

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    Region = tuple[float, float, float, float]

DAYS, SIDE, PLACES = 3, 32, 200  # of a first look; places are read on all days
MORE_DAYS, WIDER = 12, 64  # of a second one, where the first finds no value
LEAST_COVERED = 0.9


class Part(NamedTuple):
    """Where a source lies over a region: `at`, indices along its dims, and the share it covers."""

    at: dict[str, NDArray[np.intp]]
    covered: float


def over(dataset: xr.Dataset, region: Region | None) -> Part:
    """The places, or rows and columns, of a source over a region; all of them where it is None."""
    if "place" in dataset.dims:
        inside = np.ones(dataset.sizes["place"], bool)
        if region:
            west, south, east, north = region
            lat, lon = dataset.lat.values, dataset.lon.values
            inside = (lat >= south) & (lat <= north) & ((lon - west) % 360 <= east - west)
        return Part({"place": np.flatnonzero(inside)}, float(inside.any()))
    dims = ("lat", "lon") if "lat" in dataset.dims else ("y", "x")
    if region is None:
        return Part({dim: np.arange(dataset.sizes[dim]) for dim in dims}, 1.0)
    at, covered = {}, 1.0
    for dim, low, high in zip(dims, *_box(dataset, dims, region), strict=True):
        at[dim], share = _along(dataset, dim, low, high)
        covered *= share
    return Part(at, covered)


def of_coverage(dataset: xr.Dataset, part: Part, region: Region) -> list[Symptom]:
    """Whether a source reaches a region, and all of it."""
    if part.covered >= LEAST_COVERED:
        return []
    west, south, east, north = region
    domain = f"the domain {west:g} to {east:g} E, {south:g} to {north:g} N"
    if part.covered > 0:
        found = f"covers {100 * part.covered:.0f} % of {domain}"
        return [Symptom("domain", found, "make the domain smaller, or name another source")]
    reach = ""
    if "lat" in dataset.coords and dataset.lat.size:
        lat, lon = dataset.lat.values, dataset.lon.values
        reach = f": {lon.min():g} to {lon.max():g} E, {lat.min():g} to {lat.max():g} N"
    return [Symptom("domain", f"nothing in {domain}{reach}", "move it, or name another source")]


def first(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """A first look: the middle of the region on a few days; of places some, on all days."""
    if "place" in part.at:
        return dataset.isel(place=_spread(part.at["place"], PLACES))
    block = {dim: _middle(index, SIDE) for dim, index in part.at.items()}
    return _on_days(dataset.isel(block), DAYS)


def second(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """A wider look: all over the region on more days."""
    if "place" in part.at:
        return dataset.isel(place=part.at["place"])
    block = {dim: _spread(index, WIDER) for dim, index in part.at.items()}
    return _on_days(dataset.isel(block), MORE_DAYS)


def profile(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """From north to south: some rows, of a few columns; of places some."""
    if "place" in part.at:
        return _on_days(dataset.isel(place=_spread(part.at["place"], PLACES)), DAYS)
    rows, columns = part.at.values()
    names = list(part.at)
    block = {names[0]: _spread(rows, 12), names[1]: _middle(columns, 8)}
    return _on_days(dataset.isel(block), DAYS)


def told(looked: xr.Dataset, whole: xr.Dataset) -> str:
    """How much of a source was looked at: `3 of 366 days, lat 32 of 224, lon 32 of 464`."""
    dims = [dim for dim in ("time", "place", "lat", "lon", "y", "x") if dim in looked.dims]
    called = {"time": "days", "place": "places"}
    parts = [
        f"{looked.sizes[dim]} of {whole.sizes[dim]} {called.get(dim, dim)}"
        for dim in dims
        if looked.sizes[dim]
    ]
    return ", ".join(parts)


def _on_days(dataset: xr.Dataset, n: int) -> xr.Dataset:
    """Days in the middles of `n` equal parts of those there are."""
    if "time" not in dataset.dims or dataset.sizes["time"] <= n:
        return dataset
    step = dataset.sizes["time"] / n
    return dataset.isel(time=((np.arange(n) + 0.5) * step).astype(int))


def _middle(index: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    start = max(0, (len(index) - n) // 2)
    return index[start : start + n]


def _spread(index: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    if len(index) <= n:
        return index
    chosen: NDArray[np.intp] = index[np.linspace(0, len(index) - 1, n).astype(int)]
    return chosen


def _box(
    dataset: xr.Dataset, dims: tuple[str, str], region: Region
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The region's lower and upper edges along rows and columns, in the source's coordinates."""
    west, south, east, north = region
    if dims == ("lat", "lon"):
        return (south, west), (north, east)
    import pyproj

    to = pyproj.Transformer.from_crs("EPSG:4326", dataset.attrs["crs"], always_xy=True)
    left, bottom, right, top = to.transform_bounds(west, south, east, north, densify_pts=21)
    return (bottom, left), (top, right)


def _along(
    dataset: xr.Dataset, dim: str, low: float, high: float
) -> tuple[NDArray[np.intp], float]:
    """Rows or columns between two edges, and the share of the way between that they cover."""
    centres = np.asarray(dataset[dim].values, float)
    if f"{dim}_bnds" in dataset:
        lower, upper = np.sort(np.asarray(dataset[f"{dim}_bnds"].values, float), axis=1).T
    else:
        half = np.abs(np.diff(centres)).mean() / 2 if len(centres) > 1 else 0.0
        lower, upper = centres - half, centres + half
    over = np.zeros(len(centres), bool)
    length = 0.0
    for turn in (-360, 0, 360) if dim == "lon" else (0,):
        shared = np.minimum(upper + turn, high) - np.maximum(lower + turn, low)
        over |= shared > 0
        length += float(np.clip(shared, 0, None).sum())
    return np.flatnonzero(over), min(1.0, length / (high - low))
