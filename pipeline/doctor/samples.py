"""Select samples of a source that are small enough to read: some days, part of the region."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.coverage import Part

DAYS, SIDE, PLACES = 3, 32, 200  # of the first sample, which has all days of its places
MORE_DAYS, WIDER = 12, 64  # of the wider sample, read if the first has no value


def first(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """Select the first sample: the middle of the region on 3 days, or up to 200 places, all days.

    Args:
      dataset: the source.
      part: indices of the source over the region.
    """
    if "place" in part.indices:
        return dataset.isel(place=_spread(part.indices["place"], PLACES))
    block = {dim: _middle(index, SIDE) for dim, index in part.indices.items()}
    return _on_days(dataset.isel(block), DAYS)


def whole(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """Select all days and the whole region."""
    return dataset.isel(dict(part.indices))


def more_days(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """Select the middle of the region on 12 days; of places, the first sample."""
    if "place" in part.indices:
        return first(dataset, part)
    block = {dim: _middle(index, SIDE) for dim, index in part.indices.items()}
    return _on_days(dataset.isel(block), MORE_DAYS)


def second(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """Select a wider sample: rows and columns all over the region on 12 days, or all places."""
    if "place" in part.indices:
        return dataset.isel(place=part.indices["place"])
    block = {dim: _spread(index, WIDER) for dim, index in part.indices.items()}
    return _on_days(dataset.isel(block), MORE_DAYS)


def profile(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """Select a profile from north to south: 12 rows of 8 columns, or up to 200 places, 3 days."""
    if "place" in part.indices:
        return _on_days(dataset.isel(place=_spread(part.indices["place"], PLACES)), DAYS)
    rows, columns = part.indices.values()
    names = list(part.indices)
    block = {names[0]: _spread(rows, 12), names[1]: _middle(columns, 8)}
    return _on_days(dataset.isel(block), DAYS)


def told(sample: xr.Dataset, whole: xr.Dataset) -> str:
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


def _middle(index: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return the `n` indices in the middle."""
    start = max(0, (len(index) - n) // 2)
    return index[start : start + n]


def _spread(index: NDArray[np.intp], n: int) -> NDArray[np.intp]:
    """Return `n` indices, evenly spaced from the first to the last."""
    if len(index) <= n:
        return index
    chosen: NDArray[np.intp] = index[np.linspace(0, len(index) - 1, n).astype(int)]
    return chosen
