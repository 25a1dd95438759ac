"""Decode files by the CF conventions: missing values become NaN, and times are rounded.

A stored value is missing only if the file or the catalog entry declares it. A file declares
missing values by a variable's attributes `_FillValue`, `missing_value`, `valid_range`, `valid_min`
and `valid_max`, an entry by `fill` in its mapping. All are in the file's units before
`scale_factor` and `add_offset`, except that fractional limits of a variable packed in integers are
in units after unpacking (NetCDF User's Guide).

Times stored as fractions, such as hours in units of days, are rounded, because an hour is not an
exact binary fraction of a day, and 05:59:59.9999 may be on another day than 06:00.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from numpy.typing import NDArray


Fills = dict[str, tuple[float, ...]]  # variable of the file -> stored values that are missing
Limits = tuple[float | None, float | None]  # smallest and largest valid value
FILL_ATTRIBUTES = ("_FillValue", "missing_value")  # attributes with missing values

# Arguments with which xarray opens a file that is decoded here. No coordinate is read on opening.
OPEN_OPTIONS: dict[str, Any] = {"decode_cf": False, "create_default_indexes": False, "cache": False}
LIMITS_KEY = "valid_limits"  # key of a decoded variable's encoding
UNIT_SECONDS = {
    "d": 86400,
    "h": 3600,
    "m": 60,
    "s": 1,
}  # per unit of time, by the unit's first letter
ROUNDING_STEPS = (1, 60, 300, 900, 3600)  # s; times are rounded to one of them


def declared_fills(mapping: Mapping[str, Mapping[str, Any]]) -> Fills:
    """Return the stored values that a mapping declares as missing.

    Args:
      mapping: The mapping of a catalog entry.

    Returns:
      {variable of the file: values of `fill`}. A variable without `fill` is not in the result; one
      with `fill: []` has no values.

    Raises:
      ValueError: If a `fill` is neither a number nor a list of numbers.
    """
    result: Fills = {}
    for our_name, spec in mapping.items():
        if "fill" not in spec:
            continue
        fills = spec["fill"] if isinstance(spec["fill"], list) else [spec["fill"]]
        if not all(isinstance(f, (int, float)) and not isinstance(f, bool) for f in fills):
            raise ValueError(
                f"{our_name}: fill: {spec['fill']}, expected a number or a list of them"
            )
        names = spec["from"] if isinstance(spec["from"], (list, tuple)) else [spec["from"]]
        for name in map(str, names):
            result[name] = (*result.get(name, ()), *map(float, fills))
    return result


def decode(raw: xr.Dataset, fills: Fills, drop: tuple[str, ...] = ()) -> xr.Dataset:
    """Decode a file by the CF conventions, with NaN for declared fill values, lazily.

    Limits (`valid_range`) are stored in the encoding; they are applied when a variable is
    converted to float32.

    Args:
      raw: The file as opened by xarray with `decode_cf=False`.
      fills: {variable: stored values that the catalog entry declares as missing}.
      drop: Variables that are left out.

    Raises:
      ValueError: If a coordinate cannot be decoded, such as a time with unknown units.
    """
    import xarray as xr

    declared = raw.drop_vars(drop, errors="ignore").copy()
    for name in declared.variables:
        variable = declared.variables[name]
        limits = valid_limits(variable.attrs, variable.dtype)
        variable.encoding = {**variable.encoding, LIMITS_KEY: limits}
        variable.attrs = _with_typed_fills(variable, fills.get(str(name), ()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has multiple fill values")
        result = xr.decode_cf(declared, decode_timedelta=False)
    result = round_times(result, declared)
    result.set_close(raw.close)
    return result


def mask_missing(
    stored: NDArray[Any], attrs: Mapping[str, Any], fills: tuple[float, ...] = ()
) -> NDArray[np.float32]:
    """Return values that are not packed as float32, with NaN where they are missing.

    Args:
      stored: The values.
      attrs: Attributes of the variable in the file.
      fills: Values that the catalog entry declares as missing.
    """
    declared = [value for name in FILL_ATTRIBUTES for value in _parse_numbers(attrs.get(name))]
    is_missing = np.isin(stored, _cast_fills([*declared, *fills], stored.dtype))
    low, high = valid_limits(attrs, stored.dtype)
    for limit, beyond in ((low, np.less), (high, np.greater)):
        is_missing |= beyond(stored, stored.dtype.type(limit)) if limit is not None else False
    return np.where(is_missing, np.nan, stored).astype(np.float32)


def to_float32(variable: xr.DataArray) -> xr.DataArray:
    """Return a variable of a decoded file as float32, with NaN outside its declared limits."""
    low, high = variable.encoding.get(LIMITS_KEY, (None, None))
    values = variable.astype("float32")
    result = values if low is None else values.where(values >= np.float32(low))
    return result if high is None else result.where(values <= np.float32(high))


def valid_limits(attrs: Mapping[str, Any], dtype: Any) -> Limits:
    """Return the smallest and largest valid value that attributes declare, after unpacking.

    Args:
      attrs: The attributes `valid_range`, `valid_min`, `valid_max`, `scale_factor`, `add_offset`
        and `_Unsigned`; all are optional.
      dtype: Type of the stored values.

    Returns:
      (smallest, largest); None for no limit.
    """
    both = np.ravel(attrs.get("valid_range", ()))
    pair = both if both.size == 2 else (attrs.get("valid_min"), attrs.get("valid_max"))
    limits = [numbers[0] if (numbers := _parse_numbers(value)) else None for value in pair]
    scale, offset = (
        numbers[0] if (numbers := _parse_numbers(attrs.get(key))) else default
        for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    kind = np.dtype(dtype).kind
    are_unpacked = any(isinstance(value, (float, np.floating)) for value in limits)
    if kind in "iu" and not are_unpacked and "_Unsigned" in attrs:
        read_as = _signed_dtype(attrs, np.dtype(dtype))
        limits = [None if value is None else _reinterpret_sign(value, read_as) for value in limits]
    if (scale, offset) == (1.0, 0.0) or (kind in "iu" and are_unpacked):
        low, high = (None if value is None else float(value) for value in limits)
        return low, high
    low, high = (None if value is None else float(value) * scale + offset for value in limits)
    low, high = (high, low) if scale < 0 else (low, high)
    slack = abs(scale) / 2 if kind in "iu" else 0.0  # for rounding in unpacking
    return None if low is None else low - slack, None if high is None else high + slack


def _with_typed_fills(variable: xr.Variable, fills: tuple[float, ...]) -> dict[Any, Any]:
    """Return a variable's attributes, with all declared fill values as numbers of its type.

    Args:
      variable: The stored variable.
      fills: Values that the catalog entry declares as missing.
    """
    attrs, dtype = dict(variable.attrs), variable.dtype
    if dtype.kind not in "iuf":
        return attrs
    if "_Unsigned" in attrs and dtype.kind in "iu":
        # Files declare the fill value of such variables as a signed or an unsigned number.
        attrs["_Unsigned"], read_as = str(attrs["_Unsigned"]).lower(), _signed_dtype(attrs, dtype)
        numbers = [
            *(value for name in FILL_ATTRIBUTES for value in _parse_numbers(attrs.pop(name, None))),
            *fills,
        ]
        integers = _cast_fills([_reinterpret_sign(value, read_as) for value in numbers], read_as)
        return attrs | ({"missing_value": integers} if integers.size else {})
    for name in FILL_ATTRIBUTES:
        if name in attrs:
            values = list(_cast_fills(_parse_numbers(attrs.pop(name)), dtype))
            if values:
                attrs[name] = values[0] if name == "_FillValue" else np.array(values)
    combined = (
        [*np.ravel(attrs.get("missing_value", ())), *_cast_fills([*fills], dtype)] if fills else []
    )
    return attrs | ({"missing_value": np.array(combined)} if combined else {})


def _signed_dtype(attrs: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the integer type as which values are read, with the sign that `_Unsigned` states."""
    kind = {"true": "u", "false": "i"}.get(str(attrs.get("_Unsigned", "")).lower(), dtype.kind)
    return np.dtype(f"{kind}{dtype.itemsize}")


