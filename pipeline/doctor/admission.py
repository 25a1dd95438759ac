"""Open an entry, and find what prevents that: missing metadata, variables, credentials, driver."""

from __future__ import annotations

import copy
import os
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline import catalog, copies
from pipeline.doctor.cases import stated
from pipeline.doctor.symptoms import Symptom, of_error, of_metadata
from pipeline.errors import SECRET, SoilweaveError
from pipeline.sources.earthdata import credentials

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.doctor.cases import Case, Period


def unfit(case: Case) -> list[Symptom]:
    """Find what prevents an entry from being opened.

    This may be a missing entry, an environment variable that is not set or missing credentials.
    """
    if isinstance(case.entry, Exception):
        return of_error(case.entry)
    if _is_staged(case):
        return []
    findings = []
    variables = catalog.ENVIRONMENT.findall(str(case.entry.spec))
    unset = [name for name in variables if not os.environ.get(name)]
    for name in dict.fromkeys(unset):
        is_secret = SECRET.search(name) or case.metadata.get("auth") == "token"
        check = "credentials" if is_secret else "environment"
        origin = case.metadata.get("auth_note") or case.metadata.get("origin") or "the provider"
        hint = f"set this environment variable; see {origin}"
        findings.append(Symptom(check, f"{name} is not set", hint))
    if str(case.metadata.get("auth")).startswith("earthdata"):
        try:
            credentials.login()
        except SoilweaveError as error:
            findings += [finding._replace(check="credentials") for finding in of_error(error)]
    return findings


def of_description(case: Case) -> list[Symptom]:
    """Find metadata that the catalog lacks, or that does not fit the experiment's period."""
    if isinstance(case.entry, Exception):
        return []
    findings = of_metadata(case.metadata)
    available = stated(case.metadata)
    if case.experiment and available and not case.constant:
        first, last = case.experiment.period
        outside = first > available[1] or last < available[0]
        beyond = first < available[0] or last > available[1]
        if outside or (beyond and not case.sparse):
            end = "" if available[1] == date.today() else available[1]
            message = (
                f"the entry's period {available[0]}..{end} does not include all of the "
                f"experiment's {first}..{last}"
            )
            findings.append(Symptom("period", message, "shorten `period`, or name another source"))
    return findings


def driver(case: Case) -> Any:
    """Return the driver of an entry; None if a staged copy is read instead.

    The driver is copied for each opening.

    Raises:
      ConfigError: If the entry names no usable driver.
    """
    assert isinstance(case.entry, catalog.Found)
    if _is_staged(case):
        return None
    parameters = catalog.parameters(case.experiment, case.entry) if case.experiment else {}
    return catalog.driver_of(case.entry, parameters)


def opened(case: Case, driver: Any, period: Period | None) -> tuple[xr.Dataset, set[str]]:
    """Open an entry over a period, without reading values.

    Returns:
      The dataset, and the names of the variables in the entry's mapping.

    Raises:
      SoilweaveError: If the driver cannot open it. Errors of the libraries that the driver uses
        may pass through.
    """
    experiment = case.experiment
    if driver is None and experiment:
        return copies.open_copy(str(experiment.sources.staged), case.label), set()
    configured = told(case, driver, period)
    return configured.to_dask(), set(getattr(configured, "mapping", ()))


def told(case: Case, driver: Any, period: Period | None) -> Any:
    """Return a copy of an entry's driver with its period and region set."""
    configured = copy.copy(driver)
    configured.period = period or (case.experiment.period if case.experiment else None)
    configured.region = case.domain
    return configured


def _is_staged(case: Case) -> bool:
    """Return whether the experiment reads a staged copy of the entry."""
    experiment = case.experiment
    staged = experiment is not None and experiment.sources.staged is not None
    return staged and experiment is not None and case.label in catalog.entries(experiment)
