"""Read and write Parquet tables, among them sites.parquet with the predictions at the sites.

`read_site_predictions` returns all of sites.parquet as arrays (site, day), `read_members` those of
members.parquet, with the predictions of single members. `read_past_run` returns
what is needed to compare a finished experiment with others, on the days of its test period.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
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


def write_table(url: str, table: pd.DataFrame) -> None:
    """Write a table without its index; a reader never sees a part of it.

    Raises:
      StoreError: If the URL cannot be written.
    """
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    files.write_bytes(url, buffer.getvalue())


def read_table(url: str, columns: list[str] | None = None) -> pd.DataFrame:
    """Read a table, or some of its columns.

    Raises:
      StoreError: If the table does not exist or its store does not answer.
      DamagedError: If the file is not a complete Parquet table.
    """
    try:
        data = files.read_bytes(url)
    except FileNotFoundError as error:
        hint = "run the stage that writes it again, with --overwrite"
        raise StoreError(url, "not found", remedy=hint) from error
    try:
        return pd.read_parquet(io.BytesIO(data), columns=columns)
    except (ValueError, OSError) as error:  # raised by Arrow
        problem = f"is damaged: {len(data)} bytes that are not a complete Parquet table"
        raise DamagedError(url, problem, remedy=files.DAMAGED_HINT) from error


KEY_COLUMNS = ("arm", "site", "time")  # columns of sites.parquet that are always read
MEMBERS = "members.parquet"  # predictions of single members; absent where there is only one


@dataclass(frozen=True)
class SitePredictions:
    """Columns of sites.parquet, by arm or baseline.

    Attributes:
      ids: (site,) ids of the sites, in the order of the cube.
      days: (day,) datetime64[D], all days of the cube.
      rows: The rows of each arm or baseline, sorted by site and then by day.
    """

    ids: tuple[str, ...]
    days: NDArray[np.datetime64]
    rows: dict[str, pd.DataFrame]

    def values(self, name: str, column: str) -> NDArray[Any]:
        """Return the (site, day) values of a column of one arm or baseline."""
        values: NDArray[Any] = self.rows[name][column].to_numpy()
        return values.reshape(len(self.ids), len(self.days))

    @property
    def observed(self) -> NDArray[np.float32]:
        """(site, day) observations in the target's unit, NaN where missing."""
        return self.values(next(iter(self.rows)), "observation")


def read_site_predictions(workspace: Workspace, *columns: str) -> SitePredictions:
    """Read the predictions at the sites of a workspace.

    Args:
      workspace: The workspace, with sites.parquet.
      columns: The columns to read beside arm, site and time.

    Raises:
      StoreError: If the table does not exist or its store does not answer.
      DamagedError: If the file is not a complete Parquet table.
    """
    table = read_table(workspace.url("sites.parquet"), [*KEY_COLUMNS, *columns])
    rows = {str(name): of_arm for name, of_arm in table.groupby("arm", sort=False)}
    first = next(iter(rows.values()))
    n_sites = first.site.nunique()
    ids = first.site.to_numpy().reshape(n_sites, -1)[:, 0]
    days = first.time.to_numpy().reshape(n_sites, -1)[0].astype("datetime64[D]")
    return SitePredictions(tuple(map(str, ids)), days, rows)


def member_column(seed: int) -> str:
    """Return the column of members.parquet with the predictions of a member."""
    return f"member_{seed}"


def read_members(workspace: Workspace) -> dict[str, NDArray[np.float32]]:
    """Read the predictions of single members at the sites of a workspace.

    Returns:
      By arm, (member, site, day) predictions in the target's unit, for sites and days in the order
      of `read_site_predictions`; empty if the models have one member, or were trained before these
      predictions were kept.

    Raises:
      StoreError: If the table does not exist or its store does not answer.
      DamagedError: If the file is not a complete Parquet table.
    """
    manifest = workspace.artefact("models").manifest() or {}
    if MEMBERS not in {record["key"] for record in manifest.get("tables", ())}:
        return {}
    table = read_table(workspace.url(MEMBERS))
    columns = [name for name in table if name not in KEY_COLUMNS]
    return {
        str(arm): rows[columns].to_numpy().T.reshape(len(columns), rows.site.nunique(), -1)
        for arm, rows in table.groupby("arm", sort=False)
    }


@dataclass(frozen=True)
class PastRun:
    """A finished experiment at its sites, on the days of its test period.

    Attributes:
      workspace: The workspace of the experiment.
      experiment: The experiment.
      folds: Digest of the folds.
      ids: (site,) ids of the sites.
      block: (site,) spatial block of each site.
      lat: (site,) degrees north.
      lon: (site,) degrees east.
      days: (day,) datetime64[D].
      observed: (site, day) observations in the target's unit, NaN where missing.
      predictions: (site, day) predictions of each arm and baseline, in the target's unit.
      status: For each arm and baseline, whether its sites were held out in training, as text.
      members: (member, site, day) predictions of single members of each arm; empty if not kept.
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
    members: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the workspace's folder."""
        return self.workspace.root.rpartition("/")[2]

    def at(self, ids: Sequence[str], days: NDArray[np.datetime64]) -> PastRun:
        """Return the run at some of its sites, on some of its days."""
        rows = pd.Index(self.ids).get_indexer(pd.Index(ids))
        selected = np.ix_(rows, np.searchsorted(self.days, days))
        return replace(
            self,
            ids=tuple(ids),
            block=self.block[rows],
            lat=self.lat[rows],
            lon=self.lon[rows],
            days=days,
            observed=self.observed[selected],
            predictions={arm: series[selected] for arm, series in self.predictions.items()},
            members={
                arm: series[:, selected[0], selected[1]] for arm, series in self.members.items()
            },
        )


def read_past_run(workspace: Workspace) -> PastRun:
    """Read the finished experiment of a workspace.

    Raises:
      StoreError: If nothing was run in the workspace, its models are not complete, or a table
        does not exist.
      DamagedError: If a file is damaged.
    """
    experiment = workspace.described()
    workspace.artefact("models").digest(check=False)  # only the tables are read
    folds = workspace.artefact("folds").manifest() or {}
    table = read_site_predictions(workspace, "status", "observation", "prediction")
    sites = read_table(workspace.url("folds.parquet"), ["site", "lat", "lon", "block"])
    sites = sites.set_index("site").loc[list(table.ids)]
    first, last = (np.datetime64(day) for day in experiment.test_period)
    test = (table.days >= first) & (table.days <= last)
    return PastRun(
        workspace,
        experiment,
        str(folds.get("digest")),
        table.ids,
        sites.block.to_numpy(),
        sites.lat.to_numpy(),
        sites.lon.to_numpy(),
        table.days[test],
        table.observed[:, test],
        {arm: table.values(arm, "prediction")[:, test] for arm in table.rows},
        {arm: "/".join(sorted(rows.status.unique())) for arm, rows in table.rows.items()},
        {arm: series[:, :, test] for arm, series in read_members(workspace).items()},
    )
