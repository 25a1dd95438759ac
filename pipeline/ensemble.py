"""An arm's ensemble: its members' predictions at places, and their mean and spread, calibrated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model import predict
from model.predict import Prediction, product
from model.recipe import Job
from pipeline import models, soundness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model.calibration import Calibration
    from model.sampling import Places
    from pipeline.config import Experiment

Members = list[Prediction]


def judged_by(experiment: Experiment, arm: str, fold: NDArray[np.int64]) -> NDArray[np.int64]:
    """(site,) fold of the models each site may be judged by in an arm; `fold` holds it out."""
    return fold if models.has_folds(experiment, arm) else np.full_like(fold, models.ALL)


def at_places(
    experiment: Experiment, root: str, arm: Any, places: Places, by: NDArray[np.int64]
) -> Members:
    """Each member's predictions at places, each by the models of its fold `by` (place,).

    Raises:
      TrainingError: naming the models that have no finite prediction somewhere.
    """
    members, problems, heads = [], list[str](), models.heads(experiment, arm)
    for seed in range(experiment.n_seeds):
        pieces = {}
        for fold in np.unique(by).tolist():
            job = Job(arm, fold, seed)
            pieces[fold] = predict.predict(models.load(root, job), places.select(by == fold))
            problems += soundness.missing(job, heads, pieces[fold])
        members.append(predict.gathered(pieces, by))
    soundness.refuse(root, problems)
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
        mean_here, raw_here = product(members, heads, calibration.level_weight)
        mean[here], raw[here] = mean_here[here], raw_here[here]
        std[here] = raw_here[here] * calibration.width_scale
    return mean, std, raw
