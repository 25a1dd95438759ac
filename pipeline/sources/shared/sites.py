"""Functions shared by drivers of sites: selecting sites by region, and stacking their records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.experiment.variables import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from pipeline.sources.shared.driver import EntryMapping


Region = tuple[float, float, float, float]  # west, south, east, north in degrees


def target_first(mapping: EntryMapping) -> list[str]:
    """Return the provider's names in a mapping without repetition, the target's names first."""
    targets = [name for name in mapping if name in VARIABLES and VARIABLES[name].kind == "target"]
    return list(dict.fromkeys(mapping[name]["from"] for name in [*targets, *mapping]))


def is_inside(lat: ArrayLike, lon: ArrayLike, region: Region | None) -> NDArray[np.bool_]:
    """Return (place,) whether each place is in a region.

    Args:
      lat: (place,) degrees.
      lon: (place,) degrees, -180 to 180 or 0 to 360.
      region: West, south, east, north in degrees. West is greater than east if the region crosses
        the antimeridian. None for the whole Earth.
    """
    y, x = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    if region is None:
        return np.ones(y.shape, bool)
    west, south, east, north = region
    width = east - west if east - west >= 360 else (east - west) % 360
    return np.asarray((y >= south) & (y <= north) & ((x - west) % 360 <= width))


def stack_records(records: Sequence[Any], n_days: int, columns: Sequence[str], dtype: Any) -> Any:
    """Stack delayed records of places to dask arrays (time, place), one for each column.

    Args:
      records: For each place, a `dask.delayed` array (n_days, len(columns)).
      n_days: Length of the time axis.
      columns: Names of the columns.
      dtype: Type of the records.

    Returns:
      {column: array}.
    """
    import dask.array

    da: Any = dask.array
    shape = (n_days, len(columns))
    stacked = da.stack([da.from_delayed(record, shape, dtype) for record in records], axis=1)
    return {name: stacked[:, :, i] for i, name in enumerate(columns)}
