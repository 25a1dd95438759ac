"""Find faults in the days of a source: out of order, duplicated or missing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from pipeline.dates import runs_as_text, runs_of_days
from pipeline.doctor.symptoms import Symptom

if TYPE_CHECKING:
    from datetime import date

    from numpy.typing import NDArray

LEAST_SPARSE = 0.75  # share of a year's days that a source of observations needs to have
_AXIS = "sort the days of the file and remove duplicates, or ask the provider"
_CADENCE = (
    "none is needed if this is intended: daily means weight each value by the time it stands for; "
    "else ask the provider"
)
_GAP = "name another source for these days, shorten the period, or ask the provider"


def of_days(
    times: NDArray[np.datetime64], period: tuple[date, date] | None, *, sparse: bool
) -> list[Symptom]:
    """Find what is wrong with the days of a source.

    Args:
      times: (time,) as the source has them.
      period: first and last day that must be present; None if no day has to be.
      sparse: whether the source holds observations, which normally lack some days.
    """
    if times.dtype.kind != "M":
        return [Symptom("time axis", f"time: {times.dtype} values, expected dates", _AXIS)]
    days = times.astype("datetime64[D]")
    findings = []
    steps = np.diff(days).astype(int)
    n_backward = int((steps <= 0).sum())
    if n_backward:
        index = int(np.flatnonzero(steps <= 0)[0])
        more = f", and {n_backward - 1} more" if n_backward > 1 else ""
        message = f"{days[index + 1]} comes after {days[index]}{more}; days must increase"
        findings.append(Symptom("time axis", message, _AXIS))
    n_off = int((times != days).sum())
    if n_off:
        message = f"{n_off} of {len(times)} times are not at 00:00, so they are not days"
        findings.append(Symptom("time axis", message, _AXIS))
    return findings + (_gaps(days, period, sparse=sparse) if period else [])


def of_cadence(cadence: str) -> list[Symptom]:
    """Return a finding if a record changes its cadence.

    Args:
      cadence: as the driver describes it; `hourly until 2016, ...` if it changes.
    """
    if " until " not in cadence:
        return []
    return [Symptom("time axis", f"the cadence changes: {cadence}", _CADENCE)]


def between_years(years: list[tuple[str, str]]) -> dict[Symptom, list[str]]:
    """Find changes of the cadence from one year to the next.

    Args:
      years: (year, cadence) in order.

    Returns:
      The years whose first cadence differs from the last of the year before, by finding.
    """
    changes: dict[Symptom, list[str]] = {}
    for (_, before), (year, after) in itertools.pairwise(years):
        last = before.rpartition(", ")[2].partition(" from ")[0]
        first = after.partition(" until ")[0]
        if last and first and last != first and "more changes" not in last:
            cadence = f"{last} until {int(year) - 1}, {first} from {year}"
            changes |= {finding: [year] for finding in of_cadence(cadence)}
    return changes


def _gaps(
    days: NDArray[np.datetime64], period: tuple[date, date], *, sparse: bool
) -> list[Symptom]:
    """Find the days of a period that are missing."""
    needed = np.arange(np.datetime64(period[0], "D"), np.datetime64(period[1], "D") + 1)
    missing = needed[~np.isin(needed, days)]
    if not missing.size:
        return []
    if len(missing) == len(needed):
        return [Symptom("missing year", f"no day of {needed[0]}..{needed[-1]}", _GAP)]
    if sparse and len(missing) <= (1 - LEAST_SPARSE) * len(needed):
        return []
    runs = runs_as_text(runs_of_days(missing), most=3)
    message = f"{len(missing)} of {len(needed)} days missing: {runs}"
    return [Symptom("gaps", message, _GAP)]
