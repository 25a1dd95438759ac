"""Read files of SMAP's daily retrievals (SPL3SMP), and check their form."""

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

# For each pass the group in the file, and the suffix of the names of its datasets.
GROUPS = {
    "am": ("Soil_Moisture_Retrieval_Data_AM", ""),
    "pm": ("Soil_Moisture_Retrieval_Data_PM", "_pm"),
}
FLAG, TIME = "retrieval_qual_flag", "tb_time_utc"
INDICES = ("EASE_row_index", "EASE_column_index")
NO_FLAG, NO_INDEX = 65534, 65534  # the provider's fill values


class Task(NamedTuple):
    """What to read from every file.

    Attributes:
      units: {dataset: units that it must have}, without the suffix of the pass.
      fills: {dataset: stored values that the entry declares as missing}.
      passes: `am`, `pm` or both.
      part: Rows and columns to read.
      shape: Shape that the datasets must have.
      options: Storage options for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.
    """

    units: dict[str, str]
    fills: Fills
    passes: tuple[str, ...]
    part: ease.Part
    shape: tuple[int, int]
    options: dict[str, Any]
    login: str | None


def problems(file: h5py.File, key: str, units: dict[str, str]) -> list[str]:
    """Return messages about datasets of a pass that are missing or have other units.

    Args:
      file: The file.
      key: The pass, `am` or `pm`.
      units: {dataset: units that it must have}, without the suffix of the pass.
    """
    group, suffix = GROUPS[key]
    fields = {f"{name}{suffix}": unit for name, unit in units.items()}
    others = {f"{name}{suffix}": None for name in (FLAG, TIME, *INDICES)}
    return hdf5.problems(file, group, {**fields, **others})


def lacks(file: h5py.File, key: str) -> bool:
    """Return whether a file lacks a pass because nothing was observed on that day.

    Such a file has the group of the other pass. A file with a group of the pass under another name
    has another form; the result is False, so that the group is reported as missing.
    """
    groups = {name for name in file if "_Polar_" not in name}
    group, other_group = (GROUPS[k][0] for k in (key, *GROUPS.keys() - {key}))
    is_renamed = any(name.upper().endswith(f"_{key.upper()}") for name in groups)
    return group not in groups and other_group in groups and not is_renamed


def read(task: Task, granule: Granule) -> list[Pass]:
    """Read the passes of a file. A pass that the file lacks has no observations.

    Raises:
      DataError: If the file cannot be read, or has another form than the first file.
    """
    place = http_errors.shown(granule.url)
    with hdf5.opened(granule.url, task.options, task.login) as file:
        present = [key for key in task.passes if not lacks(file, key)]
        messages = [text for key in present for text in problems(file, key, task.units)]
        if not messages:
            messages = [text for key in present for text in _misplaced(file, key, task)]
        if messages:
            raise DataError(place, *messages, remedy=REMEDY)
        return [
            _pass(file, key, task, granule) if key in present else _nothing(task)
            for key in task.passes
        ]


def _misplaced(file: h5py.File, key: str, task: Task) -> list[str]:
    """Return messages about datasets of another shape and cells with a wrong index."""
    group, suffix = GROUPS[key]
    names = [*task.units, FLAG, TIME, *INDICES]
    messages = [
        f"{group}/{name}{suffix}: shape {file[f'{group}/{name}{suffix}'].shape}, "
        f"expected {task.shape}"
        for name in names
        if file[f"{group}/{name}{suffix}"].shape != task.shape
    ]
    if messages:
        return messages
    for axis, name in enumerate(INDICES):
        indices = file[f"{group}/{name}{suffix}"][task.part].astype(np.int64)
        if problem := ease.elsewhere(indices, task.part, axis, NO_INDEX):
            messages.append(f"{group}/{name}{suffix}: {problem}")
    return messages


def _nothing(task: Task) -> Pass:
    """Return a pass without observations."""
    shape = tuple(part.stop - part.start for part in task.part)
    fields = {name: np.full(shape, np.nan, np.float32) for name in task.units}
    return Pass(np.zeros(shape, np.int8), np.full(shape, ABSENT, np.uint16), fields)


def _pass(file: h5py.File, key: str, task: Task, granule: Granule) -> Pass:
    """Read one pass of a file."""
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
    """Return the day of each observation relative to the day of the file.

    Args:
      days: (row, column) date of each observation, as ISO 8601 text.
      observed: (row, column) whether there is an observation.
      granule: The file.
      path: Path of the dataset with the times, for the error.

    Returns:
      (row, column) -1, 0 or 1; 0 where the file has no time.

    Raises:
      DataError: If an observation is not of the day of the file or a neighbouring day.
    """
    day = stamp(granule).astype("datetime64[D]")
    offsets = np.zeros(days.shape, np.int8)
    known = np.zeros(days.shape, bool)
    for offset in (-1, 0, 1):
        is_of_day = days == str(day + offset).encode()
        offsets[is_of_day] = offset
        known |= is_of_day
    # Dates begin with 2; the fill value of missing times does not.
    wrong = observed & ~known & np.char.startswith(days, b"2")
    if wrong.any():
        n_wrong, example = int(wrong.sum()), days[wrong][0].decode()
        problem = f"{path}: {n_wrong} observations of another day, such as {example}"
        raise DataError(
            http_errors.shown(granule.url),
            f"{problem}; expected {day} or a neighbouring day",
            remedy="was the file renamed? fetch it again",
        )
    return offsets
