"""Combine SMAP's retrievals of several passes and files to one field per day.

Read files of SMAP's daily retrievals (SPL3SMP), and check their form.

Check files of SMAP's Level 4 product (SPL4SMGP) and compute their mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.sources.shared import http_errors
from pipeline.sources.shared.driver import CORRECT_FILE_HINT
from pipeline.sources.smap import hdf5
from pipeline.sources.smap.search import parse_granule_time

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray

    from pipeline.grid.ease import Window
    from pipeline.sources.shared.missing_values import Fills
    from pipeline.sources.smap.search import Granule


NOT_OBSERVED = 65535  # flag where nothing was observed; all its bits are set, so no test accepts it

FLAG_MEANINGS = {
    1: "not_recommended",
    2: "retrieval_not_attempted",
    4: "retrieval_not_successful",
    8: "freeze_thaw_retrieval_not_successful",
}


class Pass(NamedTuple):
    """The observations of the morning or the evening in one file.

    Attributes:
      offset: (row, column) day of the observation relative to the day of the file: -1, 0 or 1.
      flag: (row, column) quality flags, 65535 where nothing was observed.
      fields: {dataset: (row, column) values}, NaN where missing.
    """

    offset: NDArray[np.int8]
    flag: NDArray[np.uint16]
    fields: dict[str, NDArray[np.float32]]


def combine_passes(
    around: dict[int, list[Pass]], names: list[str], shape: tuple[int, int], bad_bits: int
) -> dict[str, NDArray[np.float32] | NDArray[np.uint16]]:
    """Combine the passes of one day.

    In each cell, the observation of a pass is from the file of the day if that has a value for the
    day, and otherwise from a neighbouring file. The value is the mean of the passes without bad
    bits, or of all passes if each has a bad bit. The flag has all bits of the averaged passes.

    Args:
      around: Passes in the file of the day (0), the day before (-1) and the day after (1).
      names: The datasets.
      shape: Numbers of rows and columns.
      bad_bits: Bits of the flag that make an observation bad.

    Returns:
      {dataset: (row, column) values}, NaN where missing, and `retrieval_qual_flag`.
    """
    count = max((len(passes) for passes in around.values()), default=0)
    merged = [
        _merge_files({shift: passes[i] for shift, passes in around.items()}, names, shape)
        for i in range(count)
    ]
    total = {name: np.zeros(shape, np.float64) for name in names}
    n, flag = np.zeros(shape, np.int64), np.full(shape, NOT_OBSERVED, np.uint16)
    for one in merged:
        flag = np.where(flag == NOT_OBSERVED, one.flag, flag)
    valued = [_has_values(one) for one in merged]
    good = [
        has_value & (one.flag & bad_bits == 0)
        for has_value, one in zip(valued, merged, strict=True)
    ]
    any_good = np.any(good, axis=0) if good else np.zeros(shape, bool)
    bits = np.zeros(shape, np.uint16)
    for one, has_value, is_good in zip(merged, valued, good, strict=True):
        is_averaged = np.where(any_good, is_good, has_value)
        n += is_averaged
        bits = np.where(is_averaged, bits | one.flag, bits)
        for name in names:
            total[name] += np.where(is_averaged, one.fields[name], 0)
    with np.errstate(invalid="ignore"):
        fields = {name: (total[name] / n).astype(np.float32) for name in names}
    return {**fields, "retrieval_qual_flag": np.where(n > 0, bits, flag).astype(np.uint16)}


def _merge_files(passes: dict[int, Pass], names: list[str], shape: tuple[int, int]) -> Pass:
    """Return one pass of a day, from the file of the day and its neighbours.

    Args:
      passes: The pass in the file of the day (0), the day before (-1) and the day after (1).
      names: The datasets.
      shape: Numbers of rows and columns.
    """
    flag = np.full(shape, NOT_OBSERVED, np.uint16)
    fields = {name: np.full(shape, np.nan, np.float32) for name in names}
    filled = np.zeros(shape, bool)
    for shift in sorted(passes, key=abs):
        one = passes[shift]
        is_of_day = one.offset == -shift
        is_used = is_of_day & _has_values(one) & ~filled
        flag = np.where(is_used | (is_of_day & ~filled & (flag == NOT_OBSERVED)), one.flag, flag)
        for name in names:
            fields[name] = np.where(is_used, one.fields[name], fields[name])
        filled |= is_used
    return Pass(np.zeros(shape, np.int8), flag, fields)


def _has_values(one: Pass) -> NDArray[np.bool_]:
    """Return (row, column) whether all datasets have a value."""
    return np.asarray(np.all([np.isfinite(field) for field in one.fields.values()], axis=0))


def flag_attributes(bad_bits: int) -> dict[str, Any]:
    """Return the attributes of `provider_flag`; flags with any of `bad_bits` are not good."""
    return {
        "bad_bits": bad_bits,
        "good": [flag for flag in range(2 * max(FLAG_MEANINGS)) if not flag & bad_bits],
        "flag_masks": list(FLAG_MEANINGS),
        "flag_meanings": " ".join(FLAG_MEANINGS.values()),
        "absent": NOT_OBSERVED,
        "source": "retrieval_qual_flag",
    }


# For each pass the group in the file, and the suffix of the names of its datasets.
PASS_GROUPS = {
    "am": ("Soil_Moisture_Retrieval_Data_AM", ""),
    "pm": ("Soil_Moisture_Retrieval_Data_PM", "_pm"),
}

FLAG_NAME, TIME_NAME = "retrieval_qual_flag", "tb_time_utc"
INDEX_NAMES = ("EASE_row_index", "EASE_column_index")
FLAG_FILL, INDEX_FILL = 65534, 65534  # the provider's fill values


class Level3Task(NamedTuple):
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
    part: hdf5.Slices
    shape: tuple[int, int]
    options: dict[str, Any]
    login: str | None


def pass_problems(file: h5py.File, key: str, units: dict[str, str]) -> list[str]:
    """Return messages about datasets of a pass that are missing or have other units.

    Args:
      file: The file.
      key: The pass, `am` or `pm`.
      units: {dataset: units that it must have}, without the suffix of the pass.
    """
    group, suffix = PASS_GROUPS[key]
    fields = {f"{name}{suffix}": unit for name, unit in units.items()}
    others = {f"{name}{suffix}": None for name in (FLAG_NAME, TIME_NAME, *INDEX_NAMES)}
    return hdf5.dataset_problems(file, group, {**fields, **others})


def lacks_pass(file: h5py.File, key: str) -> bool:
    """Return whether a file lacks a pass because nothing was observed on that day.

    Such a file has the group of the other pass. A file with a group of the pass under another name
    has another form; the result is False, so that the group is reported as missing.
    """
    groups = {name for name in file if "_Polar_" not in name}
    group, other_group = (PASS_GROUPS[k][0] for k in (key, *PASS_GROUPS.keys() - {key}))
    is_renamed = any(name.upper().endswith(f"_{key.upper()}") for name in groups)
    return group not in groups and other_group in groups and not is_renamed


def read_passes(task: Level3Task, granule: Granule) -> list[Pass]:
    """Read the passes of a file. A pass that the file lacks has no observations.

    Raises:
      DataError: If the file cannot be read, or has another form than the first file.
    """
    place = http_errors.format_url(granule.url)
    with hdf5.open_hdf5(granule.url, task.options, task.login) as file:
        present = [key for key in task.passes if not lacks_pass(file, key)]
        messages = [text for key in present for text in pass_problems(file, key, task.units)]
        if not messages:
            messages = [text for key in present for text in _layout_problems(file, key, task)]
        if messages:
            raise DataError(place, *messages, remedy=CORRECT_FILE_HINT)
        return [
            _read_pass(file, key, task, granule) if key in present else _empty_pass(task)
            for key in task.passes
        ]


def _layout_problems(file: h5py.File, key: str, task: Level3Task) -> list[str]:
    """Return messages about datasets of another shape and cells with a wrong index."""
    group, suffix = PASS_GROUPS[key]
    names = [*task.units, FLAG_NAME, TIME_NAME, *INDEX_NAMES]
    messages = [
        f"{group}/{name}{suffix}: shape {file[f'{group}/{name}{suffix}'].shape}, "
        f"expected {task.shape}"
        for name in names
        if file[f"{group}/{name}{suffix}"].shape != task.shape
    ]
    if messages:
        return messages
    for axis, name in enumerate(INDEX_NAMES):
        indices = file[f"{group}/{name}{suffix}"][task.part].astype(np.int64)
        if problem := hdf5.index_problem(indices, task.part, axis, INDEX_FILL):
            messages.append(f"{group}/{name}{suffix}: {problem}")
    return messages


def _empty_pass(task: Level3Task) -> Pass:
    """Return a pass without observations."""
    shape = tuple(part.stop - part.start for part in task.part)
    fields = {name: np.full(shape, np.nan, np.float32) for name in task.units}
    return Pass(np.zeros(shape, np.int8), np.full(shape, NOT_OBSERVED, np.uint16), fields)


def _read_pass(file: h5py.File, key: str, task: Level3Task, granule: Granule) -> Pass:
    """Read one pass of a file."""
    group, suffix = PASS_GROUPS[key]
    place = http_errors.format_url(granule.url)
    fields = {
        name: hdf5.read_values(
            file, f"{group}/{name}{suffix}", task.part, place, task.fills.get(name, ())
        )
        for name in task.units
    }
    flag = file[f"{group}/{FLAG_NAME}{suffix}"][task.part].astype(np.uint16)
    flag[flag == FLAG_FILL] = NOT_OBSERVED
    path = f"{group}/{TIME_NAME}{suffix}"
    days = np.asarray(file[path][task.part]).astype("S10")
    return Pass(_day_offsets(days, flag != NOT_OBSERVED, granule, path), flag, fields)


def _day_offsets(
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
    day = parse_granule_time(granule).astype("datetime64[D]")
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
            http_errors.format_url(granule.url),
            f"{problem}; expected {day} or a neighbouring day",
            remedy="was the file renamed? fetch it again",
        )
    return offsets


LEVEL4_GROUP = "Geophysical_Data"

LEVEL4_SHAPE = next(
    shape for shape, refinement in hdf5.REFINEMENT_BY_SHAPE.items() if refinement == 4
)

_DEGREES_TOLERANCE = 1e-3  # tolerance of coordinates, which are float32 in the file


class Level4Task(NamedTuple):
    """What to read from every file.

    Attributes:
      units: {dataset: units that it must have}.
      fills: {dataset: stored values that the entry declares as missing}.
      part: Rows and columns to read.
      options: Storage options for fsspec.
      login: `earthdata` if the provider requires an Earthdata Login.
    """

    units: dict[str, str]
    fills: Fills
    part: hdf5.Slices
    options: dict[str, Any]
    login: str | None


def level4_problems(file: h5py.File, task: Level4Task) -> list[str]:
    """Return messages about datasets that are missing, or have other units or another shape."""
    messages = hdf5.dataset_problems(file, LEVEL4_GROUP, dict(task.units))
    return messages or [
        f"{LEVEL4_GROUP}/{name}: shape {file[LEVEL4_GROUP][name].shape}, expected {LEVEL4_SHAPE}"
        for name in task.units
        if file[LEVEL4_GROUP][name].shape != LEVEL4_SHAPE
    ]


def coordinate_problems(file: h5py.File, part: hdf5.Slices, window: Window) -> list[str]:
    """Return messages if the latitudes and longitudes in a file differ from the grid's.

    Args:
      file: The file.
      part: Rows and columns of the window in the file.
      window: The window.
    """
    rows, cols = part
    expected = {
        "cell_lat": ((rows, cols.start), window.cell_lat),
        "cell_lon": ((rows.start, cols), window.cell_lon),
    }
    messages = []
    for name, (line, centres) in expected.items():
        if name not in file or file[name].shape != LEVEL4_SHAPE:
            messages.append(f"{name}: missing, or not of shape {LEVEL4_SHAPE}")
            continue
        degrees = file[name][line].astype(np.float64)
        wrong = np.abs(degrees - centres) > _DEGREES_TOLERANCE
        if wrong.any():
            first, centre = degrees[wrong][0], centres[wrong][0]
            messages.append(f"{name}: {first:g} where the grid has {centre:g}")
    return messages


def mean_of_files(
    task: Level4Task, granules: list[Granule], shape: tuple[int, int]
) -> dict[str, NDArray[np.float32]]:
    """Compute the mean of each dataset over files.

    Args:
      task: What to read.
      granules: The files; if there are none, all values are NaN.
      shape: Numbers of rows and columns.

    Returns:
      {dataset: (row, column) mean}, NaN where any of the files has no value.

    Raises:
      DataError: If a file cannot be read, or has another form than the first file.
    """
    if not granules:
        return {name: np.full(shape, np.nan, np.float32) for name in task.units}
    total = {name: np.zeros(shape, np.float64) for name in task.units}
    for granule in granules:
        place = http_errors.format_url(granule.url)
        with hdf5.open_hdf5(granule.url, task.options, task.login) as file:
            messages = level4_problems(file, task)
            if messages:
                raise DataError(place, *messages, remedy=CORRECT_FILE_HINT)
            for name in task.units:
                fills = task.fills.get(name, ())
                total[name] += hdf5.read_values(
                    file, f"{LEVEL4_GROUP}/{name}", task.part, place, fills
                )
    return {name: (values / len(granules)).astype(np.float32) for name, values in total.items()}
