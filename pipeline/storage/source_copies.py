"""Copies of sources: one Zarr store per catalog entry, over an experiment's window and period.

`URL/{entry}.zarr` contains the values of a source on its own grid, with soilweave's names and
units, so a cube made from the copy equals a cube made from the source. The group `data` has the
coordinates, and the variables in whole blocks of 32 days; text coordinates are attributes.
`manifest.json`, which is written last, contains the digest of the source.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import DamagedError, DataError
from pipeline.storage import schema, zarr_arrays
from pipeline.storage.earlier_versions import Digest

if TYPE_CHECKING:
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.files import Json


GROUP = "data"
NUMBER_COORDINATES, TEXT_COORDINATES = (
    "number_coordinates",
    "text_coordinates",
)  # attributes of the group


def copy_url(folder: str, entry: str) -> str:
    """Return the URL of the copy of a catalog entry."""
    return files.join(folder, f"{entry.replace('/', '_').replace(':', '_')}.zarr")


def copied_digest(folder: str, entry: str) -> Digest:
    """Return the digest of the source that was copied.

    A copy made in schema version 2 has only the digest of that version.

    Raises:
      DataError: If there is no complete copy.
      DamagedError: If its manifest is damaged.
    """
    manifest = _read_manifest(folder, entry)
    digest = str(manifest["digest"])
    return Digest(digest, str(manifest.get("digest_version2", digest)))


def open_copy(folder: str, entry: str) -> xr.Dataset:
    """Open a copy lazily, in the form that the driver of the source returns.

    Raises:
      DataError: If there is no complete copy.
      DamagedError: If its manifest is damaged.
    """
    period = _read_manifest(folder, entry)["period"]
    url = copy_url(folder, entry)
    dataset = zarr_arrays.open_group(url, GROUP)
    dataset = dataset.set_coords(dataset.attrs.pop(NUMBER_COORDINATES))
    for name, values in dataset.attrs.pop(TEXT_COORDINATES).items():
        dataset = dataset.assign_coords({name: ("place", values)})
    if "time" not in dataset.dims:
        return dataset
    dataset = dataset.assign_coords(time=dataset.time.values.astype("datetime64[ns]"))
    return dataset.sel(time=slice(*(np.datetime64(day, "ns") for day in period)))


def copy_template(
    dataset: xr.Dataset, period: tuple[date, date]
) -> tuple[list[schema.ArraySpec], dict[str, Json]]:
    """Return the arrays of a copy, without values except for coordinates, and its attributes.

    Args:
      dataset: The source.
      period: First and last day of the copy.
    """
    text = {n: c for n, c in dataset.coords.items() if c.dtype.kind in "OUS" and c.dims}
    numbers = [str(name) for name in dataset.coords if name != "time" and name not in text]
    arrays = []
    for name in numbers:
        coord = dataset[name]
        arrays.append(schema.coordinate(GROUP, tuple(map(str, coord.dims)), name, coord.values))
    sizes = dict(dataset.sizes)
    if "time" in sizes:
        arrays.append(schema.time_coordinate(GROUP, period))
        sizes["time"] = len(schema.time_axis(period))
    for variable, values in dataset.data_vars.items():
        dims = tuple(map(str, values.dims))
        shape = tuple(sizes[dim] for dim in dims)
        shards = tuple(schema.BLOCK_DAYS if dim == "time" else schema.SHARD for dim in dims)
        chunks = tuple(schema.BLOCK_DAYS if dim == "time" else schema.CHUNK for dim in dims)
        attrs = _to_json(values.attrs)
        arrays.append(
            schema.ArraySpec(
                f"{GROUP}/{variable}", dims, shape, _copy_dtype(values), shards, chunks, attrs
            )
        )
    text_values = {str(name): [str(v) for v in coord.values] for name, coord in text.items()}
    return arrays, {
        GROUP: _to_json(dataset.attrs)
        | {NUMBER_COORDINATES: numbers, TEXT_COORDINATES: text_values}
    }


def write_days(
    dataset: xr.Dataset, url: str, days: NDArray[np.datetime64], start: int, constants: bool
) -> list[Json]:
    """Write some days of every variable.

    Args:
      dataset: The source.
      url: URL of the copy.
      days: (day,) whole blocks of days; days that the source does not have become fill values.
      start: Index of the first of these days on the time axis of the copy.
      constants: Whether to write the variables without time as well.

    Returns:
      The records of the shards that were written.
    """
    shards = []
    for name, values in dataset.data_vars.items():
        part = values.astype(_copy_dtype(values))
        region = [slice(0, size) for size in part.shape]
        if "time" in part.dims:
            selected = part.sel(time=slice(days[0], days[-1]))
            fill = np.nan if part.dtype.kind == "f" else -1
            part = selected.reindex(time=days, fill_value=fill)
            region[part.dims.index("time")] = slice(start, start + len(days))
        elif not constants:
            continue
        shards += zarr_arrays.write_shards(url, f"{GROUP}/{name}", region, part.values)
    return shards


def _read_manifest(folder: str, entry: str) -> Json:
    """Read the manifest of a copy.

    Raises:
      DataError: If there is no complete copy.
      DamagedError: If the manifest is damaged.
    """
    url = copy_url(folder, entry)
    manifest = files.read_json(files.join(url, "manifest.json"))
    if manifest is None:
        hint = "make it with: soilweave prepare EXPERIMENT --stage-to URL"
        raise DataError(url, f"no complete copy of {entry}", remedy=hint)
    if missing_keys := [key for key in ("digest", "period") if key not in manifest]:
        problem = f"is damaged: it has no {', '.join(missing_keys)}"
        raise DamagedError(files.join(url, "manifest.json"), problem, remedy=files.DAMAGED_HINT)
    return manifest


def _copy_dtype(values: xr.DataArray) -> str:
    """Return the dtype of a variable in the copy.

    Integers of places, such as flags, stay integers with the fill value -1. On grids all values
    become floats, so that missing ones can be NaN.
    """
    return "<i4" if values.dtype.kind in "iub" and "place" in values.dims else "<f4"


def _to_json(attrs: dict[Any, Any]) -> Json:
    """Convert attributes to JSON values."""

    def to_json(value: Any) -> Any:
        return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)

    return dict(json.loads(json.dumps({str(k): v for k, v in attrs.items()}, default=to_json)))
