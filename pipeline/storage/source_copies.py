"""Copies of sources: one store per entry, over the window and period of an experiment.

`URL/{entry}.zarr`, in our names and units, on the source's own grid, so that a cube made of it is
the cube made of the source. Zarr v3, group `data`: coordinates, variables in whole blocks of 32
days; coordinates of text in its attributes. `manifest.json`, last, has the digest of the source.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DamagedError, DataError
from pipeline.storage import schema, zarr_arrays
from pipeline.storage.version2 import Digest

if TYPE_CHECKING:
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.files import Json


GROUP = "data"
NUMBERS, TEXT = "number_coordinates", "text_coordinates"


def url_of(folder: str, entry: str) -> str:
    """The store of an entry's copy."""
    return files.join(folder, f"{entry.replace('/', '_').replace(':', '_')}.zarr")


def digest_of(folder: str, entry: str) -> Digest:
    """The digest of what was copied; a copy made in schema version 2 has that of version 2 alone.

    Raises:
      DataError: there is no complete copy.
      DamagedError: its manifest is not whole.
    """
    found = _manifest(folder, entry)
    digest = str(found["digest"])
    return Digest(digest, str(found.get("digest_version2", digest)))


def open_copy(folder: str, entry: str) -> xr.Dataset:
    """A copy, in the form of its source's driver, nothing read yet.

    Raises:
      DataError: there is no complete copy.
    """
    period = _manifest(folder, entry)["period"]
    url = url_of(folder, entry)
    dataset = zarr_arrays.open_group(url, GROUP)
    dataset = dataset.set_coords(dataset.attrs.pop(NUMBERS))
    for name, values in dataset.attrs.pop(TEXT).items():
        dataset = dataset.assign_coords({name: ("place", values)})
    if "time" not in dataset.dims:
        return dataset
    dataset = dataset.assign_coords(time=dataset.time.values.astype("datetime64[ns]"))
    return dataset.sel(time=slice(*(np.datetime64(day, "ns") for day in period)))


def template(
    dataset: xr.Dataset, period: tuple[date, date]
) -> tuple[list[schema.Array], dict[str, Json]]:
    """The arrays of a copy before it has values, and its attributes."""
    text = {n: c for n, c in dataset.coords.items() if c.dtype.kind in "OUS" and c.dims}
    numbers = [str(name) for name in dataset.coords if name != "time" and name not in text]
    form = []
    for known in numbers:
        coord = dataset[known]
        form.append(schema.coordinate(GROUP, tuple(map(str, coord.dims)), known, coord.values))
    sizes = dict(dataset.sizes)
    if "time" in sizes:
        form.append(schema.time_coordinate(GROUP, period))
        sizes["time"] = len(schema.time_axis(period))
    for name, values in dataset.data_vars.items():
        dims = tuple(map(str, values.dims))
        shape = tuple(sizes[dim] for dim in dims)
        shards = tuple(schema.BLOCK_DAYS if dim == "time" else schema.SHARD for dim in dims)
        chunks = tuple(schema.BLOCK_DAYS if dim == "time" else schema.CHUNK for dim in dims)
        attrs = _plain(values.attrs)
        form.append(
            schema.Array(f"{GROUP}/{name}", dims, shape, _dtype(values), shards, chunks, attrs)
        )
    told = {str(name): [str(v) for v in coord.values] for name, coord in text.items()}
    return form, {GROUP: _plain(dataset.attrs) | {NUMBERS: numbers, TEXT: told}}


def write(
    dataset: xr.Dataset, url: str, days: NDArray[np.datetime64], start: int, constants: bool
) -> list[Json]:
    """Write some days of every variable, and the constants where asked; returns the shards.

    Args:
      dataset: the source.
      url: the store of its copy.
      days: whole blocks of days; those that the source has not are fill.
      start: index of the first of them on the copy's time axis.
      constants: whether variables without time are written too.
    """
    shards = []
    for name, values in dataset.data_vars.items():
        part = values.astype(_dtype(values))
        region = [slice(0, size) for size in part.shape]
        if "time" in part.dims:
            wanted = part.sel(time=slice(days[0], days[-1]))
            fill = np.nan if part.dtype.kind == "f" else -1
            part = wanted.reindex(time=days, fill_value=fill)
            region[part.dims.index("time")] = slice(start, start + len(days))
        elif not constants:
            continue
        shards += zarr_arrays.write_shards(url, f"{GROUP}/{name}", region, part.values)
    return shards


def _manifest(folder: str, entry: str) -> Json:
    url = url_of(folder, entry)
    found = files.read_json(files.join(url, "manifest.json"))
    if found is None:
        remedy = "make it with `soilweave prepare EXPERIMENT --stage-to URL`"
        raise DataError(url, f"no complete copy of {entry}", remedy=remedy)
    if lacking := [key for key in ("digest", "period") if key not in found]:
        problem = f"is damaged: it lacks {', '.join(lacking)}"
        raise DamagedError(files.join(url, "manifest.json"), problem, remedy=files.DAMAGED)
    return found


def _dtype(values: xr.DataArray) -> str:
    """Flags of places stay whole numbers, -1 where missing; those of grids may be missing, NaN."""
    return "<i4" if values.dtype.kind in "iub" and "place" in values.dims else "<f4"


def _plain(attrs: dict[Any, Any]) -> Json:
    """Attributes as JSON has them."""

    def known(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    return dict(json.loads(json.dumps({str(k): v for k, v in attrs.items()}, default=known)))
