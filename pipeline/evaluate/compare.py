"""Compare experiments that were run, on the same sites and days: sites.parquet of each.

A comparison (`evaluate A B --json FILE`) has
  first: the experiment that every other is compared with
  experiments, by name: folder, changed (settings it has otherwise than the first), n_sites and
    n_site_days (observed in its own test period)
  n_sites, n_site_days: those that all of them observe and predict; nothing else is judged
  min_days, test_period, unit, notes (what is not alike)
  arms, by arm: experiments, by name: n_sites, median, ci95; and minus_first, by name and metric:
    median_difference (of the same site in both), ci95, n_sites
  baselines, by name, of the first: n_sites, median, ci95
Intervals resample the blocks of the first.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.errors import DataError, SoilweaveError
from pipeline.evaluate import scoring
from pipeline.evaluate.scoring import COMPARED, Candidate, Sites
from pipeline.experiment.config import SATELLITE_BASELINE
from pipeline.grid import collocated_sites, lookup
from pipeline.storage import schema
from pipeline.storage.cube import Cube
from pipeline.storage.tables import PastRun, read_past_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pipeline.experiment.config import JudgingConfig
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace


TOLD = ("n_sites", "median", "ci95")
ALIKE = 1e-6  # observations nearer than this are the same, in the target's unit


def run(workspaces: Sequence[Workspace]) -> Json:
    """Compare the first of some experiments with each other one.

    Raises:
      SoilweaveError: one of them was not trained, or they have nothing in common to judge.
    """
    every, problems = [], []
    for workspace in workspaces:
        try:
            every.append(read_past_run(workspace))
        except SoilweaveError as error:
            problems.append(str(error))
    if problems:
        raise DataError("evaluate", *problems)
    first, others = every[0], every[1:]
    arms = [arm for arm in first.experiment.arms if any(arm in o.predictions for o in others)]
    if not arms:
        found = "; ".join(f"{o.name} has {', '.join(o.experiment.arms)}" for o in every)
        raise DataError("evaluate", f"no arm in common: {found}")
    alike, sites = _common(every, arms)
    rules = first.experiment.judging
    made: Json = {arm: _arm(arm, alike, sites, rules) for arm in arms}
    if not any(told["n_sites"] for arm in made.values() for told in arm["experiments"].values()):
        found = f"no site has {rules.min_days} days that all of them observe and predict"
        raise DataError("evaluate", found, remedy="give the first less with judging.min_days")
    return {
        "first": first.name,
        "experiments": {o.name: _about(o, first) for o in every},
        "n_sites": int(np.isfinite(sites.observed).any(1).sum()),
        "n_site_days": int(np.isfinite(sites.observed).sum()),
        "min_days": rules.min_days,
        "test_period": [str(day) for day in (sites.days[0], sites.days[-1])],
        "unit": first.experiment.table[first.experiment.target].units,
        "arms": made,
        "baselines": _baselines(first, alike[0], sites),
        "notes": _notes(every, arms),
    }


def _about(trial: PastRun, first: PastRun) -> Json:
    observed = np.isfinite(trial.observed)
    return {
        "folder": files.absolute(trial.workspace.root),
        "changed": schema.changed(first.experiment, trial.experiment),
        "n_sites": int(observed.any(1).sum()),
        "n_site_days": int(observed.sum()),
    }


def _common(every: Sequence[PastRun], arms: Sequence[str]) -> tuple[list[PastRun], Sites]:
    """All on the sites and days of all; and what all of them observe and predict there.

    Raises:
      DataError: there is nothing, or the same is observed otherwise.
    """
    first = every[0]
    moved = set[str]().union(*(_moved(first, other) for other in every))
    ids = [i for i in first.ids if i not in moved and all(i in o.ids for o in every)]
    days = first.days[np.logical_and.reduce([np.isin(first.days, o.days) for o in every])]
    alike = [trial.at(ids, days) for trial in every]
    common = np.ones((len(ids), len(days)), bool)
    for trial in alike:
        common &= np.isfinite(trial.observed)
        for arm in arms:
            if arm in trial.predictions:
                common &= np.isfinite(trial.predictions[arm])
    if not common.any():
        found = f"{len(ids)} sites and {len(days)} days of test_period in common"
        raise DataError("evaluate", f"{found}, none of them with a value and predictions in all")
    problems = []
    for trial in alike[1:]:
        apart = np.abs(trial.observed - alike[0].observed)[common]
        if n := int((apart > ALIKE).sum()):
            found = f"{n} of {len(apart)} common site-days, by up to {apart.max():.4g}"
            problems.append(f"{trial.name} observes otherwise than {first.name}: {found}")
    if problems:
        raise DataError("evaluate", *problems, remedy="compare experiments on one cube: cube=URL")
    observed = np.where(common, alike[0].observed, np.float32(np.nan))
    return alike, Sites(tuple(ids), alike[0].block, days, observed)


def _moved(first: PastRun, other: PastRun) -> set[str]:
    """Ids that both have, for sites that are not at one place."""
    ids = [i for i in first.ids if i in other.ids]
    a, b = (trial.at(ids, trial.days[:0]) for trial in (first, other))
    km = lookup.great_circle_km(a.lat, a.lon, b.lat, b.lon)
    return {
        i for i, apart in zip(ids, km.tolist(), strict=True) if apart >= collocated_sites.SAME_KM
    }


def _arm(arm: str, alike: list[PastRun], sites: Sites, rules: JudgingConfig) -> Json:
    """Every experiment's own scores in an arm, and less the first's."""
    having = [trial for trial in alike if arm in trial.predictions]
    none = np.full(len(sites.ids), "")
    candidates = [
        Candidate(str(k), True, none, trial.predictions[arm]) for k, trial in enumerate(having)
    ]
    _, judged = scoring.judge(sites, candidates, rules)
    told = {o.name: judged["arms"][str(k)] for k, o in enumerate(having)}
    pairs = {o.name: judged["paired"][f"0-{k}"] for k, o in enumerate(having) if k}
    return {
        "experiments": {name: {key: d[key] for key in TOLD} for name, d in told.items()},
        "minus_first": {
            name: {metric: _turned(pair[metric]) for metric in COMPARED}
            for name, pair in pairs.items()
        },
    }


def _turned(difference: Json) -> Json:
    """B minus A of A minus B."""
    median, (low, high) = difference["median_difference"], difference["ci95"]
    less = [None if value is None else 0.0 - value for value in (median, high, low)]
    return difference | {"median_difference": less[0], "ci95": less[1:]}


def _baselines(first: PastRun, cut: PastRun, sites: Sites) -> Json:
    """What costs nothing, on the same sites and days: of the first alone."""
    none = np.full(len(sites.ids), "")
    candidates = []
    if "ridge" in cut.predictions:
        candidates.append(Candidate("ridge", False, none, cut.predictions["ridge"]))
    if first.experiment.sources.satellite is not None:
        cube = Cube.open(Cube.source(first.experiment, first.workspace)[0])
        test = cube.day_index(first.experiment.test_period)
        seen = scoring.in_cube(first.experiment, cube, test)
        whole = replace(first, predictions={"": seen.prediction})
        series: NDArray[np.float32] = whole.at(list(sites.ids), sites.days).predictions[""]
        candidates.append(Candidate(SATELLITE_BASELINE, False, none, series))
    if not candidates:
        return {}
    _, judged = scoring.judge(sites, candidates, first.experiment.judging)
    return {name: {k: d[k] for k in TOLD} for name, d in judged["baselines"].items()}


def _notes(every: Sequence[PastRun], arms: Sequence[str]) -> list[str]:
    """What is not alike, though it is compared."""
    first, notes = every[0], []
    if first.experiment.sources.satellite is not None:
        notes.append("the footprint is judged on those of the days that it has")
    for other in every[1:]:
        if moved := sorted(_moved(first, other)):
            notes.append(f"other places of the same id in {other.name}: {', '.join(moved)}")
        if other.folds != first.folds:
            notes.append(f"{other.name} deals its sites into other folds than {first.name}")
        for arm in arms:
            there = other.status.get(arm, first.status[arm])
            if there != first.status[arm]:
                were = f"{there} in {other.name}, {first.status[arm]} in {first.name}"
                notes.append(f"sites of arm {arm} are {were}")
    return notes
