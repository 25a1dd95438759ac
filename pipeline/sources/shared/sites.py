"""What drivers of sites share: which places are wanted, and their records put side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.experiment.variables import VARIABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from pipeline.sources.shared.driver import Mapping


Region = tuple[float, float, float, float]


def by_target(mapping: Mapping) -> list[str]:
    """The provider's names in a mapping, each once: the target's first, whatever their order."""
    targets = [ours for ours in mapping if ours in VARIABLES and VARIABLES[ours].kind == "target"]
    return list(dict.fromkeys(mapping[ours]["from"] for ours in [*targets, *mapping]))


def inside(lat: ArrayLike, lon: ArrayLike, region: Region | None) -> NDArray[np.bool_]:
    """Which places lie in a region.

    Args:
      lat: (place,) degrees.
      lon: (place,) degrees, -180 to 180 or 0 to 360.
      region: west, south, east, north in degrees, west greater than east across the antimeridian;
        None for the whole Earth.
    """
    y, x = np.asarray(lat, np.float64), np.asarray(lon, np.float64)
    if region is None:
        return np.ones(y.shape, bool)
    west, south, east, north = region
    width = east - west if east - west >= 360 else (east - west) % 360
    return np.asarray((y >= south) & (y <= north) & ((x - west) % 360 <= width))


def side_by_side(records: Sequence[Any], n_days: int, columns: Sequence[str], dtype: Any) -> Any:
    """Dask arrays (time, place), one for each column, of records that are not read yet.

    Args:
      records: for each place, what dask.delayed gives of (n_days, len(columns)).
      n_days: length of the time axis.
      columns: their names.
      dtype: of the records.

    Returns:
      {column: array}.
    """
    import dask.array

    da: Any = dask.array
    shape = (n_days, len(columns))
    held = da.stack([da.from_delayed(record, shape, dtype) for record in records], axis=1)
    return {name: held[:, :, i] for i, name in enumerate(columns)}
