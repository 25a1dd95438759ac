"""One day of retrievals as a file like SMAP's SPL3SMP: HDF5, global M36 grid, AM group."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import h5py
import numpy as np

from pipeline import grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipeline.grid import Window

_FILL = np.float32(-9999)
_NOT_ATTEMPTED = 7


def name(day: np.datetime64) -> str:
    """Return the provider's file name of a day."""
    return f"SMAP_L3_SM_P_{str(day)[:10].replace('-', '')}_R18290_001.h5"


def fullest_day(retrieved: NDArray[np.float32]) -> int:
    """Return the index of the day with most observations near the middle of the period.

    Days up to 16 days from the middle are considered.

    Args:
      retrieved: (day, fy, fx) retrievals, NaN where there is none.
    """
    middle = len(retrieved) // 2
    first = max(middle - 16, 0)
    n = np.isfinite(retrieved[first : middle + 17]).sum((1, 2))
    return int(first + n.argmax())


def day_bytes(
    retrieved: NDArray[np.float32], window: Window, day: np.datetime64, target: str
) -> bytes:
    """Return the file of one day as bytes.

    Args:
      retrieved: (fy, fx) retrievals in m3 m-3, NaN where there is none.
      window: window of the grid.
      day: the day.
      target: name of the dataset of retrievals.
    """
    shape = (grid.FOOTPRINT_ROWS, grid.FOOTPRINT_COLS)
    global_window = grid.Window(0, 0, *shape, 1)
    here = (
        slice(window.row, window.row + window.height),
        slice(window.col, window.col + window.width),
    )
    observed = np.zeros(shape, bool)
    observed[here] = np.isfinite(retrieved)
    value = np.full(shape, _FILL, np.float32)
    value[here] = np.where(np.isfinite(retrieved), retrieved, _FILL)
    rows, cols = np.indices(shape, np.uint16)
    lat, lon = np.broadcast_arrays(global_window.cell_lat[:, None], global_window.cell_lon)
    datasets = {
        target: (value, {"units": "cm**3/cm**3", "_FillValue": _FILL, "valid_min": 0.02}),
        "latitude": (lat.astype(np.float32), {"units": "degrees", "_FillValue": _FILL}),
        "longitude": (lon.astype(np.float32), {"units": "degrees", "_FillValue": _FILL}),
        "EASE_row_index": (rows, {}),
        "EASE_column_index": (cols, {}),
        "retrieval_qual_flag": (np.where(observed, 0, _NOT_ATTEMPTED).astype(np.uint16), {}),
        "tb_time_utc": (np.where(observed, f"{str(day)[:10]}T12:00:00.000Z".encode(), b"N/A"), {}),
    }
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("Soil_Moisture_Retrieval_Data_AM")
        for key, (values, attributes) in datasets.items():
            data = group.create_dataset(key, data=values, compression="gzip", compression_opts=1)
            data.attrs.update(attributes)
    return buffer.getvalue()
