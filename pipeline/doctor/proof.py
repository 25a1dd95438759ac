"""A small window of an entry, read so that its values can be compared with those read later."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import catalog, files
from pipeline.doctor import coverage
from pipeline.doctor.symptoms import Symptom, of_error
from pipeline.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.doctor.cases import Case, Period
    from pipeline.files import Json

DAYS, DEGREES, SIDE, PLACES = 3, 2.0, 16, 20  # of a window: the most of each
INLAND = (-98.0, 39.0)  # where it lies if the entry is there: a middle may be an ocean's
CHANGED = "correct the entry's mapping, or ask the provider what has changed"

Region = tuple[float, float, float, float]


def window(case: Case) -> tuple[Period | None, Region | None]:
    """The days and the box in which an entry is to be read; None for whatever there is."""
    years, box, period = case.years(), case.region, None
    year = years[len(years) // 2] if years else None
    if year is not None:
        first = year[0] + (year[1] - year[0]) // 2
        period = first, min(year[1], first + timedelta(DAYS - 1))
    if case.metadata.get("support") == "site":
        return period, box
    west, south, east, north = box or (-180.0, -90.0, 180.0, 90.0)
    lon, lat = INLAND
    if not (west < lon < east and south < lat < north):
        lon, lat = (west + east) / 2, (south + north) / 2
    half = DEGREES / 2
    inner = max(west, lon - half), max(south, lat - half)
    return period, (*inner, min(east, lon + half), min(north, lat + half))


def read(
    found: catalog.Found, given: dict[str, str], period: Period | None, region: Region | None
) -> tuple[xr.Dataset, set[str]]:
    """Read the window of an entry.

    Args:
      found: the entry.
      given: values of its parameters.
      period: first and last day, None for a source without days.
      region: west, south, east, north in degrees, None for all of it.

    Returns:
      The values, loaded, and the variables that the entry's mapping names.

    Raises:
      SoilweaveError: of the driver; it may let others through, of the libraries it uses.
    """
    driver: Any = catalog.driver_of(found, given)
    driver.period, driver.region = period, region
    dataset: xr.Dataset = driver.to_dask()
    part = coverage.over(dataset, region)
    at = {}
    for dim, index in part.at.items():
        over = index if index.size else np.arange(dataset.sizes[dim])
        most = PLACES if dim == "place" else SIDE
        start = 0 if dim == "place" else max(0, (len(over) - most) // 2)
        at[dim] = over[start : start + most]
    looked = dataset.isel(at)
    if "time" in looked.dims and period is not None:
        looked = looked.sel(time=slice(*(np.datetime64(day, "ns") for day in period)))
    read_ = looked.isel(time=slice(0, DAYS)) if "time" in looked.dims else looked
    values = read_.compute()
    dataset.close()
    return values, set(getattr(driver, "mapping", ()))


def described(values: xr.Dataset) -> Json:
    """What was read: of every variable and coordinate units, shape, range, SHA-256 of its bytes."""
    made: Json = {"variables": {}, "coordinates": {}}
    for key, group in (("variables", values.data_vars), ("coordinates", values.coords)):
        for name, held in group.items():
            made[key][str(name)] = _described(held)
    return made


def problems(values: xr.Dataset, mapped: set[str], case: Case) -> list[Symptom]:
    """Why values that were read do not prove an entry."""
    missing = sorted((mapped | case.required) - {str(name) for name in values.data_vars})
    made = [Symptom("variables", f"{name}: missing", CHANGED) for name in missing]
    known = values[[n for n in values.data_vars if "units" in values[n].attrs]]
    if odd := catalog.table_problems(known, case.table):
        made += of_error(DataError(f"entry {case.label}", *odd, remedy=CHANGED))
    for name, held in known.data_vars.items():
        finite = held.values[np.isfinite(held.values)]
        variable = case.table.get(str(name))
        if not finite.size:
            found = f"{name}: no value in the window, {dict(held.sizes)}"
            made.append(Symptom("values", found, "is there data on these days? try again later"))
        elif variable and not (
            finite.min() >= variable.minimum and finite.max() <= variable.maximum
        ):
            told = f"{finite.min():g} to {finite.max():g} {variable.units}"
            accepted = f"expected {variable.minimum:g} to {variable.maximum:g}"
            made.append(Symptom("range", f"{name}: {told}, {accepted}", CHANGED))
    return made


def _described(held: xr.DataArray) -> Json:
    values = np.ascontiguousarray(held.values)
    text = values.dtype.kind in "OUS"
    content = "\n".join(map(str, values.ravel())).encode() if text else values.tobytes()
    made: Json = {
        "dims": [str(dim) for dim in held.dims],
        "shape": list(values.shape),
        "dtype": "text" if text else values.dtype.str,
        "sha256": files.sha256(content),
    }
    if "units" in held.attrs:
        made["units"] = str(held.attrs["units"])
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        made["finite"] = int(finite.size)
        if finite.size:
            made |= {"minimum": float(finite.min()), "maximum": float(finite.max())}
    return made
