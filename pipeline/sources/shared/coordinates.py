"""Coordinates of a file of anybody's: found by what they are, and called lat, lon and time."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources.shared.dates import decode_times

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import xarray as xr


TIMES = ("time", "valid_time", "day")

NAMES = {
    "lat": {"lat", "lats", "latitude", "latitudes", "nav_lat", "xlat", "lat_dd", "y_lat"},
    "lon": {
        "lon",
        "lons",
        "long",
        "longitude",
        "longitudes",
        "nav_lon",
        "xlong",
        "lon_dd",
        "x_lon",
    },
    "time": {*TIMES, "times", "date", "dates", "datetime", "timestamp", "t", "xtime"},
}

STANDARD = {"lat": "latitude", "lon": "longitude", "time": "time"}

UNITS = {
    "lat": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "lon": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
}


def named(
    raw: xr.Dataset,
    variables: Sequence[str],
    known: Mapping[str, Collection[str]],
    keep: Collection[str] = (),
) -> xr.Dataset:
    """A decoded file whose latitude, longitude and time have the names that readers look for.

    A coordinate is found by its name in any letters, by its attributes `standard_name`, `units`
    or `axis`, or, a time, by its dates. The time is that of the variables: one that has a time of
    its own with a single value is a constant. Dimensions of one value that are none of these are
    left out.

    Args:
      raw: the file.
      variables: those that are read.
      known: names of `lat` and `lon` that are left as they are.
      keep: other dimensions that are left.
    """
    made = raw
    for axis in ("lat", "lon"):
        if not any(name in made for name in known[axis]):
            found = _found(made, axis)
            made = _renamed(made, {found: axis}) if found is not None else made
    held = [name for name in variables if name in made]
    made = _with_time(made, held)
    places = {str(d) for v in made.variables for d in made[v].dims if _is_place(made, v)}
    spare = {str(dim) for name in held for dim in made[name].dims if made.sizes[dim] == 1}
    left_out = spare - places - {"time", "y", "x", *keep}
    made = made.isel(dict.fromkeys(left_out, 0), drop=True) if left_out else made
    if "time" in made.dims and "time" in made and made["time"].dtype == object:
        made = made.assign_coords(time=decode_times(made["time"].values))
    if made is not raw:
        made.set_close(raw.close)
    return made


def _is_place(raw: xr.Dataset, name: Any) -> bool:
    return any(_is(raw, name, axis) for axis in ("lat", "lon"))


def _is(raw: xr.Dataset, name: Any, axis: str) -> bool:
    """Whether a variable is the latitude, the longitude or a time, by its name or attributes."""
    held = raw.variables[name]
    told = {key: str(held.attrs.get(key, "")).lower() for key in ("standard_name", "units", "axis")}
    if str(name).lower().endswith(("bnds", "bounds")):
        return False
    if axis == "time" and (held.dtype.kind == "M" or _has_calendar(held)):
        return True
    return (
        str(name).lower() in NAMES[axis]
        or told["standard_name"] == STANDARD[axis]
        or told["units"] in UNITS.get(axis, ())
        or (axis == "time" and told["axis"] == "t")
    )


def _has_calendar(held: xr.Variable) -> bool:
    return held.dtype == object and held.size > 0 and hasattr(held.values.flat[0], "calendar")


def _found(raw: xr.Dataset, axis: str) -> Any:
    """The name of a file's latitude or longitude; None where it has none."""
    candidates = [name for name in raw.variables if _is(raw, name, axis)]
    return min(candidates, key=lambda name: abs(raw[name].ndim - 1), default=None)


def _with_time(raw: xr.Dataset, variables: list[str]) -> xr.Dataset:
    """The time of the variables as `time`, and no other."""
    dims = {name: dim for name in variables if (dim := _time_dim(raw, name)) is not None}
    if not dims:
        return raw
    main = max(dict.fromkeys(dims.values()), key=lambda dim: raw.sizes[dim])
    made = raw
    for name, dim in dims.items():
        if dim == main:
            continue
        same = _equal(raw, dim, main)
        if same or raw.sizes[dim] == 1:
            alone = raw[name].variable
            held = alone.copy()
            if same:
                held.dims = tuple(main if d == dim else d for d in alone.dims)
            else:
                held = alone.isel({dim: 0})
            made = made.drop_vars(name).assign({name: held})
            made[name].encoding = alone.encoding
    if main == "time" and "time" in made.variables:
        return made
    label = main if _dated(made, main) else _label(made, main)
    if label is not None and label != main:
        made = made.swap_dims({main: label})
    label = main if label is None else label
    if label != "time":
        used = any("time" in made[name].dims for name in variables)
        made = (
            made
            if used
            else made.drop_dims("time", errors="ignore").drop_vars("time", errors="ignore")
        )
        made = made if used else _renamed(made, {label: "time"})
    return made


def _time_dim(raw: xr.Dataset, name: str) -> Any:
    """The dimension of a variable that is its time; None where it has none."""
    dims = [dim for dim in raw[name].dims if not (dim in raw.variables and _is_place(raw, dim))]
    ranked = (
        [dim for dim in dims if _dated(raw, dim)],
        [dim for dim in dims if _label(raw, dim) is not None],
        [dim for dim in dims if str(dim).lower() in NAMES["time"]],
    )
    return next((found[0] for found in ranked if found), None)


def _dated(raw: xr.Dataset, dim: Any) -> bool:
    return dim in raw.variables and _is(raw, dim, "time")


def _label(raw: xr.Dataset, dim: Any) -> Any:
    """The name of a variable of dates along a dimension; None where there is none."""
    along = (name for name, held in raw.variables.items() if held.dims == (dim,) and name != dim)
    return next(
        (n for n in along if raw[n].dtype.kind == "M" or _has_calendar(raw.variables[n])), None
    )


def _equal(raw: xr.Dataset, one: Any, other: Any) -> bool:
    if one not in raw.variables or other not in raw.variables:
        return False
    return bool(np.array_equal(raw[one].values, raw[other].values))


def _renamed(raw: xr.Dataset, names: dict[Any, str]) -> xr.Dataset:
    with warnings.catch_warnings():
        # Latitudes along a dimension that has their new name make no index, and need none.
        warnings.filterwarnings("ignore", ".*does not create an index anymore")
        return raw.rename(names)