def _reinterpret_sign(value: Any, read_as: np.dtype[Any]) -> Any:
    """Return the number that an integer type has for the same bits: -1 becomes 255 in uint8.

    A number that is fractional or too large for the type is returned unchanged.
    """
    bits, low = 2 ** (8 * read_as.itemsize), int(np.iinfo(read_as).min)
    if not -(bits // 2) <= value < bits or value != int(value):
        return value
    return (int(value) - low) % bits + low


def _cast_fills(fills: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers as a stored type: 1e20 in float32 is another number than in float64.

    Numbers that an integer type cannot represent are left out.
    """
    numbers = np.array(fills, "float64") if dtype.kind == "f" else np.array(fills)
    if dtype.kind == "f" or not numbers.size:
        return numbers.astype(dtype)
    limits = np.iinfo(dtype)
    kept = [
        int(v) for v in numbers if np.isfinite(v) and v == int(v) and limits.min <= v <= limits.max
    ]
    return np.array(kept, dtype)


def _parse_numbers(value: Any) -> list[Any]:
    """Return the numbers of an attribute, which may be one, several, or text."""
    numbers = []
    for item in np.ravel(value if value is not None else ()):
        try:
            numbers.append(item if np.asarray(item).dtype.kind in "iuf" else float(item))
        except (TypeError, ValueError):
            continue
    return numbers


def round_times(decoded: xr.Dataset, stored: xr.Dataset) -> xr.Dataset:
    """Round the times of a decoded file, and their bounds, that are stored as fractions.

    They are rounded to seconds, or if their type is not precise enough, to the shortest of 1, 5,
    15 and 60 minutes that it can resolve.

    Args:
      decoded: The decoded file.
      stored: The same file before decoding.
    """
    times = {
        name: _round_to_resolution(decoded.variables[name], stored.variables[name])
        for name in decoded.variables
        if _is_fractional_time(decoded.variables[name], stored.variables[name])
    }
    return decoded.assign_coords(times) if times else decoded


def _is_fractional_time(decoded: xr.Variable, stored: xr.Variable) -> bool:
    """Return whether a variable is times, or their bounds, that are stored as floats."""
    has_form = decoded.ndim == 1 or (decoded.ndim == 2 and decoded.shape[1] == 2)
    is_float_time = decoded.dtype.kind == "M" and stored.dtype.kind == "f"
    return is_float_time and has_form and decoded.size > 0


def _round_to_resolution(decoded: xr.Variable, stored: xr.Variable) -> xr.Variable:
    """Return times rounded to a step that the precision of their stored type can resolve."""
    units: Any = decoded.encoding.get("units", "")
    unit = 1e-3 if units.startswith(("milli", "ms")) else UNIT_SECONDS.get(units[:1].lower(), 1)
    largest = np.abs(stored.values[~np.isnat(decoded.values)]).max(initial=1)
    resolution = 2 * unit * float(np.spacing(stored.dtype.type(largest)))
    step = next((n for n in ROUNDING_STEPS if n >= resolution), ROUNDING_STEPS[-1]) * 10**9
    times = decoded.values.astype("datetime64[ns]")
    rounded_ns = (times.astype("int64") + step // 2) // step * step
    copy = decoded.copy(data=np.where(np.isnat(times), times, rounded_ns.astype("datetime64[ns]")))
    copy.encoding = decoded.encoding
    return copy
