"""How unlike the sites learnt from a place is, and which further probes would tell most.

Attributes of a place are its scaled statics and the means over time of its scaled forcing, its
climate; each is divided by its standard deviation over cells. The distance between two places is
Euclidean, its unit the median distance of a site to the site next to it: the dissimilarity index
of Meyer and Pebesma (2021, doi:10.1111/2041-210X.13650) but for that unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 2048  # places whose distances to all others are held at once


@dataclass
class RunningSum:
    """The mean over days that arrive in parts; NaN where there was no value.

    Attributes:
      axis: number of the axis of days in the values.
      total: sum of the values so far, without that axis.
      count: how many values it is the sum of.
    """

    axis: int = 1
    total: NDArray[np.float64] | float = 0.0
    count: NDArray[np.int64] | int = 0

    def add(self, values: NDArray[Any]) -> None:
        """Add the values of some days; values that are not finite are missing."""
        known = np.isfinite(values)
        self.total = self.total + np.where(known, values, 0).sum(self.axis, dtype=np.float64)
        self.count = self.count + known.sum(self.axis)

    @classmethod
    def of(cls, values: NDArray[Any]) -> RunningSum:
        """The sum of (place, day, ...) values, which is taken over some places at a time."""
        made = [cls() for _ in range(0, len(values), CHUNK)] or [cls()]
        for number, part in enumerate(made):
            part.add(values[number * CHUNK : (number + 1) * CHUNK])
        total, count = ([np.asarray(getattr(m, k)) for m in made] for k in ("total", "count"))
        return cls(total=np.concatenate(total), count=np.concatenate(count))

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of the values so far, without the axis of days."""
        n = np.asarray(self.count)
        return np.where(n > 0, self.total / np.maximum(n, 1), np.nan)


@dataclass(frozen=True)
class Space:
    """The attributes of all sites of an experiment, and their scales.

    `mean`, `std` (attribute,) over the cells; `sites` (site, attribute), scaled; `learnt` (site,)
    says which sites models may learn from.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    sites: NDArray[np.float64]
    learnt: NDArray[np.bool_]

    @classmethod
    def of(cls, cells: NDArray[Any], sites: NDArray[Any], learnt: NDArray[np.bool_]) -> Space:
        """From raw attributes of cells and sites, each (place, attribute), NaN where missing."""
        known = np.isfinite(cells)
        n = np.maximum(known.sum(0), 1)
        mean = np.where(known, cells, 0.0).sum(0, dtype=np.float64) / n
        std = np.sqrt((np.where(known, cells - mean, 0.0) ** 2).sum(0) / n)
        std = np.where(std > 1e-6, std, 1.0)
        return cls(mean, std, scaled(sites, mean, std), learnt)

    @property
    def unit(self) -> float:
        """Median distance of a site learnt from to the next that differs; 1 without any."""
        known = np.unique(self.sites[self.learnt], axis=0)  # sites that share a cell are one
        if len(known) < 2:
            return 1.0
        apart = distances(known, known)
        np.fill_diagonal(apart, np.inf)
        return float(max(np.median(apart.min(1)), 1e-9))

    def scaled(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """(place, attribute) raw attributes, scaled."""
        return scaled(raw, self.mean, self.std)

    def distance(self, places: NDArray[Any]) -> NDArray[np.float64]:
        """(place,) distance of scaled places to the nearest site; NaN where none is learnt from."""
        return nearest(places, self.sites[self.learnt]) / self.unit

    def held_out(
        self, fold: NDArray[np.int64], place: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """(site,) distance to the nearest site of another fold; NaN where there is none.

        Args:
          fold: (site,) fold of each site.
          place: (site,) label of the place of each site; sites at the place of one in the fold do
            not count. None where all are apart.
        """
        made = np.full(len(self.sites), np.nan)
        at = np.arange(len(fold)) if place is None else place
        for k in np.unique(fold):
            here = fold == k
            others = self.learnt & ~here & ~np.isin(at, at[here])
            made[here] = nearest(self.sites[here], self.sites[others]) / self.unit
        return made

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Space:
        """Inverse of `as_dict`."""
        mean, std, sites = (np.array(values[name]) for name in ("mean", "std", "sites"))
        return cls(mean, std, sites.reshape(-1, len(mean)), np.array(values["learnt"], bool))


def scaled(values: NDArray[Any], mean: NDArray[Any], std: NDArray[Any]) -> NDArray[np.float64]:
    """Scaled attributes; what is missing or infinite is average."""
    return np.asarray(np.nan_to_num((values - mean) / std, nan=0.0, posinf=0.0, neginf=0.0))


def distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(m, n) Euclidean distances of (m, attribute) and (n, attribute)."""
    square = np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * (a @ b.T)
    return np.asarray(np.sqrt(np.maximum(square, 0.0)))


def nearest(places: NDArray[Any], among: NDArray[Any]) -> NDArray[np.float64]:
    """(place,) distance to the nearest of others; NaN where there are none."""
    if not len(among):
        return np.full(len(places), np.nan)
    parts = np.array_split(places, -(-len(places) // CHUNK) or 1)
    return np.concatenate([distances(part, among).min(1) for part in parts])
