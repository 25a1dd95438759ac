"""Find the part of a source that lies over a region, and faults in the source's positions.

Select samples of a source that are small enough to read: some days, part of the region.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.doctor.findings import Finding

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray


Region = tuple[float, float, float, float]  # west, south, east, north in degrees
MIN_COVERED_SHARE = 0.9  # share of the domain that a source has to cover


class Coverage(NamedTuple):
    """The part of a source over a region.

    Attributes:
      indices: indices along the source's dims, `place` or rows and columns.
      share: share of the region that the source covers, 0 to 1; for places, whether there are any.
    """

    indices: dict[str, NDArray[np.intp]]
    share: float


def find_coverage(dataset: xr.Dataset, region: Region | None) -> Coverage:
    """Return the places, or the rows and columns, of a source over a region; None selects all."""
    if "place" in dataset.dims:
        inside = np.ones(dataset.sizes["place"], bool)
        if region:
            west, south, east, north = region
            lat, lon = dataset.lat.values, dataset.lon.values
            inside = (lat >= south) & (lat <= north) & ((lon - west) % 360 <= east - west)
        return Coverage({"place": np.flatnonzero(inside)}, float(inside.any()))
    dims = ("lat", "lon") if "lat" in dataset.dims else ("y", "x")
    if region is None:
        return Coverage({dim: np.arange(dataset.sizes[dim]) for dim in dims}, 1.0)
    indices, share = {}, 1.0
    for dim, low, high in zip(dims, *_region_edges(dataset, dims, region), strict=True):
        indices[dim], share_along = _indices_between(dataset, dim, low, high)
        share *= share_along
    return Coverage(indices, share)


def check_coverage(dataset: xr.Dataset, part: Coverage, region: Region) -> list[Finding]:
    """Find out whether a source covers nearly all of a region."""
    if part.share >= MIN_COVERED_SHARE:
        return []
    west, south, east, north = region
    domain = f"the domain {west:g} to {east:g} E, {south:g} to {north:g} N"
    if part.share > 0:
        message = f"covers {100 * part.share:.0f} % of {domain}"
        return [Finding("domain", message, "make the domain smaller, or name another source")]
    extent = ""
    if "lat" in dataset.coords and dataset.lat.size:
        lat, lon = dataset.lat.values, dataset.lon.values
        extent = (
            f"; the source spans {lon.min():g} to {lon.max():g} E, {lat.min():g} to {lat.max():g} N"
        )
    hint = "move the domain, or name another source"
    return [Finding("domain", f"nothing in {domain}{extent}", hint)]


def check_positions(dataset: xr.Dataset, region: Region | None) -> list[Finding]:
    """Find what is wrong with the latitudes and longitudes of places, or of rows and columns.

    Args:
      dataset: the source.
      region: where the data must lie, if that is known.
    """
    if "lat" not in dataset.coords or "lon" not in dataset.coords:
        return []
    lat, lon = (np.asarray(dataset[axis].values, float) for axis in ("lat", "lon"))
    hint = "latitude and longitude may be exchanged; correct the file or the entry"
    if not np.isfinite(lat).all() or not np.isfinite(lon).all():
        return [Finding("coordinates", "some places have no lat or lon", "correct the file")]
    if np.abs(lat).max() > 90:
        message = f"lat: {lat.min():g} to {lat.max():g}, expected degrees of at most 90"
        return [Finding("latitude", message, hint)]
    findings = []
    for axis, centres in (("lat", lat), ("lon", lon)):
        if f"{axis}_bnds" in dataset:
            low, high = np.sort(dataset[f"{axis}_bnds"].values, axis=1).T
            n_outside = int(((centres < low - 1e-6) | (centres > high + 1e-6)).sum())
            if n_outside:
                check = "latitude" if axis == "lat" else "coordinates"
                message = f"{axis}_bnds: {n_outside} of {len(centres)} do not contain their {axis}"
                bounds_hint = (
                    f"{axis} and {axis}_bnds may be in opposite order; reverse one of them"
                )
                findings.append(Finding(check, message, bounds_hint))
    if region and not findings and not _overlaps(lat, lon, region) and _overlaps(lon, lat, region):
        message = f"lat {lat.min():g} to {lat.max():g} is outside the region, lon is inside"
        findings.append(Finding("latitude", message, hint))
    return findings


def _overlaps(lat: NDArray[np.float64], lon: NDArray[np.float64], region: Region) -> bool:
    """Return whether any latitude and any longitude lie in the region."""
    west, south, east, north = region
    lon_inside = (lon - west) % 360 <= east - west
    return bool(((lat >= south) & (lat <= north)).any() and lon_inside.any())


def _region_edges(
    dataset: xr.Dataset, dims: tuple[str, str], region: Region
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the region's lower and upper edges along rows and columns, in source coordinates."""
    west, south, east, north = region
    if dims == ("lat", "lon"):
        return (south, west), (north, east)
    import pyproj

    to_source = pyproj.Transformer.from_crs("EPSG:4326", dataset.attrs["crs"], always_xy=True)
    left, bottom, right, top = to_source.transform_bounds(west, south, east, north, densify_pts=21)
    return (bottom, left), (top, right)


