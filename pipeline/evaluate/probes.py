"""Score trained models at the sites of a user's file (`soilweave score`); nothing is trained.

A file of probes goes in; scores come out in the form of summary.json, separately for sites that
the models have not seen, sites that a fold holds out, and sites that the models were trained on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.recipe import ModelKey
from pipeline import files
from pipeline.catalog import experiment_sources, intake_catalog, quality_control
from pipeline.errors import DataError
from pipeline.evaluate import bias_adjustment, scoring
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment import config
from pipeline.grid import collocated_sites, remap, spatial_blocks
from pipeline.probes import columns, examine
from pipeline.probes.columns import TARGET
from pipeline.storage import ensemble, models, schema, tables
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from model.features import Features
    from pipeline.evaluate.bias_adjustment import Priors
    from pipeline.experiment.config import Experiment
    from pipeline.files import Json
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace


@dataclass(frozen=True)
class Probes:
    """Sites to score and their inputs, on every day from the first to the last that is needed.

    Attributes:
      sites: ids, blocks, days and observations.
      lat: (site,) latitude, degrees.
      lon: (site,) longitude, degrees.
      fold: (site,) fold that holds the site out; ALL if no fold does.
      known: (site,) whether the models know the site: whether one of their own sites is at the
        same place (see pipeline.grid.collocated_sites), whatever the ids are.
      forcing: (site, day, forcing) in physical units, NaN where missing.
      static: (site, static) in physical units, NaN where missing.
      excluded: ids in the file that qc.exclude_sites leaves out.
      notes: how the file was read, for the user.
    """

    sites: Sites
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    fold: NDArray[np.int64]
    known: NDArray[np.bool_]
    forcing: NDArray[np.float32]
    static: NDArray[np.float32]
    excluded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def without_inputs(self) -> NDArray[np.bool_]:
        """(site, day) whether a site has no forcing at all on a day."""
        present = np.asarray(np.isfinite(self.forcing).any(axis=2))
        return ~present


def read_probes(
    experiment: Experiment, folds: pd.DataFrame, trained: TrainedModel, sites_url: str
) -> Probes:
    """Read the observations that pass quality control, and the inputs of every site.

    Args:
      experiment: says where the inputs come from, and which form the file has.
      folds: the table folds.parquet: the sites that the models know.
      trained: any of the models; all of them have the same inputs.
      sites_url: a file, or CATALOG.yaml:NAME.

    Raises:
      SoilweaveError: If the file cannot be read, or is not as its catalog entry says.
    """
    raw = _open_sites(experiment, sites_url)
    left_out = experiment_sources.is_excluded(raw, experiment.qc.exclude_sites)
    excluded = tuple(map(str, raw.place.values[left_out]))
    raw = raw.isel(place=~left_out).load()
    variable = experiment.table[experiment.target]
    values, _ = quality_control.screen_sites(raw, experiment.target, variable, experiment.qc)
    raw[experiment.target] = (("time", "place"), values)
    days = _needed_days(experiment, raw)
    lat, lon = raw.lat.values, raw.lon.values
    fold, known = _match_known_sites(experiment, folds, lat, lon)
    forcing, static = _read_inputs(experiment, raw, days, trained)
    label = spatial_blocks.block_labels(
        lat, lon, experiment.folds.block_km, experiment.folds.block_offset_footprints
    )
    label = spatial_blocks.merge_blocks(label, config.label_experiment_places(experiment, lat, lon))
    observed = raw[experiment.target].reindex(time=days).values.T
    sites = Sites(tuple(map(str, raw.place.values)), label, days.astype("datetime64[D]"), observed)
    notes = tuple(raw.attrs.get("notes", ()))
    return Probes(sites, lat, lon, fold, known, forcing, static, excluded, notes)


def _open_sites(experiment: Experiment, sites_url: str) -> xr.Dataset:
    """Open a catalog entry (`CATALOG.yaml:NAME`), a table, or a file like the in-situ source."""
    if re.search(r"\.ya?ml:[^/]+$", sites_url):
        return intake_catalog.open_source(experiment, sites_url)
    if columns.is_table(sites_url) and not _source_reads_tables(experiment):
        return _read_table(experiment, sites_url)
    if not experiment.sources.insitu:
        problem = "has no in-situ source, so the format of the file of sites is unknown"
        hint = "set sources.insitu, or use --sites CATALOG.yaml:NAME"
        raise DataError(f"experiment {experiment.name}", problem, remedy=hint)
    return intake_catalog.open_source(experiment, experiment.sources.insitu[0], sites_url)


def _source_reads_tables(experiment: Experiment) -> bool:
    """Return whether the in-situ source of the experiment itself reads tables."""
    entries = experiment.sources.insitu[:1]
    specs = [intake_catalog.find_entry(experiment.sources.catalog, entry).spec for entry in entries]
    return any(str(spec["driver"]).endswith(".TableSource") for spec in specs)


def _read_table(experiment: Experiment, url: str) -> xr.Dataset:
    """Read a table in the same way as `soilweave doctor` does.

    Raises:
      DataError: If the table cannot be read without further options, or if the experiment is not
        about soil moisture.
    """
    if experiment.target != TARGET:
        problem = f"a table is read as {TARGET}, but experiment {experiment.name} predicts "
        hint = "describe the file in a catalog, and use --sites CATALOG.yaml:NAME"
        raise DataError(url, problem + experiment.target, remedy=hint)
    examined = examine.read_probes(url, {})
    if examined.problems or examined.data is None:
        command = f"soilweave doctor {url} --set KEY=VALUE --write my.yaml:mine"
        hint = f"correct the file; or describe it with `{command}`, and use --sites my.yaml:mine"
        raise DataError(url, *examined.problems, remedy=hint)
    return examined.data.assign_attrs(entry=url, notes=examined.guess.notes)


def _needed_days(experiment: Experiment, raw: xr.Dataset) -> NDArray[np.datetime64]:
    """Return every day of the file, (day,).

    Where inputs come from the cells, they are available before the file begins; the days then
    begin at the first day of the experiment, so that the models have their full input history.
    """
    first, last = raw.time.values[0], raw.time.values[-1]
    if experiment.inputs_from == "cell":
        first = min(first, np.datetime64(experiment.period[0], "ns"))
    return np.arange(first, last + np.timedelta64(1, "D"), np.timedelta64(1, "D"))


def _match_known_sites(
    experiment: Experiment,
    folds: pd.DataFrame,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Match sites with the places of the sites that the models know.

    Args:
      experiment: says what counts as one place.
      folds: the table folds.parquet: the sites that the models know.
      lat: (site,) latitude, degrees.
      lon: (site,) longitude, degrees.

    Returns:
      (site,) fold whose models have learnt from no site at this place: that of the nearest known
      site for which this holds. It is ALL for unknown places, and for a site between two places of
      which every fold has learnt one.
      (site,) whether the models know the place.
    """
    n, known_fold = len(lat), folds["fold"].to_numpy()
    fold, known = np.full(n, models.ALL_SITES), np.zeros(n, bool)
    all_coordinates = (np.concatenate(pair) for pair in ((lat, folds["lat"]), (lon, folds["lon"])))
    pairs = config.find_collocated_pairs(experiment, *all_coordinates).pair
    matches = pairs[(pairs[:, 0] < n) & (pairs[:, 1] >= n)]  # a new site with a known one
    place = config.label_experiment_places(
        experiment, folds["lat"].to_numpy(), folds["lon"].to_numpy()
    )
    for site in np.unique(matches[:, 0]).tolist():
        known_sites = matches[matches[:, 0] == site, 1] - n  # nearest first
        known[site] = True
        folds_without_place = (
            k
            for k in known_fold[known_sites]
            if not collocated_sites.select_elsewhere(place, known_fold, k)[known_sites].any()
        )
        fold[site] = next(folds_without_place, models.ALL_SITES)
    return fold, known


