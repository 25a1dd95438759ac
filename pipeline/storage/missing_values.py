"""Count missing values by variable and block, and stop if there are more than a limit.

The counts of a variable are a record in the cube's manifest; `Counts.record` describes its keys.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.dates import runs_as_text, runs_of_days
from pipeline.errors import DataError
from pipeline.storage import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.files import Json

    Period = tuple[date, date]


DEFAULT_LIMITS = {
    "forcing": 0.001,
    "static": 0.1,
}  # default shares, if qc.max_missing does not set them

# By default, at least this many incomplete days are accepted: a missing hour can spoil two days.
MIN_ACCEPTED_DAYS = 2
CONSTANT = "constant"  # key of a variable without time, instead of the first day of a block
TOLERATED_SHARE = 0.001  # a day counts as complete if at most this share of the places has no value


def check_limits(experiment: Experiment, records: dict[str, Json], url: str = "") -> None:
    """Stop if variables have more missing values than accepted.

    Args:
      experiment: The experiment, with its limits.
      records: The record of each forcing and static variable.
      url: URL of the cube. The receipts of blocks in which such a variable has missing values are
        removed, so that the next run reads these blocks again. "" removes none.

    Raises:
      DataError: If there are such variables; it names all of them, their days and their share.
    """
    problems = {name: describe_excess(experiment, name, record) for name, record in records.items()}
    rejected = [name for name, text in problems.items() if text]
    if rejected:
        for name in rejected if url else ():
            starts = [date.fromisoformat(day) for day in records[name]["blocks"] if day != CONSTANT]
            blocks = [schema.block_of_day(experiment.period, day) for day in starts]
            forget_receipts(url, blocks or [0])
        raise missing_values_error([problems[name] for name in rejected])


def describe_excess(experiment: Experiment, name: str, record: Json) -> str:
    """Describe a variable that has more missing values than accepted; "" if it has not."""
    given = experiment.qc.max_missing
    kind = experiment.table[name].kind
    limit = given.get(name, given.get(kind, DEFAULT_LIMITS[kind]))
    variable = f"{name} of {record['entry']}"
    if "of_days" not in record:
        if record["n"] <= limit * record["of"]:
            return ""
        missing = f"{variable} is missing at {_format_share(record)} of the valid places"
        return f"{missing}, at most {100 * limit:g} % are accepted"
    n_missing, total = count_incomplete_days(record), record["of_days"]
    accepted = int(limit * total + 1e-9)
    if not given.keys() & {name, kind}:  # a limit that the user sets is applied as it is
        accepted = max(MIN_ACCEPTED_DAYS, accepted)
    if n_missing <= accepted:
        return ""
    runs = runs_as_text(record["days"], most=3, more="more runs")
    missing = f"{variable} is missing on {n_missing} of {total} days ({runs})"
    infinite = f"{record['infinite']} values are infinite, " if record["infinite"] else ""
    share = f"{_format_share(record)} of its values at valid places"
    return f"{missing}, {share}, {infinite}at most {accepted} days are accepted"


def missing_values_error(problems: Sequence[str]) -> DataError:
    """Return the error about variables with more missing values than accepted."""
    hint = (
        "get the values from the provider, choose another period or source, or accept more with "
        "qc.max_missing; soilweave doctor shows details, and blocks without missing values are kept"
    )
    return DataError("sources", *problems, remedy=hint)


def summarise_missing(missing: dict[str, Json], table: dict[str, Variable]) -> str:
    """Summarise the missing forcing and static values in one line, for the end of a stage.

    Args:
      missing: Records by variable, of `cells` and of `sites`, and `no_cells`, as in the manifest
        of a cube.
      table: All variables.
    """
    items = [item for place in ("cells", "sites") for item in missing.get(place, {}).items()]
    parts = []
    for name, record in items:
        if record["n"] and table[name].kind != "target":
            days = (
                f" on {count_incomplete_days(record)} of {record['of_days']} days"
                if "days" in record
                else ""
            )
            infinite = f" ({record['infinite']} infinite)" if record["infinite"] else ""
            parts.append(f"{name} {record['n']} values{infinite}{days}")
    alone = missing.get("no_cells", {}).get("alone", {})
    parts += [f"only {name} in {n} cells, which are not used" for name, n in alone.items()]
    return f"missing: {', '.join(parts)}" if parts else "no forcing or static is missing"


def count_incomplete_days(record: Json) -> int:
    """Return the number of days on which a variable is incomplete."""
    spans = np.array(record.get("days", []), "datetime64[D]").reshape(-1, 2)
    return int((np.diff(spans, axis=1).astype(int) + 1).sum())


def count_at_sites(experiment: Experiment, entry: str, values: NDArray[np.float32]) -> Json:
    """Count the missing values of a variable at the sites.

    Args:
      experiment: The experiment, for its period.
      entry: The catalog entry that the values come from.
      values: (day, site) on the days of the period, or (site,). Infinite values are replaced by
        NaN in place.

    Returns:
      The record of `Counts.record`.
    """
    infinite = np.isinf(values)
    values[infinite] = np.nan
    n_missing, n_infinite = np.isnan(values).sum(-1), infinite.sum(-1)
    counts = MissingCounts(entry, values.shape[-1])
    if values.ndim == 1:
        counts.add_constant(int(n_missing), int(n_infinite))
        return counts.record()
    axis = schema.time_axis(experiment.period)
    for block in schema.block_range(experiment.period):
        days = schema.block_slice(experiment.period, block)
        counts.add(axis[days], n_missing[days], int(n_infinite[days].sum()))
    return counts.record()


class MissingCounts:
    """Missing values of one variable at a number of places, counted block by block."""

    def __init__(self, entry: str, n_places: int) -> None:
        """Start at zero.

        Args:
          entry: The catalog entry of the variable.
          n_places: Number of places that should have a value.
        """
        self.entry, self.n_places = entry, n_places
        self.n_days, self.constant = 0, False
        self.blocks: dict[str, int] = {}
        self.infinite: dict[str, int] = {}
        self.incomplete: list[int] = []

    @classmethod
    def until(cls, record: Json, n_places: int, days: range) -> MissingCounts:
        """Start from the counts of earlier days.

        Args:
          record: The earlier record.
          n_places: Number of places that should have a value.
          days: The days to keep, since 1970-01-01, in whole blocks.
        """
        counts = cls(str(record["entry"]), n_places)
        counts.n_days = len(days)
        for target, key in ((counts.blocks, "blocks"), (counts.infinite, "infinite_blocks")):
            target |= {day: n for day, n in record[key].items() if _epoch_day(day) in days}
        spans = [range(_epoch_day(a), _epoch_day(b) + 1) for a, b in record["days"]]
        counts.incomplete = [day for span in spans for day in span if day in days]
        return counts

    def add(self, days: NDArray[np.int32], missing: NDArray[np.int64], infinite: int = 0) -> None:
        """Add a block.

        Args:
          days: (day,) the days of the block that are in the period, since 1970-01-01.
          missing: (day,) number of places without a value.
          infinite: Number of values that are infinite in the source.
        """
        self.n_days += len(days)
        if missing.any():
            self.blocks[_iso_date(days[0])] = int(missing.sum())
        if infinite:
            self.infinite[_iso_date(days[0])] = infinite
        self.incomplete += days[missing > TOLERATED_SHARE * self.n_places].tolist()

    def add_constant(self, missing: int, infinite: int = 0) -> None:
        """Add a variable without time: the numbers of places without a value, and infinite."""
        self.constant = True
        self.blocks |= {CONSTANT: missing} if missing else {}
        self.infinite |= {CONSTANT: infinite} if infinite else {}

    def record(self) -> Json:
        """Return the counts as the manifest stores them.

        Returns:
          `entry`: the catalog entry.
          `n`: number of missing values.
          `infinite`: number of missing values that are infinite in the source.
          `of`: number of values that there should be.
          `blocks`, `infinite_blocks`: `n` and `infinite` by the first day of the block.
          `days`: [first, last] of each run of incomplete days, on which more than one place in a
          thousand has no value. `of_days`: number of days. A variable without time has neither.
        """
        record: Json = {"entry": self.entry, "n": sum(self.blocks.values())}
        record |= {"infinite": sum(self.infinite.values()), "of": self.n_places}
        record |= {"blocks": self.blocks, "infinite_blocks": self.infinite}
        if self.constant:
            return record
        spans = [
            [_iso_date(first), _iso_date(last)] for first, last in runs_of_days(self.incomplete)
        ]
        return record | {
            "of": self.n_places * self.n_days,
            "of_days": self.n_days,
            "days": spans,
        }


def forget_receipts(url: str, blocks: Iterable[int]) -> None:
    """Remove the receipts of blocks, so that the next run reads these blocks again."""
    for block in blocks:
        for kind in ("json", "compared.json"):
            files.remove(files.join(url, "receipts", f"{block}.{kind}"))


def _format_share(record: Json) -> str:
    return f"{100 * record['n'] / max(record['of'], 1):.3g} %"


def _epoch_day(day: str) -> int:
    """Return the days from 1970-01-01 to an ISO date."""
    return int(np.datetime64(day, "D").astype(int))


def _iso_date(day: int) -> str:
    return str(np.datetime64(int(day), "D"))
