"""Find the latitude, longitude and time of any file and rename them to lat, lon and time."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources.shared.dates import decode_times

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import xarray as xr


TIME_COORDINATES = ("time", "valid_time", "day")

# Names in lower case by which coordinates are recognised.
COORDINATE_NAMES = {
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
    "time": {*TIME_COORDINATES, "times", "date", "dates", "datetime", "timestamp", "t", "xtime"},
}

STANDARD_NAMES = {
    "lat": "latitude",
    "lon": "longitude",
    "time": "time",
}  # values of `standard_name`

COORDINATE_UNITS = {
    "lat": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
    "lon": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
}


def rename_coordinates(
    raw: xr.Dataset,
    variables: Sequence[str],
    known: Mapping[str, Collection[str]],
    keep: Collection[str] = (),
) -> xr.Dataset:
    """Rename the latitude, longitude and time of a decoded file to `lat`, `lon` and `time`.

    A coordinate is recognised by its name in upper or lower case, or by its attribute
    `standard_name`, `units` or `axis`; a time also by its values. The time is that of the
    variables. A variable whose own time has a single value is treated as constant if other
    variables have a longer time. Dimensions of size 1 that are not coordinates are dropped.

    Args:
      raw: The file.
      variables: Names of the variables to read.
      known: {"lat": names, "lon": names} that are already accepted and not renamed.
      keep: Other dimensions that are not dropped.
    """
    result = raw
    for axis in ("lat", "lon"):
        if not any(name in result for name in known[axis]):
            old = _find_lat_or_lon(result, axis)
            result = _rename(result, {old: axis}) if old is not None else result
    present = [name for name in variables if name in result]
    result = _rename_time(result, present)
    lat_lon_dims = {
        str(dim)
        for name in result.variables
        for dim in result[name].dims
        if _is_lat_or_lon(result, name)
    }
    single_dims = {
        str(dim) for name in present for dim in result[name].dims if result.sizes[dim] == 1
    }
    dropped = single_dims - lat_lon_dims - {"time", "y", "x", *keep}
    result = result.isel(dict.fromkeys(dropped, 0), drop=True) if dropped else result
    if "time" in result.dims and "time" in result and result["time"].dtype == object:
        result = result.assign_coords(time=decode_times(result["time"].values))
    if result is not raw:
        result.set_close(raw.close)
    return result


def _is_lat_or_lon(raw: xr.Dataset, name: Any) -> bool:
    """Return whether a variable is the latitude or the longitude."""
    return any(_is_coordinate(raw, name, axis) for axis in ("lat", "lon"))


def _is_coordinate(raw: xr.Dataset, name: Any, axis: str) -> bool:
    """Return whether a variable is the latitude, the longitude or a time.

    Args:
      raw: The file.
      name: The variable.
      axis: `lat`, `lon` or `time`.
    """
    variable = raw.variables[name]
    attrs = {
        key: str(variable.attrs.get(key, "")).lower() for key in ("standard_name", "units", "axis")
    }
    if str(name).lower().endswith(("bnds", "bounds")):
        return False
    if axis == "time" and (variable.dtype.kind == "M" or _has_cftime_values(variable)):
        return True
    return (
        str(name).lower() in COORDINATE_NAMES[axis]
        or attrs["standard_name"] == STANDARD_NAMES[axis]
        or attrs["units"] in COORDINATE_UNITS.get(axis, ())
        or (axis == "time" and attrs["axis"] == "t")
    )


def _has_cftime_values(variable: xr.Variable) -> bool:
    """Return whether the values of a variable are dates of cftime."""
    return (
        variable.dtype == object
        and variable.size > 0
        and hasattr(variable.values.flat[0], "calendar")
    )


def _find_lat_or_lon(raw: xr.Dataset, axis: str) -> Any:
    """Return the name of a file's latitude or longitude, None if it has none.

    Of several candidates, one with a single dimension is preferred.
    """
    candidates = [name for name in raw.variables if _is_coordinate(raw, name, axis)]
    return min(candidates, key=lambda name: abs(raw[name].ndim - 1), default=None)


def _rename_time(raw: xr.Dataset, variables: list[str]) -> xr.Dataset:
    """Rename the time dimension of the variables to `time`, and drop a `time` they do not use."""
    dims = {name: dim for name in variables if (dim := _time_dim(raw, name)) is not None}
    if not dims:
        return raw
    main = max(dict.fromkeys(dims.values()), key=lambda dim: raw.sizes[dim])
    result = _merge_times(raw, dims, main)
    if main == "time" and "time" in result.variables:
        return result
    label = main if _has_time_coordinate(result, main) else _find_dates_along(result, main)
    if label is not None and label != main:
        result = result.swap_dims({main: label})
    label = main if label is None else label
    if label != "time" and not any("time" in result[name].dims for name in variables):
        result = result.drop_dims("time", errors="ignore").drop_vars("time", errors="ignore")
        result = _rename(result, {label: "time"})
    return result


def _merge_times(raw: xr.Dataset, dims: dict[str, Any], main: Any) -> xr.Dataset:
    """Move variables to the main time dimension if their own one has equal times.

    A variable whose own time dimension has size 1 loses that dimension.

    Args:
      raw: The file.
      dims: {variable: its time dimension}.
      main: The time dimension that is kept.
    """
    result = raw
    for name, dim in dims.items():
        if dim == main:
            continue
        is_same = _are_equal(raw, dim, main)
        if is_same or raw.sizes[dim] == 1:
            original = raw[name].variable
            variable = original.copy()
            if is_same:
                variable.dims = tuple(main if d == dim else d for d in original.dims)
            else:
                variable = original.isel({dim: 0})
            result = result.drop_vars(name).assign({name: variable})
            result[name].encoding = original.encoding
    return result


def _time_dim(raw: xr.Dataset, name: str) -> Any:
    """Return the dimension of a variable that is its time, None if it has none."""
    dims = [
        dim for dim in raw[name].dims if not (dim in raw.variables and _is_lat_or_lon(raw, dim))
    ]
    ranked = (
        [dim for dim in dims if _has_time_coordinate(raw, dim)],
        [dim for dim in dims if _find_dates_along(raw, dim) is not None],
        [dim for dim in dims if str(dim).lower() in COORDINATE_NAMES["time"]],
    )
    return next((candidates[0] for candidates in ranked if candidates), None)


def _has_time_coordinate(raw: xr.Dataset, dim: Any) -> bool:
    """Return whether a dimension has a coordinate of its name that is a time."""
    return dim in raw.variables and _is_coordinate(raw, dim, "time")


def _find_dates_along(raw: xr.Dataset, dim: Any) -> Any:
    """Return the name of a variable with the dates along a dimension, None if there is none."""
    candidates = (
        name for name, variable in raw.variables.items() if variable.dims == (dim,) and name != dim
    )
    return next(
        (n for n in candidates if raw[n].dtype.kind == "M" or _has_cftime_values(raw.variables[n])),
        None,
    )


def _are_equal(raw: xr.Dataset, one: Any, other: Any) -> bool:
    """Return whether two coordinates exist and have equal values."""
    if one not in raw.variables or other not in raw.variables:
        return False
    return bool(np.array_equal(raw[one].values, raw[other].values))


def _rename(raw: xr.Dataset, names: dict[Any, str]) -> xr.Dataset:
    """Rename variables and dimensions."""
    with warnings.catch_warnings():
        # xarray warns that a latitude renamed to its dimension's name gets no index; none is used.
        warnings.filterwarnings("ignore", ".*does not create an index anymore")
        return raw.rename(names)
