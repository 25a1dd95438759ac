"""What `export` records of the files that it has made, and whether they still show the maps.

A folder that is exported to has the files and `export.json`:

  `files`: by name of file its `size` and `sha256`; `format` and options; `experiment`, `arm`,
    `first` and `last` day; `maps`, a digest of the maps on these days; and `made_from`, a digest of
    the maps and the options. Of GeoTIFF also `layers`, the names of its bands, and `shape` and
    `transform` of its pixels.

The folder `export/` of an experiment belongs to it: `verify` reads its files, and `publish` takes
those that show the maps as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.errors import StoreError
from pipeline.storage import zarr_arrays
from pipeline.storage.maps_schema import DIMS

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


FOLDER = "export"  # of an experiment
RECORD, LEASE = "export.json", "lease.json"
OWN_KEYS = (f"{FOLDER}/{RECORD}", f"{FOLDER}/{LEASE}")
KEYS = ("size", "sha256", "format", "arm", "first", "last", "made_from")  # of every record
STATUS = "input_status"

# Attributes of the maps that describe the Zarr store, or that say the same as arrays in a file.
STORE_ATTRIBUTES = ("proj:", "spatial:", "zarr_conventions", "period", "Conventions")

# Those that `update` changes: days that stay as they were need not be exported again for them.
CHANGING_ATTRIBUTES = ("time_coverage", "date_", "history", "release", "cube_sha256")


@dataclass(frozen=True)
class Content:
    """What files with some days of the maps depend on; no values are read for it.

    Attributes:
      root: The root of the maps, not decoded.
      digests: A digest of each object by its key in the store; empty if they are unknown.
    """

    root: xr.Dataset
    digests: dict[str, str]

    @property
    def attrs(self) -> Json:
        """The attributes of the maps that hold for every file, as text and numbers."""
        kept = {k: v for k, v in self.root.attrs.items() if not k.startswith(STORE_ATTRIBUTES)}
        return {k: v for k, v in kept.items() if isinstance(v, str | int | float)}

    @cached_property
    def layers(self) -> list[str]:
        """The names of all variables (time, y, x)."""
        return sorted(str(k) for k, v in self.root.data_vars.items() if v.dims == DIMS)

    @cached_property
    def days(self) -> NDArray[np.datetime64]:
        """(time,) the days of the axis."""
        return np.asarray(self.root["time"].values.astype("datetime64[D]"))

    def digest(self, days: range) -> str | None:
        """Return a digest of all that a file with some days depends on in the maps.

        It follows from the digests of the shards that have these days.

        Args:
          days: Positions on the axis.

        Returns:
          The digest; None if the objects of the maps are unknown, so that nobody can tell.
        """
        if not self.digests:
            return None
        shards = []
        for name in self.layers:
            chunks = self.root[name].encoding
            length = (chunks.get("shards") or chunks["chunks"])[0]
            blocks = range(days.start // length, (days.stop - 1) // length + 1)
            shards += [self._shards.get(f"{name}/c/{block}", []) for block in blocks]
        status = self._status[days.start : days.stop]
        dates = [str(self.days[days.start]), str(self.days[days.stop - 1])]
        return files.sha256_of_json([self._description, dates, shards, status])

    @cached_property
    def _shards(self) -> dict[str, list[list[str]]]:
        """Key and digest of the shards of each variable and block of days."""
        found: dict[str, list[list[str]]] = {}
        for key, digest in sorted(self.digests.items()):
            found.setdefault("/".join(key.split("/")[:3]), []).append([key, digest])
        return found

    @cached_property
    def _status(self) -> list[int]:
        """The status of the forcing of each day of the axis; empty if there is none."""
        return list(self.root[STATUS].values.tolist()) if STATUS in self.root else []

    @cached_property
    def _description(self) -> str:
        """A digest of what holds for all days: grid and attributes."""
        attrs = {k: v for k, v in self.attrs.items() if not k.startswith(CHANGING_ATTRIBUTES)}
        grid = {name: self.root[name].values.tolist() for name in ("y", "x")}
        layers = {name: self.root[name].attrs for name in self.layers}
        return files.sha256_of_json([attrs, grid, layers])

    def shows(self, record: Json) -> bool:
        """Return whether a file was made from what the maps have on its days now."""
        try:
            ends = np.array([record["first"], record["last"]], "datetime64[D]")
        except ValueError:
            return False
        start, stop = (int(each) for each in np.searchsorted(self.days, ends))
        if stop >= len(self.days) or (self.days[[start, stop]] != ends).any():
            return False
        digest = self.digest(range(start, stop + 1))
        return digest is not None and digest == record["maps"]


@dataclass(frozen=True)
class Exported:
    """A file in `export/` of an experiment.

    Attributes:
      key: Its key in the experiment's folder.
      record: What `export.json` says of it.
      is_current: Whether it shows the maps as they are.
    """

    key: str
    record: Json
    is_current: bool


def read_record(folder: str) -> dict[str, Json]:
    """Return what `export.json` in a folder says of each file; nothing that cannot be read."""
    record = files.read_receipt(files.join(folder, RECORD), "files") or {}
    return {
        name: about
        for name, about in dict(record.get("files", {})).items()
        if "/" not in name and isinstance(about, dict) and {*KEYS} <= about.keys()
    }


def digests_of(records: list[Json], arm: str) -> dict[str, str]:
    """Return the digest of each object of an arm's maps by its key in their store.

    Args:
      records: The records of objects, with keys from the folder of the experiment on.
      arm: The arm.
    """
    store = f"maps/{arm}.zarr/"
    found = ((str(record["key"]), str(record["sha256"])) for record in records)
    return {key.removeprefix(store): sha256 for key, sha256 in found if key.startswith(store)}


def list_exports(workspace: Workspace) -> list[Exported]:
    """Return the files that are recorded in `export/` of an experiment, by name."""
    recorded = read_record(workspace.url(FOLDER))
    manifest = (workspace.artefact("maps").manifest() or {}) if recorded else {}
    arms = {str(record.get("arm")) for record in recorded.values()}
    contents = {arm: _open_content(workspace, manifest, arm) for arm in sorted(arms)}
    return [
        Exported(f"{FOLDER}/{name}", record, _is_current(record, contents))
        for name, record in sorted(recorded.items())
    ]


def _open_content(workspace: Workspace, manifest: Json, arm: str) -> Content | None:
    """Return what the maps of an arm consist of; None if they are not there or damaged."""
    digests = digests_of(manifest.get("shards", []), arm)
    try:
        url = workspace.url("maps", f"{arm}.zarr")
        return Content(zarr_arrays.open_recorded(url, "", packed=True), digests)
    except StoreError:
        return None


def _is_current(record: Json, contents: dict[str, Content | None]) -> bool:
    content = contents[str(record.get("arm"))]
    # Versions before 0.2 did not record the digest of the maps alone.
    return content is not None and "maps" in record and content.shows(record)
