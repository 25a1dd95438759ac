"""How far the sources of forcing reach, and which of their days are preliminary."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline import catalog
from pipeline.errors import DataError

if TYPE_CHECKING:
    from pipeline.config import Experiment
    from pipeline.status import Spans

DAY = timedelta(1)


def today() -> date:
    """The day by UTC."""
    return datetime.now(UTC).date()


def last_day(experiment: Experiment, entry: str, after: date, until: date) -> tuple[date, str]:
    """The last day of a source, without holes since a day that it has; `after` where none is later.

    Sources do not tell how far they reach: those that refuse days they lack are asked by bisection.

    Args:
      experiment: names the catalog.
      entry: of forcing.
      after: the last day that is known to be there.
      until: the last day that is of interest.

    Returns:
      The day, and what the source says of the days after it, "" where it reaches `until`.
    """
    if until <= after:
        return after, ""
    least, most, said = after, until, ""
    while True:
        middle = most if not said else least + (most - least) // 2
        try:
            least = max(least, min(_last(experiment, entry, (after + DAY, middle)), middle))
            if not said:
                return least, "" if least == until else f"it ends on {least}"
            if least < middle:
                return least, said
        except DataError as error:
            said, most = str(error), middle
        if most - least <= DAY:
            return least, said


def _last(experiment: Experiment, entry: str, period: tuple[date, date]) -> date:
    """The last whole day that a source has, opened for a period.

    Raises:
      DataError: it has not the whole period, and wants to say so.
    """
    dataset = catalog.open_source(experiment, entry, period=period)
    held = dataset["time"].values.astype("datetime64[D]").tolist()
    partial = str(dataset.attrs.get("partial_days", ""))
    dataset.close()
    days: list[date] = sorted(day for day in held if period[0] <= day <= period[1])
    if days and partial.endswith(str(days[-1])):
        days.pop()
    return days[-1] if days else period[0] - DAY


def preliminary(experiment: Experiment, through: date) -> Spans:
    """The span of days, up to one, whose forcing may still be replaced; none, or one.

    The entries say so: `preliminary_days: N` in their metadata are the last N days before today.
    """
    first = through + DAY
    for entry in experiment.sources.forcing:
        metadata = catalog.find(experiment.sources.catalog, entry).spec.get("metadata") or {}
        if n_days := int(metadata.get("preliminary_days", 0)):
            first = min(first, today() - timedelta(n_days - 1))
    first = max(first, experiment.period[0])
    return [[str(first), str(through)]] if first <= through else []
