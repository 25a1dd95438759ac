"""Stage `evaluate`: score arms and baselines; writes scores.parquet and summary.json.

Predictions at sites (sites.parquet), of footprints (footprints.parquet) and, where the truth of
every cell is known, the maps go in. At sites, triple collocation also estimates the errors of
site, satellite and each model without taking any of them as the truth; what is known of every site
is also written for other programs, as site_scores.csv and collocated.zip.
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
from pipeline.evaluate import scoring, site_files, strata, training_spread
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment import config
from pipeline.experiment.config import SATELLITE_BASELINE
from pipeline.grid import spatial_blocks
from pipeline.storage import artefacts, maps_schema, models, schema, tables, zarr_arrays
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from pipeline.experiment.config import Experiment, JudgingConfig
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


ALWAYS_WRITTEN = ("scores.parquet", "summary.json")

_TARGET_NAMES = {"site": "sites", "footprint": "footprints", "truth": "cells of known truth"}

# Maps are scored only at cells at least so many cells from the nearest site.
MIN_CELLS_TO_SITE = 2

# Of more cells, evenly spaced ones are scored: this is enough for a median and limits the memory.
MAX_CELLS, MAX_CELL_DAYS = 5000, 4_000_000


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> Json:
    """Score all arms and baselines, and write the scores.

    Returns:
      The summary, from this run or from an earlier one with the same inputs.

    Raises:
      SoilweaveError: If the predictions are not complete, a product is not as its catalog entry
        says, or there is nothing to score against.
    """
    artefact = workspace.artefact("scores")
    cube_url, inputs = _inputs(experiment, workspace)
    progress.start("evaluate", 1, "table")
    if not artefact.claim(inputs, overwrite, progress):
        progress.finish("scores complete")
        return files.read_json(workspace.url("summary.json")) or {}
    datasets = products.open_products(experiment)
    unknown = experiment_sources.check_static_periods(experiment)
    cube = Cube.open(cube_url).within(experiment.period)
    _check_has_reference(experiment, cube)
    artefact.begin(inputs)
    workspace.describe(experiment)
    parts: list[pd.DataFrame] = []
    written = list(ALWAYS_WRITTEN)
    summary = scoring.summary_header(experiment, experiment.test_period)
    summary |= {"updates": models.recorded_updates(experiment, workspace)}
    summary["statics_of_unknown_period"] = unknown
    dropped: dict[str, int] = {}
    if cube.site_ids and experiment.models is None:
        rows, at_sites, dropped = _score_sites(experiment, workspace, cube, datasets)
        parts.append(rows)
        summary |= at_sites
        written += [site_files.SITE_SCORES, site_files.COLLOCATED]
    if experiment.judging.footprints:
        rows, summary["footprints"] = _score_footprints(experiment, workspace)
        parts.append(rows)
    if experiment.sources.truth is not None:
        rows, summary["truth"] = score_against_truth(experiment, workspace, cube)
        parts.append(rows)
    tables.write_table(workspace.url("scores.parquet"), pd.concat(parts, ignore_index=True))
    files.write_bytes(workspace.url("summary.json"), json.dumps(summary, indent=1).encode())
    records = [artefacts.shard_record(workspace.root, name) for name in written]
    artefact.commit(inputs, records, dropped=dropped, entries=products.product_metadata(datasets))
    counts = pd.concat(parts).groupby("target").id.nunique().to_dict()
    places = ", ".join(f"{counts[t]} {name}" for t, name in _TARGET_NAMES.items() if t in counts)
    progress.finish(f"scores at {places}")
    return summary


def _inputs(experiment: Experiment, workspace: Workspace) -> tuple[str, Json]:
    """Return the URL of the cube, and everything that the scores are made from."""
    cube_url, digest = Cube.source(experiment, workspace)
    digests = {"cube": digest, "folds": workspace.artefact("folds").digest(experiment)}
    digests["models"] = models.find_models(experiment, workspace)[1]
    digests |= products.product_digests(experiment)
    if experiment.sources.truth is not None:
        digests["maps"] = workspace.artefact("maps").digest(experiment)
        digests["truth"] = intake_catalog.entry_digest(experiment, experiment.sources.truth)
    period = "..".join(str(day) for day in experiment.test_period)
    return cube_url, schema.identity(experiment, "scores", **digests, test_period=period)


def _check_has_reference(experiment: Experiment, cube: Cube) -> None:
    """Check that there is something to score against.

    Raises:
      DataError: If there are neither sites, nor footprints, nor a truth to score against.
    """
    has_sites = bool(cube.site_ids) and experiment.models is None
    if has_sites or experiment.judging.footprints or experiment.sources.truth is not None:
        return
    if cube.site_ids:
        sites = "its models were trained by another experiment, so it has no predictions at sites"
    else:
        sites = "the cube has no sites"
    problem = (
        f"there is nothing to score against: {sites}, judging.footprints is false, and "
        "sources.truth is not set"
    )
    hint = (
        "name sites with sources.insitu, set judging.footprints=true (for arm satellite), or set "
        "sources.truth to the truth of every cell; to score at your own sites, use soilweave score"
    )
    raise DataError(f"experiment {experiment.name}", problem, remedy=hint)


def _score_sites(
    experiment: Experiment, workspace: Workspace, cube: Cube, datasets: dict[str, xr.Dataset]
) -> tuple[pd.DataFrame, Json, dict[str, int]]:
    """Score at the sites: all of them, by stratum, and by triple collocation; write their files.

    Args:
      experiment: the experiment.
      workspace: has its predictions, and gets the files of the sites.
      cube: a cube with sites.
      datasets: opened products, by name.

    Returns:
      The scores table; keys of the summary; and the number of values of the products that rules of
      quality control drop, by rule.
    """
    sites, candidates = _read_candidates(experiment, workspace, cube)
    product_candidates, dropped = _sample_products(experiment, cube, datasets, sites)
    candidates += product_candidates
    table, summary = scoring.score_candidates(sites, candidates, experiment.judging)
    summary["not_scored"] = scoring.list_unscored(table)
    test = cube.day_index(experiment.test_period)
    members = {arm: of[:, :, test] for arm, of in tables.read_members(workspace).items()}
    spread = training_spread.describe_spread(sites, candidates, members, experiment.judging)
    summary["training_spread"] = spread
    site_files.write_site_files(experiment, workspace, cube, sites, candidates, table)
    folds = tables.read_table(workspace.url("folds.parquet")).set_index("site")
    site_rows = folds.loc[list(sites.ids)]
    fold = site_rows.fold.to_numpy()
    by_name = strata.find_strata(experiment, cube, fold, test)
    if (space := models.read_attribute_space(workspace.url("models"))) is not None:
        place = config.label_experiment_places(
            experiment, site_rows.lat.to_numpy(), site_rows.lon.to_numpy()
        )
        by_name["attribute distance"] = strata.stratify_by_attribute_distance(
            space.held_out(fold, place)
        )
    summary["strata"] = strata.score_strata(sites, candidates, by_name, experiment.judging)
    summary["triple_collocation"] = score_triple_collocation(sites, candidates, experiment.judging)
    return table, summary, dropped


def _read_candidates(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> tuple[Sites, list[Candidate]]:
    """Read observations and predictions of the test period; the satellite is a candidate, too."""
    table = tables.read_site_predictions(
        workspace, "fold", "observation", "prediction", "std", "std_raw"
    )
    folds = tables.read_table(workspace.url("folds.parquet")).set_index("site")
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
        candidates.append(scoring.satellite_at_cube_sites(experiment, cube, test))
    return sites, candidates


def _sample_products(
    experiment: Experiment, cube: Cube, datasets: dict[str, xr.Dataset], sites: Sites
) -> tuple[list[Candidate], dict[str, int]]:
    """Sample every product at every site over the test period.

    Returns:
      A candidate for each product; and the number of values dropped, by product and rule.
    """
    if not datasets:
        return [], {}
    assert cube.sites is not None
    lat_lon = cube.sites["lat"].values, cube.sites["lon"].values
    sampled = products.sample_products(experiment, datasets, lat_lon, sites.days)
    fold = np.full(len(sites.ids), "")
    candidates = [
        Candidate(name, False, fold, product.series, distance_km=product.distance_km)
        for name, product in sampled.items()
    ]
    dropped = {
        f"{name}: {rule}": n
        for name, product in sampled.items()
        for rule, n in product.dropped.items()
    }
    return candidates, dropped


def score_triple_collocation(
    sites: Sites, candidates: list[Candidate], judging: JudgingConfig
) -> Json:
    """Estimate errors by triple collocation of site, satellite and each other candidate.

    Returns:
      By candidate: `n_sites`; `undefined`, the number of sites without an estimate by reason; and
      for each of the records `site`, `satellite` and `model` the `n_sites` with an estimate, and
      `median` and `ci95` of `error_std` (in the target's unit, on the site's scale),
      `correlation` (with the truth) and `snr_db` (signal-to-noise ratio). Empty without a
      satellite.
    """
    predictions = {c.name: c.prediction for c in candidates}
    satellite = predictions.pop(SATELLITE_BASELINE, None)
    if satellite is None:
        return {}
    summary: Json = {}
    for name, prediction in predictions.items():
        estimate = triple_collocation.collocate(
            sites.observed, satellite, prediction, judging.min_days
        )
        reasons = Counter(estimate.reason[estimate.reason != ""].tolist())
        described: Json = {"n_sites": len(sites.ids), "undefined": dict(reasons.most_common())}
        for i, record in enumerate(triple_collocation.RECORDS):
            values = {
                "error_std": estimate.error_std[i],
                "correlation": estimate.correlation[i],
                "snr_db": estimate.snr_db[i],
            }
            n = int(np.isfinite(estimate.error_std[i]).sum())
            medians = scoring.median_intervals(values, sites.block, judging)
            described[record] = {"n_sites": n} | medians
        summary[name] = described
    return summary


def _score_footprints(experiment: Experiment, workspace: Workspace) -> tuple[pd.DataFrame, Json]:
    """Score arm satellite against the satellite: with all values, and without those at a ceiling.

    Raises:
      DataError: If no footprint has a value in the test period.
    """
    table = tables.read_table(workspace.url("footprints.parquet"))
    first, last = (pd.Timestamp(day) for day in experiment.test_period)
    table = table[(table.time >= first) & (table.time <= last)]
    if table.empty:
        problem = "there is nothing to score: no footprint has a day in the test period"
        hint = "widen test_period or the domain, or set judging.footprints=false"
        raise DataError(f"experiment {experiment.name}", problem, remedy=hint)
    tables_of_scores: list[pd.DataFrame] = []
    summary: Json = {}
    for seed, rows in table.groupby("seed"):
        ids, days = tuple(rows.footprint.unique()), np.unique(rows.time.to_numpy())
        shape = (len(ids), len(days))
        columns = {
            c: rows[c].to_numpy().reshape(shape)
            for c in ("prediction", "observation", "at_ceiling")
        }
        below = np.where(columns["at_ceiling"], np.nan, columns["observation"])
        for name, observed in (("all", columns["observation"]), ("without_ceiling", below)):
            scored = scoring.score_places(
                columns["prediction"], observed, days, experiment.judging.min_days
            )
            fold = np.full(len(ids), "all")
            scores = scoring.score_rows("footprint", ids, "satellite", fold, scored)
            tables_of_scores.append(scores.assign(seed=seed, period=f"test, {name}"))
            n = int(np.isfinite(scored["rmse"]).sum())
            medians = {"n_footprints": n, "median": scoring.median_scores(scored)}
            summary.setdefault(name, {})[str(seed)] = medians
    return pd.concat(tables_of_scores, ignore_index=True), summary


def score_against_truth(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> tuple[pd.DataFrame, Json]:
    """Score the maps of every arm, and the satellite, against the truth over the test period.

    Returns:
      Rows of the scores table, with target `truth` and id "y,x"; and `arms`, `baselines` and
      `paired` in the form of a summary, over cells.
    """
    cells = cells_away_from_sites(cube)
    n_away = len(cells)
    window, days = (
        config.experiment_window(experiment),
        cube.days[cube.day_index(experiment.test_period)],
    )
    most = min(MAX_CELLS, max(1, MAX_CELL_DAYS // len(days)))
    cells = cells[:: -(-n_away // most)]
    y, x = cells.T
    truth = experiment_sources.open_truth(experiment)
    observed = np.concatenate(
        [truth.on_days(part)[:, y, x] for part in schema.split_into_blocks(days)]
    ).T
    lat, lon = window.cell_lat[y], window.cell_lon[x]
    label = spatial_blocks.block_labels(
        lat, lon, experiment.folds.block_km, experiment.folds.block_offset_footprints
    )
    places = Sites(tuple(f"{a},{b}" for a, b in cells.tolist()), label, days, observed)
    candidates = [_read_arm_map(experiment, workspace, arm, cells, days) for arm in experiment.arms]
    if cube.footprints is not None:
        candidates.append(_read_satellite(cube, cells, cube.day_index(experiment.test_period)))
    table, summary = scoring.score_candidates(places, candidates, experiment.judging)
    summary["n_cells"] = summary.pop("n_sites")
    about = {"cells_away_from_sites": n_away, "least_cells_to_a_site": MIN_CELLS_TO_SITE}
    return table.assign(target="truth"), summary | about


def cells_away_from_sites(cube: Cube, empty: bool = True) -> NDArray[np.int64]:
    """Return (cell, 2) row and column of valid cells at least AWAY cells from every site.

    Only cells of footprints with at least half of their cells count.

    Args:
      cube: the cube.
      empty: leave out every cell of a footprint that contains a site.
    """
    cells, _, _ = cube.membership()
    if cube.sites is None:
        return cells
    y, x = (cube.sites[name].values.astype(np.int64) for name in ("y", "x"))
    inside, side = y >= 0, cube.refinement
    near = np.zeros(cube.cells["mask"].shape, bool)
    for row, col in zip(y[inside].tolist(), x[inside].tolist(), strict=True):
        neighbours = [
            slice(max(i - MIN_CELLS_TO_SITE + 1, 0), i + MIN_CELLS_TO_SITE) for i in (row, col)
        ]
        near[tuple(neighbours)] = True
        if empty:
            footprint = [slice(i // side * side, (i // side + 1) * side) for i in (row, col)]
            near[tuple(footprint)] = True
    return np.asarray(cells[~near[cells[:, 0], cells[:, 1]]])


def _read_arm_map(
    experiment: Experiment,
    workspace: Workspace,
    arm: str,
    cells: NDArray[np.int64],
    days: NDArray[np.datetime64],
) -> Candidate:
    """Read the map of an arm at some cells (cell, 2)."""
    mapped = zarr_arrays.open_group(workspace.url("maps", f"{arm}.zarr"), "series")
    mean, std = np.full((2, len(cells), len(days)), np.nan, np.float32)
    for start in range(0, mapped.sizes["y"], maps_schema.SERIES_CHUNK):
        rows = slice(start, start + maps_schema.SERIES_CHUNK)
        inside = (cells[:, 0] >= rows.start) & (cells[:, 0] < rows.stop)
        if inside.any():
            y, x = cells[inside].T
            part = mapped.isel(y=rows).sel(time=days)
            for series, name in ((mean, experiment.target), (std, f"{experiment.target}_std")):
                series[inside] = part[name].values[:, y - start, x].T
    root, _ = models.find_models(experiment, workspace)
    scale = models.read_calibrations(root, arm)[models.fold_name(models.ALL_SITES)].width_scale
    fold = np.full(len(cells), models.fold_name(models.ALL_SITES))
    return Candidate(arm, True, fold, mean, std, std / np.float32(scale))


def _read_satellite(cube: Cube, cells: NDArray[np.int64], test: slice) -> Candidate:
    """Return the satellite's value of the footprint that contains each cell."""
    assert cube.footprints is not None
    fy, fx = (cells // cube.refinement).T
    series = cube.series(cube.footprints, cube.target)[test, fy, fx].T
    return Candidate(SATELLITE_BASELINE, False, np.full(len(cells), ""), series)
