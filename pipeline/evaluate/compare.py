"""Compare experiments that were run, on the sites and days that all of them have.

The predictions come from sites.parquet of each experiment. A comparison
(`evaluate A B --json FILE`) has
  first: the experiment that every other one is compared with
  experiments, by name: folder, changed (settings that differ from those of the first), n_sites and
    n_site_days (observed in its own test period)
  n_sites, n_site_days: those that all experiments observe and predict; only these are scored
  min_days, test_period, unit, notes (other differences that a reader should know)
  arms, by arm: experiments, by name: n_sites, median, ci95; and minus_first, by name and metric:
    median_difference (paired by site), ci95, n_sites; and training_spread, by name and metric the
    standard deviation of that difference between members of one seed, for experiments that kept
    the predictions of two or more members
  baselines, by name, of the first experiment: n_sites, median, ci95
  truth, by name, of the experiments that were scored against it: arms, by arm: n_sites (here the
    number of cells), median, ci95; and paired, as in the summary of the experiment
Intervals resample the spatial blocks of the first experiment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline import files
from pipeline.errors import DataError, SoilweaveError
from pipeline.evaluate import scoring, training_spread
from pipeline.evaluate.scoring import PAIRED_METRICS, Candidate, Sites
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


SCORE_KEYS = ("n_sites", "median", "ci95")
OBSERVATION_TOLERANCE = (
    1e-6  # observations that differ by no more are the same, in the target's unit
)


def compare_experiments(workspaces: Sequence[Workspace]) -> Json:
    """Compare the experiment of the first workspace with that of each other one.

    Returns:
      The comparison, as described in the module.

    Raises:
      SoilweaveError: If an experiment was not trained, or if the experiments have no arm, site or
        day in common that can be scored.
    """
    runs, problems = [], []
    for workspace in workspaces:
        try:
            runs.append(read_past_run(workspace))
        except SoilweaveError as error:
            problems.append(str(error))
    if problems:
        raise DataError("evaluate", *problems)
    first, others = runs[0], runs[1:]
    arms = [arm for arm in first.experiment.arms if any(arm in o.predictions for o in others)]
    if not arms:
        arms_of_each = "; ".join(f"{o.name} has {', '.join(o.experiment.arms)}" for o in runs)
        raise DataError("evaluate", f"no arm in common: {arms_of_each}")
    aligned, sites = _align_runs(runs, arms)
    judging = first.experiment.judging
    by_arm: Json = {arm: _compare_arm(arm, aligned, sites, judging) for arm in arms}
    if not any(d["n_sites"] for arm in by_arm.values() for d in arm["experiments"].values()):
        problem = (
            f"no site has {judging.min_days} days that all experiments observe and predict, as "
            "judging.min_days of the first requires"
        )
        hint = "run the first experiment with a smaller judging.min_days"
        raise DataError("evaluate", problem, remedy=hint)
    return {
        "first": first.name,
        "experiments": {o.name: _describe_run(o, first) for o in runs},
        "n_sites": int(np.isfinite(sites.observed).any(1).sum()),
        "n_site_days": int(np.isfinite(sites.observed).sum()),
        "min_days": judging.min_days,
        "test_period": [str(day) for day in (sites.days[0], sites.days[-1])],
        "unit": first.experiment.table[first.experiment.target].units,
        "arms": by_arm,
        "baselines": _score_baselines(first, aligned[0], sites),
        "truth": {o.name: truth for o in runs if (truth := _scores_against_truth(o))},
        "notes": _comparison_notes(runs, arms)
        + [note for arm in arms for note in _spread_notes(arm, by_arm[arm], first.name)],
    }


def _scores_against_truth(run: PastRun) -> Json | None:
    """Return the scores of the maps of an experiment, or None if its truth is not known."""
    summary = files.read_json(run.workspace.url("summary.json")) or {}
    if not (truth := summary.get("truth")):
        return None
    arms = {arm: {key: d[key] for key in SCORE_KEYS} for arm, d in truth["arms"].items()}
    return {"arms": arms, "paired": truth["paired"]}


def _describe_run(run: PastRun, first: PastRun) -> Json:
    """Return the entry of one experiment in `experiments`."""
    observed = np.isfinite(run.observed)
    return {
        "folder": files.make_absolute(run.workspace.root),
        "changed": schema.changed_settings(first.experiment, run.experiment),
        "n_sites": int(observed.any(1).sum()),
        "n_site_days": int(observed.sum()),
    }


def _align_runs(runs: Sequence[PastRun], arms: Sequence[str]) -> tuple[list[PastRun], Sites]:
    """Restrict all runs to the sites and days that they have in common.

    Returns:
      The restricted runs; and the observations, NaN on days that some run does not observe or
      does not predict.

    Raises:
      DataError: If no site-day remains, or if the runs have different observations for the same
        site-day.
    """
    first = runs[0]
    relocated = set[str]().union(*(_relocated_sites(first, other) for other in runs))
    ids = [i for i in first.ids if i not in relocated and all(i in o.ids for o in runs)]
    days = first.days[np.logical_and.reduce([np.isin(first.days, o.days) for o in runs])]
    aligned = [run.at(ids, days) for run in runs]
    common = np.ones((len(ids), len(days)), bool)
    for run in aligned:
        common &= np.isfinite(run.observed)
        for arm in arms:
            if arm in run.predictions:
                common &= np.isfinite(run.predictions[arm])
    if not common.any():
        problem = (
            f"{len(ids)} sites and {len(days)} days of test_period in common, but no site-day that "
            "all experiments observe and predict"
        )
        raise DataError("evaluate", problem)
    problems = []
    for run in aligned[1:]:
        difference = np.abs(run.observed - aligned[0].observed)[common]
        if n := int((difference > OBSERVATION_TOLERANCE).sum()):
            problems.append(
                f"observations of {run.name} differ from those of {first.name} on {n} of "
                f"{len(difference)} common site-days, by up to {difference.max():.4g}"
            )
    if problems:
        hint = "compare experiments that share one cube (setting cube=URL)"
        raise DataError("evaluate", *problems, remedy=hint)
    observed = np.where(common, aligned[0].observed, np.float32(np.nan))
    return aligned, Sites(tuple(ids), aligned[0].block, days, observed)


def _relocated_sites(first: PastRun, other: PastRun) -> set[str]:
    """Return the ids that both runs use, but for sites at different places."""
    ids = [i for i in first.ids if i in other.ids]
    a, b = (run.at(ids, run.days[:0]) for run in (first, other))
    distance_km = lookup.great_circle_km(a.lat, a.lon, b.lat, b.lon)
    return {
        i for i, km in zip(ids, distance_km.tolist(), strict=True) if km >= collocated_sites.TWIN_KM
    }


def _compare_arm(arm: str, aligned: list[PastRun], sites: Sites, judging: JudgingConfig) -> Json:
    """Return the scores of every run that has the arm, and its differences from the first run."""
    runs = [run for run in aligned if arm in run.predictions]
    no_folds = np.full(len(sites.ids), "")
    # The runs are scored as if they were arms of one experiment, named by their numbers.
    candidates = [
        Candidate(str(k), True, no_folds, run.predictions[arm]) for k, run in enumerate(runs)
    ]
    _, summary = scoring.score_candidates(sites, candidates, judging)
    described = {run.name: summary["arms"][str(k)] for k, run in enumerate(runs)}
    pairs = {run.name: summary["paired"][f"0-{k}"] for k, run in enumerate(runs) if k}
    members = {str(k): run.members[arm] for k, run in enumerate(runs) if arm in run.members}
    known = [c for c in candidates if c.name in members] if "0" in members else []
    spread = training_spread.describe_spread(sites, known, members if known else {}, judging)
    sds = spread.get("paired_sd", {})
    return {
        "experiments": {name: {key: d[key] for key in SCORE_KEYS} for name, d in described.items()},
        "minus_first": {
            name: {metric: _reverse_difference(pair[metric]) for metric in PAIRED_METRICS}
            for name, pair in pairs.items()
        },
        "training_spread": {
            run.name: sds[f"0-{k}"] for k, run in enumerate(runs) if f"0-{k}" in sds
        },
    }


def _spread_notes(arm: str, compared: Json, first: str) -> list[str]:
    """Return a note for each experiment whose differences are smaller than their spread."""
    notes = []
    for name, sds in compared["training_spread"].items():
        differences = compared["minus_first"][name]
        if small := training_spread.list_small(differences, sds):
            notes.append(
                f"{name} minus {first}, arm {arm}, is smaller than its spread over the training of "
                f"single members: {', '.join(map(training_spread.format_small, small))}"
            )
    return notes


def _reverse_difference(difference: Json) -> Json:
    """Turn a paired difference A minus B into B minus A."""
    median, (low, high) = difference["median_difference"], difference["ci95"]
    # 0.0 - value, because -value would turn 0.0 into -0.0.
    negative = [None if value is None else 0.0 - value for value in (median, high, low)]
    return difference | {"median_difference": negative[0], "ci95": negative[1:]}


def _score_baselines(first: PastRun, aligned: PastRun, sites: Sites) -> Json:
    """Return the scores of the baselines of the first experiment, on the common sites and days.

    Args:
      first: the run of the first experiment.
      aligned: the same run, restricted to the common sites and days.
      sites: the observations on the common sites and days.
    """
    no_folds = np.full(len(sites.ids), "")
    candidates = []
    if "ridge" in aligned.predictions:
        candidates.append(Candidate("ridge", False, no_folds, aligned.predictions["ridge"]))
    if first.experiment.sources.satellite is not None:
        cube = Cube.of(first.experiment, first.workspace)
        test = cube.day_index(first.experiment.test_period)
        satellite = scoring.satellite_at_cube_sites(first.experiment, cube, test)
        # Put the satellite's series in the place of predictions, to restrict it in the same way.
        as_run = replace(first, predictions={"": satellite.prediction})
        series: NDArray[np.float32] = as_run.at(list(sites.ids), sites.days).predictions[""]
        candidates.append(Candidate(SATELLITE_BASELINE, False, no_folds, series))
    if not candidates:
        return {}
    _, summary = scoring.score_candidates(sites, candidates, first.experiment.judging)
    return {name: {k: d[k] for k in SCORE_KEYS} for name, d in summary["baselines"].items()}


def _comparison_notes(runs: Sequence[PastRun], arms: Sequence[str]) -> list[str]:
    """Return differences between the experiments that a reader of the scores should know."""
    first, notes = runs[0], []
    if first.experiment.sources.satellite is not None:
        notes.append("the satellite baseline is scored only on the common days that it observes")
    for other in runs[1:]:
        if relocated := sorted(_relocated_sites(first, other)):
            ids = ", ".join(relocated)
            notes.append(f"left out, as the id stands for another place in {other.name}: {ids}")
        if other.folds != first.folds:
            notes.append(f"{other.name} assigns sites to other folds than {first.name}")
        for arm in arms:
            status = other.status.get(arm, first.status[arm])
            if status != first.status[arm]:
                statuses = f"{status} in {other.name}, {first.status[arm]} in {first.name}"
                notes.append(f"sites of arm {arm} are {statuses}")
    return notes
