"""Predict with an arm's ensemble, and check that its members are usable.

A member is unusable if its training diverged, so that predictions are not finite. A member whose
predictions are far from those of the others is reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model import ensemble
from model.ensemble import OUTLIER_FACTOR, Prediction, combine_members
from model.recipe import ModelKey
from model.sampling import Places
from pipeline.errors import TrainingError
from pipeline.storage import models

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from model.calibration import Calibration
    from model.checkpoint import TrainedModel
    from model.recipe import TrainConfig
    from model.sampling import TrainingData
    from pipeline.experiment.config import Experiment


CHECKED_PLACES = 32  # number of places at which a model is checked after training
MAX_PLACES_NAMED = 12  # largest number of places that a message names


def divergence_hint(train: TrainConfig) -> str:
    """Return the hint for models that diverged, with the present values of the settings."""
    clip = "none" if train.gradient_clip is None else f"{train.gradient_clip:g}"
    return (
        f"lower train.learning_rate ({train.learning_rate:g}), set or lower train.gradient_clip "
        f"({clip}), or check the values of these places with soilweave doctor; all models but "
        "the failed ones are kept; other settings need --name NEW or --overwrite"
    )


def sample_places(n_places: int, most: int = CHECKED_PLACES) -> NDArray[np.int64]:
    """Return the indices of at most `most` of `n_places` places, evenly spread."""
    return np.unique(np.linspace(0, n_places - 1, min(n_places, most)).astype(np.int64))


def check_model(key: ModelKey, trained: TrainedModel, data: TrainingData) -> list[str]:
    """Check a model's predictions at a sample of the places that it was trained on.

    Returns:
      Problems as sentences; empty if all predictions are finite.
    """
    at_sites = "site" in trained.heads
    places, index = (
        (data.sites, data.trainable) if at_sites else (data.cells, _training_cells(data))
    )
    some = places.take(index[sample_places(len(index))])
    return check_finite(key, trained.heads, ensemble.predict_series(trained, some))


def check_finite(key: ModelKey, heads: tuple[str, ...], prediction: Prediction) -> list[str]:
    """Check that all predictions of a model are finite.

    Missing inputs are replaced by their mean, so a working model predicts on every day.

    Returns:
      One sentence with the number of days and places, or an empty list.
    """
    names = [*heads, "width"] if "site" in heads else heads
    bad = np.any([~np.isfinite(getattr(prediction, name)) for name in names], 0)
    if not bad.any():
        return []
    n_places = int(bad.any(1).sum())
    days = f"no finite prediction on {int(bad.sum()):,} of {bad.size:,} days"
    return [f"{models.model_name(key)}: {days}, at {n_places} of {len(bad)} places"]


def raise_problems(root: str, problems: Sequence[str]) -> None:
    """Stop if models have predictions that are not finite.

    Raises:
      TrainingError: If there are problems; it lists all of them.
    """
    if problems:
        hint = (
            "lower train.learning_rate and train all models again with: soilweave train --overwrite"
        )
        raise TrainingError(root, *problems, remedy=hint)


def outlier_warning(member: dict[str, Any]) -> str:
    """Return the warning about a member that disagrees with the others.

    Args:
      member: Its `arm`, `fold` and `seed`.
    """
    return (
        f"arm {member['arm']}, fold {member['fold']}, seed {member['seed']} disagrees with the "
        "other members: its median absolute difference from their mean is more than "
        f"{OUTLIER_FACTOR:g} times theirs; look at its losses before you use the ensemble"
    )


def _training_cells(data: TrainingData) -> NDArray[np.int64]:
    """Return the indices of all cells of the footprints that are trained on."""
    members = data.members[data.seen]
    return np.unique(members[members >= 0])


def join_names(what: str, names: Iterable[str]) -> str:
    """Return `what` followed by at most LISTED names; "" if there are none."""
    all_names = list(names)
    more = (
        f" and {len(all_names) - MAX_PLACES_NAMED} more"
        if len(all_names) > MAX_PLACES_NAMED
        else ""
    )
    return f"{what} {' '.join(all_names[:MAX_PLACES_NAMED])}{more}" if all_names else ""


Ensemble = list[Prediction]  # one prediction per member


def evaluation_folds(
    experiment: Experiment, arm: str, fold: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the (site,) fold of the models that may be evaluated at each site.

    These are the models that were not trained on the site: those of the fold that holds it out,
    or the model of all sites if the arm is trained on none.

    Args:
      experiment: The experiment.
      arm: The arm.
      fold: (site,) the fold that holds out each site.
    """
    return fold if models.has_folds(experiment, arm) else np.full_like(fold, models.ALL_SITES)


def scale_inputs(
    trained: TrainedModel, forcing: NDArray[np.float32], static: NDArray[np.float32]
) -> Places:
    """Scale the inputs of places as a model expects them.

    Args:
      trained: The model.
      forcing: (place, day, forcing) in physical units, in the order of the model's features; NaN
        where missing.
      static: (place, static) likewise.
    """
    mean, std = trained.scaler.arrays(trained.features.forcing)
    scaled = ((forcing - mean) / std).astype(np.float16)
    mean, std = trained.scaler.arrays(trained.features.static)
    return Places.from_arrays(scaled, ((static - mean) / std).astype(np.float32), "cpu")


def predict_members(
    experiment: Experiment, root: str, arm: Any, places: Places, by: NDArray[np.int64]
) -> Ensemble:
    """Predict at places with every member of an arm's ensemble.

    Args:
      experiment: The experiment.
      root: URL of the models.
      arm: The arm.
      places: The inputs of the places.
      by: (place,) the fold of the models that predict at each place.

    Raises:
      TrainingError: If a prediction is not finite; it names all such models.
    """
    members, problems, heads = [], list[str](), models.trained_heads(experiment, arm)
    for seed in range(experiment.n_seeds):
        pieces = {}
        for fold in np.unique(by).tolist():
            key = ModelKey(arm, fold, seed)
            pieces[fold] = ensemble.predict_series(
                models.load_model(root, key), places.select(by == fold)
            )
            problems += check_finite(key, heads, pieces[fold])
        members.append(ensemble.merge_predictions(pieces, by))
    raise_problems(root, problems)
    return members


def combine_calibrated(
    members: Sequence[Prediction],
    heads: tuple[str, ...],
    by: NDArray[np.int64],
    calibrations: dict[str, Calibration],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Combine the members of an ensemble with the calibration of each fold.

    Args:
      members: Predictions of each member.
      heads: The heads that the arm trains.
      by: (site,) the fold of the models that predicted at each site.
      calibrations: The calibration of each fold, by the fold's name.

    Returns:
      The predicted mean, its calibrated and its raw standard deviation, each (site, day).
    """
    shape = members[0].site.shape
    mean, std, raw = (np.full(shape, np.nan, np.float32) for _ in range(3))
    for fold in np.unique(by):
        calibration, here = calibrations[models.fold_name(int(fold))], by == fold
        mean_here, raw_here = combine_members(members, heads, calibration.level_weight)
        mean[here], raw[here] = mean_here[here], raw_here[here]
        std[here] = raw_here[here] * calibration.width_scale
    return mean, std, raw
