"""The maps that are exported: where they are, what is in them, and what a file depends on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files
from pipeline.errors import ConfigError, StoreError
from pipeline.storage import publications, zarr_arrays
from pipeline.storage.artefacts import Workspace
from pipeline.storage.maps_schema import DIMS, Quality

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.files import Json


FLAG, STATUS = "quality_flag", "input_status"
STORE, GROUPS = ".zarr", ("", "series")
NOT_WRITTEN = 255  # fill value of `quality_flag` in maps of schema versions 2 and 3
WHOLE = slice(None)

# Attributes of the maps that describe the Zarr store, or that say the same as arrays in a file.
STORE_ATTRIBUTES = ("proj:", "spatial:", "zarr_conventions", "period", "Conventions")

# Those that `update` changes: days that stay as they were need not be exported again for them.
CHANGING_ATTRIBUTES = ("time_coverage", "date_", "history", "release", "cube_sha256")


@dataclass(frozen=True)
class Maps:
    """The maps of an arm, as they are stored.

    Attributes:
      url: URL of the Zarr store.
      root: Its root, not decoded, chunked by day.
      series: Its group `series`, the same values, chunked by cell.
      digests: A digest of each object by its key in the store; empty if they are unknown.
    """

    url: str
    root: xr.Dataset
    series: xr.Dataset
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
    def target(self) -> str:
        """The name of the mapped variable: the one with a standard deviation beside it."""
        found = [name for name in self.layers if f"{name}_std" in self.layers]
        if len(found) != 1 or FLAG not in self.layers:
            problem = f"has the variables {', '.join(self.layers) or 'none'} (time, y, x)"
            hint = "give the URL of maps that soilweave has made"
            raise StoreError(self.url, problem, remedy=hint)
        return found[0]

    @property
    def stem(self) -> str:
        """What the names of files begin with: experiment, arm and variable."""
        named = [self.root.attrs.get(key) for key in ("experiment", "arm")]
        return "_".join([*map(str, filter(None, named)), self.target])

    @cached_property
    def days(self) -> NDArray[np.datetime64]:
        """(time,) the days of the axis."""
        return np.asarray(self.root["time"].values.astype("datetime64[D]"))

    @property
    def _mapped(self) -> tuple[str, str]:
        """The first and last mapped day; the axis of older maps goes on to the edges of blocks."""
        first, last = str(self.days[0]), str(self.days[-1])
        attrs = self.root.attrs
        since = str(attrs.get("time_coverage_start", first))[:10]
        until = str(attrs.get("time_coverage_end", last))[:10]
        return max(first, since), min(last, until)

    def positions(self, period: str | None) -> range:
        """Return the positions on the axis of the days of a period.

        Args:
          period: `FIRST..LAST`, of which either may be left out; None for all mapped days.

        Raises:
          ConfigError: If the maps do not have all of these days.
        """
        first_day, last_day = self._mapped
        wanted = (period or "..").split("..")
        try:
            first, last = (
                date.fromisoformat(day.strip() or end)
                for day, end in zip(wanted, (first_day, last_day), strict=True)
            )
        except ValueError as error:
            accepted = "expected FIRST..LAST, such as 2018-01-01..2018-06-30, or 2018-01-01.."
            raise ConfigError(f"--period {period}", accepted) from error
        if not first_day <= str(first) <= str(last) <= last_day:
            problem = f"the maps have the days {first_day}..{last_day}"
            raise ConfigError(f"--period {period}", problem, remedy="give days of theirs, in order")
        start, stop = np.searchsorted(self.days, np.array([first, last], "datetime64[D]"))
        return range(int(start), int(stop) + 1)

    @property
    def transform(self) -> tuple[float, float, float]:
        """The side of a cell, and the left and upper edge of the maps, in metres of EPSG:6933."""
        size, _, left, _, _, top = self.root.attrs["spatial:transform"]
        return float(size), float(left), float(top)

    def read(
        self, name: str, time: slice, y: slice = WHOLE, x: slice = WHOLE, group: str = ""
    ) -> NDArray[Any]:
        """Read a part of a variable (time, y, x), as it is stored.

        Flags of cells or days that were not written have the bit `no_inputs`.

        Args:
          name: The variable.
          time: Days, as positions on the axis.
          y: Rows.
          x: Columns.
          group: "" or "series"; whichever has better chunks for the part.
        """
        dataset = self.series if group else self.root
        with zarr_arrays.intact_chunks(files.join(self.url, *filter(None, (group, name)))):
            values: NDArray[Any] = dataset[name].isel(time=time, y=y, x=x).values
        if name == FLAG:
            values = np.where(values == NOT_WRITTEN, values.dtype.type(Quality.NO_INPUTS), values)
        return values

    def identity(self, days: range) -> str | None:
        """Return a digest of all that a file with some days depends on in the maps.

        It follows from the digests of the shards that have these days, so nothing is read.

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


def open_maps(url: str, arm: str | None) -> Maps:
    """Open maps to export.

    Args:
      url: URL of a publication, of a release, of the folder of an experiment, or of a Zarr store
        of maps.
      arm: The arm; None for that of the store, else for `multiscale`, or else for the first.

    Raises:
      StoreError: If there are no complete maps.
      ConfigError: If the arm has none.
    """
    url = files.make_absolute(url).rstrip("/")
    if url.endswith(STORE):
        folder, _, name = url.removesuffix(STORE).rpartition("/")
        if arm not in (None, name):
            raise ConfigError(f"--arm {arm}", f"{url} has the maps of another arm")
        described = folder.endswith("/maps") and _objects(folder.removesuffix("/maps"))
        if not described:
            root, series = (zarr_arrays.open_recorded(url, g, packed=True) for g in GROUPS)
            return Maps(url, root, series, _listed(url))
        url, arm = folder.removesuffix("/maps"), name
    found = _objects(url)
    if found is None:
        Workspace(url).described()  # raises if nothing was run here
        hint = "make them with: soilweave predict"
        raise StoreError(files.join(url, "maps"), "there are no complete maps here", remedy=hint)
    url, digests = found
    root, series = (publications.open_maps(url, arm, group, packed=True) for group in GROUPS)
    store = f"maps/{root.attrs['arm']}{STORE}"
    inside = {
        key.removeprefix(f"{store}/"): digest
        for key, digest in digests.items()
        if key.startswith(f"{store}/")
    }
    return Maps(files.join(url, store), root, series, inside)


def _objects(url: str) -> tuple[str, dict[str, str]] | None:
    """Return the folder and the SHA-256 of all objects of a release, or of maps in a workspace."""
    release = publications.find_release(url)
    if release is not None:
        return release.url, {key: str(r["sha256"]) for key, r in release.objects.items()}
    maps = Workspace(url).artefact("maps")
    manifest = maps.manifest()
    if manifest is None:
        return None
    maps.check_objects(manifest)
    return url, {str(r["key"]): str(r["sha256"]) for r in manifest["shards"]}


def _listed(url: str) -> dict[str, str]:
    """Return what a listing says of the content of the objects of a store; empty over HTTP."""
    if url.startswith(files.HTTP_PREFIXES):
        return {}
    found = files.list_details(url).items()
    tags = ("ETag", "size", "mtime")
    return {key: files.sha256_of_json([info.get(tag) for tag in tags]) for key, info in found}
