"""What the sources lack: counted by variable and block, and the limit above which a run stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import files, schema
from pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.names import Variable

    Period = tuple[date, date]

LIMITS = {"forcing": 0.001, "static": 0.1}  # where qc.max_missing says nothing
LEAST_DAYS = 2  # incomplete days that are always accepted: one missing hour can spoil two days
FEW = 0.001  # share of the places that may lack a value on a day that still counts as complete


def without_infinite(values: NDArray[np.float32]) -> int:
    """Replace infinite values by NaN in place; returns how many there were."""
    infinite = np.isinf(values)
    values[infinite] = np.nan
    return int(infinite.sum())


def forget(url: str, blocks: Iterable[int]) -> None:
    """Remove the receipts of blocks, so that the next run reads them again."""
    for block in blocks:
        files.remove(files.join(url, "receipts", f"{block}.json"))


def of_sites(experiment: Experiment, values: NDArray[np.float32]) -> Json:
    """What a variable lacks at the sites; a record as of `Counts`.

    Args:
      experiment: its period.
      values: (day, site) on the days of the period, or (site,).
    """
    lacking = np.isnan(values)
    counted = Counts(values.shape[-1])
    if values.ndim == 1:
        counted.add_constant(int(lacking.sum()))
    else:
        first = schema.epoch_day(experiment.period[0])
        for block in schema.block_range(experiment.period):
            days = [*days_of(experiment.period, block).values()]
            counted.add(days, lacking.sum(1)[np.array(days) - first])
    return counted.record()


class Counts:
    """Missing values of one variable at a number of places, block by block."""

    def __init__(self, n_places: int) -> None:
        """Nothing is counted yet."""
        self.n_places, self.n_days, self.constant = n_places, 0, False
        self.blocks: dict[str, int] = {}
        self.incomplete: list[int] = []

    def add(self, days: Iterable[int], lacking: NDArray[np.int64]) -> None:
        """Count a block.

        Args:
          days: those of the block that are in the period, since 1970-01-01.
          lacking: (day,) places without a value.
        """
        each = np.fromiter(days, int)
        self.n_days += len(each)
        if lacking.any():
            self.blocks[_iso(each[0])] = int(lacking.sum())
        self.incomplete += each[lacking > FEW * self.n_places].tolist()

    def add_constant(self, lacking: int) -> None:
        """Count the places that lack a constant."""
        self.constant = True
        if lacking:
            self.blocks["constant"] = lacking

    def record(self) -> Json:
        """As the manifest has it.

        `n`: missing values; `of`: how many there should be; `blocks`: missing values by the first
        day of the block; `days`: [first, last] of each run of incomplete days, on which more than
        one place in a thousand lacks a value; `of_days`: days that were looked at. A constant has
        no days.
        """
        made: Json = {"n": sum(self.blocks.values()), "blocks": self.blocks}
        if self.constant:
            return made | {"of": self.n_places}
        return made | {
            "of": self.n_places * self.n_days,
            "of_days": self.n_days,
            "days": [[_iso(run[0]), _iso(run[-1])] for run in _runs(self.incomplete)],
        }


def check(
    experiment: Experiment, entries: dict[str, str], found: dict[str, Json], url: str = ""
) -> None:
    """Stop where a variable lacks more than is accepted.

    Args:
      experiment: its limits.
      entries: of every variable, the entry that it comes from.
      found: what each variable of forcing and each static lacks.
      url: the store of the blocks; those in which such a variable lacks values are forgotten.

    Raises:
      DataError: naming the variables, the days and the share.
    """
    told = {name: problem(experiment, entries[name], name, found[name]) for name in found}
    wrong = [name for name, line in told.items() if line]
    if wrong:
        first = schema.block_range(experiment.period).start
        for name in wrong if url else ():
            starts = [day for day in found[name]["blocks"] if day != "constant"]
            forget(url, [_block(day) for day in starts] or [first])
        raise stop([told[name] for name in wrong])


def problem(experiment: Experiment, entry: str, name: str, record: Json) -> str:
    """What to say of a variable that lacks more than is accepted; "" where it does not."""
    given = experiment.qc.max_missing
    kind = experiment.table[name].kind
    limit = given.get(name, given.get(kind, LIMITS[kind]))
    place = f"{name} of {entry}"
    if "of_days" not in record:
        if record["n"] <= limit * record["of"]:
            return ""
        found = f"{place} is missing at {_share(record)} of the valid places"
        return f"{found}, at most {100 * limit:g} % are accepted"
    lacking, total = ndays_of(record), record["of_days"]
    accepted = max(LEAST_DAYS, int(limit * total))
    if lacking <= accepted:
        return ""
    spans = [a if a == b else f"{a}..{b}" for a, b in record["days"]]
    more = f" and {len(spans) - 3} more runs" if len(spans) > 3 else ""
    found = f"{place} is missing on {lacking} of {total} days ({', '.join(spans[:3])}{more})"
    infinite = f"{record['infinite']} infinite values among them, " if record["infinite"] else ""
    values = f"{_share(record)} of its values at valid places"
    return f"{found}, {values}, {infinite}at most {accepted} days are accepted"


def stop(lines: Sequence[str]) -> DataError:
    """The error of variables that lack more than is accepted."""
    remedy = (
        "look with soilweave doctor and get the values from the provider, choose another period"
    )
    remedy += " or source, or accept more with qc.max_missing; blocks without gaps are kept"
    return DataError("sources", *lines, remedy=remedy)


def ndays_of(record: Json) -> int:
    """Days on which a variable is incomplete."""
    spans = np.array(record.get("days", []), "datetime64[D]").reshape(-1, 2)
    return int((np.diff(spans, axis=1).astype(int) + 1).sum())


def line(found: dict[str, dict[str, Json]], table: dict[str, Variable]) -> str:
    """What forcing and statics lack, of cells and of sites' own, for the summary of a stage."""
    told = []
    each = [item for where in ("cells", "sites") for item in found.get(where, {}).items()]
    for name, record in each:
        if record["n"] and table[name].kind != "target":
            days = f" on {ndays_of(record)} of {record['of_days']} days" if "days" in record else ""
            infinite = f" ({record['infinite']} infinite)" if record.get("infinite") else ""
            told.append(f"{name} {record['n']} values{infinite}{days}")
    return f"missing: {', '.join(told)}" if told else "no forcing or static is missing"


def _share(record: Json) -> str:
    return f"{100 * record['n'] / max(record['of'], 1):.2g} %"


def days_of(period: Period, block: int) -> dict[int, int]:
    """Days since 1970-01-01 of a block that are in the period, by their number in the block."""
    first, last = map(schema.epoch_day, period)
    start = block * schema.BLOCK_DAYS
    days = range(max(first, start), min(last, start + schema.BLOCK_DAYS - 1) + 1)
    return {day - start: day for day in days}


def _runs(days: list[int]) -> list[NDArray[np.int64]]:
    each = np.array(sorted(days), np.int64)
    return np.split(each, np.flatnonzero(np.diff(each) != 1) + 1) if len(each) else []


def _block(day: str) -> int:
    """Number of the block that holds a day."""
    return int(np.datetime64(day, "D").astype(int)) // schema.BLOCK_DAYS


def _iso(day: int) -> str:
    return str(np.datetime64(int(day), "D"))
