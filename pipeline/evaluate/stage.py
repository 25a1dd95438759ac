"""Triple collocation at the sites: site, satellite and each arm or product, none the truth.

Judge maps where the truth is known: at cells away from every site.

Judge every arm and baseline: sites.parquet, maps/ -> scores.parquet, summary.json.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from model import triple_collocation
from pipeline import files
from pipeline.catalog import experiment_sources, intake_catalog, products
from pipeline.errors import DataError
from pipeline.evaluate import scoring, strata
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment import config
from pipeline.experiment.config import SATELLITE_BASELINE
from pipeline.grid import spatial_blocks
from pipeline.storage import artefacts, models, schema, tables, zarr_arrays
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment, JudgingConfig
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


def collocate(sites: Sites, candidates: list[Candidate], rules: JudgingConfig) -> Json:
    """By candidate: how many sites, why not more, and of each record medians with intervals.

    Records are `site`, `satellite` and `model`; each has `n_sites` where it is defined, `error_std`
    (on the site's scale), `correlation` (with the truth) and `snr_db`. Empty without a satellite.
    """
    by_name = {c.name: c.prediction for c in candidates}
    satellite = by_name.pop(SATELLITE_BASELINE, None)
    if satellite is None:
        return {}
    made: Json = {}
    for name, prediction in by_name.items():
        found = triple_collocation.collocate(sites.observed, satellite, prediction, rules.min_days)
        reasons = Counter(found.reason[found.reason != ""].tolist())
        described: Json = {"n_sites": len(sites.ids), "undefined": dict(reasons.most_common())}
        for i, record in enumerate(triple_collocation.RECORDS):
            values = {
                "error_std": found.error_std[i],
                "correlation": found.correlation[i],
                "snr_db": found.snr_db[i],
            }
            n = int(np.isfinite(found.error_std[i]).sum())
            told = scoring.with_intervals(values, sites.block, rules)
            described[record] = {"n_sites": n} | told
        made[name] = described
    return made


AWAY = 2  # cells from the nearest site that a cell is judged at, beside its footprint's having none

# Cells judged; of more, evenly spaced ones: a median needs no more, and memory is bounded.
MOST, MOST_CELL_DAYS = 5000, 4_000_000


def judge_against_truth(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> tuple[pd.DataFrame, Json]:
    """Every arm's maps and the satellite against the truth, over the test period.

    Returns:
      Rows of the scores table, target `truth` and id "y,x"; and the medians over cells, in the
      form of a summary's arms, baselines and paired differences.
    """
    cells = away_from_sites(cube)
    n_away = len(cells)
    window, days = config.window(experiment), cube.days[cube.day_index(experiment.test_period)]
    cells = cells[:: -(-n_away // min(MOST, max(1, MOST_CELL_DAYS // len(days))))]
    y, x = cells.T
    truth = experiment_sources.open_truth(experiment)
    observed = np.concatenate([truth.days(part)[:, y, x] for part in schema.in_blocks(days)]).T
    lat, lon = window.cell_lat[y], window.cell_lon[x]
    label = spatial_blocks.block_labels(
        lat, lon, experiment.folds.block_km, experiment.folds.block_offset_footprints
    )
    where = Sites(tuple(f"{a},{b}" for a, b in cells.tolist()), label, days, observed)
    candidates = [_arm(experiment, workspace, arm, cells, days) for arm in experiment.arms]
    if cube.footprints is not None:
        candidates.append(_footprint(cube, cells, cube.day_index(experiment.test_period)))
    table, judged = scoring.judge(where, candidates, experiment.judging)
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
    mapped = zarr_arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "")
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
        made_of["truth"] = intake_catalog.digest(experiment, experiment.sources.truth)
    period = [str(day) for day in experiment.test_period]
    inputs = schema.identity(experiment, "scores", **made_of, test_period="..".join(period))
    progress.start("evaluate", 1, "table")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("scores complete")
        return files.read_json(workspace.url("summary.json")) or {}
    opened, unknown = products.opened(experiment), experiment_sources.check(experiment)
    _check(experiment, cube := Cube.open(cube_url))
    artefact.begin(inputs)
    workspace.describe(experiment)
    parts: list[pd.DataFrame] = []
    summary = scoring.header(experiment, experiment.test_period)
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
        rows, summary["truth"] = judge_against_truth(experiment, workspace, cube)
        parts.append(rows)
    tables.write(workspace.url("scores.parquet"), pd.concat(parts, ignore_index=True))
    files.write_bytes(workspace.url("summary.json"), json.dumps(summary, indent=1).encode())
    records = [artefacts.record(workspace.root, n) for n in ("scores.parquet", "summary.json")]
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
    table, judged = scoring.judge(sites, candidates, experiment.judging)
    judged["not_scored"] = scoring.not_scored(table)
    folds = tables.read(workspace.url("folds.parquet")).set_index("site")
    of_site, test = folds.loc[list(sites.ids)], cube.day_index(experiment.test_period)
    fold = of_site.fold.to_numpy()
    parted = strata.strata(experiment, cube, fold, test)
    if (space := models.space(workspace.url("models"))) is not None:
        place = config.number_places(experiment, of_site.lat.to_numpy(), of_site.lon.to_numpy())
        parted["attribute distance"] = strata.by_distance(space.held_out(fold, place))
    judged["strata"] = strata.judge(sites, candidates, parted, experiment.judging)
    judged["triple_collocation"] = collocate(sites, candidates, experiment.judging)
    return table, judged, dropped


def _read(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> tuple[Sites, list[Candidate]]:
    """Observations and predictions of the test period, and the satellite beside them."""
    table = tables.read_site_predictions(
        workspace, "fold", "observation", "prediction", "std", "std_raw"
    )
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
        candidates.append(scoring.in_cube(experiment, cube, test))
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
            scored = scoring.scores_of(
                columns["prediction"], observed, days, experiment.judging.min_days
            )
            fold = np.full(len(ids), "all")
            made = scoring.site_rows("footprint", ids, "satellite", fold, scored)
            rows.append(made.assign(seed=seed, period=f"test, {name}"))
            n = int(np.isfinite(scored["rmse"]).sum())
            medians = {"n_footprints": n, "median": scoring.medians(scored)}
            summary.setdefault(name, {})[str(seed)] = medians
    return pd.concat(rows, ignore_index=True), summary
