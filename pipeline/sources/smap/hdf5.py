"""Build datasets on EASE-Grid 2.0 with 36 or 9 km, for the whole grid or the part over a region.

Open local and remote HDF5 files, check their datasets and read them.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import failures
from pipeline.errors import DataError
from pipeline.grid import ease
from pipeline.grid.ease import Window
from pipeline.sources.shared import access, http_errors, missing_values
from pipeline.sources.shared.units import are_same_units

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import dask.array as da
    import h5py
    import xarray as xr
    from numpy.typing import NDArray


Slices = tuple[slice, slice]

REFINEMENT_BY_SHAPE = {
    (ease.FOOTPRINT_ROWS * n, ease.FOOTPRINT_COLS * n): n for n in (1, 4)
}  # shape of the global grid, M36 or M09 -> cells along the side of a 36 km footprint


def window_over(region: tuple[float, float, float, float] | None, refinement: int) -> Window:
    """Return the window that contains a region.

    Args:
      region: West, south, east, north in degrees; None for the whole grid. If the region crosses
        the antimeridian, the window has all columns.
      refinement: Cells along the side of a 36 km footprint.
    """
    west, south, east, north = region or (-180.0, -90.0, 180.0, 90.0)
    if west >= east or west < -180 or east > 180:
        west, east = -180.0, 180.0
    return Window.from_bbox(west, south, east, north, refinement)


def window_slices(window: Window) -> Slices:
    """Return the rows and columns of a window in the arrays of a global file."""
    n = window.refinement
    rows, cols = window.cell_shape
    return slice(window.row * n, window.row * n + rows), slice(
        window.col * n, window.col * n + cols
    )


def index_problem(indices: NDArray[np.int64], part: Slices, axis: int, fill: int) -> str:
    """Check that the row or column indices in a file are those of its arrays.

    Args:
      indices: (row, column) row or column indices of cells, as stored in the file.
      part: Rows and columns of the global arrays from which they are read.
      axis: 0 if they are row indices, 1 if they are column indices.
      fill: Stored value where the file has no index.

    Returns:
      A message about wrong indices, empty if there are none.
    """
    expected = np.moveaxis(np.arange(part[axis].start, part[axis].stop)[:, None], 0, axis)
    expected = np.broadcast_to(expected, indices.shape)
    wrong = (indices != fill) & (indices != expected)
    if not wrong.any():
        return ""
    n_wrong, first, position = int(wrong.sum()), indices[wrong][0], expected[wrong][0]
    return f"{n_wrong} cells have another index than their position, such as {first} at {position}"


def grid_dataset(
    window: Window, days: NDArray[np.datetime64], variables: dict[str, da.Array]
) -> xr.Dataset:
    """Return a dataset in the grid form of `Source`.

    Args:
      window: The window.
      days: (time,) the days.
      variables: {name: (time, row, column) array} on the cells of the window.
    """
    import xarray as xr

    lat, lon = window.cell_edges
    coords = {
        "time": ("time", days.astype("datetime64[ns]")),
        "lat": ("lat", window.cell_lat),
        "lon": ("lon", window.cell_lon),
        "lat_bnds": (("lat", "bnds"), np.stack([lat[:-1], lat[1:]], 1)),
        "lon_bnds": (("lon", "bnds"), np.stack([lon[:-1], lon[1:]], 1)),
    }
    return xr.Dataset(
        {name: (("time", "lat", "lon"), values) for name, values in variables.items()}, coords
    )


def stack_days(
    read_day: Callable[[np.datetime64], Any],
    days: NDArray[np.datetime64],
    types: dict[str, type],
    window: Window,
) -> dict[str, da.Array]:
    """Return {name: (time, row, column) dask array} with one block per day.

    Args:
      read_day: Returns the delayed {name: (row, column) array} of a day.
      days: (time,) the days.
      types: {name: data type} of the arrays.
      window: The window that the arrays cover.
    """
    from dask import array

    shape = (1, *window.cell_shape)
    lazy_days: list[Any] = [read_day(day) for day in days]
    arrays = {}
    for name, dtype in types.items():
        blocks = [array.from_delayed(day[name][None], shape, dtype) for day in lazy_days]  # type: ignore[no-untyped-call]
        arrays[name] = array.concatenate(blocks)  # type: ignore[no-untyped-call]
    return arrays


# Options of fsspec: cache blocks, because HDF5 makes many small reads of the same parts.
CACHE_OPTIONS = {"cache_type": "blockcache", "block_size": 2**22}
_LOWEST_POSSIBLE = -900.0  # no quantity is lower than this; undeclared fill values are


@contextlib.contextmanager
def open_hdf5(url: str, options: dict[str, Any], login: str | None) -> Iterator[h5py.File]:
    """Open a file until the end of the block.

    Args:
      url: Path or URL of the file.
      options: Storage options of the entry, for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.

    Yields:
      The open file.

    Raises:
      DataError: If the file is missing, access is refused, or it is damaged. Errors of reading
        inside the block are converted too.
    """
    import h5py

    place = http_errors.format_url(url)
    try:
        with contextlib.ExitStack() as stack:
            file: Any = url
            if "://" in url:
                stack.enter_context(http_errors.plain_http_errors(url, login))
                file = stack.enter_context(access.open_file(url, _with_cache(url, options), login))
                _refuse_web_page(file, place, login)
            try:
                yield stack.enter_context(h5py.File(file, "r"))
            except OSError as error:
                # A subclass, or one with a number: an error of the network or the system.
                if type(error) is not OSError or failures.explain(error).known:
                    raise
                problem = f"cannot be read, truncated or not an HDF5 file: {error}"
                raise DataError(place, problem, remedy="fetch it again") from error
    except FileNotFoundError as error:
        raise DataError(place, "not found", remedy="get it from the provider") from error


def dataset_problems(file: h5py.File, group: str, fields: dict[str, str | None]) -> list[str]:
    """Return messages about datasets of a group that are missing or have other units.

    Args:
      file: The file.
      group: Path of the group.
      fields: {dataset: units that it must have, or None to accept any}.
    """
    if group not in file:
        return [f"group {group}: missing; the file has {sorted(file)}"]
    messages = []
    for name, units in fields.items():
        path = f"{group}/{name}"
        if path not in file:
            messages.append(f"{path}: missing; the group has {sorted(file[group])}")
            continue
        file_units = _attribute_text(file[path].attrs.get("units"))
        if units is not None and not are_same_units(file_units, units):
            messages.append(f"{path}: units '{file_units}', expected '{units}'")
    return messages


def read_values(
    file: h5py.File,
    path: str,
    part: tuple[slice, slice],
    place: str,
    fills: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    """Read a part of a dataset.

    Args:
      file: The file.
      path: Path of the dataset.
      part: Rows and columns to read.
      place: URL of the file, for errors.
      fills: Stored values that the entry declares as missing, in addition to those that the file
        declares.

    Returns:
      (row, column) float32 values, NaN where missing.

    Raises:
      DataError: If values are lower than any quantity can be, which indicates a fill value that
        neither the file nor the entry declares.
    """
    array = missing_values.mask_missing(file[path][part], dict(file[path].attrs), fills)
    too_low = array < _LOWEST_POSSIBLE
    if too_low.any():
        n_low, example = int(too_low.sum()), array[too_low][0]
        problem = f"{path}: {n_low} values such as {example:g}, which is not declared as missing"
        hint = "declare the value with `fill` in the mapping, or fetch the file again"
        raise DataError(place, problem, remedy=hint)
    return array


def _with_cache(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return storage options with a cache; s3fs has other names for its options."""
    prefix = "default_" if url.startswith("s3://") else ""
    return {f"{prefix}{key}": value for key, value in CACHE_OPTIONS.items()} | options


def _refuse_web_page(file: Any, place: str, login: str | None) -> None:
    """Check that a file is not a login page, which some providers send instead of an error.

    Raises:
      DataError: If the content is HTML.
    """
    head = file.read(64).lstrip()
    file.seek(0)
    if head[:1] == b"<":
        hint = http_errors.LOGIN_HINTS.get(login or "", "open the URL in a browser")
        problem = "the server sent a web page instead of the file"
        raise DataError(place, problem, remedy=hint)


def _attribute_text(value: Any) -> str:
    """Return an attribute as text; HDF5 has several kinds of strings."""
    first = np.ravel(np.asarray(value))[0]
    return first.decode() if isinstance(first, bytes) else f"{first}"
