"""Times that are stored as fractions, such as hours in days: rounded to what they stand for.

An hour is no exact fraction of a day in binary, and 05:59:59.9999 may be of another day than 06:00.

Which stored values are missing: those that the file or the entry declares, and no others.

Declared are `_FillValue`, `missing_value`, `valid_range`, `valid_min` and `valid_max` of a
variable, in the file's units before `scale_factor` and `add_offset`, and `fill` in the entry's
mapping, likewise. A limit that is a fraction, of a variable packed in whole numbers, is in units
after unpacking, as the NetCDF User's Guide has it.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr
    from numpy.typing import NDArray


SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}  # of units, by their first letters
STEPS = (1, 60, 300, 900, 3600)  # s, to one of which times are rounded


def rounded(made: xr.Dataset, stored: xr.Dataset) -> xr.Dataset:
    """A decoded file, its times and their bounds rounded where they are stored as fractions.

    They are rounded to seconds, or to the least of STEPS that their type can tell apart.

    Args:
      made: the file.
      stored: the same before it was decoded.
    """
    times = {
        name: _rounded(made.variables[name], stored.variables[name])
        for name in made.variables
        if _is_fraction(made.variables[name], stored.variables[name])
    }
    return made.assign_coords(times) if times else made


def _is_fraction(held: xr.Variable, stored: xr.Variable) -> bool:
    times = held.ndim == 1 or (held.ndim == 2 and held.shape[1] == 2)
    return held.dtype.kind == "M" and stored.dtype.kind == "f" and times and held.size > 0


def _rounded(held: xr.Variable, stored: xr.Variable) -> xr.Variable:
    units: Any = held.encoding.get("units", "")
    unit = 1e-3 if units.startswith(("milli", "ms")) else SECONDS.get(units[:1].lower(), 1)
    greatest = np.abs(stored.values[~np.isnat(held.values)]).max(initial=1)
    apart = 2 * unit * float(np.spacing(stored.dtype.type(greatest)))
    step = next((n for n in STEPS if n >= apart), STEPS[-1]) * 10**9
    times = held.values.astype("datetime64[ns]")
    whole = (times.astype("int64") + step // 2) // step * step
    copy = held.copy(data=np.where(np.isnat(times), times, whole.astype("datetime64[ns]")))
    copy.encoding = held.encoding
    return copy


Fills = dict[str, tuple[float, ...]]
Limits = tuple[float | None, float | None]
FILLS = ("_FillValue", "missing_value")

# How xarray opens a file that is to be decoded here: no coordinate is read before.
RAW: dict[str, Any] = {"decode_cf": False, "create_default_indexes": False, "cache": False}
LIMITS = "valid_limits"  # key of a decoded variable's encoding


def fills_of(mapping: Mapping[str, Mapping[str, Any]]) -> Fills:
    """{name in the file: stored values that its `fill` in a mapping declares as missing}.

    A variable without `fill` is not in it; one with `fill: []` has none.

    Raises:
      ValueError: a `fill` is no number and no list of numbers.
    """
    made: Fills = {}
    for ours, spec in mapping.items():
        if "fill" not in spec:
            continue
        fills = spec["fill"] if isinstance(spec["fill"], list) else [spec["fill"]]
        if not all(isinstance(f, (int, float)) and not isinstance(f, bool) for f in fills):
            raise ValueError(f"{ours}: fill: {spec['fill']}, expected a number or a list of them")
        names = spec["from"] if isinstance(spec["from"], (list, tuple)) else [spec["from"]]
        for name in map(str, names):
            made[name] = (*made.get(name, ()), *map(float, fills))
    return made


def decoded(raw: xr.Dataset, fills: Fills, drop: tuple[str, ...] = ()) -> xr.Dataset:
    """A file decoded as the CF conventions have it, its declared fills NaN, nothing read yet.

    Limits (`valid_range`) are not applied: `floats` does that to what is read.

    Args:
      raw: the file as xarray opens it with `decode_cf=False`.
      fills: of `fills_of`.
      drop: variables that are left out.

    Raises:
      ValueError: a coordinate cannot be decoded, such as a time in units of no calendar.
    """
    import xarray as xr

    declared = raw.drop_vars(drop, errors="ignore").copy()
    for name in declared.variables:
        held = declared.variables[name]
        held.encoding = {**held.encoding, LIMITS: limits_of(held.attrs, held.dtype)}
        held.attrs = _declared(held, fills.get(str(name), ()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*has multiple fill values")
        made = xr.decode_cf(declared, decode_timedelta=False)
    made = rounded(made, declared)
    made.set_close(raw.close)
    return made


def masked(
    stored: NDArray[Any], attrs: Mapping[str, Any], fills: tuple[float, ...] = ()
) -> NDArray[np.float32]:
    """Values that are not packed, as float32, NaN where they are missing.

    Args:
      stored: the values.
      attrs: what the file says of them.
      fills: what the entry declares.
    """
    told = [value for name in FILLS for value in _numbers(attrs.get(name))]
    none = np.isin(stored, _cast([*told, *fills], stored.dtype))
    low, high = limits_of(attrs, stored.dtype)
    for limit, beyond in ((low, np.less), (high, np.greater)):
        none |= beyond(stored, stored.dtype.type(limit)) if limit is not None else False
    return np.where(none, np.nan, stored).astype(np.float32)


def floats(variable: xr.DataArray) -> xr.DataArray:
    """A variable of `decoded` as float32, NaN where it is outside the limits that it declares."""
    low, high = variable.encoding.get(LIMITS, (None, None))
    values = variable.astype("float32")
    made = values if low is None else values.where(values >= np.float32(low))
    return made if high is None else made.where(values <= np.float32(high))


def limits_of(attrs: Mapping[str, Any], dtype: Any) -> Limits:
    """Least and greatest valid value that attributes declare, unpacked; None for no limit.

    Args:
      attrs: `valid_range`, `valid_min`, `valid_max`, `scale_factor`, `add_offset`, `_Unsigned`.
      dtype: of the stored values.
    """
    both = np.ravel(attrs.get("valid_range", ()))
    given = both if both.size == 2 else (attrs.get("valid_min"), attrs.get("valid_max"))
    told = [numbers[0] if (numbers := _numbers(value)) else None for value in given]
    scale, offset = (
        numbers[0] if (numbers := _numbers(attrs.get(key))) else default
        for key, default in (("scale_factor", 1.0), ("add_offset", 0.0))
    )
    kind = np.dtype(dtype).kind
    unpacked = any(isinstance(value, (float, np.floating)) for value in told)
    if kind in "iu" and not unpacked and "_Unsigned" in attrs:
        read_as = _read_as(attrs, np.dtype(dtype))
        told = [None if value is None else _turned(value, read_as) for value in told]
    if (scale, offset) == (1.0, 0.0) or (kind in "iu" and unpacked):
        low, high = (None if value is None else float(value) for value in told)
        return low, high
    low, high = (None if value is None else float(value) * scale + offset for value in told)
    low, high = (high, low) if scale < 0 else (low, high)
    slack = abs(scale) / 2 if kind in "iu" else 0.0  # unpacking rounds
    return None if low is None else low - slack, None if high is None else high + slack


def _declared(variable: xr.Variable, fills: tuple[float, ...]) -> dict[Any, Any]:
    """Attributes of a stored variable whose declared fills are numbers of its own type."""
    attrs, dtype = dict(variable.attrs), variable.dtype
    if dtype.kind not in "iuf":
        return attrs
    if "_Unsigned" in attrs and dtype.kind in "iu":
        # Of values of another sign than the file's type has, fills are told either way.
        attrs["_Unsigned"], read_as = str(attrs["_Unsigned"]).lower(), _read_as(attrs, dtype)
        told = [*(value for name in FILLS for value in _numbers(attrs.pop(name, None))), *fills]
        whole = _cast([_turned(value, read_as) for value in told], read_as)
        return attrs | ({"missing_value": whole} if whole.size else {})
    for name in FILLS:
        if name in attrs:
            told = list(_cast(_numbers(attrs.pop(name)), dtype))
            attrs |= {name: told[0] if name == "_FillValue" else np.array(told)} if told else {}
    every = [*np.ravel(attrs.get("missing_value", ())), *_cast([*fills], dtype)] if fills else []
    return attrs | ({"missing_value": np.array(every)} if every else {})


def _read_as(attrs: Mapping[str, Any], dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of whole numbers as which values are read: NetCDF's `_Unsigned` may turn theirs."""
    kind = {"true": "u", "false": "i"}.get(str(attrs.get("_Unsigned", "")).lower(), dtype.kind)
    return np.dtype(f"{kind}{dtype.itemsize}")


def _turned(value: Any, read_as: np.dtype[Any]) -> Any:
    """A number as a type of whole numbers has its bits: -1 of one byte is 255 without a sign."""
    bits, low = 2 ** (8 * read_as.itemsize), int(np.iinfo(read_as).min)
    if not -(bits // 2) <= value < bits or value != int(value):
        return value
    return (int(value) - low) % bits + low


def _cast(fills: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers as a stored type has them: 1e20 in four bytes is another number than in eight.

    Those that whole numbers of this type cannot be are left out.
    """
    told = np.array(fills, "float64") if dtype.kind == "f" else np.array(fills)
    if dtype.kind == "f" or not told.size:
        return told.astype(dtype)
    held = np.iinfo(dtype)
    kept = [int(v) for v in told if np.isfinite(v) and v == int(v) and held.min <= v <= held.max]
    return np.array(kept, dtype)


def _numbers(value: Any) -> list[Any]:
    """The numbers in an attribute, which may hold several, or tell them as text."""
    made = []
    for each in np.ravel(value if value is not None else ()):
        try:
            made.append(each if np.asarray(each).dtype.kind in "iuf" else float(each))
        except (TypeError, ValueError):
            continue
    return made
