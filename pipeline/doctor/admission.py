"""Whether an entry can be opened at all, and its opening: what it says, credentials, its driver."""

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
    """What keeps a case from being opened: no such entry, no credentials, no variable set."""
    if isinstance(case.found, Exception):
        return of_error(case.found)
    if _is_staged(case):
        return []
    made = []
    unset = [n for n in catalog.ENVIRONMENT.findall(str(case.found.spec)) if not os.environ.get(n)]
    for name in dict.fromkeys(unset):
        secret = SECRET.search(name) or case.metadata.get("auth") == "token"
        check = "credentials" if secret else "environment"
        origin = case.metadata.get("auth_note") or case.metadata.get("origin") or "the provider"
        made.append(Symptom(check, f"{name} is not set", f"set it; see {origin}"))
    if str(case.metadata.get("auth")).startswith("earthdata"):
        try:
            credentials.login()
        except SoilweaveError as error:
            made += [symptom._replace(check="credentials") for symptom in of_error(error)]
    return made


def of_description(case: Case) -> list[Symptom]:
    """What the catalog does not say of a case, or says that does not fit the experiment."""
    if isinstance(case.found, Exception):
        return []
    made = of_metadata(case.metadata)
    said = stated(case.metadata)
    if case.experiment and said and not case.constant:
        first, last = case.experiment.period
        outside = first > said[1] or last < said[0]
        beyond = first < said[0] or last > said[1]
        if outside or (beyond and not case.sparse):
            end = "" if said[1] == date.today() else said[1]
            found = f"{said[0]}..{end} does not hold the experiment's {first}..{last}"
            made.append(Symptom("period", found, "shorten `period`, or name another source"))
    return made


def driver(case: Case) -> Any:
    """The driver of a case, to be copied for each opening; None where a staged copy is read.

    Raises:
      ConfigError: there is none.
    """
    assert isinstance(case.found, catalog.Found)
    if _is_staged(case):
        return None
    given = catalog.parameters(case.experiment, case.found) if case.experiment else {}
    return catalog.driver_of(case.found, given)


def opened(case: Case, driver: Any, period: Period | None) -> tuple[xr.Dataset, set[str]]:
    """A case over a period, nothing read yet, and the variables that its mapping names.

    Raises:
      SoilweaveError: of the driver; it may let others through, of the libraries it uses.
    """
    experiment = case.experiment
    if driver is None and experiment:
        return copies.open_copy(str(experiment.sources.staged), case.label), set()
    fresh = told(case, driver, period)
    return fresh.to_dask(), set(getattr(fresh, "mapping", ()))


def told(case: Case, driver: Any, period: Period | None) -> Any:
    """A copy of the driver of a case that is told which days and region are wanted."""
    fresh = copy.copy(driver)
    fresh.period = period or (case.experiment.period if case.experiment else None)
    fresh.region = case.domain
    return fresh


def _is_staged(case: Case) -> bool:
    """Whether the experiment reads a copy of it."""
    experiment = case.experiment
    staged = experiment is not None and experiment.sources.staged is not None
    return staged and experiment is not None and case.label in catalog.entries(experiment)
