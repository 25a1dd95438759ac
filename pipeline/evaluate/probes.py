"""Probes of a person as sites: what they observed, their inputs, the models that may judge them.

Test trained models on probes: a file of sites -> scores. Trains nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.recipe import ModelKey
from model.sampling import Places
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
    """Sites to score, over every day from the first to the last that is needed.

    `forcing` (site, day, forcing) and `static` (site, static) are unscaled; `fold` (site,) is the
    fold that holds the site out, ALL where the models do not know it; `known` says which they do:
    those at the place of a site of theirs (see pipeline.twins), whatever either is called.
    `excluded` has the ids of the file that qc.exclude_sites leaves out; `notes` say how the file
    was read.
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
        """(site, day) days on which a site has no forcing at all."""
        present = np.asarray(np.isfinite(self.forcing).any(axis=2))
        return ~present


def read(
    experiment: Experiment, folds: pd.DataFrame, trained: TrainedModel, sites_url: str
) -> Probes:
    """Observations that pass QC, and the inputs of every site.

    Args:
      experiment: says where inputs are, and in which form the file is.
      folds: folds.parquet, the sites that the models know.
      trained: any of the models; they all have the same inputs.
      sites_url: a file, or CATALOG.yaml:NAME.

    Raises:
      SoilweaveError: the file is not as the catalog says.
    """
    raw = _opened(experiment, sites_url)
    left_out = experiment_sources.excluding(raw, experiment.qc.exclude_sites)
    excluded = tuple(map(str, raw.place.values[left_out]))
    raw = raw.isel(place=~left_out).load()
    variable = experiment.table[experiment.target]
    values, _ = quality_control.screen(raw, experiment.target, variable, experiment.qc)
    raw[experiment.target] = (("time", "place"), values)
    days = _days(experiment, raw)
    lat, lon = raw.lat.values, raw.lon.values
    fold, known = _known(experiment, folds, lat, lon)
    forcing, static = _inputs(experiment, raw, days, trained)
    label = spatial_blocks.block_labels(
        lat, lon, experiment.folds.block_km, experiment.folds.block_offset_footprints
    )
    label = spatial_blocks.joined(label, config.number_places(experiment, lat, lon))
    observed = raw[experiment.target].reindex(time=days).values.T
    sites = Sites(tuple(map(str, raw.place.values)), label, days.astype("datetime64[D]"), observed)
    notes = tuple(raw.attrs.get("notes", ()))
    return Probes(sites, lat, lon, fold, known, forcing, static, excluded, notes)


def _opened(experiment: Experiment, sites_url: str) -> xr.Dataset:
    """An entry, `CATALOG.yaml:name`; a table; or a file in the form of the in-situ source."""
    if re.search(r"\.ya?ml:[^/]+$", sites_url):
        return intake_catalog.open_source(experiment, sites_url)
    if columns.is_table(sites_url) and not _reads_tables(experiment):
        return _table(experiment, sites_url)
    if not experiment.sources.insitu:
        found = "names no in-situ source, so the form of a file of sites is not known"
        remedy = "give sources.insitu, or --sites CATALOG.yaml:NAME"
        raise DataError(f"experiment {experiment.name}", found, remedy=remedy)
    return intake_catalog.open_source(experiment, experiment.sources.insitu[0], sites_url)


def _reads_tables(experiment: Experiment) -> bool:
    """Whether the form of the experiment's in-situ source is itself that of a table."""
    entries = experiment.sources.insitu[:1]
    specs = [intake_catalog.find(experiment.sources.catalog, entry).spec for entry in entries]
    return any(str(spec["driver"]).endswith(".TableSource") for spec in specs)


def _table(experiment: Experiment, url: str) -> xr.Dataset:
    """A table, read as `doctor` reads it.

    Raises:
      DataError: it cannot be read without being told more, or holds another variable.
    """
    if experiment.target != TARGET:
        found = f"a table is read as one of {TARGET}, and {experiment.name} is of "
        remedy = "name it in a catalog, and give --sites CATALOG.yaml:NAME"
        raise DataError(url, found + experiment.target, remedy=remedy)
    examined = examine.read_probes(url, {})
    if examined.problems or examined.data is None:
        told = f"soilweave doctor {url} --set KEY=VALUE --write my.yaml:mine"
        remedy = f"correct it; or tell what it is with `{told}`, and give --sites my.yaml:mine"
        raise DataError(url, *examined.problems, remedy=remedy)
    return examined.data.assign_attrs(entry=url, notes=examined.guess.notes)


