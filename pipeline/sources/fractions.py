"""Times that are stored as fractions, such as hours in days: rounded to what they stand for.

An hour is no exact fraction of a day in binary, and 05:59:59.9999 may be of another day than 06:00.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}  # of units, by their first letters
STEPS = (1, 60, 300, 900, 3600)  # s, to one of which times are rounded


def rounded(made: xr.Dataset, stored: xr.Dataset) -> xr.Dataset:
    """A decoded file, its times and their bounds rounded where they are stored as fractions.

    They are rounded to seconds, or to the least of STEPS that their type can tell apart.

    Args:
      made: the file.
      stored: the same before it was decoded.
    """
    times = {
        name: _rounded(made.variables[name], stored.variables[name])
        for name in made.variables
        if _is_fraction(made.variables[name], stored.variables[name])
    }
    return made.assign_coords(times) if times else made


def _is_fraction(held: xr.Variable, stored: xr.Variable) -> bool:
    times = held.ndim == 1 or (held.ndim == 2 and held.shape[1] == 2)
    return held.dtype.kind == "M" and stored.dtype.kind == "f" and times and held.size > 0


def _rounded(held: xr.Variable, stored: xr.Variable) -> xr.Variable:
    units: Any = held.encoding.get("units", "")
    unit = 1e-3 if units.startswith(("milli", "ms")) else SECONDS.get(units[:1].lower(), 1)
    greatest = np.abs(stored.values[~np.isnat(held.values)]).max(initial=1)
    apart = 2 * unit * float(np.spacing(stored.dtype.type(greatest)))
    step = next((n for n in STEPS if n >= apart), STEPS[-1]) * 10**9
    times = held.values.astype("datetime64[ns]")
    whole = (times.astype("int64") + step // 2) // step * step
    copy = held.copy(data=np.where(np.isnat(times), times, whole.astype("datetime64[ns]")))
    copy.encoding = held.encoding
    return copy
