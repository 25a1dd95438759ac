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
from pipeline.storage.exports import Content, digests_of
from pipeline.storage.maps_schema import Quality
from pipeline.storage.publications import STORE

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.files import Json


FLAG = "quality_flag"
GROUPS = ("", "series")
NOT_WRITTEN = 255  # fill value of `quality_flag` in maps of schema versions 2 and 3
WHOLE = slice(None)


@dataclass(frozen=True)
class Maps(Content):
    """The maps of an arm, as they are stored; their root is chunked by day.

    Attributes:
      series: The group `series`, the same values, chunked by cell.
      url: URL of the Zarr store.
    """

    series: xr.Dataset
    url: str

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
          period: `FIRST..LAST`, of which either may be left out, or one day; None for all mapped
            days.

        Raises:
          ConfigError: If the maps do not have all of these days.
        """
        first_day, last_day = self._mapped
        wanted = (period or "..").split("..")
        if len(wanted) == 1:
            wanted = [wanted[0].strip() or "none"] * 2
        try:
            first, last = (
                date.fromisoformat(day.strip() or end)
                for day, end in zip(wanted, (first_day, last_day), strict=True)
            )
        except ValueError as error:
            accepted = "expected FIRST..LAST, such as 2018-01-01..2018-06-30, 2018-01-01.. for all "
            accepted += "from then on, or one day, such as 2018-01-01"
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
        folder, name = publications.split_store(url)
        if arm not in (None, name):
            raise ConfigError(f"--arm {arm}", f"{url} has the maps of another arm")
        if name is None or not _objects(folder):
            root, series = (zarr_arrays.open_recorded(url, g, packed=True) for g in GROUPS)
            return Maps(root, _listed(url), series, url)
        url, arm = folder, name
    found = _objects(url)
    if found is None:
        Workspace(url).described()  # raises if nothing was run here
        hint = "make them with: soilweave predict"
        raise StoreError(files.join(url, "maps"), "there are no complete maps here", remedy=hint)
    url, records = found
    root, series = (publications.open_maps(url, arm, group, packed=True) for group in GROUPS)
    arm = str(root.attrs["arm"])
    store = files.join(url, "maps", f"{arm}{STORE}")
    return Maps(root, digests_of(records, arm), series, store)


def _objects(url: str) -> tuple[str, list[Json]] | None:
    """Return the folder and the records of the objects of a release, or of maps in a workspace."""
    release = publications.find_release(url)
    if release is not None:
        return release.url, list(release.objects.values())
    maps = Workspace(url).artefact("maps")
    manifest = maps.manifest()
    if manifest is None:
        return None
    maps.check_objects(manifest)
    return url, list(manifest["shards"])


def _listed(url: str) -> dict[str, str]:
    """Return what a listing says of the content of the objects of a store; empty over HTTP."""
    if url.startswith(files.HTTP_PREFIXES):
        return {}
    found = files.list_details(url).items()
    tags = ("ETag", "size", "mtime")
    return {key: files.sha256_of_json([info.get(tag) for tag in tags]) for key, info in found}
