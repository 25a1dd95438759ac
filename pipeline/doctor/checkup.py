"""Examine one entry in one year: open it, check its days and positions, read and check a sample."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline import catalog
from pipeline.doctor import (
    absences,
    admission,
    coverage,
    fills,
    gaps,
    notes,
    readings,
    samples,
    symptoms,
)
from pipeline.doctor.symptoms import Symptom
from pipeline.errors import DataError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.cases import Case, Period


class Seen(NamedTuple):
    """The result for one entry and year.

    Attributes:
      findings: what was found.
      opened: whether the entry could be opened.
      sample: how much was read, in words; empty if nothing was.
      cadence: cadence of the record as its driver describes it; empty if it does not.
    """

    findings: list[Symptom]
    opened: bool
    sample: str
    cadence: str = ""


def of(case: Case, driver: Any, year: Period | None, *, first: bool) -> Seen:
    """Examine an entry in one year.

    Args:
      case: the entry.
      driver: its driver; None to read a staged copy.
      year: first and last day needed in a year; None for the whole record.
      first: whether this is the first year of the entry that could be opened. What does not change
        from year to year is checked in this year only.
    """
    try:
        dataset, mapped = admission.opened(case, driver, year)
    except Exception as error:  # noqa: BLE001  # any error from a provider's file is a finding
        return Seen(symptoms.of_error(error), False, "")
    try:
        findings, sample = _of_dataset(dataset, mapped, case, year, first)
        if first and driver is not None:
            findings += fills.of_driver(admission.told(case, driver, year))
        if sample and driver is not None and not case.sparse and "time" in dataset.dims:
            configured = admission.told(case, driver, year)
            some_days = sample.startswith(f"{samples.MORE_DAYS} of ")
            absent, listing = absences.of_parts(configured, dataset, findings, some_days)
            findings, sample = findings + absent, f"{sample}, {listing}" if listing else sample
    except Exception as error:  # noqa: BLE001  # so is an error from an unexpected dataset
        findings, sample = symptoms.of_error(error), ""
    finally:
        dataset.close()
    return Seen(findings, True, sample, str(dataset.attrs.get("cadence", "")))


def _of_dataset(
    dataset: xr.Dataset, mapped: set[str], case: Case, year: Period | None, first: bool
) -> tuple[list[Symptom], str]:
    """Check an opened dataset; return the findings, and how much was read."""
    findings = _of_variables(dataset, mapped, case)
    findings += coverage.of_positions(dataset, case.region)
    part = coverage.over(dataset, case.domain)
    if case.domain and not any(finding.check == "latitude" for finding in findings):
        findings += coverage.of_coverage(dataset, part, case.domain)
    names = [name for name in _used(dataset, case) if first or "time" in dataset[name].dims]
    year_data = dataset
    if "time" in dataset.dims and any("time" in dataset[name].dims for name in names):
        times = dataset.time.values
        findings += gaps.of_days(times, _wanted(case, year, times), sparse=case.sparse)
        findings += gaps.of_cadence(str(dataset.attrs.get("cadence", "")))
        year_data = dataset.isel(time=_within(times, year))
    if not all(index.size for index in part.indices.values()) or not all(year_data.sizes.values()):
        return findings, ""
    forcing = absences.inputs(names, year_data, case)
    sample = absences.looked(year_data, part, names, forcing)
    values, unread = readings.read(sample, names)
    findings += unread
    findings += absences.of_values({n: values[n] for n in forcing if n in values}, sample)
    for name, array in values.items():
        findings += readings.of_values(name, array, year_data, part, case)
    findings += notes.of_sites(sample, values, case)
    if first and not unread:
        findings += readings.of_orientation(year_data, names, part, case)
    return findings, samples.told(sample, year_data)


def _used(dataset: xr.Dataset, case: Case) -> list[str]:
    """Return the known variables of a dataset that the experiment uses."""
    known = [str(name) for name in dataset.data_vars if str(name) in case.table]
    if not case.kinds:
        return known
    return [name for name in known if case.table[name].kind in case.kinds]


def _of_variables(dataset: xr.Dataset, mapped: set[str], case: Case) -> list[Symptom]:
    """Find variables that are missing, have no units, or differ from the table of variables."""
    available = sorted(map(str, dataset.data_vars))
    missing = sorted((mapped | case.required) - set(available))
    hint = "correct the entry's mapping, or name another source"
    findings = [
        Symptom("variables", f"{name}: missing; it has {available}", hint) for name in missing
    ]
    known = [str(n) for n in dataset.data_vars if mapped or str(n) in case.table]
    unitless = [n for n in known if "units" not in dataset[n].attrs and n != "provider_flag"]
    findings += [Symptom("units", f"{name}: no units", hint) for name in unitless]
    problems = catalog.table_problems(dataset[[n for n in known if n not in unitless]], case.table)
    if problems:
        hint = (
            "correct the entry's mapping, or define the variable under `variables:` of the "
            "experiment"
        )
        findings += symptoms.of_error(DataError(f"entry {case.label}", *problems, remedy=hint))
    return findings


def _wanted(case: Case, year: Period | None, times: NDArray[np.datetime64]) -> Period | None:
    """Return the first and last day that must be present.

    For an entry of a catalog whose period is open, days of this year after its last day need not be
    there yet.
    """
    if year is None or case.experiment or not times.size or times.dtype.kind != "M":
        return year
    last = times.max().astype("datetime64[D]").item()
    is_open = str(case.metadata.get("period", "")).strip().endswith("..")
    return (year[0], last) if is_open and year[0] <= last < year[1] == date.today() else year


def _within(times: NDArray[np.datetime64], year: Period | None) -> NDArray[np.bool_]:
    """Return which times lie in a year; all of them if there is no year."""
    if year is None or times.dtype.kind != "M":
        return np.ones(len(times), bool)
    days = times.astype("datetime64[D]")
    return np.asarray((days >= np.datetime64(year[0])) & (days <= np.datetime64(year[1])))
