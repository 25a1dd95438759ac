"""Intake driver for SMAP's daily retrievals (SPL3SMP on 36 km, SPL3SMP_E on 9 km), HDF5.

A file has a group for the descending passes, at 6 in the morning of local solar time, and one for
the ascending passes, at 6 in the evening, whose datasets end in `_pm`. A file is composed of whole
half-orbits, and each cell has the one nearest to that hour. Near the meridian where it is midnight
UTC at that hour (90 E in the morning), some observations are of the day before or after. Each value
is therefore assigned to the UTC day of its `tb_time_utc`, and the files of both neighbouring days
are read too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import remote
from pipeline.sources.earthdata import cmr
from pipeline.sources.form import REMEDY, Mapping
from pipeline.sources.smap import ease, hdf5
from pipeline.sources.smap.files import FLAG, GROUPS, Task, lacks, problems, read
from pipeline.sources.smap.granules import GranuleSource
from pipeline.sources.smap.retrievals import flag_attributes, of_day

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.earthdata.named import Granule


MOST_LOOKS = 8  # files that are opened to find one that has a pass


class SmapL3Source(GranuleSource):
    """Read SMAP's daily retrievals as a grid, with `provider_flag`.

    `provider_flag` (time, lat, lon) is `retrieval_qual_flag`, uint16, 65535 where nothing was
    observed. The driver drops no value because of its flag. The attributes of `provider_flag` are
    `flag_masks` and `flag_meanings` (CF); `bad_bits`, any of which is a reason to drop a value;
    and `good`, the flags without these bits.

    Args:
      mapping: As in `GranuleSource`.
      collection: As in `GranuleSource`.
      urlpath: As in `GranuleSource`.
      passes: `am`, `pm` or both. The value of a day with two passes is the mean of those that are
        recommended, or of both if none is.
      reject_bits: Bits of the flag that make a value not recommended; 1 is the provider's own
        recommendation.
      direct: As in `GranuleSource`.
      repository: As in `GranuleSource`.
      login: As in `GranuleSource`.
      storage_options: As in `GranuleSource`.
      metadata: As in `GranuleSource`.
    """

    name = "soilweave_smap_l3"
    margin_days = 1

    def __init__(
        self,
        mapping: Mapping | list[Mapping],
        collection: dict[str, str] | None = None,
        urlpath: str | list[str] = "",
        passes: list[str] | None = None,
        reject_bits: int = 1,
        direct: bool = False,
        repository: str = cmr.CMR,
        login: str | None = None,
        storage_options: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Check and keep the arguments; open nothing yet.

        Raises:
          ValueError: If arguments are invalid, or neither files nor a collection are given.
        """
        super().__init__(
            mapping, collection, urlpath, direct, repository, login, storage_options, metadata
        )
        self.passes, self.reject_bits = tuple(passes or ["am"]), reject_bits
        if not set(self.passes) <= GROUPS.keys():
            msg = f"passes {list(self.passes)}: expected `am`, `pm` or both"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """Return the data in soilweave's names and units, as lazy arrays with one block per day.

        Only the first file is opened, to check its form and read the shape of the grid.

        Raises:
          DataError: If there are no files, or the first file is not as the catalog says. Other
            files raise this error when their values are computed.
        """
        import xarray as xr
        from dask.delayed import delayed

        granules = self.granules()
        shape = self._shape(list(granules.values()))
        window = ease.window_over(self.region, ease.SHAPES[shape])
        units = {spec["from"]: spec["units"] for spec in self.mapping.values()}
        task = Task(
            units,
            self.fills,
            self.passes,
            ease.part_of(window),
            shape,
            self.storage_options,
            self.login,
        )
        opened, joined = delayed(read, pure=True), delayed(of_day, pure=True)
        parts = {time.astype("datetime64[D]"): opened(task, g) for time, g in granules.items()}

        def read_day(day: np.datetime64) -> Any:
            around = {shift: parts[day + shift] for shift in (0, -1, 1) if day + shift in parts}
            return joined(around, list(units), window.cell_shape, self.reject_bits)

        types: dict[str, type] = {**dict.fromkeys(units, np.float32), FLAG: np.uint16}
        days = self.days(granules)
        raw = ease.dataset(window, days, ease.stacked(read_day, days, types, window))
        dataset = xr.Dataset(self.translated(raw), raw.coords)
        dataset["provider_flag"] = raw[FLAG].assign_attrs(flag_attributes(self.reject_bits))
        return dataset

    read = to_dask

    def _shape(self, granules: list[Granule]) -> tuple[int, int]:
        """Return rows and columns of the product, from the first file that has a pass."""
        for granule in granules[:MOST_LOOKS]:
            with hdf5.opened(granule.url, self.storage_options, self.login) as file:
                if not all(lacks(file, key) for key in self.passes):
                    break
        return self._shape_of(granule)

    def _shape_of(self, granule: Granule) -> tuple[int, int]:
        """Return rows and columns of a file.

        Raises:
          DataError: If the file is not as the catalog says; the error lists all differences.
        """
        with hdf5.opened(granule.url, self.storage_options, self.login) as file:
            present = [key for key in self.passes if not lacks(file, key)] or list(self.passes)
            units = {spec["from"]: spec["units"] for spec in self.mapping.values()}
            messages = [text for key in present for text in problems(file, key, units)]
            if not messages:
                group, suffix = GROUPS[present[0]]
                shape = file[f"{group}/{FLAG}{suffix}"].shape
                if shape in ease.SHAPES:
                    return (int(shape[0]), int(shape[1]))
                accepted = " or ".join(map(str, ease.SHAPES))
                messages = [f"{group}/{FLAG}{suffix}: shape {shape}, expected {accepted}"]
        raise DataError(remote.shown(granule.url), *messages, remedy=REMEDY)
