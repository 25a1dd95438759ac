"""A part of a source, small enough to read for a look at it: some days, some of its region."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.coverage import Part

DAYS, SIDE, PLACES = 3, 32, 200  # of a first look; places are read on all days
MORE_DAYS, WIDER = 12, 64  # of a second one, where the first finds no value


def first(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """A first look: the middle of the region on a few days; of places some, on all days."""
    if "place" in part.at:
        return dataset.isel(place=_spread(part.at["place"], PLACES))
    block = {dim: _middle(index, SIDE) for dim, index in part.at.items()}
    return _on_days(dataset.isel(block), DAYS)


def whole(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """All days and all of the region."""
    return dataset.isel(dict(part.at))


def more_days(dataset: xr.Dataset, part: Part) -> xr.Dataset:
    """The middle of the region on some more days than those of a first look."""
    if "place" in part.at:
        return first(dataset, part)
    block = {dim: _middle(index, SIDE) for dim, index in part.at.items()}
    return _on_days(dataset.isel(block), MORE_DAYS)


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
