"""The entries that `doctor` examines, and the years for which each one is needed.

Open an entry, and find what prevents that: missing metadata, variables, credentials, driver.
"""

from __future__ import annotations

import copy
import re
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.catalog import entries as catalog_entries
from pipeline.catalog import intake_catalog, templates
from pipeline.doctor.findings import Finding, check_metadata, findings_from_error
from pipeline.errors import SoilweaveError
from pipeline.experiment.variables import VARIABLES
from pipeline.sources.shared import earthdata
from pipeline.storage import source_copies

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable


Period = tuple[date, date]
PERIOD_PATTERN = re.compile(r"(\d{4}-\d{2}-\d{2})\s*\.\.\s*(\d{4}-\d{2}-\d{2})?")
CONUS_REGION = (-130.0, 20.0, -60.0, 56.0)  # west, south, east, north in degrees


class Case(NamedTuple):
    """A catalog entry to examine.

    Attributes:
      label: name of the entry in the experiment or the catalog.
      entry: the catalog entry, or the error raised while looking it up.
      experiment: the experiment that uses the entry; None if a catalog is examined.
      kinds: kinds of variables that are used; empty for all.
      required: variables that the entry must have.
      sparse: whether the entry holds observations, which normally lack some days.
      constant: whether only static attributes are used.
    """

    label: str
    entry: catalog_entries.CatalogEntry | Exception
    experiment: Experiment | None = None
    kinds: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    sparse: bool = False
    constant: bool = False

    @property
    def metadata(self) -> dict[str, Any]:
        """Return the entry's metadata; empty if there is no entry or no metadata."""
        return {} if isinstance(self.entry, Exception) else self.entry.spec.get("metadata") or {}

    @property
    def table(self) -> dict[str, Variable]:
        """Return the known variables by name, including those the experiment defines."""
        return self.experiment.table if self.experiment else VARIABLES

    @property
    def domain(self) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north of the experiment's domain in degrees."""
        if self.experiment is None:
            return None
        box = self.experiment.domain
        return (box.west_degrees, box.south_degrees, box.east_degrees, box.north_degrees)

    @property
    def region(self) -> tuple[float, float, float, float] | None:
        """Return where the data must lie, as west, south, east, north in degrees.

        A region given as four numbers in the metadata comes first, then the experiment's domain,
        then the box of a region described as CONUS. None if none of them is known.
        """
        stated_region = self.metadata.get("region")
        if isinstance(stated_region, list) and len(stated_region) == 4:
            west, south, east, north = map(float, stated_region)
            return (west, south, east, north)
        return self.domain or (CONUS_REGION if str(stated_region).startswith("CONUS") else None)

    def years(self) -> list[Period | None]:
        """Return the first and last day of every year to examine.

        The list is [None] if the entry is to be opened once, over its whole period.
        """
        needed = self.experiment.period if self.experiment else None
        available = stated_period(self.metadata)
        if self.constant or not (needed or available):
            return [None]
        first, last = needed or available or (date.min, date.max)
        if available and (self.experiment is None or self.sparse):
            first, last = max(first, available[0]), min(last, available[1])
        return [
            (max(first, date(year, 1, 1)), min(last, date(year, 12, 31)))
            for year in range(first.year, last.year + 1)
            if first <= last
        ]


def list_experiment_cases(experiment: Experiment) -> list[Case]:
    """Return a case for every entry that an experiment uses, each entry once."""
    sources, target = experiment.sources, experiment.target
    observed = (sources.satellite, *sources.insitu, sources.truth, *experiment.baselines)
    roles_of: dict[str, set[str]] = {}
    for role, labels in (
        ("forcing", sources.forcing),
        ("static", sources.static),
        ("target", observed),
    ):
        for label in labels:
            if label:
                roles_of.setdefault(label, set()).add(role)
    cases = []
    for label, roles in roles_of.items():
        entry: catalog_entries.CatalogEntry | Exception
        try:
            entry = intake_catalog.find_entry(sources.catalog, label)
        except (SoilweaveError, OSError) as error:
            entry = error
        kinds = roles | ({"auxiliary"} if "target" in roles else set())
        if label in sources.insitu and experiment.inputs_from == "own":
            kinds |= {"forcing", "static"}
        required = frozenset({target} if "target" in roles else ())
        sparse, constant = "forcing" not in roles, roles == {"static"}
        case = Case(label, entry, experiment, frozenset(kinds), required, sparse, constant)
        cases.append(case)
    return cases


