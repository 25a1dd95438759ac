"""Days that a source of inputs lacks in its values, or of which chunks of its store are absent.

All days of all cells are read where that is little; otherwise some, and the chunks are listed.
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

MOST_BYTES = 200e6  # of an entry and year, up to which all days are read
PARTLY = ("missing_days", "partial_days")  # what a grid's files lack, in their names and times
_MEND = "get them from the provider, name another source or period, or allow it: qc.max_missing"


def inputs(names: list[str], held: xr.Dataset, case: Case) -> list[str]:
    """Variables of forcing in time whose days have to be whole."""
    if case.experiment is None and case.sparse:
        return []
    return [n for n in names if case.table[n].kind == "forcing" and "time" in held[n].dims]


def looked(held: xr.Dataset, part: Part, names: list[str], forcing: list[str]) -> xr.Dataset:
    """The part of a source whose values are read: all days where there is forcing and it is little.

    Args:
      held: the days of a year.
      part: of it over the region.
      names: variables that are used.
      forcing: those that have to be whole.
    """
    if not forcing:
        return samples.first(held, part)
    everything = samples.whole(held, part)
    return everything if _bytes(everything, names) <= MOST_BYTES else samples.more_days(held, part)


def _bytes(everything: xr.Dataset, names: list[str]) -> float:
    """What has to be read: whole chunks where the driver tells, else the values."""
    told: dict[str, float] = everything.encoding.get("bytes_a_day", {})
    return sum(
        told[name] * (everything.sizes["time"] if "time" in everything[name].dims else 1)
        if name in told
        else everything[name].nbytes
        for name in names
    )


def of_values(values: dict[str, NDArray[np.float32]], looked_at: xr.Dataset) -> list[Symptom]:
    """Days on which a variable lacks values where it, or another of the entry, has some.

    Args:
      values: of variables of forcing, as they were read.
      looked_at: their dims and days.
    """
    there = {
        name: np.isfinite(held).reshape(len(held), -1)
        for name, held in values.items()
        if looked_at[name].dims[0] == "time" and np.isfinite(held).any()
    }
    if not there:
        return []
    cells = np.any([found.any(0) for found in there.values()], axis=0)
    made = []
    for name, found in there.items():
        lacking = (~found[:, cells]).mean(1)
        days = looked_at.time.values[lacking > missing.FEW].astype("datetime64[D]")
        if days.size:
            share = f"{100 * lacking[lacking > missing.FEW].mean():.3g} % of the values"
            runs = runs_as_text(runs_of_days(days), most=3)
            said = f"{len(days)} of {len(found)} days lack {share}: {runs}"
            made.append(Symptom("gaps", f"{name}: {said}", _MEND))
    return made


def of_parts(
    driver: Any, dataset: xr.Dataset, found: list[Symptom], sampled: bool
) -> tuple[list[Symptom], str]:
    """What is absent of the files or chunks of a grid, and how it was looked for it.

    Args:
      driver: told which days and region are wanted.
      dataset: as it was opened.
      found: what is wrong in values; the gaps of a variable are told once.
      sampled: whether values were read on some days alone.
    """
    told = {symptom.found.partition(":")[0] for symptom in found if symptom.check == "gaps"}
    if isinstance(driver, GridZarrSource) and driver.icechunk is None:
        try:
            listed = chunks.of_source(driver, driver.group)
        except SoilweaveError as error:  # a bucket may let everybody read and nobody list
            return [], f"chunks not listed: {error.problems[0]}"
        if listed is None:
            return [], "chunks not listed"
        absent = [
            (name, runs_as_text(runs_of_days(times.astype("datetime64[D]")), most=3), fill)
            for name, (times, fill) in listed[0].items()
            if name not in told
        ]
        lines = [
            f"{name}: chunks of {days} are absent and read as {fill}" for name, days, fill in absent
        ]
        return [Symptom("gaps", line, _MEND) for line in lines], f"{listed[1]} chunks listed"
    if not sampled or "files" not in dataset.encoding:
        return [], ""
    lines = [
        f"{key.replace('_', ' ')}: {dataset.attrs[key]}" for key in PARTLY if key in dataset.attrs
    ]
    return [
        Symptom("gaps", line, _MEND) for line in lines
    ], f"files there: {dataset.encoding['files']}"
