"""Where a further probe would tell most: from the width of a map and from attribute distance.

A probe explains the share exp(-2 d^2) of the error variance of a place at attribute distance d.
That reach is a choice, the best of four on SCAN: with it suggested probes did there about as well
as random ones, with longer ones slightly worse. A place is explained by the probe next to it. What
a further probe explains beyond those there are, summed over places, is its gain. Taking the best,
then the best given that one, and so on, is never worse than 1 - 1/e of the best set (Nemhauser et
al. 1978, doi:10.1007/BF01588971).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model.attributes import CHUNK, distances

if TYPE_CHECKING:
    from numpy.typing import NDArray


def explained(distance: NDArray[Any]) -> NDArray[Any]:
    """Share of variance that a probe explains at an attribute distance; 0 where there is none."""
    return np.asarray(np.nan_to_num(np.exp(-2 * distance**2), nan=0.0))


def weights(variance: NDArray[Any]) -> NDArray[np.float64]:
    """(place,) share of each place in the summed variance; even where no variance is known."""
    known = np.nan_to_num(np.asarray(variance, np.float64), nan=0.0)
    known = known if known.any() else np.ones_like(known)
    return np.asarray(known / known.sum())


def gains(
    probes: NDArray[Any],
    places: NDArray[Any],
    weight: NDArray[np.float64],
    distance: NDArray[np.float64],
    unit: float,
) -> NDArray[np.float64]:
    """(probe,) share of all variance that a further probe at each of some places would explain.

    Args:
      probes: (probe, attribute) where one may stand, scaled.
      places: (place, attribute) what is to be explained, scaled.
      weight: (place,) share of each in the variance.
      distance: (place,) attribute distance to the sites there are; NaN without any.
      unit: scaled distance that is an attribute distance of 1.
    """
    has, made = explained(distance), np.empty(len(probes))
    for start in range(0, len(probes), CHUNK):
        part = slice(start, start + CHUNK)
        more = explained(distances(probes[part], places) / unit) - has
        made[part] = np.maximum(more, 0.0) @ weight
    return made


def ranked(
    places: NDArray[Any],
    weight: NDArray[np.float64],
    distance: NDArray[np.float64],
    unit: float,
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The n places, or all, at which probes tell most, best first, each given those before.

    Args as of `gains`; returns (n,) index of the place and (n,) gain.
    """
    share = explained(distances(places, places) / unit)
    has, index, gain = explained(distance), [], []
    for _ in range(min(n, len(places))):
        made = np.maximum(share - has, 0.0) @ weight
        best = int(made.argmax())
        index.append(best)
        gain.append(float(made[best]))
        has = np.maximum(has, share[best])
    return np.array(index, np.int64), np.array(gain)
