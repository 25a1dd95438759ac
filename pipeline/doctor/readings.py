"""Read a sample of a source's values and check it; read more if the sample has no value."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from pipeline.doctor import magnitudes, orientation, samples
from pipeline.doctor.symptoms import Symptom, of_error

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.doctor.cases import Case
    from pipeline.doctor.coverage import Part


def read(
    sample: xr.Dataset, names: list[str]
) -> tuple[dict[str, NDArray[np.float32]], list[Symptom]]:
    """Read the values of a sample's variables.

    All variables are read together, so that what they share is read once. If that fails, they are
    read one by one.

    Returns:
      The values by name, and a finding for each distinct error, with the variables it concerns.
    """
    try:
        return _values(sample, names), []
    except Exception:  # noqa: BLE001  # raised again below for the variables that cause it
        pass
    values, failed = dict[str, "NDArray[np.float32]"](), dict[Symptom, list[str]]()
    for name in names:
        try:
            values |= _values(sample, [name])
        except Exception as error:  # noqa: BLE001  # any error in reading is a finding
            for finding in of_error(error):
                failed.setdefault(finding, []).append(name)
    findings = [
        finding._replace(message=f"{', '.join(names)}: {finding.message}")
        for finding, names in failed.items()
    ]
    return values, findings


def _values(sample: xr.Dataset, names: list[str]) -> dict[str, NDArray[np.float32]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing but NaN
        loaded = sample[names].compute()
    return {name: loaded[name].values.astype("float32") for name in names}


def of_values(
    name: str, values: NDArray[np.float32], year: xr.Dataset, part: Part, case: Case
) -> list[Symptom]:
    """Check the values of a variable; if there are none, read and check a wider sample.

    Args:
      name: name of the variable in this project.
      values: the sample, NaN where missing.
      year: the days of a year, from which a wider sample is taken.
      part: indices over the region.
      case: the entry.
    """
    if np.isnan(values).all():
        wider, unread = read(samples.second(year, part), [name])
        if unread:
            return unread
        values = wider[name]
        if np.isnan(values).all():
            return [magnitudes.all_fill(name)]
    return magnitudes.of_values(name, values, case.table[name])


def of_orientation(year: xr.Dataset, names: list[str], part: Part, case: Case) -> list[Symptom]:
    """Find out whether air temperature is upside down; nothing for sources without it.

    Args:
      year: the days of a year.
      names: variables in use.
      part: indices over the region.
      case: the entry.
    """
    temperatures = [name for name in names if case.table[name].standard_name == "air_temperature"]
    if not temperatures or "lat" not in year.coords or "time" not in year[temperatures[0]].dims:
        return []
    name = temperatures[0]
    profile = samples.profile(year, part)
    values, unread = read(profile, [name])
    if unread:
        return unread
    rows = values[name]
    if rows.ndim == 3:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows of nothing but NaN
            rows = np.nanmean(rows, axis=2)
    lat = np.asarray(profile.lat.values, float)
    return orientation.upside_down(name, rows, lat, profile.time.values)
