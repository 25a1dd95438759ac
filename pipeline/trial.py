"""What an experiment predicted at the sites, over its test period: sites.parquet, read again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.store import Workspace

COLUMNS = ["arm", "site", "status", "time", "observation", "prediction"]


@dataclass(frozen=True)
class Trial:
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

    def at(self, ids: Sequence[str], days: NDArray[np.datetime64]) -> Trial:
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


def read(workspace: Workspace) -> Trial:
    """The trial of a workspace.

    Raises:
      StoreError: nothing was run here, or no models are complete.
    """
    experiment = workspace.described()
    workspace.artefact("models").digest()
    folds = workspace.artefact("folds").manifest() or {}
    table = tables.read(workspace.url("sites.parquet"), COLUMNS)
    where = tables.read(workspace.url("folds.parquet"), ["site", "lat", "lon", "block"])
    by_arm = dict(list(table.groupby("arm", sort=False)))
    some = next(iter(by_arm.values()))
    n_sites = some.site.nunique()
    ids = some.site.to_numpy().reshape(n_sites, -1)[:, 0]
    where = where.set_index("site").loc[list(ids)]
    days = some.time.to_numpy().reshape(n_sites, -1)[0].astype("datetime64[D]")
    first, last = (np.datetime64(day) for day in experiment.test_period)
    test = (days >= first) & (days <= last)

    def square(rows: pd.DataFrame, column: str) -> NDArray[np.float32]:
        series: NDArray[np.float32] = rows[column].to_numpy().reshape(n_sites, -1)[:, test]
        return series

    return Trial(
        workspace,
        experiment,
        str(folds.get("digest")),
        tuple(map(str, ids)),
        where.block.to_numpy(),
        where.lat.to_numpy(),
        where.lon.to_numpy(),
        days[test],
        square(some, "observation"),
        {str(arm): square(rows, "prediction") for arm, rows in by_arm.items()},
        {str(arm): "/".join(sorted(rows.status.unique())) for arm, rows in by_arm.items()},
    )
