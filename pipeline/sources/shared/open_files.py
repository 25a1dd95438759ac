"""Files that stay open while a block or a catalog entry is read.

Variables are read one by one, and opening and decoding a NetCDF file for each of them would take
longer than reading their values.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import xarray as xr

MOST_OPEN = 40  # the daily files of a block of 32 days, and the templates of some entries


class _OpenFile(NamedTuple):
    dataset: xr.Dataset
    version: tuple[int, ...] | None
    opener: object  # kept alive, so that its id remains its own


_open_files: ContextVar[OrderedDict[tuple[int, str], _OpenFile] | None] = ContextVar(
    "open files", default=None
)


@contextlib.contextmanager
def keep_open() -> Iterator[None]:
    """Keep the files that `open_once` opens in this context open until its end."""
    kept: OrderedDict[tuple[int, str], _OpenFile] = OrderedDict()
    token = _open_files.set(kept)
    try:
        yield
    finally:
        _open_files.reset(token)
        for file in kept.values():
            file.dataset.close()


def open_once(opener: object, url: str, open_dataset: Callable[[str], xr.Dataset]) -> xr.Dataset:
    """Open a file, or return it if it is open and a local file has not changed since.

    Args:
      opener: The object that opens the file: another one may decode it in another way.
      url: The file.
      open_dataset: Opens and decodes it.

    Returns:
      The dataset. Closing it does nothing if the file is kept open.
    """
    kept = _open_files.get()
    if kept is None:
        return open_dataset(url)
    key, version = (id(opener), url), _local_version(url)
    for other in [k for k in kept if k[1] == url and kept[k].version != version]:
        # HDF5 would use what it knows of the old content when the file is opened again.
        kept.pop(other).dataset.close()
    if key not in kept:
        kept[key] = _OpenFile(open_dataset(url), version, opener)
    kept.move_to_end(key)
    if len(kept) > MOST_OPEN:
        kept.popitem(last=False)[1].dataset.close()
    dataset = kept[key].dataset.copy()
    dataset.set_close(None)
    return dataset


def _local_version(url: str) -> tuple[int, ...] | None:
    """Return what changes with the content of a local file; None for a remote or absent file."""
    path = url.removeprefix("file://")
    if "://" in path:
        return None
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