def _read_inputs(
    experiment: Experiment, raw: xr.Dataset, days: NDArray[np.datetime64], trained: TrainedModel
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return forcing (site, day, forcing) and statics (site, static), of the file or the cells.

    Values are in physical units; those of sites outside the domain are NaN.
    """
    features = trained.features
    if experiment.inputs_from == "own":
        _check_own_inputs(experiment, raw, features)
        forcing = [raw[name].reindex(time=days).values.T for name in features.forcing]
        static = [raw[name].values for name in features.static]
    else:
        sources = experiment_sources.open_sources(experiment)
        y, x = sources.window.cells_of(raw.lat.values, raw.lon.values)
        outside = y < 0

        def at_sites(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
            at_cells = sources.on_cells(name, values)[..., y, x]
            at_cells[..., outside] = np.nan
            return at_cells

        def series(name: str) -> NDArray[np.float32]:
            # Read in blocks: all days of all cells of a large domain would not fit into memory.
            blocks = np.array_split(days, -(-len(days) // schema.BLOCK_DAYS))
            dataset = sources.forcing[name]
            fields = (remap.read_days(dataset, name, block) for block in blocks)
            return np.concatenate([at_sites(name, values) for values in fields]).T

        forcing = [series(n) for n in features.forcing]
        static = [at_sites(n, sources.static_values[n]) for n in features.static]
    empty = np.zeros((raw.sizes["place"], 0), np.float32)
    return np.stack(forcing, 2), np.stack(static, 1) if static else empty


def _check_own_inputs(experiment: Experiment, raw: xr.Dataset, features: Features) -> None:
    """Check that the file has the inputs of models that were trained on each site's own inputs.

    Raises:
      DataError: If inputs are missing, naming them.
    """
    missing = []
    for kind, names in (("each day", features.forcing), ("once", features.static)):
        absent = [f"{n} ({experiment.table[n].units})" for n in names if n not in raw]
        if absent:
            missing.append(f"{kind} {', '.join(absent)}")
    if missing:
        problem = (
            f"own inputs missing: the models of {experiment.name} were trained on inputs of each "
            f"site itself (inputs_from: own), not of its cell, so every site in the file must have "
            f"{'; '.join(missing)}"
        )
        hint = (
            "add them to the file and to its entry's mapping, or use an experiment that takes "
            "inputs from cells (inputs_from: cell)"
        )
        raise DataError(str(raw.attrs["entry"]), problem, remedy=hint)


def score_probes(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    sites_url: str,
    adjust: bool = False,
) -> Json:
    """Score every arm and baseline at the sites of a file.

    Args:
      experiment: the experiment that was trained.
      workspace: has its models.
      progress: is updated after every arm.
      sites_url: a table, a file in the form of the experiment's in-situ source, or
        CATALOG.yaml:NAME.
      adjust: also estimate an offset for every site: adds `adjustment` to every group.

    Returns:
      Scores in the form of summary.json, for each group of sites: `unseen`, `out_of_fold` and
      `trained`; those of the first of these that has scored sites are also at the top level.

    Raises:
      SoilweaveError: If there are no complete models, or the file is not as its catalog entry says.
    """
    cube = Cube.of(experiment, workspace)
    for name in ("folds", "models"):
        workspace.artefact(name).digest(experiment)
    root = workspace.url("models")
    progress.start("score", len(experiment.arms) + 1, "arms")
    folds = tables.read_table(workspace.url("folds.parquet"))
    if adjust:
        bias_adjustment.check_held_out_errors(experiment, cube)
    trained = models.load_model(root, ModelKey(experiment.arms[0], models.ALL_SITES, 0))
    probes = read_probes(experiment, folds, trained, sites_url)
    priors = bias_adjustment.learn_priors(experiment, workspace, cube, folds) if adjust else None
    for note in probes.notes:
        progress.note(note)
    candidates = []
    for arm in experiment.arms:
        candidates.append(_predict_arm(experiment, root, arm, probes, trained))
        progress.advance()
    if files.exists(models.ridge_url(root, models.ALL_SITES)):
        candidates.append(_predict_ridge(root, probes, trained))
    if experiment.sources.satellite is not None:
        days = probes.sites.days
        candidates.append(scoring.satellite_at_places(experiment, (probes.lat, probes.lon), days))
    summary = _summarise(experiment, probes, candidates, priors)
    summary |= {"sites": sites_url, "updates": models.recorded_updates(experiment, workspace)}
    progress.finish(f"{probes.known.sum()} known sites, {(~probes.known).sum()} others")
    return summary


def _predict_arm(
    experiment: Experiment, root: str, arm: str, probes: Probes, trained: TrainedModel
) -> Candidate:
    """Predict every site with the ensemble of an arm, by the models of the site's fold."""
    fold = ensemble.evaluation_folds(experiment, arm, probes.fold)
    places = ensemble.scale_inputs(trained, probes.forcing, probes.static)
    members = ensemble.predict_members(experiment, root, arm, places, fold)
    calibrations = models.read_calibrations(root, arm)
    heads = models.trained_heads(experiment, arm)
    series = ensemble.combine_calibrated(members, heads, fold, calibrations)
    missing = probes.without_inputs
    mean, std, std_raw = (np.where(missing, np.nan, values) for values in series)
    return Candidate(arm, True, _fold_names(fold), mean, std, std_raw)


def _predict_ridge(root: str, probes: Probes, trained: TrainedModel) -> Candidate:
    """Predict every site with the ridge regression of the site's fold."""
    places = ensemble.scale_inputs(trained, probes.forcing, probes.static)
    series = np.empty(probes.sites.observed.shape, np.float32)
    for fold in np.unique(probes.fold).tolist():
        in_fold = probes.fold == fold
        series[in_fold] = models.load_ridge(root, fold).predict(places.select(in_fold))
    series[probes.without_inputs] = np.nan
    return Candidate("ridge", False, _fold_names(probes.fold), series)


def _fold_names(fold: NDArray[np.int64]) -> NDArray[np.str_]:
    """Return the name of every fold, (site,)."""
    return np.array([models.fold_name(int(k)) for k in fold], str)


def _summarise(
    experiment: Experiment, probes: Probes, candidates: list[Candidate], priors: Priors | None
) -> Json:
    """Score each group of sites; the group of unseen sites, if any is scored, is the main one."""
    # If no fold holds a known site out, as without folds, every model was trained on it.
    held_out = probes.fold != models.ALL_SITES
    groups = {
        "unseen": ~probes.known,
        "out_of_fold": probes.known & held_out,
        "trained": probes.known & ~held_out,
    }
    summaries: Json = {}
    unscored, without_any_inputs = _days_without_inputs(probes)
    reason = "left out by qc.exclude_sites"
    unscored += [{"id": site, "arm": "every", "reason": reason} for site in probes.excluded]
    for name, in_group in groups.items():
        if in_group.any():
            sites = probes.sites.select(in_group)
            own = [c.select(in_group) for c in candidates]
            table, summaries[name] = scoring.score_candidates(sites, own, experiment.judging)
            if priors:
                summaries[name]["adjustment"] = bias_adjustment.score_adjusted(
                    sites, own, probes.fold[in_group], priors, experiment.judging
                )
            unscored += [
                i for i in scoring.list_unscored(table) if i["id"] not in without_any_inputs
            ]
    default = "trained" if experiment.folds.kind == "none" else "out_of_fold"
    main = next((name for name, group in summaries.items() if group["n_sites"]), default)
    place = {"place": "seen" if main == "trained" else "unseen"}
    days = probes.sites.days[np.isfinite(probes.sites.observed).any(axis=0)]
    period = (days[0].item(), days[-1].item()) if len(days) else experiment.test_period
    header = scoring.summary_header(experiment, period)
    return {**header, **place, **summaries.get(main, {}), **summaries, "not_scored": unscored}


def _days_without_inputs(probes: Probes) -> tuple[list[Json], set[str]]:
    """Return the sites with observed days without inputs, and the ids of those with no others."""
    observed = np.isfinite(probes.sites.observed)
    n_observed = observed.sum(1)
    n_lost = (probes.without_inputs & observed).sum(1)
    rows = [
        {"id": site, "arm": "every", "reason": f"{lost} of {n} observed days without inputs"}
        for site, lost, n in zip(
            probes.sites.ids, n_lost.tolist(), n_observed.tolist(), strict=True
        )
        if lost
    ]
    all_lost = (n_lost == n_observed) & (n_observed > 0)
    return rows, {site for site, lost in zip(probes.sites.ids, all_lost, strict=True) if lost}
