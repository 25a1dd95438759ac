"""Find days of forcing that lack values, and chunks or files of a store that are absent.

If a year of an entry is small, all days of all cells are read. Otherwise a sample is read, and the
store's chunks or files are listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import missing
from pipeline.dates import runs_as_text, runs_of_days
from pipeline.doctor import samples
from pipeline.doctor.symptoms import Symptom
from pipeline.errors import SoilweaveError
from pipeline.sources.grids import chunks
from pipeline.sources.gridzarr import GridZarrSource

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.cases import Case
    from pipeline.doctor.coverage import Part

MOST_BYTES = 200e6  # of an entry and year up to which all days are read
PARTLY = ("missing_days", "partial_days")  # attributes in which a gridded source lists such days
_MEND = (
    "get them from the provider, name another source or period, or allow them with qc.max_missing"
)


def inputs(names: list[str], year: xr.Dataset, case: Case) -> list[str]:
    """Return the names of the time-dependent forcing variables, whose days must be complete.

    Args:
      names: variables in use.
      year: the days of a year.
      case: the entry.
    """
    if case.experiment is None and case.sparse:
        return []
    return [n for n in names if case.table[n].kind == "forcing" and "time" in year[n].dims]


def looked(year: xr.Dataset, part: Part, names: list[str], forcing: list[str]) -> xr.Dataset:
    """Select the part of a source to read: all days of forcing if they are small, else a sample.

    Args:
      year: the days of a year.
      part: indices over the region.
      names: variables in use.
      forcing: those whose days must be complete.
    """
    if not forcing:
        return samples.first(year, part)
    everything = samples.whole(year, part)
    return everything if _bytes(everything, names) <= MOST_BYTES else samples.more_days(year, part)


def _bytes(everything: xr.Dataset, names: list[str]) -> float:
    """Return how many bytes are read: those of whole chunks if the driver knows them."""
    bytes_a_day: dict[str, float] = everything.encoding.get("bytes_a_day", {})
    return sum(
        bytes_a_day[name] * (everything.sizes["time"] if "time" in everything[name].dims else 1)
        if name in bytes_a_day
        else everything[name].nbytes
        for name in names
    )


def of_values(values: dict[str, NDArray[np.float32]], sample: xr.Dataset) -> list[Symptom]:
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
        days = sample.time.values[missing_share > missing.FEW].astype("datetime64[D]")
        if days.size:
            percent = 100 * missing_share[missing_share > missing.FEW].mean()
            message = (
                f"{name}: {len(days)} of {len(mask)} days lack {percent:.3g} % of the values: "
                f"{runs_as_text(runs_of_days(days), most=3)}"
            )
            findings.append(Symptom("gaps", message, _MEND))
    return findings


def of_parts(
    driver: Any, dataset: xr.Dataset, findings: list[Symptom], sampled: bool
) -> tuple[list[Symptom], str]:
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
            listing = chunks.of_source(driver, driver.group)
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
        return [Symptom("gaps", line, _MEND) for line in messages], f"{listing[1]} chunks listed"
    if not sampled or "files" not in dataset.encoding:
        return [], ""
    messages = [
        f"{key.replace('_', ' ')}: {dataset.attrs[key]}" for key in PARTLY if key in dataset.attrs
    ]
    note = f"files present: {dataset.encoding['files']}"
    return [Symptom("gaps", line, _MEND) for line in messages], note
