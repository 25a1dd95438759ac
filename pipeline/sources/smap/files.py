"""A file of SMAP's daily retrievals: its groups, its faults, its observations and their days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources import http_errors
from pipeline.sources.earthdata.named import stamp
from pipeline.sources.form import REMEDY
from pipeline.sources.smap import ease, hdf5
from pipeline.sources.smap.retrievals import ABSENT, Pass

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray

    from pipeline.sources.earthdata.named import Granule
    from pipeline.sources.missing import Fills

GROUPS = {
    "am": ("Soil_Moisture_Retrieval_Data_AM", ""),
    "pm": ("Soil_Moisture_Retrieval_Data_PM", "_pm"),
}
FLAG, TIME = "retrieval_qual_flag", "tb_time_utc"
INDICES = ("EASE_row_index", "EASE_column_index")
NO_FLAG, NO_INDEX = 65534, 65534  # the provider's fills


class Task(NamedTuple):
    """What to read of every file: datasets, their units and fills, passes, the part, and how."""

    units: dict[str, str]
    fills: Fills
    passes: tuple[str, ...]
    part: ease.Part
    shape: tuple[int, int]
    options: dict[str, Any]
    login: str | None


def problems(file: h5py.File, key: str, units: dict[str, str]) -> list[str]:
    """What is wrong with the group of a pass: see `hdf5.problems`."""
    group, suffix = GROUPS[key]
    fields = {f"{name}{suffix}": unit for name, unit in units.items()}
    others = {f"{name}{suffix}": None for name in (FLAG, TIME, *INDICES)}
    return hdf5.problems(file, group, {**fields, **others})


def lacks(file: h5py.File, key: str) -> bool:
    """Whether a file lacks a pass and has the other one: that of a day on which nothing was seen.

    A file that has the group under another name is of another form, and lacks nothing.
    """
    groups = {name for name in file if "_Polar_" not in name}
    here, other = (GROUPS[k][0] for k in (key, *GROUPS.keys() - {key}))
    renamed = any(name.upper().endswith(f"_{key.upper()}") for name in groups)
    return here not in groups and other in groups and not renamed


def read(task: Task, granule: Granule) -> list[Pass]:
    """The passes of a file; one that it lacks has observed nothing.

    Raises:
      DataError: it cannot be read, or is not as the first file was.
    """
    place = http_errors.shown(granule.url)
    with hdf5.opened(granule.url, task.options, task.login) as file:
        held = [key for key in task.passes if not lacks(file, key)]
        found = [text for key in held for text in problems(file, key, task.units)]
        if not found:
            found = [text for key in held for text in _misplaced(file, key, task)]
        if found:
            raise DataError(place, *found, remedy=REMEDY)
        return [
            _pass(file, key, task, granule) if key in held else _nothing(task)
            for key in task.passes
        ]


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
        wrong = ease.elsewhere(told, task.part, axis, NO_INDEX)
        found += [f"{group}/{name}{suffix}: {wrong}"] if wrong else []
    return found


def _nothing(task: Task) -> Pass:
    """A pass without observations."""
    shape = tuple(part.stop - part.start for part in task.part)
    fields = {name: np.full(shape, np.nan, np.float32) for name in task.units}
    return Pass(np.zeros(shape, np.int8), np.full(shape, ABSENT, np.uint16), fields)


def _pass(file: h5py.File, key: str, task: Task, granule: Granule) -> Pass:
    group, suffix = GROUPS[key]
    place = http_errors.shown(granule.url)
    fields = {
        name: hdf5.values(
            file, f"{group}/{name}{suffix}", task.part, place, task.fills.get(name, ())
        )
        for name in task.units
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
            http_errors.shown(granule.url),
            f"{found}, expected {day} or a day beside it",
            remedy="was the file renamed? fetch it again",
        )
    return offsets