def _days(experiment: Experiment, raw: xr.Dataset) -> NDArray[np.datetime64]:
    """Every day of the file; from the experiment's first day on where inputs are the cells'."""
    first, last = raw.time.values[0], raw.time.values[-1]
    if experiment.inputs_from == "cell":
        first = min(first, np.datetime64(experiment.period[0], "ns"))
    return np.arange(first, last + np.timedelta64(1, "D"), np.timedelta64(1, "D"))


def _known(
    experiment: Experiment,
    folds: pd.DataFrame,
    lat: NDArray[np.float64],
    lon: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Fold that holds each site out, and whether the models know its place.

    The fold is that of the nearest of their sites there whose models have learnt from none of the
    others there; ALL where each fold's models have, as a site may lie between two places.
    `lat` and `lon` (site,) are in degrees.
    """
    n, of = len(lat), folds["fold"].to_numpy()
    fold, known = np.full(n, models.ALL), np.zeros(n, bool)
    both = (np.concatenate(pair) for pair in ((lat, folds["lat"]), (lon, folds["lon"])))
    found = config.find_collocated_pairs(experiment, *both)
    across = found.pair[(found.pair[:, 0] < n) & (found.pair[:, 1] >= n)]
    place = config.number_places(experiment, folds["lat"].to_numpy(), folds["lon"].to_numpy())
    for site in np.unique(across[:, 0]).tolist():
        theirs, known[site] = across[across[:, 0] == site, 1] - n, True  # nearest first
        unaware = (
            k for k in of[theirs] if not collocated_sites.elsewhere(place, of, k)[theirs].any()
        )
        fold[site] = next(unaware, models.ALL)
    return fold, known


def _inputs(
    experiment: Experiment, raw: xr.Dataset, days: NDArray[np.datetime64], trained: TrainedModel
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(site, day, forcing) and (site, static): the file's own, or those of the cells."""
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
            chosen = sources.cells(name, values)[..., y, x]
            chosen[..., outside] = np.nan
            return chosen

        def series(name: str) -> NDArray[np.float32]:
            # In parts: the cells of a large domain, over all days, would fill the memory.
            parts = np.array_split(days, -(-len(days) // schema.BLOCK_DAYS))
            dataset = sources.forcing[name]
            read = (remap.on_days(dataset, name, part) for part in parts)
            return np.concatenate([at_sites(name, values) for values in read]).T

        forcing = [series(n) for n in features.forcing]
        static = [at_sites(n, sources.constants[n]) for n in features.static]
    empty = np.zeros((raw.sizes["place"], 0), np.float32)
    return np.stack(forcing, 2), np.stack(static, 1) if static else empty


def _check_own_inputs(experiment: Experiment, raw: xr.Dataset, features: Features) -> None:
    """Whether sites bring the inputs of models that were trained on those of each site.

    Raises:
      DataError: naming the ones that are missing.
    """
    parts = []
    for what, names in (("each day", features.forcing), ("once", features.static)):
        absent = [f"{n} ({experiment.table[n].units})" for n in names if n not in raw]
        if absent:
            parts.append(f"{what} {', '.join(absent)}")
    if parts:
        found = (
            f"own inputs missing: the models of {experiment.name} were trained on inputs measured "
            f"or known at each site itself (inputs_from: own), not on those of its cell, and need "
            f"them of every site in the file: {'; '.join(parts)}"
        )
        remedy = (
            "add them to the file and to its entry's mapping, or score with an experiment that "
            "takes inputs from cells (inputs_from: cell)"
        )
        raise DataError(str(raw.attrs["entry"]), found, remedy=remedy)


def run(
    experiment: Experiment,
    workspace: Workspace,
    progress: Progress,
    sites_url: str,
    adjust: bool = False,
) -> Json:
    """Scores at the sites of a file, known ones and others apart, in summary.json's form.

    Args:
      experiment: what was trained.
      workspace: has its models.
      progress: told of every arm.
      sites_url: a table, a file in the form of the experiment's in-situ source, or
        CATALOG.yaml:NAME.
      adjust: learn an offset of every site, too: `adjustment` of every group.

    Raises:
      SoilweaveError: there are no complete models, or the file is not as the catalog says.
    """
    cube_url, _ = Cube.source(experiment, workspace)
    for name in ("folds", "models"):
        workspace.artefact(name).digest(experiment)
    root = workspace.url("models")
    progress.start("score", len(experiment.arms) + 1, "arms")
    folds = tables.read(workspace.url("folds.parquet"))
    cube = Cube.open(cube_url)
    if adjust:
        bias_adjustment.check(experiment, cube)
    some = models.load(root, ModelKey(experiment.arms[0], models.ALL, 0))
    probes = read(experiment, folds, some, sites_url)
    priors = bias_adjustment.learn(experiment, workspace, cube, folds) if adjust else None
    for note in probes.notes:
        progress.note(note)
    candidates = []
    for arm in experiment.arms:
        candidates.append(_arm(experiment, root, arm, probes, some))
        progress.advance()
    if files.exists(models.ridge_url(root, models.ALL)):
        candidates.append(_ridge(root, probes, some))
    if experiment.sources.satellite is not None:
        where = (probes.lat, probes.lon)
        candidates.append(scoring.at_places(experiment, where, probes.sites.days))
    summary = _summarise(experiment, probes, candidates, priors)
    summary |= {"sites": sites_url, "updates": models.updates_made(experiment, workspace)}
    progress.finish(f"{int(probes.known.sum())} known sites, {int((~probes.known).sum())} others")
    return summary


def _places(probes: Probes, trained: TrainedModel) -> Places:
    """The probes' inputs under a model's scales."""
    mean, std = trained.scaler.arrays(trained.features.forcing)
    forcing = ((probes.forcing - mean) / std).astype(np.float16)
    mean, std = trained.scaler.arrays(trained.features.static)
    return Places.from_arrays(forcing, ((probes.static - mean) / std).astype(np.float32), "cpu")


def _arm(
    experiment: Experiment, root: str, arm: str, probes: Probes, trained: TrainedModel
) -> Candidate:
    by = ensemble.judged_by(experiment, arm, probes.fold)
    members = ensemble.at_places(experiment, root, arm, _places(probes, trained), by)
    calibrations = models.calibrations(root, arm)
    heads = models.heads(experiment, arm)
    series = ensemble.calibrated(members, heads, by, calibrations)
    missing = probes.without_inputs
    mean, std, raw = (np.where(missing, np.nan, values) for values in series)
    return Candidate(arm, True, _names(by), mean, std, raw)


def _ridge(root: str, probes: Probes, trained: TrainedModel) -> Candidate:
    places = _places(probes, trained)
    series = np.empty(probes.sites.observed.shape, np.float32)
    for fold in np.unique(probes.fold).tolist():
        here = probes.fold == fold
        series[here] = models.load_ridge(root, fold).predict(places.select(here))
    series[probes.without_inputs] = np.nan
    return Candidate("ridge", False, _names(probes.fold), series)


def _names(fold: NDArray[np.int64]) -> NDArray[np.str_]:
    return np.array([models.fold_name(int(k)) for k in fold], str)


def _summarise(
    experiment: Experiment, probes: Probes, candidates: list[Candidate], priors: Priors | None
) -> Json:
    """One summary per group of sites; the main one is that of unseen sites, when there are any."""
    known = "trained" if experiment.folds.kind == "none" else "out_of_fold"
    # Where no fold holds a known site out, as without folds, every model has learnt from it.
    held_out = probes.fold != models.ALL
    groups = {"unseen": ~probes.known, "out_of_fold": probes.known & held_out}
    groups["trained"] = probes.known & ~held_out
    made: Json = {}
    lacking, empty = _lacking_inputs(probes)
    reason = "left out by qc.exclude_sites"
    lacking += [{"id": site, "arm": "every", "reason": reason} for site in probes.excluded]
    for name, chosen in groups.items():
        if chosen.any():
            sites, some = probes.sites.only(chosen), [c.only(chosen) for c in candidates]
            table, made[name] = scoring.judge(sites, some, experiment.judging)
            if priors:
                made[name]["adjustment"] = bias_adjustment.judge(
                    sites, some, probes.fold[chosen], priors, experiment.judging
                )
            lacking += [i for i in scoring.not_scored(table) if i["id"] not in empty]
    name = next((name for name, group in made.items() if group["n_sites"]), known)
    main: Json = made.get(name, {})
    place = {"place": "seen" if name == "trained" else "unseen"}
    days = probes.sites.days[np.isfinite(probes.sites.observed).any(axis=0)]
    period = (days[0].item(), days[-1].item()) if len(days) else experiment.test_period
    header = scoring.header(experiment, period)
    return {**header, **place, **main, **made, "not_scored": lacking}


def _lacking_inputs(probes: Probes) -> tuple[list[Json], set[str]]:
    """Observed days without inputs, per site; and the sites that have no others."""
    observed = np.isfinite(probes.sites.observed)
    n = observed.sum(1)
    lost = (probes.without_inputs & observed).sum(1)
    items = [
        {"id": site, "arm": "every", "reason": f"{days} of {of} observed days without inputs"}
        for site, days, of in zip(probes.sites.ids, lost.tolist(), n.tolist(), strict=True)
        if days
    ]
    whole = (lost == n) & (n > 0)
    return items, {site for site, gone in zip(probes.sites.ids, whole, strict=True) if gone}
