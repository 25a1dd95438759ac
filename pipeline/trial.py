"""What an experiment predicted at the sites, over its test period: sites.parquet, read again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import site_predictions, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.store import Workspace


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
    table = site_predictions.read(workspace, "status", "observation", "prediction")
    where = tables.read(workspace.url("folds.parquet"), ["site", "lat", "lon", "block"])
    where = where.set_index("site").loc[list(table.ids)]
    first, last = (np.datetime64(day) for day in experiment.test_period)
    test = (table.days >= first) & (table.days <= last)
    return Trial(
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
