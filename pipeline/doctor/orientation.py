"""Find fields that are upside down: air temperature that rises towards the pole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.doctor.symptoms import Symptom

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_TALL = 8.0  # degrees of latitude needed to tell north from south


def upside_down(
    name: str, values: NDArray[np.float32], lat: NDArray[np.float64], days: NDArray[np.datetime64]
) -> list[Symptom]:
    """Find out whether the rows of an air temperature field are in the opposite order of `lat`.

    The values are correlated with a simple climate, -sin²(latitude - 12° · season), where season
    is a cosine with its maximum in mid-July: once with the latitudes as given, once reversed.

    Args:
      name: name of the variable in this project.
      values: (day, row) means along rows.
      lat: (row,) latitudes in degrees.
      days: (day,) dates.
    """
    if len(lat) < 4 or np.ptp(lat) < LEAST_TALL:
        return []
    season = np.cos(2 * np.pi * (days.astype("datetime64[D]").astype(int) % 365.25 - 200) / 365.25)
    correlations = {}
    for order, rows in (("given", lat), ("reversed", lat.min() + lat.max() - lat)):
        expected = -(np.sin(np.radians(rows[None] - 12 * season[:, None])) ** 2)
        correlations[order] = np.mean(
            [_correlation(*pair) for pair in zip(values, expected, strict=True)]
        )
    as_given, as_reversed = correlations["given"], correlations["reversed"]
    if not (as_reversed > 0.6 and as_reversed - as_given > 0.3):
        return []
    message = (
        f"{name}: warms towards the pole (correlation with a climate of its latitudes: "
        f"{as_given:.2f} as given, {as_reversed:.2f} upside down)"
    )
    hint = "the rows and lat are in opposite order; reverse one of them in the file or the driver"
    return [Symptom("latitude", message, hint)]


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Return Pearson's correlation of the finite pairs; 0 for fewer than 4 or constant values."""
    good = np.isfinite(a) & np.isfinite(b)
    if good.sum() < 4 or np.ptp(a[good]) == 0:
        return 0.0
    return float(np.corrcoef(a[good], b[good])[0, 1])
