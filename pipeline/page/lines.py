"""Lines on the page: three sites through time, and losses through training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import files, footprints, models, site_predictions, tables
from pipeline.figures import series as figures
from pipeline.figures import style
from pipeline.figures.series import Series
from pipeline.page import text
from pipeline.page.atlas import reference

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from pipeline.config import Experiment
    from pipeline.cube import Cube
    from pipeline.files import Json
    from pipeline.store import Workspace

MOST_DAYS = 731  # shown of a series: two years can still be read
LOSSES = {"loss_insitu": "sites", "loss_satellite": "footprints"}


def series(
    experiment: Experiment, workspace: Workspace, cube: Cube, scores: pd.DataFrame
) -> list[Json]:
    """The best, the median and the worst site of the reference arm, by RMSE."""
    arm = reference(experiment)
    chosen = _chosen(scores, arm)
    if not chosen:
        return []
    table = site_predictions.read(workspace, "observation", "prediction", "std")
    test = cube.day_index(experiment.test_period)
    near = None
    if cube.footprints is not None:
        near = footprints.in_cube(experiment, cube, test).prediction
    numbers = {site: cube.site_ids.index(site) for _, site, _ in chosen}
    shown = _shown(table.observed[sorted(set(numbers.values()))][:, test])
    days = table.days[test][shown].astype("datetime64[ns]")
    of_arm = [table.values(arm, name)[:, test] for name in ("observation", "prediction", "std")]
    variable = experiment.table[experiment.target]
    unit = style.units(variable.units)
    made = []
    for rank, site, value in chosen:
        number = numbers[site]
        beside = None if near is None else near[number][shown]
        seen = beside is not None and bool(np.isfinite(beside).any())
        observed, mean, std = (values[number][shown] for values in of_arm)
        line = Series(days, observed, mean, std, beside if seen else None)
        what = style.quantity(experiment.target.replace("_", " "), unit)
        alt = f"Time series at {site}, the {rank} site"
        picture = figures.at_site(line, arm, what, (variable.minimum, variable.maximum), alt)
        error = text.number(value, 4)
        made.append({"rank": rank, "site": site, "rmse": error, "unit": unit, "picture": picture})
    return made


def curves(experiment: Experiment, workspace: Workspace) -> list[Json]:
    """Losses of the models of all sites, first seed, a figure for each kind of observation."""
    root, _ = models.source(experiment, workspace)
    found: dict[str, dict[str, Any]] = {name: {} for name in LOSSES}
    for arm in experiment.arms:
        seeds = models.seeds(root, arm)
        url = files.join(root, arm, "fold=all", f"seed={seeds[0]}", "history.parquet")
        history = tables.read(url)
        for name in LOSSES:
            if (history[name].fillna(0) != 0).any():  # 0: the arm does not see them
                found[name][arm] = (history.step.to_numpy(), history[name].to_numpy())
    return [
        {"title": f"loss on {LOSSES[name]}", "picture": figures.losses(arms, LOSSES[name])}
        for name, arms in found.items()
        if arms
    ]


def _chosen(scores: pd.DataFrame, arm: str) -> list[tuple[str, str, float]]:
    """Rank in words, id and RMSE of three sites that are scored, or of fewer where there are."""
    rows = scores[(scores.target == "site") & (scores.arm == arm) & (scores.metric == "rmse")]
    rows = rows[rows.value.notna()].sort_values("value")
    places = {"best": 0, "median": (len(rows) - 1) // 2, "worst": len(rows) - 1}
    if len(rows) < len(places):
        places = {"best": 0} if len(rows) else {}
    return [(rank, rows.id.iloc[k], float(rows.value.iloc[k])) for rank, k in places.items()]


def _shown(observed: NDArray[np.float32]) -> slice:
    """The two years with most observations (site, day), the same for all sites."""
    counts = np.cumsum([0, *np.isfinite(observed).sum(0)])
    if len(counts) <= MOST_DAYS:
        return slice(0, len(counts) - 1)
    first = int(np.argmax(counts[MOST_DAYS:] - counts[:-MOST_DAYS]))
    return slice(first, first + MOST_DAYS)
