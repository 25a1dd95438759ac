"""Groups of Zarr stores, opened so that a value is missing only where that is declared."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.sources import missing

if TYPE_CHECKING:
    import xarray as xr

UNDECLARED = "undeclared_fill"  # key of a variable's encoding


def opened(
    store: Any, group: str | None, options: dict[str, Any] | None, *, consolidated: bool | None
) -> xr.Dataset:
    """A group of a Zarr store, not decoded, nothing read yet.

    The attribute `_FillValue` of a variable is what its store declares as missing: the attribute
    of that name; else, in format 2, the array's `fill_value`, which is where xarray writes it,
    unless that is 0, which zarr writes where nobody has said anything. In format 3 `fill_value`
    only says what chunks that were not written hold. Where it declares nothing, the encoding has
    it as UNDECLARED.

    Args:
      store: a URL, or a store of zarr.
      group: in it, None for its root.
      options: of fsspec.
      consolidated: whether metadata are read from one document; None to try.
    """
    import xarray as xr

    held = xr.backends.ZarrStore.open_group(
        store,
        mode="r",
        group=group,
        consolidated=consolidated,
        storage_options=options,
        use_zarr_fill_value_as_mask=True,  # or attributes of format 3 that are no base64 fail
    )
    raw = xr.open_dataset(held, engine="store", **missing.RAW)
    for name in raw.variables:
        _declare(raw.variables[name], held.members[str(name)])
    return raw


def _declare(variable: xr.Variable, array: Any) -> None:
    """Set `_FillValue` and `missing_value` of a variable to what its array declares."""
    attrs = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
    told, fill = array.attrs.get("_FillValue"), array.fill_value
    if variable.dtype.kind not in "iuf":
        variable.attrs = attrs
        return
    told = _number(told)
    if told is not None:
        attrs["_FillValue"] = told
    if fill is not None:
        if array.metadata.zarr_format == 2 and fill:
            also = np.ravel(attrs.get("missing_value", ())).tolist()
            attrs |= {"missing_value": [*also, fill]} if told is not None else {"_FillValue": fill}
        elif not attrs.keys() & {"_FillValue", "missing_value"}:
            variable.encoding = {**variable.encoding, UNDECLARED: fill}
    variable.attrs = attrs


def _number(told: Any) -> Any:
    """A fill of an attribute: xarray writes floats of format 3 in base64, others as they are.

    None where it is a text that stands for no number.
    """
    if not isinstance(told, str):
        return told
    try:
        return float(told)
    except ValueError:
        pass
    try:
        return struct.unpack("<d", base64.b64decode(told, validate=True))[0]
    except (ValueError, struct.error):
        return None
