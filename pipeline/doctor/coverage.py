"""Where a source lies: its part over a region, and signs of a fault in its positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.doctor.symptoms import Symptom

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

Region = tuple[float, float, float, float]
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


def of_positions(dataset: xr.Dataset, region: Region | None) -> list[Symptom]:
    """What is wrong with the latitudes and longitudes of places, or of rows and columns."""
    if "lat" not in dataset.coords or "lon" not in dataset.coords:
        return []
    lat, lon = (np.asarray(dataset[axis].values, float) for axis in ("lat", "lon"))
    remedy = "are latitude and longitude exchanged? correct the file or the entry"
    if not np.isfinite(lat).all() or not np.isfinite(lon).all():
        return [Symptom("coordinates", "lat or lon of some places missing", "correct the file")]
    if np.abs(lat).max() > 90:
        found = f"lat: {lat.min():g} to {lat.max():g}, expected degrees of at most 90"
        return [Symptom("latitude", found, remedy)]
    made = []
    for axis, centres in (("lat", lat), ("lon", lon)):
        if f"{axis}_bnds" in dataset:
            low, high = np.sort(dataset[f"{axis}_bnds"].values, axis=1).T
            odd = int(((centres < low - 1e-6) | (centres > high + 1e-6)).sum())
            if odd:
                check = "latitude" if axis == "lat" else "coordinates"
                found = f"{axis}_bnds: {odd} of {len(centres)} do not hold their {axis}"
                made.append(Symptom(check, found, "are they in opposite order? turn one of them"))
    if region and not made and not _overlaps(lat, lon, region) and _overlaps(lon, lat, region):
        found = f"lat {lat.min():g} to {lat.max():g} is outside the region, lon is inside"
        made.append(Symptom("latitude", found, remedy))
    return made


def _overlaps(lat: NDArray[np.float64], lon: NDArray[np.float64], region: Region) -> bool:
    west, south, east, north = region
    along = (lon - west) % 360 <= east - west
    return bool(((lat >= south) & (lat <= north)).any() and along.any())


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
