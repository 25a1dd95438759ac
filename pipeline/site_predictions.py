"""sites.parquet read as arrays: what every arm and baseline predicts at every site and day."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline import tables

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.store import Workspace

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


def read(workspace: Workspace, *columns: str) -> SitePredictions:
    """The predictions of a workspace.

    Args:
      workspace: has sites.parquet.
      columns: that are wanted beside arm, site and time.

    Raises:
      StoreError: there is no such table, or its store does not answer.
      DamagedError: it is there and is not a whole table.
    """
    table = tables.read(workspace.url("sites.parquet"), [*KEYS, *columns])
    rows = {str(name): of_arm for name, of_arm in table.groupby("arm", sort=False)}
    first = next(iter(rows.values()))
    n_sites = first.site.nunique()
    ids = first.site.to_numpy().reshape(n_sites, -1)[:, 0]
    days = first.time.to_numpy().reshape(n_sites, -1)[0].astype("datetime64[D]")
    return SitePredictions(tuple(map(str, ids)), days, rows)
