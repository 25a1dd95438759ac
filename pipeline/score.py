"""Test trained models on probes: a file of sites -> scores. Trains nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.sampling import Places
from pipeline import (
    blocks,
    catalog,
    domain,
    files,
    grid,
    judging,
    models,
    outcome,
    placing,
    qc,
    satellite,
    schema,
    tables,
)
from pipeline.cube import Cube
from pipeline.errors import DataError
from pipeline.judging import Candidate, Sites

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from model.checkpoint import Trained
    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.store import Workspace

SAME_KM = 1.0  # a site nearer than this to one the models know is that one


@dataclass(frozen=True)
class Probes:
    """Sites to score, over every day from the first to the last that is needed.

    `forcing` (site, day, forcing) and `static` (site, static) are unscaled; `fold` (site,) is the
    fold that holds the site out, ALL where the models do not know it; `known` says which they do.
    """

    sites: Sites
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    fold: NDArray[np.int64]
    known: NDArray[np.bool_]
    forcing: NDArray[np.float32]
    static: NDArray[np.float32]


def run(experiment: Experiment, workspace: Workspace, progress: Progress, sites_url: str) -> Json:
    """Scores at the sites of a file, known ones and others apart, in summary.json's form.

    Raises:
      SoilweaveError: there are no complete models, or the file is not as the catalog says.
    """
    Cube.source(experiment, workspace)
    for name in ("folds", "models"):
        workspace.artefact(name).digest(experiment)
    root = workspace.url("models")
    progress.start("score", len(experiment.arms) + 1, "arms")
    folds = tables.read(workspace.url("folds.parquet"))
    some = models.load(root, models.jobs(experiment)[-1])
    probes = _read(experiment, folds, some, sites_url)
    candidates = []
    for arm in experiment.arms:
        candidates.append(_arm(experiment, root, arm, probes, some))
        progress.advance()
    if files.exists(models.ridge_url(root, models.ALL)):
        candidates.append(_ridge(root, probes, some))
    if experiment.sources.satellite is not None:
        candidates.append(_footprint(experiment, probes))
    summary = _summarise(experiment, probes, candidates) | {"sites": sites_url}
    progress.finish(f"{int(probes.known.sum())} known sites, {int((~probes.known).sum())} others")
    return summary


def _read(experiment: Experiment, folds: pd.DataFrame, trained: Trained, sites_url: str) -> Probes:
    """Observations that pass QC, and the inputs of every site."""
    raw = _opened(experiment, sites_url)
    raw = domain.without(raw, experiment.qc.exclude_sites).load()
    variable = experiment.table[experiment.target]
    values, _ = qc.screen(raw, experiment.target, variable, experiment.qc)
    raw[experiment.target] = (("time", "place"), values)
    days = _days(experiment, raw)
    lat, lon = raw.lat.values, raw.lon.values
    fold, known = _known(folds, raw)
    forcing, static = _inputs(experiment, raw, days, trained)
    label = blocks.block_labels(
        lat, lon, experiment.folds.block_km, experiment.folds.block_offset_footprints
    )
    observed = raw[experiment.target].reindex(time=days).values.T
    sites = Sites(tuple(map(str, raw.place.values)), label, days.astype("datetime64[D]"), observed)
    return Probes(sites, lat, lon, fold, known, forcing, static)


def _opened(experiment: Experiment, sites_url: str) -> xr.Dataset:
    """An entry, `CATALOG.yaml:name`; or a file in the form of the experiment's in-situ source."""
    if re.search(r"\.ya?ml:[^/]+$", sites_url):
        return catalog.open_source(experiment, sites_url)
    if not experiment.sources.insitu:
        found = "names no in-situ source, so the form of a file of sites is not known"
        remedy = "give sources.insitu, or --sites CATALOG.yaml:NAME"
        raise DataError(f"experiment {experiment.name}", found, remedy=remedy)
    return catalog.open_source(experiment, experiment.sources.insitu[0], sites_url)


