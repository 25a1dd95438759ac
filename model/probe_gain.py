"""Suggest where further probes explain most of the remaining error variance.

A probe explains the share exp(-2 d^2) of the error variance of a place at attribute distance d.
This reach is a choice, the best of four on SCAN; there, suggested probes did about as well as
random ones with it, and slightly worse with longer reaches. Each place is explained by its nearest
probe. The gain of a further probe is the variance that it explains beyond the existing probes,
summed over places. Selecting the best probe, then the best given that one, and so on, reaches at
least 1 - 1/e of the gain of the best set (Nemhauser et al. 1978, doi:10.1007/BF01588971).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import cdist

from model.attribute_space import PLACES_PER_CHUNK

if TYPE_CHECKING:
    from numpy.typing import NDArray


def explained_share(distance: NDArray[Any]) -> NDArray[Any]:
    """Return the share of variance that a probe explains at an attribute distance; 0 for NaN."""
    return np.asarray(np.nan_to_num(np.exp(-2 * distance**2), nan=0.0))


def variance_shares(variance: NDArray[Any]) -> NDArray[np.float64]:
    """Return each place's (place,) share in the summed variance; equal shares if none is known."""
    known = np.nan_to_num(np.asarray(variance, np.float64), nan=0.0)
    known = known if known.any() else np.ones_like(known)
    return np.asarray(known / known.sum())


def probe_gains(
    probes: NDArray[Any],
    places: NDArray[Any],
    weight: NDArray[np.float64],
    distance: NDArray[np.float64],
    unit: float,
) -> NDArray[np.float64]:
    """Return the share of all variance that a further probe would explain, per candidate.

    Args:
      probes: (probe, attribute) scaled attributes of the candidate places.
      places: (place, attribute) scaled attributes of the places to be explained.
      weight: (place,) share of each place in the variance.
      distance: (place,) attribute distance to the nearest existing site; NaN if there is none.
      unit: scaled distance that corresponds to an attribute distance of 1.

    Returns:
      (probe,) gains.
    """
    now, gain = explained_share(distance), np.empty(len(probes))
    for start in range(0, len(probes), PLACES_PER_CHUNK):
        chunk = slice(start, start + PLACES_PER_CHUNK)
        added = explained_share(cdist(probes[chunk], places) / unit) - now
        gain[chunk] = np.maximum(added, 0.0) @ weight
    return gain


def rank_probes(
    places: NDArray[Any],
    weight: NDArray[np.float64],
    distance: NDArray[np.float64],
    unit: float,
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Select up to n places for further probes, best first, each given those before it.

    Args:
      places: (place, attribute) scaled attributes of the places, which are also the candidates.
      weight: (place,) share of each place in the variance.
      distance: (place,) attribute distance to the nearest existing site; NaN if there is none.
      unit: scaled distance that corresponds to an attribute distance of 1.
      n: number of places to select; all of them if there are fewer.

    Returns:
      (n,) indexes of places and (n,) gains.
    """
    share = explained_share(cdist(places, places) / unit)
    now, index, gain = explained_share(distance), [], []
    for _ in range(min(n, len(places))):
        candidate_gain = np.maximum(share - now, 0.0) @ weight
        best = int(candidate_gain.argmax())
        index.append(best)
        gain.append(float(candidate_gain[best]))
        now = np.maximum(now, share[best])
    return np.array(index, np.int64), np.array(gain)
