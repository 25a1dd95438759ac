"""Notes about the records of sites: what a user should know although nothing is wrong.

Read a sample of a source's values and check it; read more if the sample has no value.

Examine one entry in one year: open it, check its days and positions, read and check a sample.
"""

from __future__ import annotations

import warnings
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from pipeline.catalog import intake_catalog, quality_control
from pipeline.doctor import coverage, entries, time_axis
from pipeline.doctor import findings as doctor_findings
from pipeline.doctor import values as doctor_values
from pipeline.doctor.findings import Finding, findings_from_error
from pipeline.errors import DataError

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.coverage import Coverage
    from pipeline.doctor.entries import Case, Period


NOTE = "note"  # the check of a finding that is not a problem


def collect_site_notes(
    sample: xr.Dataset, values: dict[str, NDArray[np.float32]], case: Case
) -> list[Finding]:
    """Collect notes about sites; none for sources that are grids.

    These are the notes of the reader, sites that have no value, and values to which the provider
    applied no check.

    Args:
      sample: the part of the source that was read.
      values: values of its variables, as read.
      case: the entry.
    """
    if "place" not in sample.dims:
        return []
    notes = [Finding(NOTE, str(note), "none needed") for note in sample.attrs.get("notes", ())]
    targets = [n for n in values if n in case.table and case.table[n].kind == "target"]
    for name in targets:
        dims = sample[name].dims
        present = np.isfinite(values[name])
        empty = ~present.any(axis=dims.index("time")) if "time" in dims else ~present
        if empty.any() and not empty.all():
            ids = ", ".join(map(str, sample.place.values[empty][:3]))
            more = ", ..." if empty.sum() > 3 else ""
            message = (
                f"{name}: {int(empty.sum())} of {empty.size} places have no value: {ids}{more}"
            )
            notes.append(Finding(NOTE, message, "none needed, unless they should have some"))
        if "unchecked" in getattr(sample.get("provider_flag"), "attrs", {}):
            for flag, n in quality_control.count_unchecked(
                sample["provider_flag"].load(), present
            ).items():
                message = (
                    f"{name}: no check was applied to {n} of {int(present.sum())} values ({flag})"
                )
                notes.append(Finding(NOTE, message, "qc.unchecked=drop leaves them out"))
    return notes


def read_sample(
    sample: xr.Dataset, names: list[str]
) -> tuple[dict[str, NDArray[np.float32]], list[Finding]]:
    """Read the values of a sample's variables.

    All variables are read together, so that what they share is read once. If that fails, they are
    read one by one.

    Returns:
      The values by name, and a finding for each distinct error, with the variables it concerns.
    """
    try:
        return _load_values(sample, names), []
    except Exception:  # noqa: BLE001  # raised again below for the variables that cause it
        pass
    values, failed = dict[str, "NDArray[np.float32]"](), dict[Finding, list[str]]()
    for name in names:
        try:
            values |= _load_values(sample, [name])
        except Exception as error:  # noqa: BLE001  # any error in reading is a finding
            for finding in findings_from_error(error):
                failed.setdefault(finding, []).append(name)
    findings = [
        finding._replace(message=f"{', '.join(names)}: {finding.message}")
        for finding, names in failed.items()
    ]
    return values, findings


