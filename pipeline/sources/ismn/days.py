"""Compute daily values and flags of an ISMN site from the hourly values of its sensors."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources.ismn import archive
from pipeline.sources.ismn.archive import BITS
from pipeline.sources.shared import time_steps
from pipeline.sources.shared.time_steps import DailyValues, QualityCodes, SensorRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


CODES = QualityCodes(BITS["G"], BITS["too_few_hours"], BITS["M"])
UNCHECKED = BITS["U"]

# Attributes of `provider_flag`.
FLAG_ATTRS = {
    "good": [CODES.good],
    "unchecked": [UNCHECKED],
    "flag_masks": list(BITS.values()),
    "flag_values": list(BITS.values()),
    "flag_meanings": " ".join(BITS),
}


def read_site(
    where: tuple[str, str, dict[str, Any], str | None],
    members: list[list[tuple[str, ...]]],
    days: NDArray[np.datetime64],
    min_hours: int,
    offset: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Read the daily values of a site.

    If a day has too few checked hours, but enough together with the unchecked ones, its value is
    the mean of both and the day is flagged as unchecked.

    Args:
      where: Path of the archive on the machine of the driver, and its URL, storage options and
        login, with which other machines read it.
      members: For each variable and record, the files of its successive sensors.
      days: (time,) the days to read.
      min_hours: Fewest hours that the good values of a good day cover.
      offset: Hours by which the clock that defines the days is ahead of UTC.

    Returns:
      (time, variable) float32 values, NaN where missing, and (time, 1) flags of the first
      variable. Of the other variables, values of days that are not good or unchecked are NaN.

    Raises:
      DataError: If a file is missing or damaged.
    """
    path, url, given, login = where
    if not os.path.exists(path):  # on another machine
        path = archive.local_archive(url, given, login)
    values = np.full((len(days), len(members)), np.nan, np.float32)
    flags = np.zeros((len(days), 1), np.int32)
    for i, variable_records in enumerate(members):
        daily_records = [
            _daily_means(_read_record(path, files), days, min_hours, offset)
            for files in variable_records
        ]
        if not daily_records:
            continue
        mean = _mean_of_records(daily_records)
        values[:, i] = mean.values
        if i == 0:
            flags[:, 0] = mean.flags
        else:
            values[~_is_good_or_unchecked(mean.flags), i] = np.nan
    return values, flags


def good_days(
    path: str, members: tuple[str, ...], min_hours: int, offset: int
) -> NDArray[np.datetime64]:
    """Return (day,) the days of a record that are good or unchecked.

    Args:
      path: Path of the archive on this machine.
      members: Files of the successive sensors of the record.
      min_hours: Fewest hours that the good values of a good day cover.
      offset: Hours by which the clock that defines the days is ahead of UTC.

    Raises:
      DataError: If a file is missing or damaged.
    """
    paths = [path] if os.path.isfile(path) else [os.path.join(path, name) for name in members]
    changed = tuple(os.stat(name).st_mtime_ns for name in paths)
    return _cached_good_days(path, changed, members, min_hours, offset)


@functools.lru_cache(maxsize=4096)
def _cached_good_days(
    path: str, changed: tuple[int, ...], members: tuple[str, ...], min_hours: int, offset: int
) -> NDArray[np.datetime64]:
    """Return what `good_days` returns; `changed` makes the cache read changed files again."""
    hours = _read_record(path, members)
    ends = np.array([hours.times.min(), hours.times.max()]) + np.timedelta64(offset, "h")
    first, last = ends.astype("datetime64[D]")
    days = np.arange(first, last + 1)
    return days[_is_good_or_unchecked(_daily_means(hours, days, min_hours, offset).flags)]


def _read_record(path: str, members: Sequence[str]) -> SensorRecord:
    """Return the hourly values of successive sensors, one after the other."""
    parts = [archive.read_hours(path, member) for member in members]
    return SensorRecord(
        times=np.concatenate([part.times for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        flags=np.concatenate([part.flags for part in parts]),
    )


def _daily_means(
    hours: SensorRecord, days: NDArray[np.datetime64], min_hours: int, offset: int
) -> DailyValues:
    """Return daily means of checked hours, or of all hours where checked ones are too few."""
    checked = time_steps.average_days(hours, days, CODES, min_hours, offset)
    unchecked = hours.flags == UNCHECKED
    if not unchecked.any():
        return checked
    relabelled = hours._replace(flags=np.where(unchecked, np.int32(CODES.good), hours.flags))
    return _prefer_checked(
        checked, time_steps.average_days(relabelled, days, CODES, min_hours, offset)
    )


def _mean_of_records(parts: list[DailyValues]) -> DailyValues:
    """Return for each day the mean of the good records, or else of the unchecked ones."""
    relabelled = [
        part._replace(flags=np.where(_is_good_or_unchecked(part.flags), CODES.good, part.flags))
        for part in parts
    ]
    return _prefer_checked(
        time_steps.average_sensors(parts, CODES.good),
        time_steps.average_sensors(relabelled, CODES.good),
    )


def _prefer_checked(checked: DailyValues, relabelled: DailyValues) -> DailyValues:
    """Return days from checked values, and where they are not good, with unchecked values too.

    Args:
      checked: Days computed from checked values.
      relabelled: Days computed with unchecked values counted as good.
    """
    good = checked.flags == CODES.good
    flags = np.where(relabelled.flags == CODES.good, UNCHECKED, relabelled.flags)
    return DailyValues(
        np.where(good, checked.values, relabelled.values).astype(np.float32),
        np.where(good, CODES.good, flags).astype(np.int32),
    )


def _is_good_or_unchecked(flags: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return (day,) whether days are good or unchecked."""
    return np.isin(flags, (CODES.good, UNCHECKED))
