"""Judge maps where the truth is known: at cells away from every site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import arrays, blocks, domain, judging, models, schema
from pipeline.config import SATELLITE_BASELINE
from pipeline.judging import Candidate, Sites

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.cube import Cube
    from pipeline.files import Json
    from pipeline.store import Workspace

AWAY = 2  # cells from the nearest site that a cell is judged at, beside its footprint's having none
# Cells judged; of more, evenly spaced ones: a median needs no more, and memory is bounded.
MOST, MOST_CELL_DAYS = 5000, 4_000_000


def judge(experiment: Experiment, workspace: Workspace, cube: Cube) -> tuple[pd.DataFrame, Json]:
    """Every arm's maps and the satellite against the truth, over the test period.

    Returns:
      Rows of the scores table, target `truth` and id "y,x"; and the medians over cells, in the
      form of a summary's arms, baselines and paired differences.
    """
    cells = away_from_sites(cube)
    n_away = len(cells)
    window, days = schema.window(experiment), cube.days[cube.day_index(experiment.test_period)]
    cells = cells[:: -(-n_away // min(MOST, max(1, MOST_CELL_DAYS // len(days))))]
    y, x = cells.T
    truth = domain.open_truth(experiment)
    observed = np.concatenate([truth.days(part)[:, y, x] for part in schema.in_blocks(days)]).T
    lat, lon = window.cell_lat[y], window.cell_lon[x]
    label = blocks.block_labels(
        lat, lon, experiment.folds.block_km, experiment.folds.block_offset_footprints
    )
    where = Sites(tuple(f"{a},{b}" for a, b in cells.tolist()), label, days, observed)
    candidates = [_arm(experiment, workspace, arm, cells, days) for arm in experiment.arms]
    if cube.footprints is not None:
        candidates.append(_footprint(cube, cells, cube.day_index(experiment.test_period)))
    table, judged = judging.judge(where, candidates, experiment.judging)
    judged["n_cells"] = judged.pop("n_sites")
    about = {"cells_away_from_sites": n_away, "least_cells_to_a_site": AWAY}
    return table.assign(target="truth"), judged | about


def away_from_sites(cube: Cube, empty: bool = True) -> NDArray[np.int64]:
    """(cell, 2) row and column of valid cells at least AWAY cells from every site.

    Their footprint has at least half of its cells and, where `empty`, holds no site.
    """
    cells, _, _ = cube.membership()
    if cube.sites is None:
        return cells
    y, x = (cube.sites[name].values.astype(np.int64) for name in ("y", "x"))
    inside, side = y >= 0, cube.refinement
    near = np.zeros(cube.cells["mask"].shape, bool)
    for row, col in zip(y[inside].tolist(), x[inside].tolist(), strict=True):
        around = [slice(max(at - AWAY + 1, 0), at + AWAY) for at in (row, col)]
        near[tuple(around)] = True
        if empty:
            near[tuple(slice(at // side * side, (at // side + 1) * side) for at in (row, col))] = (
                True
            )
    return np.asarray(cells[~near[cells[:, 0], cells[:, 1]]])


def _arm(
    experiment: Experiment,
    workspace: Workspace,
    arm: str,
    cells: NDArray[np.int64],
    days: NDArray[np.datetime64],
) -> Candidate:
    """An arm's map, at some cells."""
    mapped = arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "")
    y, x = cells.T
    series = {
        name: np.concatenate(
            [mapped[name].sel(time=part).values[:, y, x] for part in schema.in_blocks(days)]
        ).T.astype(np.float32)
        for name in (experiment.target, f"{experiment.target}_std")
    }
    mean, std = series.values()
    root, _ = models.source(experiment, workspace)
    scale = models.calibrations(root, arm)[models.fold_name(models.ALL)].width_scale
    fold = np.full(len(cells), models.fold_name(models.ALL))
    return Candidate(arm, True, fold, mean, std, std / np.float32(scale))


def _footprint(cube: Cube, cells: NDArray[np.int64], test: slice) -> Candidate:
    """The satellite's footprint that holds each cell."""
    assert cube.footprints is not None
    fy, fx = (cells // cube.refinement).T
    series = cube.series(cube.footprints, cube.target)[test, fy, fx].T
    return Candidate(SATELLITE_BASELINE, False, np.full(len(cells), ""), series)