def _indices_between(
    dataset: xr.Dataset, dim: str, low: float, high: float
) -> tuple[NDArray[np.intp], float]:
    """Return the rows or columns between two edges, and the share of that interval they cover."""
    centres = np.asarray(dataset[dim].values, float)
    if f"{dim}_bnds" in dataset:
        lower, upper = np.sort(np.asarray(dataset[f"{dim}_bnds"].values, float), axis=1).T
    else:
        half = np.abs(np.diff(centres)).mean() / 2 if len(centres) > 1 else 0.0
        lower, upper = centres - half, centres + half
    inside = np.zeros(len(centres), bool)
    covered_length = 0.0
    # Longitudes may be stored as -180 to 180 or as 0 to 360.
    for turn in (-360, 0, 360) if dim == "lon" else (0,):
        overlap = np.minimum(upper + turn, high) - np.maximum(lower + turn, low)
        inside |= overlap > 0
        covered_length += float(np.clip(overlap, 0, None).sum())
    return np.flatnonzero(inside), min(1.0, covered_length / (high - low))


SAMPLE_DAYS, SAMPLE_SIDE, SAMPLE_PLACES = (
    3,
    32,
    200,
)  # of the first sample, which has all days of its places

MORE_DAYS, WIDER_SIDE = 12, 64  # of the wider sample, read if the first has no value


def select_first_sample(dataset: xr.Dataset, part: Coverage) -> xr.Dataset:
    """Select the first sample: the middle of the region on 3 days, or up to 200 places, all days.

    Args:
      dataset: the source.
      part: indices of the source over the region.
    """
    if "place" in part.indices:
        return dataset.isel(place=_spread_indices(part.indices["place"], SAMPLE_PLACES))
    block = {dim: _middle_indices(index, SAMPLE_SIDE) for dim, index in part.indices.items()}
    return _on_days(dataset.isel(block), SAMPLE_DAYS)


def select_whole_region(dataset: xr.Dataset, part: Coverage) -> xr.Dataset:
    """Select all days and the whole region."""
    return dataset.isel(dict(part.indices))


def select_more_days(dataset: xr.Dataset, part: Coverage) -> xr.Dataset:
    """Select the middle of the region on 12 days; of places, the first sample."""
    if "place" in part.indices:
        return select_first_sample(dataset, part)
    block = {dim: _middle_indices(index, SAMPLE_SIDE) for dim, index in part.indices.items()}
    return _on_days(dataset.isel(block), MORE_DAYS)


def select_wider_sample(dataset: xr.Dataset, part: Coverage) -> xr.Dataset:
    """Select a wider sample: rows and columns all over the region on 12 days, or all places."""
    if "place" in part.indices:
        return dataset.isel(place=part.indices["place"])
    block = {dim: _spread_indices(index, WIDER_SIDE) for dim, index in part.indices.items()}
    return _on_days(dataset.isel(block), MORE_DAYS)


def select_profile(dataset: xr.Dataset, part: Coverage) -> xr.Dataset:
    """Select a profile from north to south: 12 rows of 8 columns, or up to 200 places, 3 days."""
    if "place" in part.indices:
        return _on_days(
            dataset.isel(place=_spread_indices(part.indices["place"], SAMPLE_PLACES)), SAMPLE_DAYS
        )
    rows, columns = part.indices.values()
    names = list(part.indices)
    block = {names[0]: _spread_indices(rows, 12), names[1]: _middle_indices(columns, 8)}
    return _on_days(dataset.isel(block), SAMPLE_DAYS)


def describe_sample(sample: xr.Dataset, whole: xr.Dataset) -> str:
    """Describe how large a sample is: `3 of 366 days, 32 of 224 lat, 32 of 464 lon`."""
    dims = [dim for dim in ("time", "place", "lat", "lon", "y", "x") if dim in sample.dims]
    nouns = {"time": "days", "place": "places"}
    return ", ".join(
        f"{sample.sizes[dim]} of {whole.sizes[dim]} {nouns.get(dim, dim)}"
        for dim in dims
        if sample.sizes[dim]
    )


def _on_days(dataset: xr.Dataset, n: int) -> xr.Dataset:
    """Select the middle day of each of `n` equal parts of the record."""
    if "time" not in dataset.dims or dataset.sizes["time"] <= n:
        return dataset
    step = dataset.sizes["time"] / n
    return dataset.isel(time=((np.arange(n) + 0.5) * step).astype(int))


def _middle_indices(index: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return the `n` indices in the middle."""
    start = max(0, (len(index) - n) // 2)
    return index[start : start + n]


def _spread_indices(index: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return `n` indices, evenly spaced from the first to the last."""
    if len(index) <= n:
        return index
    chosen: NDArray[np.intp] = index[np.linspace(0, len(index) - 1, n).astype(int)]
    return chosen
