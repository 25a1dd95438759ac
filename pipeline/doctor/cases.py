"""What is to be examined: entries of an experiment or a catalog, and the years of each."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import catalog
from pipeline.errors import SoilweaveError
from pipeline.names import VARIABLES

if TYPE_CHECKING:
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
    found: catalog.Found | Exception
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
        told = self.metadata.get("region")
        if isinstance(told, list) and len(told) == 4:
            return (float(told[0]), float(told[1]), float(told[2]), float(told[3]))
        return self.domain or (CONUS if str(told).startswith("CONUS") else None)

    def years(self) -> list[Period | None]:
        """First and last day of every year that is needed; [None] to open it once, whole."""
        needed = self.experiment.period if self.experiment else None
        said = stated(self.metadata)
        if self.constant or not (needed or said):
            return [None]
        first, last = needed or said or (date.min, date.max)
        if said and (self.experiment is None or self.sparse):
            first, last = max(first, said[0]), min(last, said[1])
        return [
            (max(first, date(year, 1, 1)), min(last, date(year, 12, 31)))
            for year in range(first.year, last.year + 1)
            if first <= last
        ]


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
        found: catalog.Found | Exception
        try:
            found = catalog.find(sources.catalog, entry)
        except (SoilweaveError, OSError) as error:
            found = error
        kinds = roles | ({"auxiliary"} if "target" in roles else set())
        if entry in sources.insitu and experiment.inputs_from == "own":
            kinds |= {"forcing", "static"}
        required = frozenset({target} if "target" in roles else ())
        sparse, constant = "forcing" not in roles, roles == {"static"}
        case = Case(entry, found, experiment, frozenset(kinds), required, sparse, constant)
        made.append(case)
    return made


def stated(metadata: dict[str, Any]) -> Period | None:
    """First and last day that the catalog states; today where it goes on."""
    match = PERIOD.match(str(metadata.get("period", "")))
    if not match:
        return None
    first, last = match.groups()
    return date.fromisoformat(first), date.fromisoformat(last) if last else date.today()
