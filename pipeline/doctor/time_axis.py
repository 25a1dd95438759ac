"""Find faults in the days of a source: out of order, duplicated or missing.

Find days of forcing that lack values, and chunks or files of a store that are absent.

If a year of an entry is small, all days of all cells are read. Otherwise a sample is read, and the
store's chunks or files are listed.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.dates import runs_as_text, runs_of_days
from pipeline.doctor import coverage
from pipeline.doctor.findings import Finding
from pipeline.errors import SoilweaveError
from pipeline.sources.grids import zarr_stores
from pipeline.sources.gridzarr import GridZarrSource
from pipeline.storage import missing_values

if TYPE_CHECKING:
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.coverage import Coverage
    from pipeline.doctor.entries import Case


MIN_SPARSE_SHARE = 0.75  # share of a year's days that a source of observations needs to have
_ORDER_HINT = "sort the days of the file and remove duplicates, or ask the provider"

_CADENCE_HINT = (
    "none is needed if this is intended: daily means weight each value by the time it stands for; "
    "else ask the provider"
)

_GAP_HINT = "name another source for these days, shorten the period, or ask the provider"


def check_days(
    times: NDArray[np.datetime64], period: tuple[date, date] | None, *, sparse: bool
) -> list[Finding]:
    """Find what is wrong with the days of a source.

    Args:
      times: (time,) as the source has them.
      period: first and last day that must be present; None if no day has to be.
      sparse: whether the source holds observations, which normally lack some days.
    """
    if times.dtype.kind != "M":
        return [Finding("time axis", f"time: {times.dtype} values, expected dates", _ORDER_HINT)]
    days = times.astype("datetime64[D]")
    findings = []
    steps = np.diff(days).astype(int)
    n_backward = int((steps <= 0).sum())
    if n_backward:
        index = int(np.flatnonzero(steps <= 0)[0])
        more = f", and {n_backward - 1} more" if n_backward > 1 else ""
        message = f"{days[index + 1]} comes after {days[index]}{more}; days must increase"
        findings.append(Finding("time axis", message, _ORDER_HINT))
    n_off = int((times != days).sum())
    if n_off:
        message = f"{n_off} of {len(times)} times are not at 00:00, so they are not days"
        findings.append(Finding("time axis", message, _ORDER_HINT))
    return findings + (_find_gaps(days, period, sparse=sparse) if period else [])


def check_cadence(cadence: str) -> list[Finding]:
    """Return a finding if a record changes its cadence.

    Args:
      cadence: as the driver describes it; `hourly until 2016, ...` if it changes.
    """
    if " until " not in cadence:
        return []
    return [Finding("time axis", f"the cadence changes: {cadence}", _CADENCE_HINT)]


def check_cadence_between_years(years: list[tuple[str, str]]) -> dict[Finding, list[str]]:
    """Find changes of the cadence from one year to the next.

    Args:
      years: (year, cadence) in order.

    Returns:
      The years whose first cadence differs from the last of the year before, by finding.
    """
    changes: dict[Finding, list[str]] = {}
    for (_, before), (year, after) in itertools.pairwise(years):
        last = before.rpartition(", ")[2].partition(" from ")[0]
        first = after.partition(" until ")[0]
        if last and first and last != first and "more changes" not in last:
            cadence = f"{last} until {int(year) - 1}, {first} from {year}"
            changes |= {finding: [year] for finding in check_cadence(cadence)}
    return changes


def _find_gaps(
    days: NDArray[np.datetime64], period: tuple[date, date], *, sparse: bool
) -> list[Finding]:
    """Find the days of a period that are missing."""
    needed = np.arange(np.datetime64(period[0], "D"), np.datetime64(period[1], "D") + 1)
    missing = needed[~np.isin(needed, days)]
    if not missing.size:
        return []
    if len(missing) == len(needed):
        return [Finding("missing year", f"no day of {needed[0]}..{needed[-1]}", _GAP_HINT)]
    if sparse and len(missing) <= (1 - MIN_SPARSE_SHARE) * len(needed):
        return []
    runs = runs_as_text(runs_of_days(missing), most=3)
    message = f"{len(missing)} of {len(needed)} days missing: {runs}"
    return [Finding("gaps", message, _GAP_HINT)]


MAX_BYTES_READ = 200e6  # of an entry and year up to which all days are read

PARTIAL_DAYS_ATTRS = (
    "missing_days",
    "partial_days",
)  # attributes in which a gridded source lists such days

_MISSING_HINT = (
    "get them from the provider, name another source or period, or allow them with qc.max_missing"
)


def list_forcing(names: list[str], year: xr.Dataset, case: Case) -> list[str]:
    """Return the names of the time-dependent forcing variables, whose days must be complete.

    Args:
      names: variables in use.
      year: the days of a year.
      case: the entry.
    """
    if case.experiment is None and case.sparse:
        return []
    return [n for n in names if case.table[n].kind == "forcing" and "time" in year[n].dims]


def select_sample(
    year: xr.Dataset, part: Coverage, names: list[str], forcing: list[str]
) -> xr.Dataset:
    """Select the part of a source to read: all days of forcing if they are small, else a sample.

    Args:
      year: the days of a year.
      part: indices over the region.
      names: variables in use.
      forcing: those whose days must be complete.
    """
    if not forcing:
        return coverage.select_first_sample(year, part)
    everything = coverage.select_whole_region(year, part)
    return (
        everything
        if _bytes_to_read(everything, names) <= MAX_BYTES_READ
        else coverage.select_more_days(year, part)
    )


def _bytes_to_read(everything: xr.Dataset, names: list[str]) -> float:
    """Return how many bytes are read: those of whole chunks if the driver knows them."""
    bytes_a_day: dict[str, float] = everything.encoding.get("bytes_a_day", {})
    return sum(
        bytes_a_day[name] * (everything.sizes["time"] if "time" in everything[name].dims else 1)
        if name in bytes_a_day
        else everything[name].nbytes
        for name in names
    )


def check_missing_values(
    values: dict[str, NDArray[np.float32]], sample: xr.Dataset
) -> list[Finding]:
    """Find days on which a variable lacks values in cells where any variable of the entry has some.

    Args:
      values: values of the forcing variables, as read from the sample.
      sample: the dataset that was read, for its dims and days.
    """
    # (day, cell) masks of the variables that have any value.
    present = {
        name: np.isfinite(array).reshape(len(array), -1)
        for name, array in values.items()
        if sample[name].dims[0] == "time" and np.isfinite(array).any()
    }
    if not present:
        return []
    cells = np.any([mask.any(0) for mask in present.values()], axis=0)
    findings = []
    for name, mask in present.items():
        missing_share = (~mask[:, cells]).mean(1)
        days = sample.time.values[missing_share > missing_values.TOLERATED_SHARE].astype(
            "datetime64[D]"
        )
        if days.size:
            percent = 100 * missing_share[missing_share > missing_values.TOLERATED_SHARE].mean()
            message = (
                f"{name}: {len(days)} of {len(mask)} days lack {percent:.3g} % of the values: "
                f"{runs_as_text(runs_of_days(days), most=3)}"
            )
            findings.append(Finding("gaps", message, _MISSING_HINT))
    return findings


def check_absent_parts(
    driver: Any, dataset: xr.Dataset, findings: list[Finding], sampled: bool
) -> tuple[list[Finding], str]:
    """Find the absent chunks or files of a grid.

    Args:
      driver: driver with its period and region set.
      dataset: the opened dataset.
      findings: findings in the values; a variable with gaps in them is not reported again.
      sampled: whether values were read on some days only.

    Returns:
      The findings, and how the store was searched; empty if it was not.
    """
    reported = {
        finding.message.partition(":")[0] for finding in findings if finding.check == "gaps"
    }
    if isinstance(driver, GridZarrSource) and driver.icechunk is None:
        try:
            listing = zarr_stores.find_absent_chunks(driver, driver.group)
        except SoilweaveError as error:  # a bucket may allow reading but not listing
            return [], f"chunks not listed: {error.problems[0]}"
        if listing is None:
            return [], "chunks not listed"
        absent = [
            (name, runs_as_text(runs_of_days(times.astype("datetime64[D]")), most=3), fill)
            for name, (times, fill) in listing[0].items()
            if name not in reported
        ]
        messages = [
            f"{name}: chunks of {days} are absent and read as {fill}" for name, days, fill in absent
        ]
        return [
            Finding("gaps", line, _MISSING_HINT) for line in messages
        ], f"{listing[1]} chunks listed"
    if not sampled or "files" not in dataset.encoding:
        return [], ""
    messages = [
        f"{key.replace('_', ' ')}: {dataset.attrs[key]}"
        for key in PARTIAL_DAYS_ATTRS
        if key in dataset.attrs
    ]
    note = f"files present: {dataset.encoding['files']}"
    return [Finding("gaps", line, _MISSING_HINT) for line in messages], note
