"""How much of the files of a grid has to be read for a day of each variable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.sources.grids.axes import Grid
    from pipeline.sources.grids.derive import Term


def bytes_a_day(
    terms: dict[str, Term], template: xr.Dataset, window: Grid, steps: float
) -> dict[str, float]:
    """Bytes in memory, by our names, of whole chunks of the files that lie over a window.

    Args:
      terms: what our variables are made of.
      template: one of the files.
      window: rows and columns that are wanted.
      steps: of a day.
    """
    return {
        name: steps * sum(_bytes_a_step(template[native], window) for native, _ in term.inputs)
        for name, term in terms.items()
    }


def _bytes_a_step(stored: xr.DataArray, window: Grid) -> float:
    native: dict[Any, int] = stored.encoding.get("preferred_chunks") or {}
    size = float(np.dtype(stored.encoding.get("dtype") or stored.dtype).itemsize)
    for dim, taken, n in zip(window.dims, window.taken, window.shape, strict=True):
        chunk, start = int(native.get(dim, 1)), taken.start or 0
        whole = -(-(start + n) // chunk) * chunk - start // chunk * chunk
        size *= min(whole, int(stored.sizes[dim]))
    return size
