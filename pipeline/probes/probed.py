"""Read a table of probes as guessed, apply quality control, and locate the probes on the grid."""

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
    """What is known of a table of probes.

    Attributes:
      url: the file, an absolute path or a URL.
      size: size of the file in bytes.
      guess: how it is read.
      places: place of every probe, by id.
      data: daily values; None if the table has errors.
      dropped: (time, place) values that quality control drops, by rule.
      problems: what has to be corrected.
    """

    url: str
    size: int
    guess: Guess
    places: dict[str, Place] = field(default_factory=dict)
    data: xr.Dataset | None = None
    dropped: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def index_of(self, site: str) -> int | None:
        """Return the index of a probe in the data; None if it has no data."""
        ids = [] if self.data is None else self.data.place.values.tolist()
        return ids.index(site) if site in ids else None


def examined(url: str, given: dict[str, Any]) -> Examined:
    """Read a table as guessed, and find everything that is wrong with it.

    Args:
      url: an absolute path or a URL.
      given: arguments that the user states, as for `guessing.guess`.

    Raises:
      DataError: If the file cannot be read or is empty.
    """
    content = remote.read(url)
    raw, problems = split(content)
    if raw.empty:
        raise DataError(http_errors.shown(url), *(problems or ["no rows"]))
    guess = guessing.guess(raw, given)
    result = Examined(url, len(content), guess, problems=list(guess.problems))
    if not guess.args:
        result.problems += problems
        return result
    try:
        data = TableSource(url, **guess.args).to_dask()
        _, result.dropped = qc.screen(data, TARGET, VARIABLES[TARGET], QcConfig())
        result.data = data
    except DataError as error:
        result.problems += error.problems
    except ValueError as error:
        result.problems.append(str(error))
        return result
    hours = places.clock_hours(raw[guess.columns["time"]], guess.args["time_zone"])
    result.places, place_problems = places.places(_coordinates(raw, guess), hours)
    result.problems += place_problems
    if result.data is not None and not counts(result)[1].any():
        result.problems.append("no value passes quality control")
    return result


def _coordinates(raw: pd.DataFrame, guess: Guess) -> pd.DataFrame:
    """Return the first lat and lon of every id, and the decimals they are written with."""
    import pandas as pd

    # A single station's id, lat and lon become columns, as in a table that has them.
    station = {f"({role})": str(guess.args[role]) for role in NEEDED if role in guess.args}
    raw = raw.assign(**station)
    columns = {role: guess.args["columns"].get(role, f"({role})") for role in NEEDED}
    names = {name: columns[name] for name in ("lat", "lon")}
    ids = raw[columns["id"]]
    coordinates = pd.DataFrame({name: units.numbers(raw, c, ()) for name, c in names.items()})
    decimals = [raw[c].str.extract(r"[.,](\d+)$")[0].fillna("").str.len() for c in names.values()]
    coordinates["decimals"] = pd.concat(decimals, axis=1).max(axis=1)
    known = coordinates[ids != ""].dropna()
    first: pd.DataFrame = known.groupby(ids[known.index], sort=False).first()
    return first


def counts(table: Examined) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (place,) the number of days with a value, and of those that quality control keeps."""
    assert table.data is not None
    days = np.isfinite(table.data[TARGET].values).sum(0)
    return days, days - sum((bad.sum(0) for bad in table.dropped.values()), np.zeros_like(days))
