"""Signs that a field is upside down: air temperature that rises towards the pole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.doctor.symptoms import Symptom

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TALL = 8.0  # degrees of latitude that tell north from south


def upside_down(
    name: str, values: NDArray[np.float32], lat: NDArray[np.float64], days: NDArray[np.datetime64]
) -> list[Symptom]:
    """Whether air temperature falls the wrong way, as if rows stood in the opposite order.

    Args:
      name: ours.
      values: (day, row) means along rows.
      lat: (row,) degrees.
      days: (day,).
    """
    if len(lat) < 4 or np.ptp(lat) < LEAST_TALL:
        return []
    season = np.cos(2 * np.pi * (days.astype("datetime64[D]").astype(int) % 365.25 - 200) / 365.25)
    agreed = {}
    for side, rows in (("as said", lat), ("turned", lat.min() + lat.max() - lat)):
        expected = -(np.sin(np.radians(rows[None] - 12 * season[:, None])) ** 2)
        agreed[side] = np.mean([_correlation(*pair) for pair in zip(values, expected, strict=True)])
    if not (agreed["turned"] > 0.6 and agreed["turned"] - agreed["as said"] > 0.3):
        return []
    found = (
        f"{name}: warms towards the pole (r = {agreed['as said']:.2f} with what latitude "
        f"gives, {agreed['turned']:.2f} upside down)"
    )
    remedy = "rows and lat stand in opposite order; turn one of them in the file or the driver"
    return [Symptom("latitude", found, remedy)]


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    good = np.isfinite(a) & np.isfinite(b)
    if good.sum() < 4 or np.ptp(a[good]) == 0:
        return 0.0
    return float(np.corrcoef(a[good], b[good])[0, 1])
