"""Attribute space: how far a place is from the training sites in its attributes.

The attributes of a place are its scaled static attributes and the time means of its scaled forcing
(its climate), each divided by its standard deviation over cells. The distance between two places is
Euclidean, in units of the median distance between a training site and its nearest neighbour. Apart
from that unit, this is the dissimilarity index of Meyer and Pebesma (2021,
doi:10.1111/2041-210X.13650). A place is in their area of applicability if its distance is no larger
than those at which the models were tested.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial.distance import cdist

if TYPE_CHECKING:
    from numpy.typing import NDArray


PLACES_PER_CHUNK = 2048  # places processed at once, which bounds the size of distance matrices


@dataclass
class RunningSum:
    """Running mean over days that arrive in chunks.

    Attributes:
      axis: number of the axis of days in the values.
      total: sum of the finite values so far, without that axis.
      count: number of finite values so far, without that axis.
    """

    axis: int = 1
    total: NDArray[np.float64] | float = 0.0
    count: NDArray[np.int64] | int = 0

    def add(self, values: NDArray[Any]) -> None:
        """Add the values of some days; values that are not finite count as missing."""
        known = np.isfinite(values)
        self.total = self.total + np.where(known, values, 0).sum(self.axis, dtype=np.float64)
        self.count = self.count + known.sum(self.axis)

    @classmethod
    def from_array(cls, values: NDArray[Any]) -> RunningSum:
        """Return the running mean of a complete array.

        Args:
          values: (place, day, ...) values; values that are not finite count as missing.
        """
        sums = [cls() for _ in range(0, len(values), PLACES_PER_CHUNK)] or [cls()]
        for number, chunk_sum in enumerate(sums):
            chunk_sum.add(values[number * PLACES_PER_CHUNK : (number + 1) * PLACES_PER_CHUNK])
        total, count = (
            [np.asarray(getattr(chunk, k)) for chunk in sums] for k in ("total", "count")
        )
        return cls(total=np.concatenate(total), count=np.concatenate(count))

    @property
    def mean(self) -> NDArray[np.float64]:
        """Return the (place, ...) mean so far, NaN where there is no value."""
        n = np.asarray(self.count)
        return np.where(n > 0, self.total / np.maximum(n, 1), np.nan)


@dataclass(frozen=True)
class AttributeSpace:
    """Attributes of all sites of an experiment, with the scales that standardise attributes.

    Attributes:
      mean: (attribute,) mean over the cells.
      std: (attribute,) standard deviation over the cells; 1 for an attribute that does not vary.
      sites: (site, attribute) scaled attributes of the sites.
      learnt: (site,) whether the models may be trained on a site.
      limit: largest distance within the area of applicability; None if no site was held out, or in
        models of versions that did not record it.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    sites: NDArray[np.float64]
    learnt: NDArray[np.bool_]
    limit: float | None = None

    @classmethod
    def from_attributes(
        cls, cells: NDArray[Any], sites: NDArray[Any], learnt: NDArray[np.bool_]
    ) -> AttributeSpace:
        """Build the space from raw attributes.

        Args:
          cells: (cell, attribute) raw attributes, NaN where missing.
          sites: (site, attribute) raw attributes, NaN where missing.
          learnt: (site,) whether the models may be trained on a site.
        """
        known = np.isfinite(cells)
        n = np.maximum(known.sum(0), 1)
        mean = np.where(known, cells, 0.0).sum(0, dtype=np.float64) / n
        std = np.sqrt((np.where(known, cells - mean, 0.0) ** 2).sum(0) / n)
        std = np.where(std > 1e-6, std, 1.0)
        return cls(mean, std, scale_attributes(sites, mean, std), learnt)

    @property
    def unit(self) -> float:
        """Return the median distance of a training site to the nearest one with other attributes.

        It is 1 if there are fewer than two distinct training sites.
        """
        # Sites in the same cell have the same attributes, and their distance would be 0.
        known = np.unique(self.sites[self.learnt], axis=0)
        if len(known) < 2:
            return 1.0
        apart = cdist(known, known)
        np.fill_diagonal(apart, np.inf)
        return float(max(np.median(apart.min(1)), 1e-9))

    def scaled(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Return raw (place, attribute) attributes as scaled attributes."""
        return scale_attributes(raw, self.mean, self.std)

    def distance(self, places: NDArray[Any]) -> NDArray[np.float64]:
        """Return the attribute distance of places to the nearest training site.

        Args:
          places: (place, attribute) scaled attributes.

        Returns:
          (place,) distances in units of `unit`; NaN if there is no training site.
        """
        return nearest_distances(places, self.sites[self.learnt]) / self.unit

    def held_out(
        self, fold: NDArray[np.int64], place: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Return the distance of each site to the nearest training site of another fold.

        Args:
          fold: (site,) fold of each site.
          place: (site,) label of the location of each site. Sites at the same location as a site of
            the fold are ignored. None if all sites are at different locations.

        Returns:
          (site,) distances in units of `unit`; NaN where no other fold has a training site.
        """
        distance = np.full(len(self.sites), np.nan)
        label = np.arange(len(fold)) if place is None else place
        for k in np.unique(fold):
            in_fold = fold == k
            others = self.learnt & ~in_fold & ~np.isin(label, label[in_fold])
            distance[in_fold] = (
                nearest_distances(self.sites[in_fold], self.sites[others]) / self.unit
            )
        return distance

    def with_limit(
        self, fold: NDArray[np.int64], place: NDArray[np.int64] | None = None
    ) -> AttributeSpace:
        """Return the space with the limit of the area of applicability.

        It is the distance of training sites to those of other folds at the upper whisker of a box
        plot: the third quartile and 1.5 times the interquartile range, but not more than the
        largest of these distances (Meyer and Pebesma, 2021).

        Args:
          fold: (site,) fold of each site.
          place: (site,) label of the location of each site, as for `held_out`.
        """
        distances = self.held_out(fold, place)[self.learnt]
        distances = distances[np.isfinite(distances)]
        if not len(distances):
            return self
        first, third = np.quantile(distances, (0.25, 0.75))
        return replace(self, limit=float(min(third + 1.5 * (third - first), distances.max())))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as lists and numbers, for JSON."""
        arrays = {name: getattr(self, name).tolist() for name in ("mean", "std", "sites", "learnt")}
        return arrays | {"limit": self.limit}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AttributeSpace:
        """Build the space from the output of `as_dict`."""
        mean, std, sites = (np.array(values[name]) for name in ("mean", "std", "sites"))
        learnt = np.array(values["learnt"], bool)
        return cls(mean, std, sites.reshape(-1, len(mean)), learnt, values.get("limit"))


def scale_attributes(
    values: NDArray[Any], mean: NDArray[Any], std: NDArray[Any]
) -> NDArray[np.float64]:
    """Standardise (place, attribute) values; missing and infinite values become 0, the mean."""
    return np.asarray(np.nan_to_num((values - mean) / std, nan=0.0, posinf=0.0, neginf=0.0))


def nearest_distances(places: NDArray[Any], among: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance of each place to the nearest of some other places.

    Args:
      places: (place, attribute) scaled attributes.
      among: (other, attribute) scaled attributes.

    Returns:
      (place,) Euclidean distances; NaN if `among` is empty.
    """
    if not len(among):
        return np.full(len(places), np.nan)
    chunks = np.array_split(places, -(-len(places) // PLACES_PER_CHUNK) or 1)
    return np.concatenate([cdist(chunk, among).min(1) for chunk in chunks])