def _days(experiment: Experiment, raw: xr.Dataset) -> NDArray[np.datetime64]:
    """Every day of the file; from the experiment's first day on where inputs are the cells'."""
    first, last = raw.time.values[0], raw.time.values[-1]
    if experiment.inputs_from == "cell":
        first = min(first, np.datetime64(experiment.period[0], "ns"))
    return np.arange(first, last + np.timedelta64(1, "D"), np.timedelta64(1, "D"))


def _known(folds: pd.DataFrame, raw: xr.Dataset) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Fold that holds each site out, and whether the models know it, by id or by distance."""
    n = raw.sizes["place"]
    fold, known = np.full(n, models.ALL), np.zeros(n, bool)
    if folds.empty:
        return fold, known
    index, distance = grid.nearest(
        raw.lat.values, raw.lon.values, folds["lat"].to_numpy(), folds["lon"].to_numpy()
    )
    near = distance < SAME_KM
    fold[near], known[near] = folds["fold"].to_numpy()[index[near]], True
    by_id = dict(zip(folds["site"], folds["fold"], strict=True))
    for i, site in enumerate(map(str, raw.place.values)):
        if site in by_id:
            fold[i], known[i] = by_id[site], True
    return fold, known


def _inputs(
    experiment: Experiment, raw: xr.Dataset, days: NDArray[np.datetime64], trained: Trained
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(site, day, forcing) and (site, static): the file's own, or those of the cells."""
    features = trained.features
    if experiment.inputs_from == "own":
        absent = [n for n in (*features.forcing, *features.static) if n not in raw]
        if absent:
            remedy = "add them to the file and to the entry's mapping"
            raise DataError(str(raw.attrs["entry"]), f"own inputs missing: {absent}", remedy=remedy)
        forcing = [raw[name].reindex(time=days).values.T for name in features.forcing]
        static = [raw[name].values for name in features.static]
    else:
        sources = domain.open_sources(experiment)
        y, x = sources.window.cells_of(raw.lat.values, raw.lon.values)
        outside = y < 0

        def at_sites(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
            chosen = sources.cells(name, values)[..., y, x]
            chosen[..., outside] = np.nan
            return chosen

        def series(name: str) -> NDArray[np.float32]:
            # In parts: the cells of a large domain, over all days, would fill the memory.
            parts = np.array_split(days, -(-len(days) // schema.BLOCK_DAYS))
            dataset = sources.forcing[name]
            read = (placing.on_days(dataset, name, part) for part in parts)
            return np.concatenate([at_sites(name, values) for values in read]).T

        forcing = [series(n) for n in features.forcing]
        static = [at_sites(n, sources.constants[n]) for n in features.static]
    empty = np.zeros((raw.sizes["place"], 0), np.float32)
    return np.stack(forcing, 2), np.stack(static, 1) if static else empty


def _places(probes: Probes, trained: Trained) -> Places:
    """The probes' inputs under a model's scales."""
    mean, std = trained.scaler.arrays(trained.features.forcing)
    forcing = ((probes.forcing - mean) / std).astype(np.float16)
    mean, std = trained.scaler.arrays(trained.features.static)
    return Places.of(forcing, ((probes.static - mean) / std).astype(np.float32), "cpu")


def _without_inputs(probes: Probes) -> NDArray[np.bool_]:
    """(site, day) days on which a site has no forcing at all."""
    present = np.asarray(np.isfinite(probes.forcing).any(axis=2))
    return ~present


def _arm(
    experiment: Experiment, root: str, arm: str, probes: Probes, trained: Trained
) -> Candidate:
    by = outcome.judged_by(experiment, arm, probes.fold)
    members = outcome.at_places(experiment, root, arm, _places(probes, trained), by)
    calibrations = models.calibrations(root, arm)
    heads = models.heads(experiment, arm)
    series = outcome.calibrated(members, heads, by, calibrations)
    missing = _without_inputs(probes)
    mean, std, raw = (np.where(missing, np.nan, values) for values in series)
    return Candidate(arm, True, _names(by), mean, std, raw)


def _ridge(root: str, probes: Probes, trained: Trained) -> Candidate:
    places = _places(probes, trained)
    series = np.empty(probes.sites.observed.shape, np.float32)
    for fold in np.unique(probes.fold).tolist():
        here = probes.fold == fold
        series[here] = models.load_ridge(root, fold).predict(places.at(here))
    series[_without_inputs(probes)] = np.nan
    return Candidate("ridge", False, _names(probes.fold), series)


def _footprint(experiment: Experiment, probes: Probes) -> Candidate:
    """The satellite at the probes, from the experiment's catalog."""
    assert experiment.sources.satellite is not None
    source = catalog.open_source(experiment, experiment.sources.satellite)
    window = schema.window(experiment).of_footprints
    source = placing.near(source, window)
    days = probes.sites.days.astype("datetime64[ns]")
    values = placing.on_days(source, experiment.target, days)
    variable = experiment.table[experiment.target]
    values[(values < variable.minimum) | (values > variable.maximum)] = np.nan
    lat, lon = source.lat.values, source.lon.values
    if placing.is_grid(source):
        values = placing.placed(source, values, window).reshape(len(days), -1)
        lat, lon = (a.ravel() for a in np.meshgrid(window.cell_lat, window.cell_lon, indexing="ij"))
    values = values.T
    held = {place: i for i, place in enumerate(_footprint_of(lat, lon))}
    holding = np.array([held.get(p, -1) for p in _footprint_of(probes.lat, probes.lon)])
    series, distance = satellite.at_sites(
        values, (lat, lon), (probes.lat, probes.lon), holding, experiment.judging.max_footprint_km
    )
    fold = np.full(len(series), "")
    return Candidate("footprint", False, fold, series, distance_km=distance)


def _footprint_of(lat: NDArray[np.float64], lon: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Row and column of the global footprint that holds each place."""
    row, col = (np.floor(position).astype(int) for position in grid.footprint_position(lat, lon))
    return list(zip(row.tolist(), col.tolist(), strict=True))


def _names(fold: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.array([models.fold_name(int(k)) for k in fold], str)


def _summarise(experiment: Experiment, probes: Probes, candidates: list[Candidate]) -> Json:
    """One summary per group of sites; the main one is that of unseen sites, when there are any."""
    # Without folds every known site was learnt from: no model can judge it unseen.
    known = "trained" if experiment.folds.kind == "none" else "out_of_fold"
    groups = {"unseen": ~probes.known, known: probes.known}
    made: Json = {}
    lacking, empty = _lacking_inputs(probes)
    for name, chosen in groups.items():
        if chosen.any():
            table, made[name] = judging.judge(
                probes.sites.only(chosen), [c.only(chosen) for c in candidates], experiment.judging
            )
            lacking += [i for i in judging.not_scored(table) if i["id"] not in empty]
    name = next((name for name, group in made.items() if group["n_sites"]), known)
    main: Json = made.get(name, {})
    place = {"place": "seen" if name == "trained" else "unseen"}
    days = probes.sites.days[np.isfinite(probes.sites.observed).any(axis=0)]
    period = (days[0].item(), days[-1].item()) if len(days) else experiment.test_period
    header = judging.header(experiment, period)
    return {**header, **place, **main, **made, "not_scored": lacking}


def _lacking_inputs(probes: Probes) -> tuple[list[Json], set[str]]:
    """Observed days without inputs, per site; and the sites that have no others."""
    observed = np.isfinite(probes.sites.observed)
    n = observed.sum(1)
    lost = (_without_inputs(probes) & observed).sum(1)
    items = [
        {"id": site, "arm": "every", "reason": f"{days} of {of} observed days without inputs"}
        for site, days, of in zip(probes.sites.ids, lost.tolist(), n.tolist(), strict=True)
        if days
    ]
    whole = (lost == n) & (n > 0)
    return items, {site for site, gone in zip(probes.sites.ids, whole, strict=True) if gone}
