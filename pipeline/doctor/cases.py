"""The entries that `doctor` examines, and the years for which each one is needed."""

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
CONUS = (-130.0, 20.0, -60.0, 56.0)  # west, south, east, north in degrees


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
    entry: catalog.Found | Exception
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
        return self.domain or (CONUS if str(stated_region).startswith("CONUS") else None)

    def years(self) -> list[Period | None]:
        """Return the first and last day of every year to examine.

        The list is [None] if the entry is to be opened once, over its whole period.
        """
        needed = self.experiment.period if self.experiment else None
        available = stated(self.metadata)
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


def of_experiment(experiment: Experiment) -> list[Case]:
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
        entry: catalog.Found | Exception
        try:
            entry = catalog.find(sources.catalog, label)
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


def stated(metadata: dict[str, Any]) -> Period | None:
    """Return the first and last day of the period in an entry's metadata.

    The last day is today if the period is open, as in `2015-03-31..`. None if no period is stated.
    """
    match = PERIOD.match(str(metadata.get("period", "")))
    if not match:
        return None
    first, last = match.groups()
    return date.fromisoformat(first), date.fromisoformat(last) if last else date.today()
