"""Whether trained models can be used: training that diverged, predictions that are missing.

An arm's ensemble: its members' predictions at places, and their mean and spread, calibrated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model import ensemble
from model.ensemble import OUTLIER_FACTOR, Prediction, combine_members
from model.recipe import ModelKey
from pipeline.errors import TrainingError
from pipeline.storage import models

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from model.calibration import Calibration
    from model.checkpoint import TrainedModel
    from model.recipe import TrainConfig
    from model.sampling import Places, TrainingData
    from pipeline.experiment.config import Experiment


EXAMINED = 32  # places at which a model must predict before it is kept
LISTED = 12  # places that a message names


def remedy(train: TrainConfig) -> str:
    """What to do about models that diverged, with the settings that matter."""
    clip = "none" if train.gradient_clip is None else f"{train.gradient_clip:g}"
    return (
        f"lower train.learning_rate ({train.learning_rate:g}), set or lower train.gradient_clip "
        f"({clip}), or look at the values of these places with soilweave doctor; models that "
        "failed are not kept, all others are; other settings need --name NEW or --overwrite"
    )


def sample(n_places: int, most: int = EXAMINED) -> NDArray[np.int64]:
    """Indexes of so many places at most, evenly spread."""
    return np.unique(np.linspace(0, n_places - 1, min(n_places, most)).astype(np.int64))


def examined(job: ModelKey, trained: TrainedModel, data: TrainingData) -> list[str]:
    """What is wrong with a model's predictions at some of the places that it has learnt from."""
    at_sites = "site" in trained.heads
    places, index = (data.sites, data.trainable) if at_sites else (data.cells, _cells(data))
    some = places.take(index[sample(len(index))])
    return missing(job, trained.heads, ensemble.predict_series(trained, some))


def missing(job: ModelKey, heads: tuple[str, ...], found: Prediction) -> list[str]:
    """A sentence where a model has no finite prediction at some places, else nothing.

    An input that is missing has its mean for a value, hence a prediction is never to be missing.
    """
    named = [*heads, "width"] if "site" in heads else heads
    bad = np.any([~np.isfinite(getattr(found, name)) for name in named], 0)
    if not bad.any():
        return []
    lacking = int(bad.any(1).sum())
    said = f"no finite prediction on {int(bad.sum()):,} of {bad.size:,} days"
    return [f"{models.name(job)}: {said}, at {lacking} of {len(bad)} places"]


def refuse(root: str, problems: Sequence[str]) -> None:
    """Stop where models predict nothing.

    Raises:
      TrainingError: there are problems.
    """
    if problems:
        todo = (
            "train these models anew: lower train.learning_rate, and make all models anew with "
            "soilweave train --overwrite"
        )
        raise TrainingError(root, *problems, remedy=todo)


def odd(member: dict[str, Any]) -> str:
    """A member that is unlike the others (its arm, fold and seed), in one sentence."""
    return (
        f"arm {member['arm']}, fold {member['fold']}, seed {member['seed']} predicts something "
        f"else than the other members: its median absolute difference from their mean is more "
        f"than {OUTLIER_FACTOR:g} times theirs; look at its losses before you use the ensemble"
    )


def _cells(data: TrainingData) -> NDArray[np.int64]:
    members = data.members[data.seen]
    return np.unique(members[members >= 0])


def _listed(what: str, names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return f"{what} {' '.join(every[:LISTED])}{more}" if every else ""


Ensemble = list[Prediction]


def judged_by(experiment: Experiment, arm: str, fold: NDArray[np.int64]) -> NDArray[np.int64]:
    """(site,) fold of the models each site may be judged by in an arm; `fold` holds it out."""
    return fold if models.has_folds(experiment, arm) else np.full_like(fold, models.ALL)


def at_places(
    experiment: Experiment, root: str, arm: Any, places: Places, by: NDArray[np.int64]
) -> Ensemble:
    """Each member's predictions at places, each by the models of its fold `by` (place,).

    Raises:
      TrainingError: naming the models that have no finite prediction somewhere.
    """
    members, problems, heads = [], list[str](), models.heads(experiment, arm)
    for seed in range(experiment.n_seeds):
        pieces = {}
        for fold in np.unique(by).tolist():
            job = ModelKey(arm, fold, seed)
            pieces[fold] = ensemble.predict_series(
                models.load(root, job), places.select(by == fold)
            )
            problems += missing(job, heads, pieces[fold])
        members.append(ensemble.merge_predictions(pieces, by))
    refuse(root, problems)
    return members


def calibrated(
    members: Sequence[Prediction],
    heads: tuple[str, ...],
    by: NDArray[np.int64],
    calibrations: dict[str, Calibration],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Product, its calibrated and its raw standard deviation, each (site, day)."""
    shape = members[0].site.shape
    mean, std, raw = (np.full(shape, np.nan, np.float32) for _ in range(3))
    for fold in np.unique(by):
        calibration, here = calibrations[models.fold_name(int(fold))], by == fold
        mean_here, raw_here = combine_members(members, heads, calibration.level_weight)
        mean[here], raw[here] = mean_here[here], raw_here[here]
        std[here] = raw_here[here] * calibration.width_scale
    return mean, std, raw
