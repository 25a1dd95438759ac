"""Test trained models on probes: a file of sites -> scores. Trains nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from model.recipe import Job
from model.sampling import Places
from pipeline import adjustment, ensemble, files, footprints, judging, models, probing, tables
from pipeline.cube import Cube
from pipeline.judging import Candidate

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from model.checkpoint import Trained
    from pipeline.adjustment import Priors
    from pipeline.config import Experiment
    from pipeline.files import Json
    from pipeline.probing import Probes
    from pipeline.progress import Progress
    from pipeline.store import Workspace


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
        adjustment.check(experiment, cube)
    some = models.load(root, Job(experiment.arms[0], models.ALL, 0))
    probes = probing.read(experiment, folds, some, sites_url)
    priors = adjustment.learn(experiment, workspace, cube, folds) if adjust else None
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
        candidates.append(footprints.at_places(experiment, where, probes.sites.days))
    summary = _summarise(experiment, probes, candidates, priors)
    summary |= {"sites": sites_url, "updates": models.updates_made(experiment, workspace)}
    progress.finish(f"{int(probes.known.sum())} known sites, {int((~probes.known).sum())} others")
    return summary


def _places(probes: Probes, trained: Trained) -> Places:
    """The probes' inputs under a model's scales."""
    mean, std = trained.scaler.arrays(trained.features.forcing)
    forcing = ((probes.forcing - mean) / std).astype(np.float16)
    mean, std = trained.scaler.arrays(trained.features.static)
    return Places.from_arrays(forcing, ((probes.static - mean) / std).astype(np.float32), "cpu")


def _arm(
    experiment: Experiment, root: str, arm: str, probes: Probes, trained: Trained
) -> Candidate:
    by = ensemble.judged_by(experiment, arm, probes.fold)
    members = ensemble.at_places(experiment, root, arm, _places(probes, trained), by)
    calibrations = models.calibrations(root, arm)
    heads = models.heads(experiment, arm)
    series = ensemble.calibrated(members, heads, by, calibrations)
    missing = probes.without_inputs
    mean, std, raw = (np.where(missing, np.nan, values) for values in series)
    return Candidate(arm, True, _names(by), mean, std, raw)


def _ridge(root: str, probes: Probes, trained: Trained) -> Candidate:
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
            table, made[name] = judging.judge(sites, some, experiment.judging)
            if priors:
                made[name]["adjustment"] = adjustment.judge(
                    sites, some, probes.fold[chosen], priors, experiment.judging
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
    lost = (probes.without_inputs & observed).sum(1)
    items = [
        {"id": site, "arm": "every", "reason": f"{days} of {of} observed days without inputs"}
        for site, days, of in zip(probes.sites.ids, lost.tolist(), n.tolist(), strict=True)
        if days
    ]
    whole = (lost == n) & (n > 0)
    return items, {site for site, gone in zip(probes.sites.ids, whole, strict=True) if gone}
