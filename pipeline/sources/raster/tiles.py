"""Mosaics: rasters of equal squares of degrees, each named after its south-west corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

Corner = tuple[int, int]  # south, west


@dataclass(frozen=True)
class Tiles:
    """The tiles of a mosaic over a region.

    Attributes:
      degrees: width and height of a tile.
      region: west, south, east, north that are wanted; None for the whole Earth.
      like: south-west corner of a tile that exists, looked at where no region is given.
    """

    degrees: int
    region: tuple[float, float, float, float] | None = None
    like: Corner | None = None

    @property
    def souths(self) -> list[int]:
        """South edges of the rows of tiles, from north to south."""
        _, south, _, north = self.region or (-180, -90, 180, 90)
        return list(reversed(self._over(south, north, 90)))

    @property
    def wests(self) -> list[int]:
        """West edges of the columns of tiles, eastward."""
        west, _, east, _ = self.region or (-180, -90, 180, 90)
        return self._over(west, east, 180)

    def _over(self, low: float, high: float, limit: int) -> list[int]:
        step = self.degrees
        first = int(np.floor(max(low, -limit) / step)) * step
        last = int(np.ceil(min(high, limit) / step)) * step
        return list(range(first, last, step))

    def candidates(self) -> Iterator[Corner]:
        """Tiles to look at for one that exists: `like`, then those nearest to the middle."""
        souths, wests = self.souths, self.wests
        if self.like and (self.region is None or self._holds(self.like)):
            yield self.like
        corners = [(south, west) for south in souths for west in wests]
        south, west = np.mean(souths), np.mean(wests)
        yield from sorted(corners, key=lambda c: (c[0] - south) ** 2 + (c[1] - west) ** 2)

    def _holds(self, corner: Corner) -> bool:
        return corner[0] in self.souths and corner[1] in self.wests


def fields(corner: Corner, degrees: int) -> dict[str, str | int]:
    """What a URL may name of a tile.

    `ns`, `lat`, `ew`, `lon`: N or S, E or W, and whole degrees without sign, of the south-west
    corner; `south`, `west`, `north`, `east`: edges with sign.
    """
    south, west = corner
    hemispheres = {"ns": "S" if south < 0 else "N", "ew": "W" if west < 0 else "E"}
    edges = {"south": south, "west": west, "north": south + degrees, "east": west + degrees}
    return hemispheres | {"lat": abs(south), "lon": abs(west)} | edges
