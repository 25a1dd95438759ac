"""HDF5 files with groups: opened where they lie, their datasets checked, fills made NaN."""

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

# Blocks that are kept, so that the many small reads of HDF5 ask for each part once.
CACHE = {"cache_type": "blockcache", "block_size": 2**22}
_OUT_OF_THE_WORLD = -900.0  # no quantity of these files is below; another fill would be


@contextlib.contextmanager
def opened(url: str, options: dict[str, Any], login: str | None) -> Iterator[h5py.File]:
    """A file, until the block ends.

    Raises:
      DataError: it is absent, refused or damaged, there or when it is read within the block.
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
                if type(error) is not OSError:  # of the network, or of a path
                    raise
                found = f"cannot be read, truncated or no HDF5: {error}"
                raise DataError(place, found, remedy="fetch it again") from error
    except FileNotFoundError as error:
        raise DataError(place, "not found", remedy="get it from the provider") from error


def problems(file: h5py.File, group: str, fields: dict[str, str | None]) -> list[str]:
    """What is wrong with the datasets of a group: absent, or in other units.

    Args:
      file: the file.
      group: the group.
      fields: units of each dataset that must be there, None where it has none.
    """
    if group not in file:
        return [f"group {group}: missing; the file has {sorted(file)}"]
    found = []
    for name, units in fields.items():
        path = f"{group}/{name}"
        if path not in file:
            found.append(f"{path}: missing; the group has {sorted(file[group])}")
            continue
        told = _text(file[path].attrs.get("units"))
        if units is not None and not same(told, units):
            found.append(f"{path}: units '{told}', expected '{units}'")
    return found


def values(
    file: h5py.File,
    path: str,
    part: tuple[slice, slice],
    place: str,
    fills: tuple[float, ...] = (),
) -> NDArray[np.float32]:
    """(row, column) values of a part of a dataset, NaN where they are missing.

    Args:
      file: the file.
      path: of the dataset.
      part: rows and columns.
      place: the file's URL, for the error.
      fills: what the entry declares as missing, beside what the file does.

    Raises:
      DataError: it has values far below any that can be: of a fill that nothing declares.
    """
    read = missing.masked(file[path][part], dict(file[path].attrs), fills)
    low = read < _OUT_OF_THE_WORLD
    if low.any():
        found = f"{path}: {int(low.sum())} values such as {read[low][0]:g}, which nothing declares"
        remedy = "declare the value with `fill` in the mapping, or fetch the file again"
        raise DataError(place, f"{found} as missing", remedy=remedy)
    return read


def _cached(url: str, options: dict[str, Any]) -> dict[str, Any]:
    s3 = url.startswith("s3://")
    return {f"default_{key}" if s3 else key: value for key, value in CACHE.items()} | options


def _check_page(file: Any, place: str, login: str | None) -> None:
    """Refuse the page that a provider shows to those it does not know."""
    head = file.read(64).lstrip()
    file.seek(0)
    if head[:1] == b"<":
        remedy = http_errors.REMEDIES.get(login or "", "open the URL in a browser")
        raise DataError(place, "a web page came instead of the file", remedy=remedy)


def _text(value: Any) -> str:
    """An attribute as text: HDF5 has several kinds of strings."""
    first = np.ravel(np.asarray(value))[0]
    return first.decode() if isinstance(first, bytes) else f"{first}"
