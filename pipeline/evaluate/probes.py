"""Score trained models at the sites of a user's file (`soilweave score`); nothing is trained.

A file of probes goes in; scores come out in the form of summary.json, separately for sites that
the models have not seen, sites that a fold holds out, and sites that the models were trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.catalog import experiment_sources, intake_catalog, quality_control
from pipeline.errors import DataError
from pipeline.evaluate import bias_adjustment, known_models, probe_inputs, scoring
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment import config
from pipeline.grid import collocated_sites, spatial_blocks
from pipeline.probes import columns, examine
from pipeline.probes.columns import TARGET
from pipeline.storage import ensemble, models

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from pipeline.evaluate.bias_adjustment import Priors
    from pipeline.evaluate.known_models import KnownModels
    from pipeline.evaluate.probe_inputs import ProbeInputs
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
      known_as: (site,) id of the nearest of the models' own sites at the same place (see
        pipeline.grid.collocated_sites), whatever the id of the site is; "" if there is none.
      inputs: forcing and static attributes.
      excluded: ids in the file that qc.exclude_sites leaves out.
      notes: how the file was read, for the user.
    """

    sites: Sites
    lat: NDArray[np.float64]
    lon: NDArray[np.float64]
    fold: NDArray[np.int64]
    known_as: NDArray[np.str_]
    inputs: ProbeInputs
    excluded: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def known(self) -> NDArray[np.bool_]:
        """(site,) whether the models have a site of their own at the place."""
        return np.asarray(self.known_as != "")

    @property
    def without_inputs(self) -> NDArray[np.bool_]:
        """(site, day) whether a site has no forcing at all on a day."""
        present = np.asarray(np.isfinite(self.inputs.forcing).any(axis=2))
        return ~present


def read_probes(
    experiment: Experiment,
    folds: pd.DataFrame,
    trained: TrainedModel,
    sites_url: str,
    nearest_km: float = 0.0,
) -> Probes:
    """Read the observations that pass quality control, and the inputs of every site.

    Args:
      experiment: says where the inputs come from, and which form the file has.
      folds: the table folds.parquet: the sites that the models know.
      trained: any of the models; all of them have the same inputs.
      sites_url: a file, or CATALOG.yaml:NAME.
      nearest_km: how far the cell may be that gives a site in no cell with forcing its inputs.

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
    fold, known_as = _match_known_sites(experiment, folds, lat, lon)
    inputs = probe_inputs.read_inputs(experiment, raw, days, trained.features, nearest_km)
    label = spatial_blocks.block_labels(
        lat, lon, experiment.folds.block_km, experiment.folds.block_offset_footprints
    )
    label = spatial_blocks.merge_blocks(label, config.label_experiment_places(experiment, lat, lon))
    observed = raw[experiment.target].reindex(time=days).values.T
    sites = Sites(tuple(map(str, raw.place.values)), label, days.astype("datetime64[D]"), observed)
    notes = tuple(raw.attrs.get("notes", ()))
    return Probes(sites, lat, lon, fold, known_as, inputs, excluded, notes)


def _open_sites(experiment: Experiment, sites_url: str) -> xr.Dataset:
    """Open a catalog entry (`CATALOG.yaml:NAME`), a table, or a file like the in-situ source."""
    if columns.is_catalog_entry(sites_url):
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
        hint = f"correct the file; or describe it with `{command}`, where KEY=VALUE is as above, "
        hint += "and give my.yaml:mine instead of the file"
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
) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
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
      (site,) id of the nearest known site at the place; "" if there is none.
    """
    n, known_fold = len(lat), folds["fold"].to_numpy()
    fold, known_as = np.full(n, models.ALL_SITES), [""] * n
    all_coordinates = (np.concatenate(pair) for pair in ((lat, folds["lat"]), (lon, folds["lon"])))
    pairs = config.find_collocated_pairs(experiment, *all_coordinates).pair
    matches = pairs[(pairs[:, 0] < n) & (pairs[:, 1] >= n)]  # a new site with a known one
    place = config.label_experiment_places(
        experiment, folds["lat"].to_numpy(), folds["lon"].to_numpy()
    )
    for site in np.unique(matches[:, 0]).tolist():
        known_sites = matches[matches[:, 0] == site, 1] - n  # nearest first
        known_as[site] = str(folds["site"].iloc[known_sites[0]])
        folds_without_place = (
            k
            for k in known_fold[known_sites]
            if not collocated_sites.select_elsewhere(place, known_fold, k)[known_sites].any()
        )
        fold[site] = next(folds_without_place, models.ALL_SITES)
    return fold, np.array(known_as, str)


@dataclass(frozen=True)
class Scored:
    """Scores of probes, and what was scored.

    Attributes:
      summary: scores in the form of summary.json; `score_probes` says which.
      probes: the probes.
      candidates: the predictions of every arm and baseline, on the days of the probes.
    """

    summary: Json
    probes: Probes
    candidates: list[Candidate]


