"""Open local and remote HDF5 files, check their datasets and read them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import http_errors, missing, remote
from pipeline.sources.units import same

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py
    from numpy.typing import NDArray

# Options of fsspec: cache blocks, because HDF5 makes many small reads of the same parts.
CACHE = {"cache_type": "blockcache", "block_size": 2**22}
_OUT_OF_THE_WORLD = -900.0  # no quantity is lower than this; undeclared fill values are


@contextlib.contextmanager
def opened(url: str, options: dict[str, Any], login: str | None) -> Iterator[h5py.File]:
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

    place = http_errors.shown(url)
    try:
        with contextlib.ExitStack() as stack:
            file: Any = url
            if "://" in url:
                stack.enter_context(http_errors.answering(url, login))
                file = stack.enter_context(remote.opened(url, _cached(url, options), login))
                _check_page(file, place, login)
            try:
                yield stack.enter_context(h5py.File(file, "r"))
            except OSError as error:
                if type(error) is not OSError:  # a subclass: an error of the network or the path
                    raise
                problem = f"cannot be read, truncated or not an HDF5 file: {error}"
                raise DataError(place, problem, remedy="fetch it again") from error
    except FileNotFoundError as error:
        raise DataError(place, "not found", remedy="get it from the provider") from error


def problems(file: h5py.File, group: str, fields: dict[str, str | None]) -> list[str]:
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
        file_units = _text(file[path].attrs.get("units"))
        if units is not None and not same(file_units, units):
            messages.append(f"{path}: units '{file_units}', expected '{units}'")
    return messages


def values(
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
    array = missing.masked(file[path][part], dict(file[path].attrs), fills)
    too_low = array < _OUT_OF_THE_WORLD
    if too_low.any():
        n_low, example = int(too_low.sum()), array[too_low][0]
        problem = f"{path}: {n_low} values such as {example:g}, which is not declared as missing"
        hint = "declare the value with `fill` in the mapping, or fetch the file again"
        raise DataError(place, problem, remedy=hint)
    return array


def _cached(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return storage options with a cache; s3fs has other names for its options."""
    prefix = "default_" if url.startswith("s3://") else ""
    return {f"{prefix}{key}": value for key, value in CACHE.items()} | options


def _check_page(file: Any, place: str, login: str | None) -> None:
    """Check that a file is not a login page, which some providers send instead of an error.

    Raises:
      DataError: If the content is HTML.
    """
    head = file.read(64).lstrip()
    file.seek(0)
    if head[:1] == b"<":
        hint = http_errors.REMEDIES.get(login or "", "open the URL in a browser")
        problem = "the server sent a web page instead of the file"
        raise DataError(place, problem, remedy=hint)


def _text(value: Any) -> str:
    """Return an attribute as text; HDF5 has several kinds of strings."""
    first = np.ravel(np.asarray(value))[0]
    return first.decode() if isinstance(first, bytes) else f"{first}"
