"""Combine SMAP's retrievals of several passes and files to one field per day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABSENT = 65535  # flag where nothing was observed; all its bits are set, so no test accepts it
MEANINGS = {
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


def of_day(
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
        _chosen({shift: passes[i] for shift, passes in around.items()}, names, shape)
        for i in range(count)
    ]
    total = {name: np.zeros(shape, np.float64) for name in names}
    n, flag = np.zeros(shape, np.int64), np.full(shape, ABSENT, np.uint16)
    for one in merged:
        flag = np.where(flag == ABSENT, one.flag, flag)
    valued = [_valued(one) for one in merged]
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


def _chosen(passes: dict[int, Pass], names: list[str], shape: tuple[int, int]) -> Pass:
    """Return one pass of a day, from the file of the day and its neighbours.

    Args:
      passes: The pass in the file of the day (0), the day before (-1) and the day after (1).
      names: The datasets.
      shape: Numbers of rows and columns.
    """
    flag = np.full(shape, ABSENT, np.uint16)
    fields = {name: np.full(shape, np.nan, np.float32) for name in names}
    filled = np.zeros(shape, bool)
    for shift in sorted(passes, key=abs):
        one = passes[shift]
        is_of_day = one.offset == -shift
        is_used = is_of_day & _valued(one) & ~filled
        flag = np.where(is_used | (is_of_day & ~filled & (flag == ABSENT)), one.flag, flag)
        for name in names:
            fields[name] = np.where(is_used, one.fields[name], fields[name])
        filled |= is_used
    return Pass(np.zeros(shape, np.int8), flag, fields)


def _valued(one: Pass) -> NDArray[np.bool_]:
    """Return (row, column) whether all datasets have a value."""
    return np.asarray(np.all([np.isfinite(field) for field in one.fields.values()], axis=0))


def flag_attributes(bad_bits: int) -> dict[str, Any]:
    """Return the attributes of `provider_flag`; flags with any of `bad_bits` are not good."""
    return {
        "bad_bits": bad_bits,
        "good": [flag for flag in range(2 * max(MEANINGS)) if not flag & bad_bits],
        "flag_masks": list(MEANINGS),
        "flag_meanings": " ".join(MEANINGS.values()),
        "absent": ABSENT,
        "source": "retrieval_qual_flag",
    }
