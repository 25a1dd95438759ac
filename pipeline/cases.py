"""What is to be examined: entries of an experiment or a catalog, and the years of each."""

from __future__ import annotations

import copy
import os
import re
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import catalog, copies, files, resolve
from pipeline.errors import ConfigError, SoilweaveError
from pipeline.names import VARIABLES
from pipeline.sources import earthdata
from pipeline.symptoms import SECRET, Symptom, of_error, of_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import xarray as xr

    from pipeline.config import Experiment
    from pipeline.names import Variable

Period = tuple[date, date]
PERIOD = re.compile(r"(\d{4}-\d{2}-\d{2})\s*\.\.\s*(\d{4}-\d{2}-\d{2})?")
CONUS = (-130.0, 20.0, -60.0, 56.0)


class Case(NamedTuple):
    """An entry that is to be examined.

    Attributes:
      label: its name, as the experiment or the catalog has it.
      found: the entry; or the error in looking for it.
      experiment: that uses it; None where a catalog is examined.
      kinds: of variables that are used; empty for all.
      required: variables that it must have.
      sparse: observations, which lack days by their nature.
      constant: only attributes are used.
    """

    label: str
    found: catalog.Found | SoilweaveError
    experiment: Experiment | None = None
    kinds: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    sparse: bool = False
    constant: bool = False

    @property
    def metadata(self) -> dict[str, Any]:
        """What the catalog says of it."""
        return {} if isinstance(self.found, Exception) else self.found.spec.get("metadata") or {}

    @property
    def table(self) -> dict[str, Variable]:
        """Every variable there is."""
        return self.experiment.table if self.experiment else VARIABLES

    @property
    def domain(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north of the experiment's domain in degrees."""
        if self.experiment is None:
            return None
        box = self.experiment.domain
        return (box.west_degrees, box.south_degrees, box.east_degrees, box.north_degrees)

    @property
    def region(self) -> tuple[float, float, float, float] | None:
        """Where its data must be: the domain, or the region that the catalog states."""
        stated = self.metadata.get("region")
        if isinstance(stated, list) and len(stated) == 4:
            return (float(stated[0]), float(stated[1]), float(stated[2]), float(stated[3]))
        return self.domain or (CONUS if str(stated).startswith("CONUS") else None)

    def years(self) -> list[Period | None]:
        """First and last day of every year that is needed; [None] to open it once, whole."""
        needed = self.experiment.period if self.experiment else None
        stated = _stated(self.metadata)
        if self.constant or not (needed or stated):
            return [None]
        first, last = needed or stated or (date.min, date.max)
        if stated and (self.experiment is None or self.sparse):
            first, last = max(first, stated[0]), min(last, stated[1])
        return [
            (max(first, date(year, 1, 1)), min(last, date(year, 12, 31)))
            for year in range(first.year, last.year + 1)
            if first <= last
        ]


def of(target: str, settings: Sequence[str]) -> list[Case]:
    """The cases of an experiment (a preset, a file, a URL) or of a catalog.

    Raises:
      ConfigError: it is neither.
    """
    if _is_catalog(target):
        if settings:
            raise ConfigError("--set", f"{target} is a catalog", remedy="name an experiment")
        url = catalog.locate(target)
        return list(_walk(url, "", frozenset({url})))
    return of_experiment(resolve.experiment(target, settings))


def of_experiment(experiment: Experiment) -> list[Case]:
    """Every entry that an experiment uses, whatever for, each once."""
    sources, target = experiment.sources, experiment.target
    observed = (sources.satellite, *sources.insitu, sources.truth, *experiment.baselines)
    used: dict[str, set[str]] = {}
    for role, entries in (
        ("forcing", sources.forcing),
        ("static", sources.static),
        ("target", observed),
    ):
        for entry in entries:
            if entry:
                used.setdefault(entry, set()).add(role)
    made = []
    for entry, roles in used.items():
        found: catalog.Found | SoilweaveError
        try:
            found = catalog.find(sources.catalog, entry)
        except SoilweaveError as error:
            found = error
        kinds = roles | ({"auxiliary"} if "target" in roles else set())
        if entry in sources.insitu and experiment.inputs_from == "own":
            kinds |= {"forcing", "static"}
        required = frozenset({target} if "target" in roles else ())
        sparse, constant = "forcing" not in roles, roles == {"static"}
        case = Case(entry, found, experiment, frozenset(kinds), required, sparse, constant)
        made.append(case)
    return made


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
            earthdata.login()
        except SoilweaveError as error:
            made += [symptom._replace(check="credentials") for symptom in of_error(error)]
    return made


def of_description(case: Case) -> list[Symptom]:
    """What the catalog does not say of a case, or says that does not fit the experiment."""
    if isinstance(case.found, Exception):
        return []
    made = of_metadata(case.metadata)
    stated = _stated(case.metadata)
    if case.experiment and stated and not case.constant:
        first, last = case.experiment.period
        outside = first > stated[1] or last < stated[0]
        beyond = first < stated[0] or last > stated[1]
        if outside or (beyond and not case.sparse):
            end = "" if stated[1] == date.today() else stated[1]
            found = f"{stated[0]}..{end} does not hold the experiment's {first}..{last}"
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
    fresh = copy.copy(driver)
    fresh.period = period or (experiment.period if experiment else None)
    fresh.region = case.domain
    return fresh.to_dask(), set(getattr(fresh, "mapping", ()))


def _is_staged(case: Case) -> bool:
    """Whether the experiment reads a copy of it."""
    experiment = case.experiment
    staged = experiment is not None and experiment.sources.staged is not None
    return staged and experiment is not None and case.label in catalog.entries(experiment)


def _walk(url: str, prefix: str, above: frozenset[str]) -> Iterator[Case]:
    """Every entry of a catalog and of those nested in it."""
    try:
        entries = catalog.tree(url)
    except (SoilweaveError, OSError) as error:
        wrong = error if isinstance(error, SoilweaveError) else ConfigError(url, "not found")
        yield Case(prefix.rstrip(".") or url, wrong)
        return
    for name, spec in entries.items():
        below = catalog.nested(url, spec)
        if below is None:
            yield Case(prefix + name, catalog.Found(url, name, spec), sparse=_is_sparse(spec))
        elif below not in above:
            yield from _walk(below, f"{prefix}{name}.", above | {below})


def _is_sparse(spec: dict[str, Any]) -> bool:
    """Whether an entry of a catalog has observations, by its support."""
    return (spec.get("metadata") or {}).get("support") in ("footprint", "site")


def _is_catalog(target: str) -> bool:
    """Whether a target is a catalog: a preset that no experiment has, or a file with drivers."""
    if not target.endswith((".yaml", ".yml")):
        if target in resolve.presets("experiments"):
            return False
        try:
            catalog.locate(target)
        except ConfigError:
            return False
        return True
    if not files.exists(target):
        return False
    try:
        entries = catalog.tree(target)
    except ConfigError:
        return False
    return all(isinstance(spec, dict) and "driver" in spec for spec in entries.values())


def _stated(metadata: dict[str, Any]) -> Period | None:
    """First and last day that the catalog states; today where it goes on."""
    match = PERIOD.match(str(metadata.get("period", "")))
    if not match:
        return None
    first, last = match.groups()
    return date.fromisoformat(first), date.fromisoformat(last) if last else date.today()
