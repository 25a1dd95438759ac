"""List the tiles of a mosaic: rasters of equal size in degrees, named by their corners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

Corner = tuple[int, int]  # south and west edge, degrees


@dataclass(frozen=True)
class Tiles:
    """The tiles of a mosaic over a region.

    Attributes:
      degrees: Width and height of a tile.
      region: West, south, east, north in degrees; None for the whole Earth.
      like: South-west corner of a tile that exists, which is the first candidate.
    """

    degrees: int
    region: tuple[float, float, float, float] | None = None
    like: Corner | None = None

    @property
    def souths(self) -> list[int]:
        """The south edges of the rows of tiles, from north to south, degrees."""
        _, south, _, north = self.region or (-180, -90, 180, 90)
        return list(reversed(self._over(south, north, 90)))

    @property
    def wests(self) -> list[int]:
        """The west edges of the columns of tiles, eastward, degrees."""
        west, _, east, _ = self.region or (-180, -90, 180, 90)
        return self._over(west, east, 180)

    def _over(self, low: float, high: float, limit: int) -> list[int]:
        """Return the lower edges of the tiles that cover a range within +-limit degrees."""
        step = self.degrees
        first = int(np.floor(max(low, -limit) / step)) * step
        last = int(np.ceil(min(high, limit) / step)) * step
        return list(range(first, last, step))

    def candidates(self) -> Iterator[Corner]:
        """Yield tiles in the order to try them: `like`, then all from the middle of the region."""
        souths, wests = self.souths, self.wests
        if self.like and (self.region is None or self._holds(self.like)):
            yield self.like
        corners = [(south, west) for south in souths for west in wests]
        south, west = np.mean(souths), np.mean(wests)
        yield from sorted(corners, key=lambda c: (c[0] - south) ** 2 + (c[1] - west) ** 2)

    def _holds(self, corner: Corner) -> bool:
        """Return whether a tile is in the region."""
        return corner[0] in self.souths and corner[1] in self.wests


def fields(corner: Corner, degrees: int) -> dict[str, str | int]:
    """Return the fields of a tile that a URL pattern may contain.

    Args:
      corner: South-west corner of the tile.
      degrees: Width of the tile.

    Returns:
      `ns` (N or S), `lat`, `ew` (E or W) and `lon` of the south-west corner, in degrees without
      sign; and the edges `south`, `west`, `north`, `east` in degrees with sign.
    """
    south, west = corner
    hemispheres: dict[str, str | int] = {
        "ns": "S" if south < 0 else "N",
        "ew": "W" if west < 0 else "E",
    }
    edges = {"south": south, "west": west, "north": south + degrees, "east": west + degrees}
    return hemispheres | {"lat": abs(south), "lon": abs(west)} | edges
