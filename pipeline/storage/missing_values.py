"""What the sources lack: counted by variable and block, and the limit above which a run stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.dates import runs_as_text, runs_of_days
from pipeline.errors import DataError
from pipeline.storage import schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.experiment.variables import Variable
    from pipeline.files import Json

    Period = tuple[date, date]


LIMITS = {"forcing": 0.001, "static": 0.1}  # where qc.max_missing says nothing
LEAST_DAYS = 2  # incomplete days that are accepted by default: a missing hour can spoil two days
CONSTANT = "constant"  # in place of the first day of a block
FEW = 0.001  # share of the places that may lack a value on a day that still counts as complete


def forget(url: str, blocks: Iterable[int]) -> None:
    """Remove the receipts of blocks, so that the next run reads them again."""
    for block in blocks:
        for kind in ("json", "compared.json"):
            files.remove(files.join(url, "receipts", f"{block}.{kind}"))


def of_sites(experiment: Experiment, entry: str, values: NDArray[np.float32]) -> Json:
    """What a variable lacks at the sites, as `Counts.record` has it.

    Args:
      experiment: its period.
      entry: that the values come from.
      values: (day, site) on the days of the period, or (site,); infinite ones become NaN in place.
    """
    infinite = np.isinf(values)
    values[infinite] = np.nan
    lacking, n = np.isnan(values).sum(-1), infinite.sum(-1)
    counts = Counts(entry, values.shape[-1])
    if values.ndim == 1:
        counts.add_constant(int(lacking), int(n))
        return counts.record()
    first = schema.epoch_day(experiment.period[0])
    for block in schema.block_range(experiment.period):
        days = np.array([*days_of(experiment.period, block).values()])
        counts.add(days, lacking[days - first], int(n[days - first].sum()))
    return counts.record()


class Counts:
    """Missing values of one variable at a number of places, block by block."""

    def __init__(self, entry: str, n_places: int) -> None:
        """Nothing is counted yet."""
        self.entry, self.n_places = entry, n_places
        self.n_days, self.constant = 0, False
        self.blocks: dict[str, int] = {}
        self.infinite: dict[str, int] = {}
        self.incomplete: list[int] = []

    @classmethod
    def until(cls, record: Json, n_places: int, days: range) -> Counts:
        """What was counted of some days, to go on after them.

        Args:
          record: as of `record`.
          n_places: that are counted.
          days: since 1970-01-01, whole blocks but the first.
        """
        made = cls(str(record["entry"]), n_places)
        made.n_days = len(days)
        for kept, blocks in ((made.blocks, "blocks"), (made.infinite, "infinite_blocks")):
            kept |= {day: n for day, n in record[blocks].items() if _number(day) in days}
        spans = [range(_number(a), _number(b) + 1) for a, b in record["days"]]
        made.incomplete = [day for span in spans for day in span if day in days]
        return made

    def add(self, days: NDArray[np.int64], lacking: NDArray[np.int64], infinite: int = 0) -> None:
        """Count a block.

        Args:
          days: those of the block that are in the period, since 1970-01-01.
          lacking: (day,) places without a value.
          infinite: values that the source has as infinite.
        """
        self.n_days += len(days)
        if lacking.any():
            self.blocks[_iso(days[0])] = int(lacking.sum())
        if infinite:
            self.infinite[_iso(days[0])] = infinite
        self.incomplete += days[lacking > FEW * self.n_places].tolist()

    def add_constant(self, lacking: int, infinite: int = 0) -> None:
        """Count the places that lack a constant."""
        self.constant = True
        self.blocks |= {CONSTANT: lacking} if lacking else {}
        self.infinite |= {CONSTANT: infinite} if infinite else {}

    def record(self) -> Json:
        """As the manifest has it.

        `entry`: of the catalog; `n`: missing values, `infinite`: those among them that the source
        has as infinite, `of`: how many values there should be; `blocks` and `infinite_blocks`: the
        same by the first day of the block; `days`: [first, last] of each run of incomplete days, on
        which more than one place in a thousand lacks a value, of `of_days` days. A constant has no
        days.
        """
        made: Json = {"entry": self.entry, "n": sum(self.blocks.values())}
        made |= {"infinite": sum(self.infinite.values()), "of": self.n_places}
        made |= {"blocks": self.blocks, "infinite_blocks": self.infinite}
        if self.constant:
            return made
        spans = [[_iso(first), _iso(last)] for first, last in runs_of_days(self.incomplete)]
        return made | {
            "of": self.n_places * self.n_days,
            "of_days": self.n_days,
            "days": spans,
        }


def check(experiment: Experiment, found: dict[str, Json], url: str = "") -> None:
    """Stop where a variable lacks more than is accepted.

    Args:
      experiment: its limits.
      found: what each variable of forcing and each static lacks.
      url: the store of the blocks; those in which such a variable lacks values are forgotten.

    Raises:
      DataError: naming the variables, the days and the share.
    """
    told = {name: problem(experiment, name, record) for name, record in found.items()}
    wrong = [name for name, line in told.items() if line]
    if wrong:
        first = schema.block_range(experiment.period).start
        for name in wrong if url else ():
            starts = [_number(day) for day in found[name]["blocks"] if day != CONSTANT]
            forget(url, [day // schema.BLOCK_DAYS for day in starts] or [first])
        raise stop([told[name] for name in wrong])


def problem(experiment: Experiment, name: str, record: Json) -> str:
    """What to say of a variable that lacks more than is accepted; "" where it does not."""
    given = experiment.qc.max_missing
    kind = experiment.table[name].kind
    limit = given.get(name, given.get(kind, LIMITS[kind]))
    place = f"{name} of {record['entry']}"
    if "of_days" not in record:
        if record["n"] <= limit * record["of"]:
            return ""
        found = f"{place} is missing at {_share(record)} of the valid places"
        return f"{found}, at most {100 * limit:g} % are accepted"
    lacking, total = n_days(record), record["of_days"]
    accepted = int(limit * total + 1e-9)
    if not given.keys() & {name, kind}:  # a limit that was asked for holds as it is
        accepted = max(LEAST_DAYS, accepted)
    if lacking <= accepted:
        return ""
    runs = runs_as_text(record["days"], most=3, more="more runs")
    found = f"{place} is missing on {lacking} of {total} days ({runs})"
    infinite = f"{record['infinite']} values are infinite, " if record["infinite"] else ""
    values = f"{_share(record)} of its values at valid places"
    return f"{found}, {values}, {infinite}at most {accepted} days are accepted"


def stop(lines: Sequence[str]) -> DataError:
    """The error of variables that lack more than is accepted."""
    remedy = "get the values from the provider, choose another period or source, or accept more"
    remedy += " with qc.max_missing; soilweave doctor shows more, and blocks without gaps are kept"
    return DataError("sources", *lines, remedy=remedy)


def n_days(record: Json) -> int:
    """Days on which a variable is incomplete."""
    spans = np.array(record.get("days", []), "datetime64[D]").reshape(-1, 2)
    return int((np.diff(spans, axis=1).astype(int) + 1).sum())


def line(found: dict[str, Json], table: dict[str, Variable]) -> str:
    """What forcing and statics lack, of cells and of sites' own, for the summary of a stage."""
    told = []
    each = [item for where in ("cells", "sites") for item in found.get(where, {}).items()]
    for name, record in each:
        if record["n"] and table[name].kind != "target":
            days = f" on {n_days(record)} of {record['of_days']} days" if "days" in record else ""
            infinite = f" ({record['infinite']} infinite)" if record["infinite"] else ""
            told.append(f"{name} {record['n']} values{infinite}{days}")
    alone = found.get("no_cells", {}).get("alone", {})
    told += [f"{name} alone in {n} cells, which are not used" for name, n in alone.items()]
    return f"missing: {', '.join(told)}" if told else "no forcing or static is missing"


def _share(record: Json) -> str:
    return f"{100 * record['n'] / max(record['of'], 1):.3g} %"


def days_of(period: Period, block: int) -> dict[int, int]:
    """Days since 1970-01-01 of a block that are in the period, by their number in the block."""
    first, last = map(schema.epoch_day, period)
    start = block * schema.BLOCK_DAYS
    days = range(max(first, start), min(last, start + schema.BLOCK_DAYS - 1) + 1)
    return {day - start: day for day in days}


def _number(day: str) -> int:
    """Days since 1970-01-01."""
    return int(np.datetime64(day, "D").astype(int))


def _iso(day: int) -> str:
    return str(np.datetime64(int(day), "D"))
