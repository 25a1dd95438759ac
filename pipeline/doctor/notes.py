"""What a person should know of the records of sites, though nothing is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import qc
from pipeline.doctor.symptoms import Symptom

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.cases import Case

NOTE = "note"  # the check of a symptom that is no problem


def of_sites(
    looked: xr.Dataset, values: dict[str, NDArray[np.float32]], case: Case
) -> list[Symptom]:
    """Notes of the reader, places without a value, and values to which no check was applied.

    Args:
      looked: the part that was read.
      values: its variables, as read.
      case: the entry.
    """
    if "place" not in looked.dims:
        return []
    made = [Symptom(NOTE, str(note), "none needed") for note in looked.attrs.get("notes", ())]
    targets = [name for name in values if name in case.table and case.table[name].kind == "target"]
    for name in targets:
        axes = looked[name].dims
        kept = np.isfinite(values[name])
        empty = ~kept.any(axis=axes.index("time")) if "time" in axes else ~kept
        if empty.any() and not empty.all():
            ids = ", ".join(map(str, looked.place.values[empty][:3]))
            found = f"{name}: {int(empty.sum())} of {empty.size} places have no value: {ids}"
            more = ", ..." if empty.sum() > 3 else ""
            made.append(Symptom(NOTE, found + more, "none needed, unless they should have some"))
        if "unchecked" in getattr(looked.get("provider_flag"), "attrs", {}):
            for flag, n in qc.unchecked(looked["provider_flag"].load(), kept).items():
                found = f"{name}: no check was applied to {n} of {int(kept.sum())} values ({flag})"
                made.append(Symptom(NOTE, found, "qc.unchecked=drop leaves them out"))
    return made
