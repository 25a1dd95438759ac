"""Borders of the United States, for maps of the Earth; borders.json names licence and origin."""

from __future__ import annotations

import importlib.resources
import json
from typing import TYPE_CHECKING

import numpy as np

from pipeline import grid

if TYPE_CHECKING:
    from pipeline.figures.maps import Line


def lines(bounds: tuple[float, float, float, float]) -> list[Line]:
    """Lines (x, y), metres of the grid, that touch a box of left, bottom, right, top."""
    stored = json.loads(
        importlib.resources.files("pipeline.page").joinpath("borders.json").read_text()
    )
    left, bottom, right, top = bounds
    found = []
    for steps in stored["arcs"]:
        # An arc is its first point and the steps from point to point: longitude, latitude.
        lon, lat = np.cumsum(np.reshape(steps, (-1, 2)), 0).T * stored["unit_degrees"]
        x, y = grid.project(lat, lon)
        if x.max() > left and x.min() < right and y.max() > bottom and y.min() < top:
            found.append((x, y))
    return found