def score_probes(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    sites_url: str,
    adjust: bool = False,
    nearest_km: float = 0.0,
) -> Scored:
    """Score every arm and baseline at the sites of a file.

    Args:
      experiment: the experiment that was trained; or, with `models`, one that says where inputs
        are for models that were trained elsewhere.
      workspace: its folder, which has its models.
      progress: is updated after every arm.
      sites_url: a table, a file in the form of the experiment's in-situ source, or
        CATALOG.yaml:NAME.
      adjust: also estimate an offset for every site: adds `adjustment` to every group.
      nearest_km: how far the cell may be that gives a site in no cell with forcing its inputs.

    Returns:
      Scores in the form of summary.json, for each group of sites: `unseen`, `out_of_fold` and
      `trained`; those of the first of these that has scored sites are also at the top level.
      `probes` has those of every site.

    Raises:
      SoilweaveError: If there are no complete models, the file is not as its catalog entry says, or
        models that were trained elsewhere find no inputs for any site.
    """
    known = known_models.find(experiment, workspace)
    progress.start("score", len(known.trained.arms) + 1, "arms")
    if adjust:
        known_models.check_priors(known)
    trained = known.load_any()
    probes = read_probes(experiment, known.folds, trained, sites_url, nearest_km)
    probes = replace(probes, fold=known.folds_with_models(probes.fold))
    if experiment.models is not None:
        _check_any_inputs(experiment, probes, sites_url)
    priors = known_models.read_priors(known) if adjust else None
    for note in (*probes.notes, *_describe_models(experiment, known)):
        progress.note(note)
    candidates = _predict_all(experiment, known, probes, trained, progress)
    summary = _summarise(experiment, known, probes, candidates, priors)
    summary |= {"sites": sites_url, "updates": known.updates, "models": experiment.models}
    progress.finish(f"{probes.known.sum()} known sites, {(~probes.known).sum()} others")
    return Scored(summary, probes, candidates)


def _describe_models(experiment: Experiment, known: KnownModels) -> list[str]:
    """Return lines on a simulated planet, and on models that were trained elsewhere."""
    lines = []
    if experiment.planet is not None:
        lines.append(
            f"{experiment.name} is a simulated planet: scores of probes on the Earth mean nothing "
            "here; soilweave score FILE.csv tests the models that come with soilweave on them"
        )
    if experiment.models is None:
        return lines
    sources, trained = experiment.sources, known.trained
    inputs = f"{', '.join(sources.forcing)} of catalog {sources.catalog}"
    if experiment.inputs_from == "own":
        inputs = "each site's own"
    return [*lines, f"models of {trained.name}, {trained.n_seeds} members; inputs: {inputs}"]


def _predict_all(
    experiment: Experiment,
    known: KnownModels,
    probes: Probes,
    trained: TrainedModel,
    progress: Progress,
) -> list[Candidate]:
    """Predict every site with every arm, and with the baselines that there are."""
    candidates = []
    for arm in known.trained.arms:
        candidates.append(_predict_arm(known, arm, probes, trained))
        progress.advance()
    if files.exists(models.ridge_url(known.root, models.ALL_SITES)):
        candidates.append(_predict_ridge(known.root, probes, trained))
    if experiment.sources.satellite is not None:
        days = probes.sites.days
        candidates.append(scoring.satellite_at_places(experiment, (probes.lat, probes.lon), days))
    return candidates


def _check_any_inputs(experiment: Experiment, probes: Probes, sites_url: str) -> None:
    """Check that a site has inputs on a day with an observation.

    Raises:
      DataError: If none has; it says how far the cells with forcing are, and what to type.
    """
    observed = np.isfinite(probes.sites.observed)
    if not observed.any() or (observed & ~probes.without_inputs).any():
        return
    km, ids = probes.inputs.cell_km, np.array(probes.sites.ids)
    catalog, far = experiment.sources.catalog, np.isfinite(km) & (km > 0)
    problems, hints = [], list[str]()
    if far.any():
        named = examine.join_names(ids[far].tolist())
        nearest, furthest = (f"{value:.0f}" for value in (km[far].min(), km[far].max()))
        away = nearest if nearest == furthest else f"{nearest} to {furthest}"
        problems.append(
            f"no inputs: {named} in no cell for which catalog {catalog} has forcing, but {away} km "
            "from the nearest"
        )
        sensible = km[far & (km <= config.FARTHEST_CELL_KM)]
        if len(sensible):
            hints.append(f"take its inputs with --nearest {np.ceil(sensible.max()):.0f}")
    if not far.all():
        named = examine.join_names(ids[~far].tolist())
        days = probes.sites.days[observed.any(0)]
        problems.append(
            f"no inputs: catalog {catalog} has no forcing for {named} on any of the days observed, "
            f"{days[0]} to {days[-1]}"
        )
    command = f"soilweave score EXPERIMENT.yaml --models {experiment.models} --sites {sites_url}"
    hints.append(f"name an experiment whose sources cover these places and days: {command}")
    raise DataError(sites_url, *problems, remedy="; or ".join(hints))