def stated_period(metadata: dict[str, Any]) -> Period | None:
    """Return the first and last day of the period in an entry's metadata.

    The last day is today if the period is open, as in `2015-03-31..`. None if no period is stated.
    """
    match = PERIOD_PATTERN.match(str(metadata.get("period", "")))
    if not match:
        return None
    first, last = match.groups()
    return date.fromisoformat(first), date.fromisoformat(last) if last else date.today()


def find_obstacles(case: Case) -> list[Finding]:
    """Find what prevents an entry from being opened.

    This may be a missing entry, an environment variable that is not set or missing credentials.
    """
    if isinstance(case.entry, Exception):
        return findings_from_error(case.entry)
    if _is_staged(case):
        return []
    findings = []
    for name in templates.unset_names(case.entry.catalog, case.entry.spec):
        check = "credentials" if case.metadata.get("auth") == "token" else "environment"
        origin = case.metadata.get("auth_note") or case.metadata.get("origin") or "the provider"
        hint = f"set this environment variable; see {origin}"
        findings.append(Finding(check, f"{name} is not set", hint))
    if str(case.metadata.get("auth")).startswith("earthdata"):
        try:
            earthdata.login()
        except SoilweaveError as error:
            findings += [
                finding._replace(check="credentials") for finding in findings_from_error(error)
            ]
    return findings


def check_description(case: Case) -> list[Finding]:
    """Find metadata that the catalog lacks, or that does not fit the experiment's period."""
    if isinstance(case.entry, Exception):
        return []
    findings = check_metadata(case.metadata)
    available = stated_period(case.metadata)
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
            findings.append(Finding("period", message, "shorten `period`, or name another source"))
    return findings


def make_driver(case: Case) -> Any:
    """Return the driver of an entry; None if a staged copy is read instead.

    The driver is copied for each opening.

    Raises:
      ConfigError: If the entry names no usable driver.
    """
    assert isinstance(case.entry, catalog_entries.CatalogEntry)
    if _is_staged(case):
        return None
    parameters = (
        intake_catalog.entry_parameters(case.experiment, case.entry) if case.experiment else {}
    )
    return catalog_entries.make_driver(case.entry, parameters)


def open_entry(case: Case, driver: Any, period: Period | None) -> tuple[xr.Dataset, set[str]]:
    """Open an entry over a period, without reading values.

    Returns:
      The dataset, and the names of the variables in the entry's mapping.

    Raises:
      SoilweaveError: If the driver cannot open it. Errors of the libraries that the driver uses
        may pass through.
    """
    experiment = case.experiment
    if driver is None and experiment:
        return source_copies.open_copy(str(experiment.sources.staged), case.label), set()
    configured = configure_driver(case, driver, period)
    return configured.to_dask(), set(getattr(configured, "mapping", ()))


def configure_driver(case: Case, driver: Any, period: Period | None) -> Any:
    """Return a copy of an entry's driver with its period and region set."""
    configured = copy.copy(driver)
    configured.period = period or (case.experiment.period if case.experiment else None)
    configured.region = case.domain
    configured.cat = driver.cat  # a copy of a driver loses it
    return configured


def _is_staged(case: Case) -> bool:
    """Return whether the experiment reads a staged copy of the entry."""
    experiment = case.experiment
    staged = experiment is not None and experiment.sources.staged is not None
    return (
        staged and experiment is not None and case.label in intake_catalog.cube_entries(experiment)
    )
