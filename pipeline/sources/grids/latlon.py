"""Latitudes and longitudes of a grid's rows and columns: centres, bounds, and what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.regrid import edges_between

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

AXES = {"lat": ("lat", "latitude"), "lon": ("lon", "longitude")}
GAP = 1e-3  # of a cell's width: bounds are often float32


def name_of(raw: xr.Dataset, axis: str) -> str | None:
    """The file's name of lat or lon; None where it has none."""
    return next((name for name in AXES[axis] if name in raw), None)


def _bounds(raw: xr.Dataset, axis: str) -> NDArray[np.float64] | None:
    """(n, 2) lower and upper bound of each row or column; None where the file has none."""
    name = str(name_of(raw, axis))
    held = raw[name].attrs.get("bounds") or raw[name].encoding.get("bounds") or f"{name}_bnds"
    if held not in raw:
        return None
    bounds = np.sort(raw[held].values.astype("float64"), axis=1)
    return np.asarray(np.clip(bounds, -90, 90) if axis == "lat" else bounds)


def edges_of(raw: xr.Dataset, axis: str) -> NDArray[np.float64]:
    """(n + 1,) edges of rows or columns in degrees, in the file's order."""
    centres = raw[str(name_of(raw, axis))].values.astype("float64")
    bounds = _bounds(raw, axis)
    if bounds is None:
        edges = edges_between(centres)
    elif len(centres) > 1 and centres[1] < centres[0]:
        edges = np.append(bounds[:, 1], bounds[-1, 0])
    else:
        edges = np.append(bounds[:, 0], bounds[-1, 1])
    return np.clip(edges, -90, 90) if axis == "lat" else edges


def axis_problems(raw: xr.Dataset, axis: str) -> list[str]:
    """What is wrong with the latitudes or longitudes of a file."""
    name = name_of(raw, axis)
    if name is None:
        return [f"coordinate {axis} missing, or {AXES[axis][1]}"]
    if raw[name].ndim != 1 or not raw[name].size:
        dims = ", ".join(f"{dim} {size}" for dim, size in raw[name].sizes.items())
        return [f"{name}: dims ({dims}), expected one: a grid of rows and columns has one each"]
    centres = raw[name].values.astype("float64")
    step = np.diff(centres)
    if not (np.all(step > 0) or np.all(step < 0)):
        bad = int(np.flatnonzero(~(step * np.sign(step[0]) > 0))[0])
        found = f"{centres[bad + 1]:g} comes after {centres[bad]:g}"
        return [f"{name}: {found}; it must only increase, or only decrease"]
    limit = 90 if axis == "lat" else 360
    if np.abs(centres).max() > limit:
        found = f"{centres.min():g} to {centres.max():g}"
        return [f"{name}: {found}, expected degrees of at most {limit}"]
    bounds = _bounds(raw, axis)
    if bounds is None and len(centres) == 1:
        return [f"{name}: one value, and no {name}_bnds to tell its width"]
    edges = edges_of(raw, axis)
    if bounds is not None:
        touching = np.sort(np.stack([edges[:-1], edges[1:]], 1), axis=1)
        if np.abs(touching - bounds).max() > GAP * np.abs(np.diff(edges)).max():
            return [f"{name}: bounds overlap or leave gaps; each must end where the next begins"]
    if axis == "lon" and (width := abs(edges[-1] - edges[0])) > 360 + GAP:
        return [f"{name}: {width:g} degrees wide, expected 360 at most; is a column there twice?"]
    return []
