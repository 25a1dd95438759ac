"""What a table of probes is: read as guessed, screened, and placed on the grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from pipeline import qc
from pipeline.config import QcConfig
from pipeline.errors import DataError
from pipeline.names import VARIABLES
from pipeline.probes import guessing, places, units
from pipeline.probes.words import TARGET
from pipeline.sources import http_errors, remote
from pipeline.sources.table import TableSource
from pipeline.sources.table.form import NEEDED
from pipeline.sources.table.text import split

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.probes.guessing import Guess
    from pipeline.probes.places import Place


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
      given: what is not to be guessed, of `guessing.guess`.

    Raises:
      DataError: it cannot be read, or is empty.
    """
    content = remote.read(url)
    raw, problems = split(content)
    if raw.empty:
        raise DataError(http_errors.shown(url), *(problems or ["no rows"]))
    guess = guessing.guess(raw, given)
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
    hours = places.clock_hours(raw[guess.columns["time"]], guess.args["time_zone"])
    found.places, odd = places.places(_coordinates(raw, guess), hours)
    found.problems += odd
    if found.data is not None and not counts(found)[1].any():
        found.problems.append("no value passes quality control")
    return found


def _coordinates(raw: pd.DataFrame, guess: Guess) -> pd.DataFrame:
    """First lat and lon of every id, and the decimals they are written with."""
    import pandas as pd

    station = {f"({role})": str(guess.args[role]) for role in NEEDED if role in guess.args}
    raw = raw.assign(**station)
    columns = {role: guess.args["columns"].get(role, f"({role})") for role in NEEDED}
    names = {name: columns[name] for name in ("lat", "lon")}
    ids = raw[columns["id"]]
    made = pd.DataFrame({name: units.numbers(raw, c, ()) for name, c in names.items()})
    written = [raw[c].str.extract(r"[.,](\d+)$")[0].fillna("").str.len() for c in names.values()]
    made["decimals"] = pd.concat(written, axis=1).max(axis=1)
    known = made[ids != ""].dropna()
    first: pd.DataFrame = known.groupby(ids[known.index], sort=False).first()
    return first


def counts(found: Examined) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(place,) days with a value, and those kept."""
    assert found.data is not None
    days = np.isfinite(found.data[TARGET].values).sum(0)
    return days, days - sum((bad.sum(0) for bad in found.dropped.values()), np.zeros_like(days))
