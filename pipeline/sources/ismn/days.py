"""A site of the ISMN: the hours of its sensors as days, with their flags as sums of bits."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources import daily
from pipeline.sources.daily import Codes, Days, Hours
from pipeline.sources.ismn import archive, sensors
from pipeline.sources.ismn.sensors import BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

CODES = Codes(BITS["G"], BITS["too_few_hours"], BITS["M"])
UNCHECKED = BITS["U"]
TOLD = {
    "good": [CODES.good],
    "unchecked": [UNCHECKED],
    "flag_masks": list(BITS.values()),
    "flag_values": list(BITS.values()),
    "flag_meanings": " ".join(BITS),
}


def record(
    where: tuple[str, str, dict[str, Any], str | None],
    members: list[list[tuple[str, ...]]],
    days: NDArray[np.datetime64],
    min_hours: int,
    offset: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A site's days.

    A day that has too few checked hours is the mean of its checked and its unchecked ones, and
    flagged as unchecked, where these are enough together.

    Args:
      where: path of the archive here, and its URL, storage options and login elsewhere.
      members: for each variable, for each record, the files of its successive sensors.
      days: (time,) wanted.
      min_hours: hours that the good values of a good day cover.
      offset: hours from UTC to the time whose days are meant.

    Returns:
      (time, variable) values, and (time, 1) flags of the first variable; of others, days that are
      not good have no value.

    Raises:
      DataError: a file is absent or damaged.
    """
    path, url, given, login = where
    if not os.path.exists(path):  # on another machine
        path = archive.local(url, given, login)
    values = np.full((len(days), len(members)), np.nan, np.float32)
    flags = np.zeros((len(days), 1), np.int32)
    for i, held in enumerate(members):
        parts = [_days(_hours(path, files), days, min_hours, offset) for files in held]
        if not parts:
            continue
        found = _mean_of(parts)
        values[:, i] = found.values
        if i == 0:
            flags[:, 0] = found.flags
        else:
            values[~_is_kept(found.flags), i] = np.nan
    return values, flags


def good_days(
    path: str, members: tuple[str, ...], min_hours: int, offset: int
) -> NDArray[np.datetime64]:
    """(day,) days of a record that are good or unchecked.

    Args:
      path: of the archive, on this machine.
      members: files of its successive sensors.
      min_hours: as of `record`.
      offset: as of `record`.

    Raises:
      DataError: a file is absent or damaged.
    """
    held = [path] if os.path.isfile(path) else [os.path.join(path, name) for name in members]
    changed = tuple(os.stat(name).st_mtime_ns for name in held)
    return _good_days(path, changed, members, min_hours, offset)


@functools.lru_cache(maxsize=4096)
def _good_days(
    path: str, changed: tuple[int, ...], members: tuple[str, ...], min_hours: int, offset: int
) -> NDArray[np.datetime64]:
    hours = _hours(path, members)
    ends = np.array([hours.times.min(), hours.times.max()]) + np.timedelta64(offset, "h")
    first, last = ends.astype("datetime64[D]")
    days = np.arange(first, last + 1)
    return days[_is_kept(_days(hours, days, min_hours, offset).flags)]


def _hours(path: str, members: Sequence[str]) -> Hours:
    """The record of successive sensors."""
    parts = [sensors.hours(path, member) for member in members]
    return Hours(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _days(hours: Hours, days: NDArray[np.datetime64], min_hours: int, offset: int) -> Days:
    """Days of a record: of checked hours, else of checked and unchecked ones."""
    checked = daily.means(hours, days, CODES, min_hours, offset)
    unchecked = hours.flags == UNCHECKED
    if not unchecked.any():
        return checked
    every = hours._replace(flags=np.where(unchecked, np.int32(CODES.good), hours.flags))
    return _checked_first(checked, daily.means(every, days, CODES, min_hours, offset))


def _mean_of(parts: list[Days]) -> Days:
    """Mean of the records that are good on a day, else of those that nobody checked."""
    kept = [p._replace(flags=np.where(_is_kept(p.flags), CODES.good, p.flags)) for p in parts]
    return _checked_first(daily.mean_of(parts, CODES.good), daily.mean_of(kept, CODES.good))


def _checked_first(checked: Days, every: Days) -> Days:
    """Days that are good, and of the others what there is with unchecked values among the good."""
    good = checked.flags == CODES.good
    flags = np.where(every.flags == CODES.good, UNCHECKED, every.flags)
    return Days(
        np.where(good, checked.values, every.values).astype(np.float32),
        np.where(good, CODES.good, flags).astype(np.int32),
    )


def _is_kept(flags: NDArray[np.int32]) -> NDArray[np.bool_]:
    return np.isin(flags, (CODES.good, UNCHECKED))
