"""Judge every arm and baseline: sites.parquet, maps/ -> scores.parquet, summary.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from pipeline import (
    catalog,
    files,
    footprints,
    judging,
    labels,
    models,
    products,
    schema,
    site_predictions,
    statics,
    store,
    strata,
    tables,
    triple,
    truth,
    twins,
)
from pipeline.cube import Cube
from pipeline.errors import DataError
from pipeline.judging import Candidate, Sites

if TYPE_CHECKING:
    import xarray as xr

    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace

_PLACES = {"site": "sites", "footprint": "footprints", "truth": "cells of known truth"}


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> Json:
    """Write the scores; returns the summary, whether made now or before.

    Raises:
      SoilweaveError: what is judged is not complete, a product is not as the catalog says, or there
        is nothing to judge.
    """
    artefact = workspace.artefact("scores")
    cube_url, digest = Cube.source(experiment, workspace)
    made_of = {"cube": digest, "folds": workspace.artefact("folds").digest(experiment)}
    made_of["models"] = models.source(experiment, workspace)[1]
    made_of |= products.digests(experiment)
    if experiment.sources.truth is not None:
        made_of["maps"] = workspace.artefact("maps").digest(experiment)
        made_of["truth"] = catalog.digest(experiment, experiment.sources.truth)
    period = [str(day) for day in experiment.test_period]
    inputs = schema.identity(experiment, "scores", **made_of, test_period="..".join(period))
    progress.start("evaluate", 1, "table")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("scores complete")
        return files.read_json(workspace.url("summary.json")) or {}
    opened, unknown = products.opened(experiment), statics.check(experiment)
    _check(experiment, cube := Cube.open(cube_url))
    artefact.begin(inputs)
    workspace.describe(experiment)
    parts: list[pd.DataFrame] = []
    summary = judging.header(experiment, experiment.test_period)
    summary |= {"updates": models.updates_made(experiment, workspace)}
    summary["statics_of_unknown_period"] = unknown
    dropped: dict[str, int] = {}
    if cube.site_ids and experiment.models is None:
        rows, judged, dropped = _judge_sites(experiment, workspace, cube, opened)
        parts.append(rows)
        summary |= judged
    if experiment.judging.footprints:
        rows, summary["footprints"] = _judge_footprints(experiment, workspace)
        parts.append(rows)
    if experiment.sources.truth is not None:
        rows, summary["truth"] = truth.judge(experiment, workspace, cube)
        parts.append(rows)
    tables.write(workspace.url("scores.parquet"), pd.concat(parts, ignore_index=True))
    files.write_bytes(workspace.url("summary.json"), json.dumps(summary, indent=1).encode())
    records = [store.record(workspace.root, n) for n in ("scores.parquet", "summary.json")]
    artefact.commit(inputs, records, dropped=dropped, entries=products.entries(opened))
    counted = pd.concat(parts).groupby("target").id.nunique().to_dict()
    places = ", ".join(f"{counted[t]} {name}" for t, name in _PLACES.items() if t in counted)
    progress.finish(f"scores at {places}")
    return summary


def _check(experiment: Experiment, cube: Cube) -> None:
    """There must be something to judge against.

    Raises:
      DataError: there is not.
    """
    has_sites = bool(cube.site_ids) and experiment.models is None
    if has_sites or experiment.judging.footprints or experiment.sources.truth is not None:
        return
    sites = "the cube has no sites" if not cube.site_ids else "its models were trained elsewhere"
    found = (
        f"there is nothing to judge: {sites}, judging.footprints is false, and sources.truth is "
        "not given"
    )
    remedy = (
        "name sites with sources.insitu, set judging.footprints=true (for arm satellite), or give "
        "the truth of every cell; soilweave score judges at sites of your own"
    )
    raise DataError(f"experiment {experiment.name}", found, remedy=remedy)


def _judge_sites(
    experiment: Experiment, workspace: Workspace, cube: Cube, opened: dict[str, xr.Dataset]
) -> tuple[pd.DataFrame, Json, dict[str, int]]:
    """Scores at the sites, all of them and by stratum; and the values of products left out."""
    sites, candidates = _read(experiment, workspace, cube)
    made, dropped = _products(experiment, cube, opened, sites)
    candidates += made
    table, judged = judging.judge(sites, candidates, experiment.judging)
    judged["not_scored"] = judging.not_scored(table)
    folds = tables.read(workspace.url("folds.parquet")).set_index("site")
    of_site, test = folds.loc[list(sites.ids)], cube.day_index(experiment.test_period)
    fold = of_site.fold.to_numpy()
    parted = labels.strata(experiment, cube, fold, test)
    if (space := models.space(workspace.url("models"))) is not None:
        place = twins.of_sites(experiment, of_site.lat.to_numpy(), of_site.lon.to_numpy())
        parted["attribute distance"] = labels.by_distance(space.held_out(fold, place))
    judged["strata"] = strata.judge(sites, candidates, parted, experiment.judging)
    judged["triple_collocation"] = triple.judge(sites, candidates, experiment.judging)
    return table, judged, dropped


def _read(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> tuple[Sites, list[Candidate]]:
    """Observations and predictions of the test period, and the satellite beside them."""
    table = site_predictions.read(workspace, "fold", "observation", "prediction", "std", "std_raw")
    folds = tables.read(workspace.url("folds.parquet")).set_index("site")
    test = cube.day_index(experiment.test_period)
    candidates = []
    for name in table.rows:
        fold = table.values(name, "fold")[:, 0]
        prediction, std, std_raw = (
            table.values(name, column)[:, test] for column in ("prediction", "std", "std_raw")
        )
        is_arm = name in experiment.arms
        deviations = (std, std_raw) if is_arm else (None, None)
        candidates.append(Candidate(name, is_arm, fold, prediction, *deviations))
    blocks = folds.block.loc[list(cube.site_ids)].to_numpy()
    sites = Sites(cube.site_ids, blocks, cube.days[test], table.observed[:, test])
    if cube.footprints is not None:
        candidates.append(footprints.in_cube(experiment, cube, test))
    return sites, candidates


def _products(
    experiment: Experiment, cube: Cube, opened: dict[str, xr.Dataset], sites: Sites
) -> tuple[list[Candidate], dict[str, int]]:
    """Every product at every site, over the test period; and the values that rules drop."""
    if not opened:
        return [], {}
    assert cube.sites is not None
    where = cube.sites["lat"].values, cube.sites["lon"].values
    sampled = products.at_sites(experiment, opened, where, sites.days)
    fold = np.full(len(sites.ids), "")
    made = [
        Candidate(name, False, fold, product.series, distance_km=product.distance_km)
        for name, product in sampled.items()
    ]
    dropped = {
        f"{name}: {rule}": n for name, found in sampled.items() for rule, n in found.dropped.items()
    }
    return made, dropped


def _judge_footprints(experiment: Experiment, workspace: Workspace) -> tuple[pd.DataFrame, Json]:
    """Arm satellite against the satellite itself: on all values, and less those at a ceiling."""
    table = tables.read(workspace.url("footprints.parquet"))
    first, last = (pd.Timestamp(day) for day in experiment.test_period)
    table = table[(table.time >= first) & (table.time <= last)]
    if table.empty:
        found = "there is nothing to judge: no footprint has a day in the test period"
        remedy = "widen test_period or the domain, or set judging.footprints=false"
        raise DataError(f"experiment {experiment.name}", found, remedy=remedy)
    rows: list[pd.DataFrame] = []
    summary: Json = {}
    for seed, own in table.groupby("seed"):
        ids, days = tuple(own.footprint.unique()), np.unique(own.time.to_numpy())
        shape = (len(ids), len(days))
        columns = {
            c: own[c].to_numpy().reshape(shape) for c in ("prediction", "observation", "at_ceiling")
        }
        below = np.where(columns["at_ceiling"], np.nan, columns["observation"])
        for name, observed in (("all", columns["observation"]), ("without_ceiling", below)):
            scored = judging.scores_of(
                columns["prediction"], observed, days, experiment.judging.min_days
            )
            fold = np.full(len(ids), "all")
            made = judging.site_rows("footprint", ids, "satellite", fold, scored)
            rows.append(made.assign(seed=seed, period=f"test, {name}"))
            n = int(np.isfinite(scored["rmse"]).sum())
            medians = {"n_footprints": n, "median": judging.medians(scored)}
            summary.setdefault(name, {})[str(seed)] = medians
    return pd.concat(rows, ignore_index=True), summary
