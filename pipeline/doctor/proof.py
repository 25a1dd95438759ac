"""Read a small window of an entry, and describe its values so that later reads can be compared."""

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

DAYS, DEGREES, SIDE, PLACES = 3, 2.0, 16, 20  # the largest window
# Longitude and latitude of the window's centre if the entry covers it: on land, unlike the centres
# of many regions.
INLAND = (-98.0, 39.0)
CHANGED = "correct the entry's mapping, or ask the provider what has changed"

Region = tuple[float, float, float, float]  # west, south, east, north in degrees


def window(case: Case) -> tuple[Period | None, Region | None]:
    """Choose the days and the box in which an entry is read; None means no restriction."""
    years, region, period = case.years(), case.region, None
    year = years[len(years) // 2] if years else None
    if year is not None:
        first = year[0] + (year[1] - year[0]) // 2
        period = first, min(year[1], first + timedelta(DAYS - 1))
    if case.metadata.get("support") == "site":
        return period, region
    west, south, east, north = region or (-180.0, -90.0, 180.0, 90.0)
    lon, lat = INLAND
    if not (west < lon < east and south < lat < north):
        lon, lat = (west + east) / 2, (south + north) / 2
    half = DEGREES / 2
    southwest = max(west, lon - half), max(south, lat - half)
    return period, (*southwest, min(east, lon + half), min(north, lat + half))


def read(
    entry: catalog.Found,
    parameters: dict[str, str],
    period: Period | None,
    region: Region | None,
) -> tuple[xr.Dataset, set[str]]:
    """Read a window of an entry.

    Args:
      entry: the catalog entry.
      parameters: values of its parameters.
      period: first and last day; None for a source without days.
      region: west, south, east, north in degrees; None for the whole source.

    Returns:
      The values, loaded, and the names of the variables in the entry's mapping.

    Raises:
      SoilweaveError: If the driver cannot read the entry. Errors of the libraries that the driver
        uses may pass through.
    """
    driver: Any = catalog.driver_of(entry, parameters)
    driver.period, driver.region = period, region
    dataset: xr.Dataset = driver.to_dask()
    part = coverage.over(dataset, region)
    block = {}
    for dim, index in part.indices.items():
        over_region = index if index.size else np.arange(dataset.sizes[dim])
        most = PLACES if dim == "place" else SIDE
        start = 0 if dim == "place" else max(0, (len(over_region) - most) // 2)
        block[dim] = over_region[start : start + most]
    sample = dataset.isel(block)
    if "time" in sample.dims and period is not None:
        sample = sample.sel(time=slice(*(np.datetime64(day, "ns") for day in period)))
    sample = sample.isel(time=slice(0, DAYS)) if "time" in sample.dims else sample
    values = sample.compute()
    dataset.close()
    return values, set(getattr(driver, "mapping", ()))


def described(values: xr.Dataset) -> Json:
    """Describe every variable and coordinate: units, shape, range and SHA-256 of its bytes."""
    groups = {"variables": values.data_vars, "coordinates": values.coords}
    return {
        key: {str(name): _described(array) for name, array in group.items()}
        for key, group in groups.items()
    }


def problems(values: xr.Dataset, mapped: set[str], case: Case) -> list[Symptom]:
    """Find why the values of a window do not prove that an entry can be read.

    Args:
      values: values of the window, loaded.
      mapped: names of the variables in the entry's mapping.
      case: the entry.
    """
    missing = sorted((mapped | case.required) - {str(name) for name in values.data_vars})
    findings = [Symptom("variables", f"{name}: missing", CHANGED) for name in missing]
    known = values[[n for n in values.data_vars if "units" in values[n].attrs]]
    if table_problems := catalog.table_problems(known, case.table):
        findings += of_error(DataError(f"entry {case.label}", *table_problems, remedy=CHANGED))
    for name, array in known.data_vars.items():
        finite = array.values[np.isfinite(array.values)]
        variable = case.table.get(str(name))
        if not finite.size:
            message = f"{name}: no value in the window, {dict(array.sizes)}"
            hint = "check that the source has data on these days, or try again later"
            findings.append(Symptom("values", message, hint))
        elif variable and not (
            finite.min() >= variable.minimum and finite.max() <= variable.maximum
        ):
            spread = f"{finite.min():g} to {finite.max():g} {variable.units}"
            accepted = f"expected {variable.minimum:g} to {variable.maximum:g}"
            findings.append(Symptom("range", f"{name}: {spread}, {accepted}", CHANGED))
    return findings


def _described(array: xr.DataArray) -> Json:
    """Describe one array; text is hashed as its lines in UTF-8."""
    values = np.ascontiguousarray(array.values)
    is_text = values.dtype.kind in "OUS"
    content = "\n".join(map(str, values.ravel())).encode() if is_text else values.tobytes()
    description: Json = {
        "dims": [str(dim) for dim in array.dims],
        "shape": list(values.shape),
        "dtype": "text" if is_text else values.dtype.str,
        "sha256": files.sha256(content),
    }
    if "units" in array.attrs:
        description["units"] = str(array.attrs["units"])
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)]
        description["finite"] = int(finite.size)
        if finite.size:
            description |= {"minimum": float(finite.min()), "maximum": float(finite.max())}
    return description
