"""Parquet tables on any URL, written in one piece.

sites.parquet read as arrays: what every arm and baseline predicts at every site and day.

What an experiment predicted at the sites, over its test period: sites.parquet, read again.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pipeline import files
from pipeline.errors import DamagedError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment
    from pipeline.storage.artefacts import Workspace


def write(url: str, table: pd.DataFrame) -> None:
    """Write a table; text columns as strings, no index."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    files.write_bytes(url, buffer.getvalue())


def read(url: str, columns: list[str] | None = None) -> pd.DataFrame:
    """The whole table, or some of its columns.

    Raises:
      StoreError: there is none, or its store does not answer.
      DamagedError: it is there and is not a whole table.
    """
    try:
        data = files.read_bytes(url)
    except FileNotFoundError as error:
        remedy = "the stage that writes it must run again, with --overwrite"
        raise StoreError(url, "not found", remedy=remedy) from error
    try:
        return pd.read_parquet(io.BytesIO(data), columns=columns)
    except (ValueError, OSError) as error:  # of Arrow
        problem = f"is damaged: {len(data)} bytes that are not a whole table of Parquet"
        raise DamagedError(url, problem, remedy=files.DAMAGED) from error


KEYS = ("arm", "site", "time")


@dataclass(frozen=True)
class SitePredictions:
    """The columns of sites.parquet, by arm or baseline.

    Attributes:
      ids: (site,) ids of the sites, in the order of the cube.
      days: (day,) datetime64[D], all days of the cube.
      rows: the rows of each arm or baseline, all days of one site after the other.
    """

    ids: tuple[str, ...]
    days: NDArray[np.datetime64]
    rows: dict[str, pd.DataFrame]

    def values(self, name: str, column: str) -> NDArray[Any]:
        """(site, day) values of a column of one arm or baseline."""
        values: NDArray[Any] = self.rows[name][column].to_numpy()
        return values.reshape(len(self.ids), len(self.days))

    @property
    def observed(self) -> NDArray[np.float32]:
        """(site, day) observations in the target's unit, NaN where missing."""
        return self.values(next(iter(self.rows)), "observation")


def read_site_predictions(workspace: Workspace, *columns: str) -> SitePredictions:
    """The predictions of a workspace.

    Args:
      workspace: has sites.parquet.
      columns: that are wanted beside arm, site and time.

    Raises:
      StoreError: there is no such table, or its store does not answer.
      DamagedError: it is there and is not a whole table.
    """
    table = read(workspace.url("sites.parquet"), [*KEYS, *columns])
    rows = {str(name): of_arm for name, of_arm in table.groupby("arm", sort=False)}
    first = next(iter(rows.values()))
    n_sites = first.site.nunique()
    ids = first.site.to_numpy().reshape(n_sites, -1)[:, 0]
    days = first.time.to_numpy().reshape(n_sites, -1)[0].astype("datetime64[D]")
    return SitePredictions(tuple(map(str, ids)), days, rows)


@dataclass(frozen=True)
class PastRun:
    """One experiment at its sites: observations and predictions by arm or `ridge` (site, day).

    `block`, `lat` and `lon` (site,) say where each lies, the last two in degrees. `folds` is the
    digest of how they are held out; `status` says of an arm whether its sites were (text).
    """

    workspace: Workspace
    experiment: Experiment
    folds: str
    ids: tuple[str, ...]
    block: NDArray[np.int64]
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    days: NDArray[np.datetime64]
    observed: NDArray[np.float32]
    predictions: dict[str, NDArray[np.float32]]
    status: dict[str, str]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.workspace.root.rpartition("/")[2]

    def at(self, ids: Sequence[str], days: NDArray[np.datetime64]) -> PastRun:
        """At some of its sites, on some of its days."""
        rows = pd.Index(self.ids).get_indexer(pd.Index(ids))
        there = np.ix_(rows, np.searchsorted(self.days, days))
        return replace(
            self,
            ids=tuple(ids),
            block=self.block[rows],
            lat=self.lat[rows],
            lon=self.lon[rows],
            days=days,
            observed=self.observed[there],
            predictions={arm: series[there] for arm, series in self.predictions.items()},
        )


def read_past_run(workspace: Workspace) -> PastRun:
    """The trial of a workspace.

    Raises:
      StoreError: nothing was run here, or no models are complete.
    """
    experiment = workspace.described()
    workspace.artefact("models").digest()
    folds = workspace.artefact("folds").manifest() or {}
    table = read_site_predictions(workspace, "status", "observation", "prediction")
    where = read(workspace.url("folds.parquet"), ["site", "lat", "lon", "block"])
    where = where.set_index("site").loc[list(table.ids)]
    first, last = (np.datetime64(day) for day in experiment.test_period)
    test = (table.days >= first) & (table.days <= last)
    return PastRun(
        workspace,
        experiment,
        str(folds.get("digest")),
        table.ids,
        where.block.to_numpy(),
        where.lat.to_numpy(),
        where.lon.to_numpy(),
        table.days[test],
        table.observed[:, test],
        {arm: table.values(arm, "prediction")[:, test] for arm in table.rows},
        {arm: "/".join(sorted(rows.status.unique())) for arm, rows in table.rows.items()},
    )
