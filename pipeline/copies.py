"""Copies of sources: one store per entry, over the window and period of an experiment.

`URL/{entry}.zarr`, in our names and units, on the source's own grid, so that a cube made of it is
the cube made of the source; `manifest.json` in it, last, holds the digest of what was copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import files
from pipeline.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.files import Json


def url_of(folder: str, entry: str) -> str:
    """The store of an entry's copy."""
    return files.join(folder, f"{entry.replace('/', '_').replace(':', '_')}.zarr")


def manifest(folder: str, entry: str) -> Json:
    """What a complete copy says of itself.

    Raises:
      DataError: there is no complete copy.
    """
    url = url_of(folder, entry)
    found = files.read_json(files.join(url, "manifest.json"))
    if found is None:
        remedy = "make it with `soilweave prepare EXPERIMENT --stage-to URL`"
        raise DataError(url, f"no complete copy of {entry}", remedy=remedy)
    return found


def digest_of(folder: str, entry: str) -> str:
    """The digest of what was copied."""
    return str(manifest(folder, entry)["digest"])


def open_copy(folder: str, entry: str) -> xr.Dataset:
    """A copy, in the form of its source's driver."""
    raise NotImplementedError
