"""Local adjustment of arms and baselines at sites: what the first days of a probe are worth.

In a summary, `adjustment` has:
  days: numbers k of days learned on; scored_after: the days before those that are scored
  by_days: for every k as text what `judging.judge` says with offsets learned on the first k days,
    each on the same later days, and `minus_0`: paired differences against k = 0, by candidate, of
    rmse and of the absolute bias (the other scores do not change with an offset, KGE apart)
  priors: by candidate and fold (as the models') what errors at other sites say, as of model.adjust
  not_in_curve: sites with too few days, with the reason
  offsets: from all days of a site, by candidate: number of days, offset and its standard deviation
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


DAYS = (0, 7, 30, 90)
MORE_SITES = "train it with folds and more sites"
Priors: TypeAlias = "dict[str, dict[int, OffsetPrior]]"  # by candidate and fold


def check(experiment: Experiment, cube: Cube) -> None:
    """Check, without reading anything, that there are errors to learn from.

    Raises:
      DataError: no model was judged at sites that it has not seen.
    """
    if experiment.folds.kind == "none" or not cube.site_ids:
        found = "has no errors at held-out sites that --adjust could learn from"
        raise DataError(f"experiment {experiment.name}", found, remedy=MORE_SITES)


def learn(experiment: Experiment, workspace: Workspace, cube: Cube, folds: pd.DataFrame) -> Priors:
    """What errors over the training period say, for each fold those at sites of other folds.

    Args:
      experiment: names the arms.
      workspace: has sites.parquet.
      cube: what the models were trained on.
      folds: folds.parquet.

    Raises:
      DataError: no model was judged at sites that it has not seen, or at too few.
    """
    check(experiment, cube)
    where, remedy = f"experiment {experiment.name}", MORE_SITES
    of_site = folds.set_index("site").loc[list(cube.site_ids)]
    fold = of_site.fold.to_numpy()
    place = experiment_config.number_places(
        experiment, of_site.lat.to_numpy(), of_site.lon.to_numpy()
    )
    made: Priors = {}
    for name, error in _errors(experiment, workspace, cube).items():
        made[name] = {}
        for k in [*np.unique(fold[fold != models.ALL]).tolist(), models.ALL]:
            prior = bias_adjustment.estimate_prior(
                error[collocated_sites.elsewhere(place, fold, k)]
            )
            if prior is None:
                few = f"{bias_adjustment.MIN_PRIOR_SITES} sites of {FEWEST} days"
                found = f"--adjust needs {few} outside fold {models.fold_name(k)}, for {name}"
                raise DataError(where, found, remedy=remedy)
            made[name][k] = prior
    return made


def _errors(
    experiment: Experiment, workspace: Workspace, cube: Cube
) -> dict[str, NDArray[np.float32]]:
    """(site, day) observation less prediction over the training period, by candidate."""
    train = cube.day_index(experiment.train_period)
    table = tables.read_site_predictions(workspace, "observation", "prediction")
    observed = table.observed[:, train]
    errors = {name: observed - table.values(name, "prediction")[:, train] for name in table.rows}
    if cube.footprints is not None:
        errors[SATELLITE_BASELINE] = observed - scoring.in_cube(experiment, cube, train).prediction
    return errors


def judge(
    sites: Sites,
    candidates: list[Candidate],
    fold: NDArray[np.int64],
    priors: Priors,
    config: JudgingConfig,
) -> Json:
    """The curve over sites with enough days, and the offset of every site; `fold` is (site,)."""
    arms = np.stack([c.prediction for c in candidates if c.is_arm])
    usable = np.isfinite(sites.observed) & np.isfinite(arms).any(0)
    needed = DAYS[-1] + config.min_days
    enough = usable.sum(1) >= needed
    made: Json = {
        "days": list(DAYS),
        "scored_after": DAYS[-1],
        "n_sites": int(enough.sum()),
        "by_days": {},
        "priors": {
            name: {models.fold_name(k): prior._asdict() for k, prior in by_fold.items()}
            for name, by_fold in priors.items()
        },
        "not_in_curve": [
            {"id": site, "reason": f"{n} days, fewer than {DAYS[-1]} + {config.min_days}"}
            for site, n in zip(sites.ids, usable.sum(1).tolist(), strict=True)
            if n < needed
        ],
        "offsets": _offsets(sites, candidates, fold, priors, usable),
    }
    if enough.any():
        made["by_days"] = _curve(
            sites.only(enough),
            [c.only(enough) for c in candidates],
            fold[enough],
            priors,
            usable[enough],
            config,
        )
    return made


def _curve(
    sites: Sites,
    candidates: list[Candidate],
    fold: NDArray[np.int64],
    priors: Priors,
    usable: NDArray[np.bool_],
    config: JudgingConfig,
) -> Json:
    """Scores on the days after the last of DAYS, by the number of days learned on."""
    order = usable.cumsum(1)
    scored = np.where(usable & (order > DAYS[-1]), sites.observed, np.float32(np.nan))
    later = Sites(sites.ids, sites.block, sites.days, scored)
    made: Json = {}
    before: dict[Any, pd.DataFrame] = {}
    for k in DAYS:
        learned = usable & (order <= k)
        adjusted = [_moved(c, _learned(sites, c, fold, priors, learned)[1]) for c in candidates]
        table, made[str(k)] = scoring.judge(later, adjusted, config)
        values = {
            name: rows.pivot(index="id", columns="metric", values="value").loc[list(sites.ids)]
            for name, rows in table.groupby("arm")
        }
        before = before or values
        made[str(k)]["minus_0"] = {
            c.name: _differences(values[c.name], before[c.name], sites.block, config)
            for c in candidates
        }
    return made


def _differences(
    now: pd.DataFrame, before: pd.DataFrame, block: NDArray[np.int64], config: JudgingConfig
) -> Json:
    made: Json = {}
    for name, metric in (("rmse", "rmse"), ("absolute_bias", "bias")):
        a, b = (scores[metric].abs().to_numpy() for scores in (now, before))
        found = metrics.paired_difference(a, b, block, config.bootstrap_draws)
        found["median_difference"] = scoring.number(found["median_difference"])
        made[name] = found | {"ci95": [scoring.number(bound) for bound in found["ci95"]]}
    return made


def _moved(candidate: Candidate, offset: NDArray[np.float64]) -> Candidate:
    moved = (candidate.prediction + offset[:, None]).astype(np.float32)
    return Candidate(candidate.name, candidate.is_arm, candidate.fold, moved)


def _learned(
    sites: Sites,
    candidate: Candidate,
    fold: NDArray[np.int64],
    priors: Priors,
    days: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """(site,) number of errors on some days (site, day), offset and its standard deviation."""
    error = np.where(days, sites.observed - candidate.prediction, np.nan)
    offset, std = np.zeros(len(fold)), np.zeros(len(fold))
    for k in np.unique(fold).tolist():
        here = fold == k
        offset[here], std[here] = bias_adjustment.posterior_offset(
            error[here], priors[candidate.name][k]
        )
    return np.isfinite(error).sum(1), offset, std


def _offsets(
    sites: Sites,
    candidates: list[Candidate],
    fold: NDArray[np.int64],
    priors: Priors,
    usable: NDArray[np.bool_],
) -> list[Json]:
    made: list[Json] = [{"id": site} for site in sites.ids]
    for candidate in candidates:
        found = _learned(sites, candidate, fold, priors, usable)
        for item, n, offset, std in zip(made, *(v.tolist() for v in found), strict=True):
            item[candidate.name] = {"days": n, "offset": offset, "std": std}
    return made
