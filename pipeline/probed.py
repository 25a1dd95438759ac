"""What a table of probes is: read as guessed, screened, placed on the grid; and that as a table."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline import qc
from pipeline.config import JudgingConfig, QcConfig
from pipeline.errors import DataError
from pipeline.names import VARIABLES
from pipeline.sources import remote, table_guess, table_places, table_rows
from pipeline.sources.table import TableSource
from pipeline.sources.table_guess import TARGET

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray
    from rich.table import Table

    from pipeline.sources.table_guess import Guess
    from pipeline.sources.table_places import Place

FEW_DAYS = JudgingConfig.model_fields["min_days"].default
EPOCH = np.datetime64("1970-01-01", "ns")


@dataclass
class Examined:
    """What was found of a table.

    Attributes:
      url: the file, an absolute path or a URL.
      size: its bytes.
      guess: how it is read.
      places: of every probe.
      data: daily values; none where the table has faults.
      dropped: (time, place) by rule, what quality control drops.
      problems: to be mended.
    """

    url: str
    size: int
    guess: Guess
    places: dict[str, Place] = field(default_factory=dict)
    data: xr.Dataset | None = None
    dropped: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def at(self, site: str) -> int | None:
        """Its index in the data; None where it has none there."""
        ids = [] if self.data is None else self.data.place.values.tolist()
        return ids.index(site) if site in ids else None


def examined(url: str, given: dict[str, Any]) -> Examined:
    """Read a table as it is guessed to be, and everything that is wrong with it.

    Args:
      url: an absolute path or a URL.
      given: what is not to be guessed, of `table_guess.guess`.

    Raises:
      DataError: it cannot be read, or is empty.
    """
    content = remote.read(url)
    raw, problems = table_rows.split(content)
    if raw.empty:
        raise DataError(remote.shown(url), *(problems or ["no rows"]))
    guess = table_guess.guess(raw, given)
    found = Examined(url, len(content), guess, problems=list(guess.problems))
    if not guess.args:
        found.problems += problems
        return found
    try:
        source = TableSource(url, **guess.args)
        data = source.to_dask()
        variable = VARIABLES[TARGET]
        _, found.dropped = qc.screen(data, TARGET, variable, QcConfig())
        found.data = data
    except DataError as error:
        found.problems += error.problems
    except ValueError as error:
        found.problems.append(str(error))
        return found
    hours = table_places.clock_hours(raw[guess.columns["time"]], guess.args["time_zone"])
    found.places, odd = table_places.places(_coordinates(raw, guess), hours)
    found.problems += odd
    if found.data is not None and not counts(found)[1].any():
        found.problems.append("no value passes quality control")
    return found


def _coordinates(raw: pd.DataFrame, guess: Guess) -> pd.DataFrame:
    """First lat and lon of every id, and the decimals they are written with."""
    import pandas as pd

    names = {name: guess.columns[name] for name in ("lat", "lon")}
    ids = raw[guess.columns["id"]]
    made = pd.DataFrame({name: table_guess.numbers(raw, c) for name, c in names.items()})
    written = [raw[c].str.extract(r"[.,](\d+)$")[0].fillna("").str.len() for c in names.values()]
    made["decimals"] = pd.concat(written, axis=1).max(axis=1)
    known = made[ids != ""].dropna()
    return known.groupby(ids[known.index], sort=False).first()


def counts(found: Examined) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(place,) days with a value, and those kept."""
    assert found.data is not None
    days = np.isfinite(found.data[TARGET].values).sum(0)
    return days, days - sum((bad.sum(0) for bad in found.dropped.values()), np.zeros_like(days))


def table(found: Examined) -> Table:
    """A row for each probe: where it is, what it has, and what is dropped; 80 columns wide."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    convention = f"; {found.data.time_convention}s" if found.data is not None else ""
    title = f"Probes; row, column of the global grids{convention}"
    made = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    made.add_column("probe", overflow="fold")
    for name in ("place", "9 km\ncell", "36 km\nfootprint", "depth\nm"):
        made.add_column(name, no_wrap=True)
    for name in ("days", "kept"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("period", no_wrap=True)
    made.add_column("dropped")
    for site, place in found.places.items():
        cells = [site, place.shown, pair(place.cell), pair(place.footprint)]
        made.add_row(*(Text(cell) for cell in [*cells, *_record(found, site)]))
    return made


def _record(found: Examined, site: str) -> list[str]:
    """Depth, days, share kept, period and what is dropped of a probe."""
    at = found.at(site)
    if found.data is None or at is None:
        return ["", "0" if found.data is not None else ""]
    one = found.data.isel(place=at)
    days, kept = (int(n[at]) for n in counts(found))
    depths = dict.fromkeys(f"{float(one[name]):g}" for name in ("depth_from", "depth_to"))
    if not days:
        return ["-".join(depths), "0"]
    stamps = one.time.values[np.isfinite(one[TARGET].values)].astype("datetime64[D]")
    dropped = {rule: int(bad[:, at].sum()) for rule, bad in found.dropped.items()}
    return [
        "-".join(depths),
        str(days),
        f"{kept / days:.0%}",
        f"{stamps[0]}\n{stamps[-1]}",
        "\n".join(f"{rule} {n}" for rule, n in dropped.items() if n),
    ]


def minds(found: Examined) -> list[str]:
    """What to mind of the probes, each with the probes it is true of."""
    told = defaultdict(list)
    for site, place in found.places.items():
        for text in [*place.minds, *_record_minds(found, site)]:
            told[text].append(site)
    return [f"{table_places.few(sites)}: {text}" for text, sites in told.items()]


def _record_minds(found: Examined, site: str) -> list[str]:
    if found.data is None:
        return []
    at = found.at(site)
    if at is None:
        return ["left out, no sensor in the depth class"]
    days, kept = (int(n[at]) for n in counts(found))
    last = found.data.time.values[np.isfinite(found.data[TARGET].values[:, at])].max(initial=EPOCH)
    texts = {
        f"fewer than {FEW_DAYS} days kept, so not scored by default": kept < FEW_DAYS,
        "less than half is kept": kept < 0.5 * days,
        "days in the future": last > np.datetime64("now"),
    }
    return [text for text, true in texts.items() if true]


def pair(indices: tuple[int, int]) -> str:
    """Row and column, as people read them."""
    return "{}, {}".format(*indices) if min(indices) >= 0 else "none"
