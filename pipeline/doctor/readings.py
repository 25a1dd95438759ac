"""A sample of a source's values read and judged; more of them where the first has none."""

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
    looked: xr.Dataset, names: list[str]
) -> tuple[dict[str, NDArray[np.float32]], list[Symptom]]:
    """Values of the variables of a sample; and what could not be read, told once.

    All together, so that what they share is read once; where that fails, one after the other.
    """
    try:
        return _values(looked, names), []
    except Exception:  # noqa: BLE001  # said below, of the variables it is of
        pass
    values, failed = dict[str, "NDArray[np.float32]"](), dict[Symptom, list[str]]()
    for name in names:
        try:
            values |= _values(looked, [name])
        except Exception as error:  # noqa: BLE001  # a finding, as in opening
            for symptom in of_error(error):
                failed.setdefault(symptom, []).append(name)
    told = [
        symptom._replace(found=f"{', '.join(names)}: {symptom.found}")
        for symptom, names in failed.items()
    ]
    return values, told


def _values(looked: xr.Dataset, names: list[str]) -> dict[str, NDArray[np.float32]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means over nothing but NaN
        read = looked[names].compute()
    return {name: read[name].values.astype("float32") for name in names}


def of_values(
    name: str, values: NDArray[np.float32], held: xr.Dataset, part: Part, case: Case
) -> list[Symptom]:
    """What is wrong with a variable; where a sample has no value, a wider one is read."""
    if np.isnan(values).all():
        wider, unread = read(samples.second(held, part), [name])
        if unread:
            return unread
        values = wider[name]
        if np.isnan(values).all():
            return [magnitudes.all_fill(name)]
    return magnitudes.of_values(name, values, case.table[name])


def of_orientation(held: xr.Dataset, names: list[str], part: Part, case: Case) -> list[Symptom]:
    """Whether air temperature looks upside down."""
    warm = [name for name in names if case.table[name].standard_name == "air_temperature"]
    if not warm or "lat" not in held.coords or "time" not in held[warm[0]].dims:
        return []
    across = samples.profile(held, part)
    values, unread = read(across, warm[:1])
    if unread:
        return unread
    rows = values[warm[0]]
    if rows.ndim == 3:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows of nothing but NaN
            rows = np.nanmean(rows, axis=2)
    lat = np.asarray(across.lat.values, float)
    return orientation.upside_down(warm[0], rows, lat, across.time.values)
