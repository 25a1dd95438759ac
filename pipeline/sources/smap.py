"""SMAP's daily composites of retrievals (SPL3SMP of 36 km, SPL3SMP_E of 9 km), HDF5.

A file has a group for the descending passes, at 6 in the morning of local solar time, and one for
the ascending, at 6 in the evening, whose datasets end in `_pm`. A composite takes whole half-orbits
and, at a place, the one nearest to that hour: around the meridian where it is midnight UTC (90 E
in the morning) some of its observations are of the day before or after. So each value goes to the
UTC day of its `tb_time_utc`, and the files of both neighbouring days are read too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import cmr, ease, hdf5, remote
from pipeline.sources.form import REMEDY, Mapping
from pipeline.sources.granules import GranuleSource
from pipeline.sources.retrievals import ABSENT, Pass, of_day

if TYPE_CHECKING:
    import h5py
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.sources.cmr import Granule

GROUPS = {
    "am": ("Soil_Moisture_Retrieval_Data_AM", ""),
    "pm": ("Soil_Moisture_Retrieval_Data_PM", "_pm"),
}
FLAG, TIME = "retrieval_qual_flag", "tb_time_utc"
INDICES = ("EASE_row_index", "EASE_column_index")
NO_FLAG, NO_INDEX = 65534, 65534  # the provider's fills
MEANINGS = {
    1: "not_recommended",
    2: "retrieval_not_attempted",
    4: "retrieval_not_successful",
    8: "freeze_thaw_retrieval_not_successful",
}


class Task(NamedTuple):
    """What to read of every file: datasets and their units, passes, the part, and how."""

    units: dict[str, str]
    passes: tuple[str, ...]
    part: ease.Part
    shape: tuple[int, int]
    options: dict[str, Any]
    login: str | None


class SmapL3Source(GranuleSource):
    """Intake driver for SMAP's daily retrievals: the grid form, with `provider_flag`.

    `provider_flag` (time, lat, lon) is `retrieval_qual_flag`, uint16, 65535 where nothing was
    observed; no value is dropped for it. Its attributes: `flag_masks` and `flag_meanings` (CF),
    `bad_bits`, any of which is a reason to drop a value, and `good`, the flags without them.

    Args:
      passes: `am`, `pm` or both. Of two passes in a day the recommended ones count, by their mean;
        where none is recommended, both.
      reject_bits: bits of the flag that make a value one not recommended; 1 is the provider's own
        judgement.
      others: as `GranuleSource` has them.
    """

    name = "soilweave_smap_l3"
    beside = 1

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
        """Keep the arguments; nothing is opened yet."""
        super().__init__(
            mapping, collection, urlpath, direct, repository, login, storage_options, metadata
        )
        self.passes, self.reject_bits = tuple(passes or ["am"]), reject_bits
        if not set(self.passes) <= GROUPS.keys():
            msg = f"passes {list(self.passes)}: expected `am`, `pm` or both"
            raise ValueError(msg)

    def to_dask(self) -> xr.Dataset:
        """The data in our names and units, one block a day; the first file alone is opened.

        Raises:
          DataError: there are no files, or the first is not as the catalog says. Others that are
            not raise it when they are read.
        """
        import xarray as xr
        from dask.delayed import delayed

        granules = self.granules()
        shape = self._shape_of(next(iter(granules.values())))
        window = ease.window_over(self.region, ease.SHAPES[shape])
        units = {spec["from"]: spec["units"] for spec in self.mapping.values()}
        task = Task(
            units, self.passes, ease.part_of(window), shape, self.storage_options, self.login
        )
        read, joined = delayed(_read, pure=True), delayed(of_day, pure=True)
        parts = {time.astype("datetime64[D]"): read(task, g) for time, g in granules.items()}

        def made(day: np.datetime64) -> Any:
            around = {shift: parts[day + shift] for shift in (0, -1, 1) if day + shift in parts}
            return joined(around, list(units), window.cell_shape, self.reject_bits)

        types: dict[str, type] = {**dict.fromkeys(units, np.float32), FLAG: np.uint16}
        days = self.days(granules)
        raw = ease.dataset(window, days, ease.stacked(made, days, types, window))
        dataset = xr.Dataset(self.translated(raw), raw.coords)
        dataset["provider_flag"] = raw[FLAG].assign_attrs(_flag_attributes(self.reject_bits))
        return dataset

    read = to_dask

    def _shape_of(self, granule: Granule) -> tuple[int, int]:
        """Rows and columns of the product, by its first file, whose faults are told at once."""
        with hdf5.opened(granule.url, self.storage_options, self.login) as file:
            found = []
            for key in self.passes:
                found += _problems(
                    file, key, {s["from"]: s["units"] for s in self.mapping.values()}
                )
            if not found:
                group, suffix = GROUPS[self.passes[0]]
                shape = file[f"{group}/{FLAG}{suffix}"].shape
                if shape in ease.SHAPES:
                    return (int(shape[0]), int(shape[1]))
                found = [f"{group}/{FLAG}{suffix}: shape {shape}, expected {list(ease.SHAPES)}"]
        raise DataError(remote.shown(granule.url), *found, remedy=REMEDY)


def _flag_attributes(reject_bits: int) -> dict[str, Any]:
    return {
        "bad_bits": reject_bits,
        "good": [flag for flag in range(2 * max(MEANINGS)) if not flag & reject_bits],
        "flag_masks": list(MEANINGS),
        "flag_meanings": " ".join(MEANINGS.values()),
        "absent": ABSENT,
        "source": FLAG,
    }


def _problems(file: h5py.File, key: str, units: dict[str, str]) -> list[str]:
    group, suffix = GROUPS[key]
    fields = {f"{name}{suffix}": unit for name, unit in units.items()}
    others = {f"{name}{suffix}": None for name in (FLAG, TIME, *INDICES)}
    return hdf5.problems(file, group, {**fields, **others})


def _read(task: Task, granule: Granule) -> list[Pass]:
    """The passes of a file.

    Raises:
      DataError: it cannot be read, or is not as the first file was.
    """
    place = remote.shown(granule.url)
    with hdf5.opened(granule.url, task.options, task.login) as file:
        found = [text for key in task.passes for text in _problems(file, key, task.units)]
        if not found:
            found = [text for key in task.passes for text in _misplaced(file, key, task)]
        if found:
            raise DataError(place, *found, remedy=REMEDY)
        return [_pass(file, key, task, granule) for key in task.passes]


def _misplaced(file: h5py.File, key: str, task: Task) -> list[str]:
    """Datasets of another shape, and cells whose row or column is not that of their index."""
    group, suffix = GROUPS[key]
    names = [*task.units, FLAG, TIME, *INDICES]
    found = [
        f"{group}/{name}{suffix}: shape {file[f'{group}/{name}{suffix}'].shape}, "
        f"expected {task.shape}"
        for name in names
        if file[f"{group}/{name}{suffix}"].shape != task.shape
    ]
    if found:
        return found
    for axis, name in enumerate(INDICES):
        told = file[f"{group}/{name}{suffix}"][task.part].astype(np.int64)
        here = np.arange(task.part[axis].start, task.part[axis].stop)
        here = np.broadcast_to(here[:, None] if axis == 0 else here, told.shape)
        wrong = (told != NO_INDEX) & (told != here)
        if wrong.any():
            found.append(
                f"{group}/{name}{suffix}: {int(wrong.sum())} cells are elsewhere, such as index "
                f"{told[wrong][0]} at {here[wrong][0]}"
            )
    return found


def _pass(file: h5py.File, key: str, task: Task, granule: Granule) -> Pass:
    group, suffix = GROUPS[key]
    place = remote.shown(granule.url)
    fields = {
        name: hdf5.values(file, f"{group}/{name}{suffix}", task.part, place) for name in task.units
    }
    flag = file[f"{group}/{FLAG}{suffix}"][task.part].astype(np.uint16)
    flag[flag == NO_FLAG] = ABSENT
    path = f"{group}/{TIME}{suffix}"
    days = np.asarray(file[path][task.part]).astype("S10")
    return Pass(_offsets(days, flag != ABSENT, granule, path), flag, fields)


def _offsets(
    days: NDArray[np.bytes_], observed: NDArray[np.bool_], granule: Granule, path: str
) -> NDArray[np.int8]:
    """(row, column) day of each observation less that of the file; 0 where the time is not told.

    Raises:
      DataError: one is neither of the file's day nor of a neighbouring one.
    """
    from pipeline.sources.granules import stamp

    day = stamp(granule).astype("datetime64[D]")
    offsets = np.zeros(days.shape, np.int8)
    known = np.zeros(days.shape, bool)
    for offset in (-1, 0, 1):
        same = days == str(day + offset).encode()
        offsets[same] = offset
        known |= same
    odd = observed & ~known & np.char.startswith(days, b"2")
    if odd.any():
        found = f"{path}: {int(odd.sum())} of another day, such as {days[odd][0].decode()}"
        raise DataError(
            remote.shown(granule.url),
            f"{found}, expected {day} or a day beside it",
            remedy="was the file renamed? fetch it again",
        )
    return offsets
