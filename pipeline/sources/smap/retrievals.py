"""Retrievals of several passes and files brought together to one field a day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ABSENT = 65535  # a flag with every bit set: it is good in no sense
MEANINGS = {
    1: "not_recommended",
    2: "retrieval_not_attempted",
    4: "retrieval_not_successful",
    8: "freeze_thaw_retrieval_not_successful",
}


class Pass(NamedTuple):
    """The morning's or the evening's observations in one file.

    Attributes:
      offset: (row, column) day of the observation less the day of the file: -1, 0 or 1.
      flag: (row, column) flags, ABSENT where nothing was observed.
      fields: (row, column) values of each dataset, NaN where there is none.
    """

    offset: NDArray[np.int8]
    flag: NDArray[np.uint16]
    fields: dict[str, NDArray[np.float32]]


def of_day(
    around: dict[int, list[Pass]], names: list[str], shape: tuple[int, int], bad_bits: int
) -> dict[str, NDArray[np.float32] | NDArray[np.uint16]]:
    """Fields of one day, by name, and `retrieval_qual_flag`.

    At a place, a pass is that of the day's own file where it has a value for the day, else that of
    a neighbouring file. Of several passes those without bad bits count, else all, by their mean;
    the flag has every bit of those that count.

    Args:
      around: passes of the day's file (0), and of those of the days before (-1) and after (1).
      names: the datasets.
      shape: rows and columns.
      bad_bits: bits of the flag that are bad.
    """
    count = max((len(passes) for passes in around.values()), default=0)
    chosen = [
        _chosen({shift: passes[i] for shift, passes in around.items()}, names, shape)
        for i in range(count)
    ]
    total = {name: np.zeros(shape, np.float64) for name in names}
    n, flag = np.zeros(shape, np.int64), np.full(shape, ABSENT, np.uint16)
    for one in chosen:
        flag = np.where(flag == ABSENT, one.flag, flag)
    valued = [_valued(one) for one in chosen]
    good = [has & (one.flag & bad_bits == 0) for has, one in zip(valued, chosen, strict=True)]
    any_good = np.any(good, axis=0) if good else np.zeros(shape, bool)
    bits = np.zeros(shape, np.uint16)
    for one, has, fine in zip(chosen, valued, good, strict=True):
        counts = np.where(any_good, fine, has)
        n += counts
        bits = np.where(counts, bits | one.flag, bits)
        for name in names:
            total[name] += np.where(counts, one.fields[name], 0)
    with np.errstate(invalid="ignore"):
        made = {name: (total[name] / n).astype(np.float32) for name in names}
    return {**made, "retrieval_qual_flag": np.where(n > 0, bits, flag).astype(np.uint16)}


def _chosen(passes: dict[int, Pass], names: list[str], shape: tuple[int, int]) -> Pass:
    """One pass of the day, put together from the files that may have it."""
    flag = np.full(shape, ABSENT, np.uint16)
    fields = {name: np.full(shape, np.nan, np.float32) for name in names}
    taken = np.zeros(shape, bool)
    for shift in sorted(passes, key=abs):
        one = passes[shift]
        here = one.offset == -shift
        value = here & _valued(one) & ~taken
        flag = np.where(value | (here & ~taken & (flag == ABSENT)), one.flag, flag)
        for name in names:
            fields[name] = np.where(value, one.fields[name], fields[name])
        taken |= value
    return Pass(np.zeros(shape, np.int8), flag, fields)


def _valued(one: Pass) -> NDArray[np.bool_]:
    """(row, column) whether every dataset of the mapping has a value."""
    return np.asarray(np.all([np.isfinite(field) for field in one.fields.values()], axis=0))


def flag_attributes(bad_bits: int) -> dict[str, Any]:
    """What says how the flags are to be read."""
    return {
        "bad_bits": bad_bits,
        "good": [flag for flag in range(2 * max(MEANINGS)) if not flag & bad_bits],
        "flag_masks": list(MEANINGS),
        "flag_meanings": " ".join(MEANINGS.values()),
        "absent": ABSENT,
        "source": "retrieval_qual_flag",
    }
