"""Notes about the records of sites: what a user should know although nothing is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import qc
from pipeline.doctor.symptoms import Symptom

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.cases import Case

NOTE = "note"  # the check of a finding that is not a problem


def of_sites(
    sample: xr.Dataset, values: dict[str, NDArray[np.float32]], case: Case
) -> list[Symptom]:
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
    notes = [Symptom(NOTE, str(note), "none needed") for note in sample.attrs.get("notes", ())]
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
            notes.append(Symptom(NOTE, message, "none needed, unless they should have some"))
        if "unchecked" in getattr(sample.get("provider_flag"), "attrs", {}):
            for flag, n in qc.unchecked(sample["provider_flag"].load(), present).items():
                message = (
                    f"{name}: no check was applied to {n} of {int(present.sum())} values ({flag})"
                )
                notes.append(Symptom(NOTE, message, "qc.unchecked=drop leaves them out"))
    return notes
