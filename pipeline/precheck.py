"""What can be known to be wrong before a verb begins its work, which may take hours.

Only what is cheap to ask is asked here: whether URLs and entries that any of the stages will need
are there. What a stage finds when it opens its sources is the stage's own to report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline import catalog, copies, domain, models, products, regions, statics
from pipeline.config import REGIONS
from pipeline.cube import Cube
from pipeline.errors import ConfigError, SoilweaveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from model.checkpoint import Trained
    from pipeline.config import Experiment
    from pipeline.store import Workspace


def of_verb(experiment: Experiment, workspace: Workspace, stages: Sequence[str]) -> None:
    """Check what an experiment names, as far as some stages will need it.

    Args:
      experiment: the experiment.
      workspace: where its artefacts lie.
      stages: names of the stages, in order.

    Raises:
      SoilweaveError: something is not there; all such problems are in one error.
    """
    prepares = "prepare" in stages and experiment.cube is None
    checks: list[Callable[[], object]] = []
    if experiment.cube is not None:
        checks.append(lambda: Cube.source(experiment, workspace))
    if experiment.models is not None and "predict" in stages:
        checks.append(lambda: of_models(experiment, workspace))
    if prepares:
        checks += [_entry(experiment, name) for name in catalog.entries(experiment)]
        if experiment.sources.staged and "stage" not in stages:
            checks += [_copy(experiment, name) for name in catalog.entries(experiment)]
    trains = {"prepare", "train"} & {*stages} and experiment.models is None
    if trains or "evaluate" in stages:
        judged = (*experiment.baselines, experiment.sources.truth)
        checks += [_entry(experiment, name) for name in judged if name]
    folds = experiment.folds
    if "folds" in stages and folds.kind == "region" and folds.by not in REGIONS:
        nowhere = np.zeros(1)
        checks.append(lambda: regions.named(nowhere, nowhere, folds.by))
    _all(f"experiment {experiment.name}", checks)


def of_models(experiment: Experiment, workspace: Workspace) -> tuple[str, dict[str, list[Trained]]]:
    """Load the models that are to predict: their folder, and the members of every arm.

    Raises:
      SoilweaveError: there are none, or they are not of the experiment's target.
    """
    root, _ = models.source(experiment, workspace)
    members: dict[str, list[Trained]] = {arm: models.ensemble(root, arm) for arm in experiment.arms}
    problems = [
        f"{arm} predicts {ensemble[0].origin['target']}, the experiment wants {experiment.target}"
        for arm, ensemble in members.items()
        if ensemble[0].origin["target"] != experiment.target
    ]
    if problems:
        raise ConfigError(f"models {root}", *problems, remedy="name other models")
    return root, members


def of_inputs(
    root: str,
    members: dict[str, list[Trained]],
    forcing: Iterable[str],
    static: Iterable[str],
) -> None:
    """Check that there is everything that models take as inputs.

    Args:
      root: URL of the models.
      members: of every arm.
      forcing: names of the forcing that there is.
      static: names of the static attributes that there are.

    Raises:
      ConfigError: naming every input that is lacking.
    """
    has = {"forcing": {*forcing}, "static": {*static}}
    problems = []
    for arm, ensemble in members.items():
        features = ensemble[0].features
        for key, names in (("forcing", features.forcing), ("static", features.static)):
            lacking = [name for name in names if name not in has[key]]
            problems += [f"{arm} needs {key} {name}, which the cube lacks" for name in lacking]
    if problems:
        remedy = "name sources that have them, or other models"
        raise ConfigError(f"models {root}", *problems, remedy=remedy)


def of_judging(experiment: Experiment) -> None:
    """Open what results will be judged by: the products, and the truth; nothing is read.

    Raises:
      SoilweaveError: one of them is absent or not as the catalog says.
    """
    statics.check(experiment)
    if experiment.models is not None:
        return
    checks: list[Callable[[], object]] = [lambda: products.opened(experiment)]
    if experiment.sources.truth is not None:
        checks.append(lambda: domain.open_truth(experiment))
    _all(f"experiment {experiment.name}", checks)


def _entry(experiment: Experiment, name: str) -> Callable[[], object]:
    return lambda: catalog.find(experiment.sources.catalog, name)


def _copy(experiment: Experiment, name: str) -> Callable[[], object]:
    return lambda: copies.digest_of(str(experiment.sources.staged), name)


def _all(place: str, checks: Iterable[Callable[[], object]]) -> None:
    """Run every check, and raise what they find together."""
    errors: dict[str, SoilweaveError] = {}
    for check in checks:
        try:
            check()
        except SoilweaveError as error:
            errors.setdefault(str(error), error)
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        raise ConfigError(place, *errors)
