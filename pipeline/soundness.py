"""Whether trained models can be used: training that diverged, predictions that are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from model import predict
from model.members import TIMES
from pipeline import models
from pipeline.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from model.checkpoint import Trained
    from model.divergence import Divergence
    from model.predict import Prediction
    from model.recipe import Job, TrainConfig
    from model.sampling import TrainingData
    from pipeline.packing import Packed

EXAMINED = 32  # places at which a model must predict before it is kept
LISTED = 12  # places that a message names


def diverged(found: Divergence, packed: Packed) -> str:
    """A model that could not be trained further, with the places of the batch, in one sentence."""
    update, quantity = found.fault
    be = "are" if quantity == "weights" else "is"
    sites = [packed.site_ids[i] for i in found.sites]
    footprints = [f"{row},{col}" for row, col in packed.footprints[list(found.footprints)].tolist()]
    batch = [_listed("sites", sites), _listed("footprints (row,column)", footprints)]
    return (
        f"{models.name(found.job)}: the {quantity} {be} not finite at step {update} of "
        f"{found.updates}, whose batch has {' and '.join(part for part in batch if part)}"
    )


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


def examined(job: Job, trained: Trained, data: TrainingData) -> list[str]:
    """What is wrong with a model's predictions at some of the places that it has learnt from."""
    at_sites = "site" in trained.heads
    places, index = (data.sites, data.trainable) if at_sites else (data.cells, _cells(data))
    some = places.take(index[sample(len(index))])
    return missing(job, trained.heads, predict.predict(trained, some))


def missing(job: Job, heads: tuple[str, ...], found: Prediction) -> list[str]:
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
        f"than {TIMES:g} times theirs; look at its losses before you use the ensemble"
    )


def _cells(data: TrainingData) -> NDArray[np.int64]:
    members = data.members[data.seen]
    return np.unique(members[members >= 0])


def _listed(what: str, names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - LISTED} more" if len(every) > LISTED else ""
    return f"{what} {' '.join(every[:LISTED])}{more}" if every else ""