def _predict_arm(known: KnownModels, arm: str, probes: Probes, trained: TrainedModel) -> Candidate:
    """Predict every site with the ensemble of an arm, by the models of the site's fold."""
    experiment, root = known.trained, known.root
    fold = ensemble.evaluation_folds(experiment, arm, probes.fold)
    places = ensemble.scale_inputs(trained, probes.inputs.forcing, probes.inputs.static)
    members = ensemble.predict_members(experiment, root, arm, places, fold)
    calibrations = models.read_calibrations(root, arm)
    heads = models.trained_heads(experiment, arm)
    series = ensemble.combine_calibrated(members, heads, fold, calibrations)
    missing = probes.without_inputs
    mean, std, std_raw = (np.where(missing, np.nan, values) for values in series)
    return Candidate(arm, True, _fold_names(fold), mean, std, std_raw)


def _predict_ridge(root: str, probes: Probes, trained: TrainedModel) -> Candidate:
    """Predict every site with the ridge regression of the site's fold."""
    places = ensemble.scale_inputs(trained, probes.inputs.forcing, probes.inputs.static)
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
    experiment: Experiment,
    known: KnownModels,
    probes: Probes,
    candidates: list[Candidate],
    priors: Priors | None,
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
    by_probe: list[Json] = []
    unscored, without_any_inputs = _days_without_inputs(probes)
    reason = "left out by qc.exclude_sites"
    unscored += [{"id": site, "arm": "all arms", "reason": reason} for site in probes.excluded]
    for name, in_group in groups.items():
        if in_group.any():
            sites = probes.sites.select(in_group)
            own = [c.select(in_group) for c in candidates]
            table, summaries[name] = scoring.score_candidates(sites, own, experiment.judging)
            by_probe += _describe_probes(probes, name, in_group, table)
            if priors:
                summaries[name]["adjustment"] = bias_adjustment.score_adjusted(
                    sites, own, probes.fold[in_group], priors, experiment.judging
                )
            unscored += [
                i for i in scoring.list_unscored(table) if i["id"] not in without_any_inputs
            ]
    default = "trained" if known.trained.folds.kind == "none" else "out_of_fold"
    main = next((name for name, group in summaries.items() if group["n_sites"]), default)
    place = {"place": "seen" if main == "trained" else "unseen"}
    days = probes.sites.days[np.isfinite(probes.sites.observed).any(axis=0)]
    period = (days[0].item(), days[-1].item()) if len(days) else experiment.test_period
    trained = known.trained.model_copy(update={"judging": experiment.judging})
    header = scoring.summary_header(trained, period)
    listed = {"probes": by_probe, "not_scored": unscored}
    return {**header, **place, **summaries.get(main, {}), **summaries, **listed}


def _describe_probes(
    probes: Probes, group: str, in_group: NDArray[np.bool_], table: pd.DataFrame
) -> list[Json]:
    """Return place and scores of each site of a group, by arm and baseline; None if not scored."""
    scores: dict[str, dict[str, Json]] = {}
    for row in table.to_dict("records"):
        of_site = scores.setdefault(str(row["id"]), {}).setdefault(str(row["arm"]), {})
        of_site |= {"n": int(row["n"]), str(row["metric"]): scoring.json_number(row["value"])}
    return [
        {
            "id": probes.sites.ids[i],
            "group": group,
            "known_as": str(probes.known_as[i]) or None,
            "lat": float(probes.lat[i]),
            "lon": float(probes.lon[i]),
            "cell_km": scoring.json_number(float(probes.inputs.cell_km[i])),
            "scores": scores[probes.sites.ids[i]],
        }
        for i in np.flatnonzero(in_group).tolist()
    ]


def _days_without_inputs(probes: Probes) -> tuple[list[Json], set[str]]:
    """Return the sites with observed days without inputs, and the ids of those with no others."""
    observed = np.isfinite(probes.sites.observed)
    n_observed = observed.sum(1)
    n_lost = (probes.without_inputs & observed).sum(1)
    counts = zip(probes.sites.ids, n_lost.tolist(), n_observed.tolist(), strict=True)
    rows = [
        {"id": site, "arm": "all arms", "reason": f"{lost} of {n} observed days without inputs"}
        for site, lost, n in counts
        if lost
    ]
    for row, km in zip(rows, probes.inputs.cell_km[n_lost > 0].tolist(), strict=True):
        if 0 < km < np.inf:
            row["reason"] += f"; the nearest cell with forcing is {km:.0f} km away"
    all_lost = (n_lost == n_observed) & (n_observed > 0)
    return rows, {site for site, lost in zip(probes.sites.ids, all_lost, strict=True) if lost}
