"""Signs of a fault in the days of a source: out of order, twice, missing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dates import runs_as_text, runs_of_days
from pipeline.doctor.symptoms import Symptom

if TYPE_CHECKING:
    from datetime import date

    from numpy.typing import NDArray

LEAST_SPARSE = 0.75  # of the days of a year that a source of observations has to have
_AXIS = "sort the file's days, each once, or ask the provider"
_CADENCE = "is the change meant? days weigh each value by its time; else ask the provider"
_GAP = "name another source for it, shorten the period, or ask the provider"


def of_days(
    times: NDArray[np.datetime64], period: tuple[date, date] | None, *, sparse: bool
) -> list[Symptom]:
    """What is wrong with the days of a source.

    Args:
      times: (time,) as the source has them.
      period: first and last day that are wanted; None for whichever there are.
      sparse: observations, which lack days by their nature.
    """
    if times.dtype.kind != "M":
        return [Symptom("time axis", f"time: {times.dtype} values, expected dates", _AXIS)]
    days = times.astype("datetime64[D]")
    made = []
    step = np.diff(days).astype(int)
    if (step <= 0).any():
        at = int(np.flatnonzero(step <= 0)[0])
        more = f", and {int((step <= 0).sum()) - 1} more" if (step <= 0).sum() > 1 else ""
        found = f"{days[at + 1]} comes after {days[at]}{more}; days must increase"
        made.append(Symptom("time axis", found, _AXIS))
    off = int((times != days).sum())
    if off:
        found = f"{off} of {len(times)} times are not at 00:00: not days"
        made.append(Symptom("time axis", found, _AXIS))
    return made + (_gaps(days, period, sparse=sparse) if period else [])


def of_cadence(cadence: str) -> list[Symptom]:
    """Whether a record changes its cadence, by what its driver tells: `hourly until ...`."""
    if " until " not in cadence:
        return []
    return [Symptom("time axis", f"the cadence changes: {cadence}", _CADENCE)]


def between_years(years: list[tuple[str, str]]) -> dict[Symptom, list[str]]:
    """Years, of (year, cadence), that begin with another cadence than the one before ends with."""
    found: dict[Symptom, list[str]] = {}
    for (_, before), (year, after) in itertools.pairwise(years):
        last = before.rpartition(", ")[2].partition(" from ")[0]
        first = after.partition(" until ")[0]
        if last and first and last != first and "more changes" not in last:
            told = f"{last} until {int(year) - 1}, {first} from {year}"
            found |= {symptom: [year] for symptom in of_cadence(told)}
    return found


def _gaps(
    days: NDArray[np.datetime64], period: tuple[date, date], *, sparse: bool
) -> list[Symptom]:
    """Days of a period that are not there."""
    wanted = np.arange(np.datetime64(period[0], "D"), np.datetime64(period[1], "D") + 1)
    missing = wanted[~np.isin(wanted, days)]
    if not missing.size:
        return []
    if len(missing) == len(wanted):
        found = f"no day of {wanted[0]}..{wanted[-1]}"
        return [Symptom("missing year", found, _GAP)]
    if sparse and len(missing) <= (1 - LEAST_SPARSE) * len(wanted):
        return []
    runs = runs_as_text(runs_of_days(missing), most=3)
    found = f"{len(missing)} of {len(wanted)} days missing: {runs}"
    return [Symptom("gaps", found, _GAP)]
