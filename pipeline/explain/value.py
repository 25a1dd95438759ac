"""The value of a cell on a day: mean, intervals, flags, and how unlike the sites the cell is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from model.calibration import interval_half_width
from pipeline.errors import ConfigError
from pipeline.explain.subject import format_place
from pipeline.grid.lookup import great_circle_km
from pipeline.storage import climatology, publications, zarr_arrays
from pipeline.storage.maps_schema import QUALITY_MEANINGS, SITE_LAYERS, Quality
from pipeline.storage.schema import InputStatus

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.explain.subject import Subject
    from pipeline.files import Json


LEVELS = (0.5, 0.9)  # of the intervals
DECIMALS = 5


def read_value(subject: Subject) -> Json:
    """Read what the maps have for the cell and the day.

    Returns:
      `mean` and `std` in `units`, None if there is none; `intervals`, the bounds by level, for the
      reading of a probe (the satellite's, for arm satellite); `calibrated`, whether the standard
      deviation was scaled on unseen sites; `flags`, the names and meanings of the bits that are
      set; `forcing`, whether it was final or preliminary; and `layers`, by name: the percentile and
      the anomaly of the day, if the maps have them, and the layers of the cell.

    Raises:
      ConfigError: If the cell has no inputs, hence no value.
    """
    experiment, target = subject.experiment, subject.experiment.target
    maps = publications.open_maps(subject.home.root, subject.arm, "series")
    at_cell = maps.isel(y=subject.row, x=subject.col).sel(time=np.datetime64(subject.day))
    compared = [name for name in climatology.layer_names(target) if name in maps]
    names = [target, f"{target}_std", "quality_flag", *compared, *({"input_status"} & {*maps})]
    with zarr_arrays.intact_chunks(f"{subject.home.root}, maps of {subject.arm}"):
        at_cell = at_cell[names].load()
    bits = as_bits(at_cell["quality_flag"].values)
    if int(bits) & Quality.NO_INPUTS:
        raise _no_inputs(subject)
    variable = experiment.table[target]
    mean, std = (_number(at_cell[name].values) for name in (target, f"{target}_std"))
    found: Json = {"variable": target, "long_name": variable.long_name, "units": variable.units}
    found |= {"mean": mean, "std": std, "intervals": {}}
    if mean is not None and std is not None:
        found["intervals"] = {
            f"{level:.0%}": [
                round(max(variable.minimum, mean - std * interval_half_width(level)), DECIMALS),
                round(min(variable.maximum, mean + std * interval_half_width(level)), DECIMALS),
            ]
            for level in LEVELS
        }
    set_bits = [bit for bit in Quality if int(bits) & bit]
    found["calibrated"] = not int(bits) & Quality.UNCALIBRATED
    found["flags"] = {str(bit.name).lower(): QUALITY_MEANINGS[bit] for bit in set_bits}
    status = _number(at_cell["input_status"].values) if "input_status" in at_cell else None
    known = {each.value: each.name.lower() for each in InputStatus}
    found["forcing"] = "unknown" if status is None else known.get(int(status), "unknown")
    layers = {name: _describe_comparison(at_cell[name]) for name in compared}
    return found | {"layers": layers | _read_layers(subject)}


def as_bits(flags: NDArray[Any]) -> NDArray[np.uint8]:
    """Return quality flags as bits; those that were not written as `no_inputs`.

    Args:
      flags: Flags as xarray decodes them: uint8, or floats with NaN for what was not written.
    """
    values = np.nan_to_num(np.asarray(flags, np.float64), nan=float(Quality.NO_INPUTS))
    return values.astype(np.uint8)


def _describe_comparison(value: xr.DataArray) -> Json:
    """Return a percentile or an anomaly of the day in the form of a layer of the cell."""
    unit = f"{value.attrs['units']}, reference period {value.attrs[climatology.ATTRIBUTE]}"
    return {"value": _number(value.values), "is": value.attrs["long_name"], "unit": unit}


def _read_layers(subject: Subject) -> Json:
    """Read the layers that have one value for each cell, if the arm has them."""
    root = publications.open_maps(subject.home.root, subject.arm)
    layers = {}
    for name, about in SITE_LAYERS.items():
        if name in root:
            value = _number(root[name].isel(y=subject.row, x=subject.col).values)
            meaning = about["long_name"]
            limit = root[name].attrs.get("applicability_limit")
            if limit is not None and value is not None:
                where = "within" if value <= limit else "OUTSIDE"
                meaning += f", {where} the area of applicability ({limit:.2f})"
            layers[name] = {"value": value, "is": meaning, "unit": about["comment"]}
    return layers


def _no_inputs(subject: Subject) -> ConfigError:
    """Return the error for a cell without inputs, which names the nearest cell that has some."""
    root = publications.open_maps(subject.home.root, subject.arm)
    flags = as_bits(root["quality_flag"].sel(time=np.datetime64(subject.day)).values)
    problem = f"the cell at {format_place(subject.lat, subject.lon)} has no inputs, as on sea, "
    problem += f"hence no value on {subject.day}"
    where = f"--lat {subject.lat} --lon {subject.lon}"
    if (flags & Quality.NO_INPUTS).all():
        return ConfigError(where, f"{problem}; nor has any other cell")
    return ConfigError(where, problem, remedy=f"the nearest that has is {_nearest(subject, flags)}")


def _nearest(subject: Subject, flags: NDArray[np.uint8]) -> str:
    """Return the centre of the nearest cell whose flags say that it has inputs."""
    window = subject.window
    lat, lon = np.meshgrid(window.cell_lat, window.cell_lon, indexing="ij")
    km = great_circle_km(subject.lat, subject.lon, lat, lon)
    km[(flags & Quality.NO_INPUTS) > 0] = np.inf
    row, col = np.unravel_index(int(km.argmin()), km.shape)
    return f"--lat {lat[row, col]:.4f} --lon {lon[row, col]:.4f}, {km[row, col]:.0f} km away"


def _number(values: xr.DataArray | NDArray[Any]) -> float | None:
    """Return one value; None if it is missing."""
    value = float(values)
    return round(value, DECIMALS) if math.isfinite(value) else None
