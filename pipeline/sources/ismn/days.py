"""A site of the ISMN: the hours of its sensors as days, with their flags as sums of bits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources import daily
from pipeline.sources.daily import Codes
from pipeline.sources.ismn import archive, sensors
from pipeline.sources.ismn.sensors import BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODES = Codes(BITS["G"], BITS["too_few_hours"], BITS["M"])
TOLD = {
    "good": [CODES.good],
    "flag_masks": list(BITS.values()),
    "flag_values": list(BITS.values()),
    "flag_meanings": " ".join(BITS),
}


def record(
    where: tuple[str, str, dict[str, Any], str | None],
    members: list[list[str]],
    days: NDArray[np.datetime64],
    min_hours: int,
    offset: int,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """A site's days.

    Args:
      where: path of the archive here, and its URL, storage options and login elsewhere.
      members: for each variable, the files of its sensors.
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
        parts = [
            daily.means(sensors.hours(path, member), days, CODES, min_hours, offset)
            for member in held
        ]
        if not parts:
            continue
        found = daily.mean_of(parts, CODES.good)
        values[:, i] = found.values
        if i == 0:
            flags[:, 0] = found.flags
        else:
            values[found.flags != CODES.good, i] = np.nan
    return values, flags
