"""Score predictions after a local bias adjustment: what the first days of a probe are worth.

The offset of a site is estimated from its first k days (see `model.bias_adjustment`) and added to
the predictions of the later days. In a summary, `adjustment` has
  days: the numbers k of days that offsets are estimated from
  scored_after: the number of days that are never scored; only the days after them are
  n_sites: number of sites with enough days
  by_days: by k as text, the summary of `scoring.score_candidates` with offsets from the first k
    days, always on the same later days; and `minus_0`, by candidate: paired differences from k = 0
    of the RMSE and of the absolute bias (an offset changes no other score but KGE)
  priors: by candidate and fold of the models, the prior estimated from errors at other sites
  not_in_curve: sites with too few days, with the reason
  offsets: by site and candidate, from all days of the site: number of days, offset and its
    standard deviation
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from model import bias_adjustment, metrics
from model.metrics import FEWEST
from pipeline.errors import DataError
from pipeline.evaluate import scoring
from pipeline.evaluate.scoring import Candidate, Sites
from pipeline.experiment import config as experiment_config
from pipeline.experiment.config import SATELLITE_BASELINE
from pipeline.grid import collocated_sites
from pipeline.storage import models, tables

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model.bias_adjustment import OffsetPrior
    from pipeline.experiment.config import Experiment, JudgingConfig
    from pipeline.files import Json
    from pipeline.storage.artefacts import Workspace
    from pipeline.storage.cube import Cube


LEARNING_DAYS = (0, 7, 30, 90)
MORE_SITES_HINT = "train it with folds and more sites"
Priors: TypeAlias = "dict[str, dict[int, OffsetPrior]]"  # by candidate and fold


def check_held_out_errors(experiment: Experiment, cube: Cube) -> None:
    """Check, without reading any file, that the experiment has errors at held-out sites.

    Raises:
      DataError: If the experiment has no folds, or its cube has no sites.
    """
    if experiment.folds.kind == "none" or not cube.site_ids:
        problem = "there are no errors at held-out sites, which --adjust needs"
        raise DataError(f"experiment {experiment.name}", problem, remedy=MORE_SITES_HINT)


def learn_priors(
    experiment: Experiment, workspace: Workspace, cube: Cube, folds: pd.DataFrame
) -> Priors:
    """Estimate the prior of site offsets of every fold from errors at the sites of other folds.

    The errors are those of the training period.

    Args:
      experiment: names the arms.
      workspace: has sites.parquet.
      cube: the cube that the models were trained on.
      folds: the table folds.parquet.

    Raises:
      DataError: If there are no errors at held-out sites, or at too few sites.
    """
    check_held_out_errors(experiment, cube)
    site_rows = folds.set_index("site").loc[list(cube.site_ids)]
    fold = site_rows.fold.to_numpy()
    place = experiment_config.label_experiment_places(
        experiment, site_rows.lat.to_numpy(), site_rows.lon.to_numpy()
    )
    priors: Priors = {}
    for name, error in _training_errors(experiment, workspace, cube).items():
        priors[name] = {}
        for k in [*np.unique(fold[fold != models.ALL_SITES]).tolist(), models.ALL_SITES]:
            prior = bias_adjustment.estimate_prior(
                error[collocated_sites.select_elsewhere(place, fold, k)]
            )
            if prior is None:
                needed = f"{bias_adjustment.MIN_PRIOR_SITES} sites of {FEWEST} days"
                problem = f"--adjust needs {needed} outside fold {models.fold_name(k)}, for {name}"
                raise DataError(f"experiment {experiment.name}", problem, remedy=MORE_SITES_HINT)
            priors[name][k] = prior
    return priors


def _training_errors(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> dict[str, NDArray[np.float32]]:
    """Return, by candidate, observation minus prediction (site, day) of the training period."""
    train = cube.day_index(experiment.train_period)
    table = tables.read_site_predictions(workspace, "observation", "prediction")
    observed = table.observed[:, train]
    errors = {name: observed - table.values(name, "prediction")[:, train] for name in table.rows}
    if cube.footprints is not None:
        errors[SATELLITE_BASELINE] = (
            observed - scoring.satellite_at_cube_sites(experiment, cube, train).prediction
        )
    return errors


def score_adjusted(
    sites: Sites,
    candidates: list[Candidate],
    fold: NDArray[np.int64],
    priors: Priors,
    config: JudgingConfig,
) -> Json:
    """Return the `adjustment` of a summary (see the module) for some sites.

    Args:
      sites: the observations.
      candidates: the predictions to adjust.
      fold: (site,) fold that holds each site out.
      priors: what `learn` returned.
      config: how sites are scored.
    """
    arms = np.stack([c.prediction for c in candidates if c.is_arm])
    usable = np.isfinite(sites.observed) & np.isfinite(arms).any(0)
    needed = LEARNING_DAYS[-1] + config.min_days
    has_enough = usable.sum(1) >= needed
    summary: Json = {
        "days": list(LEARNING_DAYS),
        "scored_after": LEARNING_DAYS[-1],
        "n_sites": int(has_enough.sum()),
        "by_days": {},
        "priors": {
            name: {models.fold_name(k): prior._asdict() for k, prior in by_fold.items()}
            for name, by_fold in priors.items()
        },
        "not_in_curve": [
            {"id": site, "reason": f"{n} days, fewer than {LEARNING_DAYS[-1]} + {config.min_days}"}
            for site, n in zip(sites.ids, usable.sum(1).tolist(), strict=True)
            if n < needed
        ],
        "offsets": _offset_rows(sites, candidates, fold, priors, usable),
    }
    if has_enough.any():
        summary["by_days"] = _scores_by_days(
            sites.select(has_enough),
            [c.select(has_enough) for c in candidates],
            fold[has_enough],
            priors,
            usable[has_enough],
            config,
        )
    return summary


def _scores_by_days(
    sites: Sites,
    candidates: list[Candidate],
    fold: NDArray[np.int64],
    priors: Priors,
    usable: NDArray[np.bool_],
    config: JudgingConfig,
) -> Json:
    """Return `by_days`: the scores of the days after the last of DAYS, by number of days used."""
    day_number = usable.cumsum(1)
    scored = np.where(usable & (day_number > LEARNING_DAYS[-1]), sites.observed, np.float32(np.nan))
    later = Sites(sites.ids, sites.block, sites.days, scored)
    by_days: Json = {}
    unadjusted: dict[Any, pd.DataFrame] = {}
    for k in LEARNING_DAYS:
        first_days = usable & (day_number <= k)
        adjusted = [
            _add_offset(c, _estimate_offsets(sites, c, fold, priors, first_days)[1])
            for c in candidates
        ]
        table, by_days[str(k)] = scoring.score_candidates(later, adjusted, config)
        scores = {
            name: rows.pivot(index="id", columns="metric", values="value").loc[list(sites.ids)]
            for name, rows in table.groupby("arm")
        }
        unadjusted = unadjusted or scores  # the first of DAYS is 0
        by_days[str(k)]["minus_0"] = {
            c.name: _paired_differences(scores[c.name], unadjusted[c.name], sites.block, config)
            for c in candidates
        }
    return by_days


def _paired_differences(
    adjusted: pd.DataFrame,
    unadjusted: pd.DataFrame,
    block: NDArray[np.int64],
    config: JudgingConfig,
) -> Json:
    """Return paired differences of the RMSE and of the absolute bias, adjusted minus unadjusted."""
    differences: Json = {}
    for name, metric in (("rmse", "rmse"), ("absolute_bias", "bias")):
        a, b = (scores[metric].abs().to_numpy() for scores in (adjusted, unadjusted))
        difference = metrics.paired_difference(a, b, block, config.bootstrap_draws)
        difference["median_difference"] = scoring.json_number(difference["median_difference"])
        differences[name] = difference | {
            "ci95": [scoring.json_number(bound) for bound in difference["ci95"]]
        }
    return differences


def _add_offset(candidate: Candidate, offset: NDArray[np.float64]) -> Candidate:
    """Return the candidate with an offset (site,) added to its predictions."""
    adjusted = (candidate.prediction + offset[:, None]).astype(np.float32)
    return Candidate(candidate.name, candidate.is_arm, candidate.fold, adjusted)


def _estimate_offsets(
    sites: Sites,
    candidate: Candidate,
    fold: NDArray[np.int64],
    priors: Priors,
    days: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Estimate the offset of every site from the chosen `days` (site, day).

    Returns:
      (site,) each: the number of errors used, the offset and its standard deviation.
    """
    error = np.where(days, sites.observed - candidate.prediction, np.nan)
    offset, std = np.zeros(len(fold)), np.zeros(len(fold))
    for k in np.unique(fold).tolist():
        in_fold = fold == k
        offset[in_fold], std[in_fold] = bias_adjustment.posterior_offset(
            error[in_fold], priors[candidate.name][k]
        )
    return np.isfinite(error).sum(1), offset, std


def _offset_rows(
    sites: Sites,
    candidates: list[Candidate],
    fold: NDArray[np.int64],
    priors: Priors,
    usable: NDArray[np.bool_],
) -> list[Json]:
    """Return `offsets` of a summary: the offset of every site from all its usable days."""
    rows: list[Json] = [{"id": site} for site in sites.ids]
    for candidate in candidates:
        columns = _estimate_offsets(sites, candidate, fold, priors, usable)
        for row, n, offset, std in zip(rows, *(c.tolist() for c in columns), strict=True):
            row[candidate.name] = {"days": n, "offset": offset, "std": std}
    return rows