def _load_values(sample: xr.Dataset, names: list[str]) -> dict[str, NDArray[np.float32]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing but NaN
        loaded = sample[names].compute()
    return {name: loaded[name].values.astype("float32") for name in names}


def check_variable(
    name: str, values: NDArray[np.float32], year: xr.Dataset, part: Coverage, case: Case
) -> list[Finding]:
    """Check the values of a variable; if there are none, read and check a wider sample.

    Args:
      name: name of the variable in this project.
      values: the sample, NaN where missing.
      year: the days of a year, from which a wider sample is taken.
      part: indices over the region.
      case: the entry.
    """
    if np.isnan(values).all():
        wider, unread = read_sample(coverage.select_wider_sample(year, part), [name])
        if unread:
            return unread
        values = wider[name]
        if np.isnan(values).all():
            return [doctor_values.no_value_finding(name)]
    return doctor_values.check_values(name, values, case.table[name])


def check_temperature(
    year: xr.Dataset, names: list[str], part: Coverage, case: Case
) -> list[Finding]:
    """Find out whether air temperature is upside down; nothing for sources without it.

    Args:
      year: the days of a year.
      names: variables in use.
      part: indices over the region.
      case: the entry.
    """
    temperatures = [name for name in names if case.table[name].standard_name == "air_temperature"]
    if not temperatures or "lat" not in year.coords or "time" not in year[temperatures[0]].dims:
        return []
    name = temperatures[0]
    profile = coverage.select_profile(year, part)
    values, unread = read_sample(profile, [name])
    if unread:
        return unread
    rows = values[name]
    if rows.ndim == 3:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows of nothing but NaN
            rows = np.nanmean(rows, axis=2)
    lat = np.asarray(profile.lat.values, float)
    return doctor_values.check_orientation(name, rows, lat, profile.time.values)


class YearResult(NamedTuple):
    """The result for one entry and year.

    Attributes:
      findings: what was found.
      opened: whether the entry could be opened.
      sample: how much was read, in words; empty if nothing was.
      cadence: cadence of the record as its driver describes it; empty if it does not.
    """

    findings: list[Finding]
    opened: bool
    sample: str
    cadence: str = ""


def check_year(case: Case, driver: Any, year: Period | None, *, first: bool) -> YearResult:
    """Examine an entry in one year.

    Args:
      case: the entry.
      driver: its driver; None to read a staged copy.
      year: first and last day needed in a year; None for the whole record.
      first: whether this is the first year of the entry that could be opened. What does not change
        from year to year is checked in this year only.
    """
    try:
        dataset, mapped = entries.open_entry(case, driver, year)
    except Exception as error:  # noqa: BLE001  # any error from a provider's file is a finding
        return YearResult(doctor_findings.findings_from_error(error), False, "")
    try:
        findings, sample = _check_dataset(dataset, mapped, case, year, first)
        if first and driver is not None:
            findings += doctor_values.check_undeclared_fills(
                entries.configure_driver(case, driver, year)
            )
        if sample and driver is not None and not case.sparse and "time" in dataset.dims:
            configured = entries.configure_driver(case, driver, year)
            some_days = sample.startswith(f"{coverage.MORE_DAYS} of ")
            absent, listing = time_axis.check_absent_parts(configured, dataset, findings, some_days)
            findings, sample = findings + absent, f"{sample}, {listing}" if listing else sample
    except Exception as error:  # noqa: BLE001  # so is an error from an unexpected dataset
        findings, sample = doctor_findings.findings_from_error(error), ""
    finally:
        dataset.close()
    return YearResult(findings, True, sample, str(dataset.attrs.get("cadence", "")))


def _check_dataset(
    dataset: xr.Dataset, mapped: set[str], case: Case, year: Period | None, first: bool
) -> tuple[list[Finding], str]:
    """Check an opened dataset; return the findings, and how much was read."""
    findings = _check_variables(dataset, mapped, case)
    findings += coverage.check_positions(dataset, case.region)
    part = coverage.find_coverage(dataset, case.domain)
    if case.domain and not any(finding.check == "latitude" for finding in findings):
        findings += coverage.check_coverage(dataset, part, case.domain)
    names = [
        name for name in _used_variables(dataset, case) if first or "time" in dataset[name].dims
    ]
    year_data = dataset
    if "time" in dataset.dims and any("time" in dataset[name].dims for name in names):
        times = dataset.time.values
        findings += time_axis.check_days(
            times, _required_period(case, year, times), sparse=case.sparse
        )
        findings += time_axis.check_cadence(str(dataset.attrs.get("cadence", "")))
        year_data = dataset.isel(time=_days_in_year(times, year))
    if not all(index.size for index in part.indices.values()) or not all(year_data.sizes.values()):
        return findings, ""
    forcing = time_axis.list_forcing(names, year_data, case)
    sample = time_axis.select_sample(year_data, part, names, forcing)
    values, unread = read_sample(sample, names)
    findings += unread
    findings += time_axis.check_missing_values(
        {n: values[n] for n in forcing if n in values}, sample
    )
    for name, array in values.items():
        findings += check_variable(name, array, year_data, part, case)
    findings += collect_site_notes(sample, values, case)
    if first and not unread:
        findings += check_temperature(year_data, names, part, case)
    return findings, coverage.describe_sample(sample, year_data)


def _used_variables(dataset: xr.Dataset, case: Case) -> list[str]:
    """Return the known variables of a dataset that the experiment uses."""
    known = [str(name) for name in dataset.data_vars if str(name) in case.table]
    if not case.kinds:
        return known
    return [name for name in known if case.table[name].kind in case.kinds]


def _check_variables(dataset: xr.Dataset, mapped: set[str], case: Case) -> list[Finding]:
    """Find variables that are missing, have no units, or differ from the table of variables."""
    available = sorted(map(str, dataset.data_vars))
    missing = sorted((mapped | case.required) - set(available))
    hint = "correct the entry's mapping, or name another source"
    findings = [
        Finding("variables", f"{name}: missing; it has {available}", hint) for name in missing
    ]
    known = [str(n) for n in dataset.data_vars if mapped or str(n) in case.table]
    unitless = [n for n in known if "units" not in dataset[n].attrs and n != "provider_flag"]
    findings += [Finding("units", f"{name}: no units", hint) for name in unitless]
    problems = intake_catalog.table_problems(
        dataset[[n for n in known if n not in unitless]], case.table
    )
    if problems:
        hint = (
            "correct the entry's mapping, or define the variable under `variables:` of the "
            "experiment"
        )
        findings += doctor_findings.findings_from_error(
            DataError(f"entry {case.label}", *problems, remedy=hint)
        )
    return findings


def _required_period(
    case: Case, year: Period | None, times: NDArray[np.datetime64]
) -> Period | None:
    """Return the first and last day that must be present.

    For an entry of a catalog whose period is open, days of this year after its last day need not be
    there yet.
    """
    if year is None or case.experiment or not times.size or times.dtype.kind != "M":
        return year
    last = times.max().astype("datetime64[D]").item()
    is_open = str(case.metadata.get("period", "")).strip().endswith("..")
    return (year[0], last) if is_open and year[0] <= last < year[1] == date.today() else year


def _days_in_year(times: NDArray[np.datetime64], year: Period | None) -> NDArray[np.bool_]:
    """Return which times lie in a year; all of them if there is no year."""
    if year is None or times.dtype.kind != "M":
        return np.ones(len(times), bool)
    days = times.astype("datetime64[D]")
    return np.asarray((days >= np.datetime64(year[0])) & (days <= np.datetime64(year[1])))
