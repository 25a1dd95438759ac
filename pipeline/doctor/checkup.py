"""One entry in one year: opened, its days and positions checked, a sample of its values read."""

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
    """What was found, whether the entry could be opened, how much was read; and its cadence."""

    symptoms: list[Symptom]
    opened: bool
    note: str
    cadence: str = ""


def of(case: Case, driver: Any, year: Period | None, *, first: bool) -> Seen:
    """Examine a case in a year.

    Args:
      case: an entry.
      driver: its driver.
      year: the days of a year that are needed; None for whatever there is.
      first: whether it is the first year of this entry: what no year changes is then checked too.
    """
    try:
        dataset, mapped = admission.opened(case, driver, year)
    except Exception as error:  # noqa: BLE001  # whatever a provider's file provokes is a finding
        return Seen(symptoms.of_error(error), False, "")
    try:
        found, note = _of_dataset(dataset, mapped, case, year, first)
        if first and driver is not None:
            found += fills.of_driver(admission.told(case, driver, year))
        if note and driver is not None and not case.sparse and "time" in dataset.dims:
            told = admission.told(case, driver, year)
            sampled = note.startswith(f"{samples.MORE_DAYS} of ")
            lacking, listed = absences.of_parts(told, dataset, found, sampled)
            found, note = found + lacking, f"{note}, {listed}" if listed else note
    except Exception as error:  # noqa: BLE001  # so is a form that no driver should give
        found, note = symptoms.of_error(error), ""
    finally:
        dataset.close()
    return Seen(found, True, note, str(dataset.attrs.get("cadence", "")))


def _of_dataset(
    dataset: xr.Dataset, mapped: set[str], case: Case, year: Period | None, first: bool
) -> tuple[list[Symptom], str]:
    found = _of_variables(dataset, mapped, case)
    found += coverage.of_positions(dataset, case.region)
    part = coverage.over(dataset, case.domain)
    if case.domain and not any(symptom.check == "latitude" for symptom in found):
        found += coverage.of_coverage(dataset, part, case.domain)
    names = [name for name in _used(dataset, case) if first or "time" in dataset[name].dims]
    held = dataset
    if "time" in dataset.dims and any("time" in dataset[name].dims for name in names):
        times = dataset.time.values
        found += gaps.of_days(times, _wanted(case, year, times), sparse=case.sparse)
        found += gaps.of_cadence(str(dataset.attrs.get("cadence", "")))
        held = dataset.isel(time=_within(times, year))
    if not all(index.size for index in part.at.values()) or not all(held.sizes.values()):
        return found, ""
    forcing = absences.inputs(names, held, case)
    looked = absences.looked(held, part, names, forcing)
    values, unread = readings.read(looked, names)
    found += unread
    found += absences.of_values({n: values[n] for n in forcing if n in values}, looked)
    for name, given in values.items():
        found += readings.of_values(name, given, held, part, case)
    found += notes.of_sites(looked, values, case)
    if first and not unread:
        found += readings.of_orientation(held, names, part, case)
    return found, samples.told(looked, held)


def _used(dataset: xr.Dataset, case: Case) -> list[str]:
    """Variables of ours that the experiment takes from a source."""
    held = [str(name) for name in dataset.data_vars if str(name) in case.table]
    if not case.kinds:
        return held
    return [name for name in held if case.table[name].kind in case.kinds]


def _of_variables(dataset: xr.Dataset, mapped: set[str], case: Case) -> list[Symptom]:
    """Variables that are not there, or not as our table has them."""
    have = sorted(map(str, dataset.data_vars))
    missing = sorted((mapped | case.required) - set(have))
    remedy = "correct the entry's mapping, or name another source"
    found = [Symptom("variables", f"{name}: missing; it has {have}", remedy) for name in missing]
    known = [str(n) for n in dataset.data_vars if mapped or str(n) in case.table]
    bare = [n for n in known if "units" not in dataset[n].attrs and n != "provider_flag"]
    found += [Symptom("units", f"{name}: no units", remedy) for name in bare]
    problems = catalog.table_problems(dataset[[n for n in known if n not in bare]], case.table)
    if problems:
        remedy = "correct the entry's mapping; `variables:` of the experiment adds to the table"
        found += symptoms.of_error(DataError(f"entry {case.label}", *problems, remedy=remedy))
    return found


def _wanted(case: Case, year: Period | None, times: NDArray[np.datetime64]) -> Period | None:
    """Days that must be there; of a source that goes on, none after its last."""
    if year is None or case.experiment or not times.size or times.dtype.kind != "M":
        return year
    last = times.max().astype("datetime64[D]").item()
    goes_on = str(case.metadata.get("period", "")).strip().endswith("..")
    return (year[0], last) if goes_on and year[0] <= last < year[1] == date.today() else year


def _within(times: NDArray[np.datetime64], year: Period | None) -> NDArray[np.bool_]:
    if year is None or times.dtype.kind != "M":
        return np.ones(len(times), bool)
    days = times.astype("datetime64[D]")
    return np.asarray((days >= np.datetime64(year[0])) & (days <= np.datetime64(year[1])))
