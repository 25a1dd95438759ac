"""Signs that a source is not as it should be, in errors, days, positions; each with a remedy."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pipeline.errors import SoilweaveError
from pipeline.sources import remote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date

    import xarray as xr
    from numpy.typing import NDArray

METADATA = (
    "license",
    "doi",
    "auth",
    "region",
    "native_units",
    "native_grid",
    "time_convention",
    "period",
    "support",
)
LEAST_SPARSE = 0.75  # of the days of a year that a source of observations has to have
SECRET = re.compile(r"TOKEN|PASSWORD|SECRET|KEY|SIGNATURE|CREDENTIAL", re.IGNORECASE)
_DAMAGED = "fetch it again, or ask the provider: is it damaged there?"
# What a problem is called, by what its text holds; the first that fits.
KINDS = (
    (r"refused|credentials|login", "credentials", ""),
    (
        r"\blat(itude)?: .*at most 90",
        "latitude",
        "are latitude and longitude exchanged? correct the file",
    ),
    (r"units '", "units", "correct the mapping's units, or ask the provider what has changed"),
    (r"the file has|no variable of that name", "variables", "correct `from` in the mapping"),
    (r"cannot be read|truncated", "opening", _DAMAGED),
    (r"not found|no file matches|nothing of", "opening", "has it moved? correct the entry"),
    (r"\btime\b|\bdays? ", "time axis", "sort the file's days, each once, or ask the provider"),
    (r"\b(lat|lon|latitude|longitude)\b", "coordinates", "correct the file's coordinates"),
)


class Symptom(NamedTuple):
    """What a check has found, and what to do about it."""

    check: str
    found: str
    remedy: str


def of_metadata(metadata: Mapping[str, object]) -> list[Symptom]:
    """What a catalog does not say of an entry."""
    lacking = [key for key in METADATA if not str(metadata.get(key, "")).strip()]
    if not lacking:
        return []
    remedy = "add it to the entry; catalogs/README.md tells what is meant"
    return [Symptom("metadata", f"{', '.join(lacking)} missing", remedy)]


def of_error(error: Exception) -> list[Symptom]:
    """What an error in opening or reading tells, without secrets."""
    if not isinstance(error, SoilweaveError):
        told = " ".join(str(error).split()) or "no more is told"
        found = public(f"cannot be read: {type(error).__name__}: {told}")
        check = "time axis" if re.search(r"\btime\b", told) else "opening"
        return [Symptom(check, found, _DAMAGED)]
    place = public(error.place)
    made = []
    for problem in error.problems:
        check, remedy = next(
            ((check, what) for sign, check, what in KINDS if re.search(sign, problem)),
            ("opening", ""),
        )
        found = public(problem) if place in problem else f"{place}: {public(problem)}"
        mended = "" if error.remedy.startswith("correct the file") else public(error.remedy)
        made.append(Symptom(check, found, mended or remedy or "correct the file or the entry"))
    return made


def of_days(
    times: NDArray[np.datetime64], period: tuple[date, date] | None, *, sparse: bool
) -> list[Symptom]:
    """What is wrong with the days of a source.

    Args:
      times: (time,) as the source has them.
      period: first and last day that are wanted; None for whichever there are.
      sparse: observations, which lack days by their nature.
    """
    if times.dtype.kind != "M":
        return [Symptom("time axis", f"time: {times.dtype} values, expected dates", _AXIS)]
    days = times.astype("datetime64[D]")
    made = []
    step = np.diff(days).astype(int)
    if (step <= 0).any():
        at = int(np.flatnonzero(step <= 0)[0])
        more = f", and {int((step <= 0).sum()) - 1} more" if (step <= 0).sum() > 1 else ""
        found = f"{days[at + 1]} comes after {days[at]}{more}; days must increase"
        made.append(Symptom("time axis", found, _AXIS))
    off = int((times != days).sum())
    if off:
        found = f"{off} of {len(times)} times are not at 00:00: not days"
        made.append(Symptom("time axis", found, _AXIS))
    return made + (_gaps(days, period, sparse=sparse) if period else [])


def _gaps(
    days: NDArray[np.datetime64], period: tuple[date, date], *, sparse: bool
) -> list[Symptom]:
    """Days of a period that are not there."""
    wanted = np.arange(np.datetime64(period[0], "D"), np.datetime64(period[1], "D") + 1)
    missing = wanted[~np.isin(wanted, days)]
    if not missing.size:
        return []
    if len(missing) == len(wanted):
        found = f"no day of {wanted[0]}..{wanted[-1]}"
        return [Symptom("missing year", found, _GAP)]
    if sparse and len(missing) <= (1 - LEAST_SPARSE) * len(wanted):
        return []
    found = f"{len(missing)} of {len(wanted)} days missing: {spans(missing)}"
    return [Symptom("gaps", found, _GAP)]


_AXIS = "sort the file's days, each once, or ask the provider"
_GAP = "name another source for it, shorten the period, or ask the provider"


def of_positions(
    dataset: xr.Dataset, region: tuple[float, float, float, float] | None
) -> list[Symptom]:
    """What is wrong with the latitudes and longitudes of places, or of rows and columns."""
    if "lat" not in dataset.coords or "lon" not in dataset.coords:
        return []
    lat, lon = (np.asarray(dataset[axis].values, float) for axis in ("lat", "lon"))
    remedy = "are latitude and longitude exchanged? correct the file or the entry"
    if not np.isfinite(lat).all() or not np.isfinite(lon).all():
        return [Symptom("coordinates", "lat or lon of some places missing", "correct the file")]
    if np.abs(lat).max() > 90:
        found = f"lat: {lat.min():g} to {lat.max():g}, expected degrees of at most 90"
        return [Symptom("latitude", found, remedy)]
    made = []
    for axis, centres in (("lat", lat), ("lon", lon)):
        if f"{axis}_bnds" in dataset:
            low, high = np.sort(dataset[f"{axis}_bnds"].values, axis=1).T
            odd = int(((centres < low - 1e-6) | (centres > high + 1e-6)).sum())
            if odd:
                check = "latitude" if axis == "lat" else "coordinates"
                found = f"{axis}_bnds: {odd} of {len(centres)} do not hold their {axis}"
                made.append(Symptom(check, found, "are they in opposite order? turn one of them"))
    if region and not made and not _overlaps(lat, lon, region) and _overlaps(lon, lat, region):
        found = f"lat {lat.min():g} to {lat.max():g} is outside the region, lon is inside"
        made.append(Symptom("latitude", found, remedy))
    return made


def _overlaps(
    lat: NDArray[np.float64], lon: NDArray[np.float64], region: tuple[float, float, float, float]
) -> bool:
    west, south, east, north = region
    along = (lon - west) % 360 <= east - west
    return bool(((lat >= south) & (lat <= north)).any() and along.any())


def spans(days: NDArray[np.datetime64], most: int = 3) -> str:
    """Days as runs: `2016-03-01..2016-03-04, 2016-07-09`, and how many more."""
    cuts = np.flatnonzero(np.diff(days).astype(int) != 1) + 1
    runs = [(part[0], part[-1]) for part in np.split(days, cuts)]
    told = [str(a) if a == b else f"{a}..{b}" for a, b in runs[:most]]
    more = f" and {len(runs) - most} more" if len(runs) > most else ""
    return ", ".join(told) + more


def public(text: str) -> str:
    """A text as it may be shown: no query of a URL, no value of a secret of the environment."""
    text = re.sub(r"\w[\w+.-]*://[^\s'\",;)\]]+", lambda url: remote.shown(url[0]), text)
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) > 3:
            text = text.replace(value, f"<{name}>")
    return text if len(text) <= 300 else f"{text[:297]}..."
