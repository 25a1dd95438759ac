"""What can be known to be wrong before a verb begins its work, which may take hours.

Only what is cheap to ask is asked here: whether URLs and entries that any of the stages will need
are there. What a stage finds when it opens its sources is the stage's own to report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.catalog import experiment_sources, intake_catalog, products
from pipeline.errors import ConfigError, SoilweaveError
from pipeline.experiment import regions
from pipeline.experiment.config import REGIONS
from pipeline.storage import source_copies
from pipeline.storage.cube import Cube
from pipeline.storage.models import check_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pipeline.experiment.config import Experiment
    from pipeline.storage.artefacts import Workspace


def check_verb(experiment: Experiment, workspace: Workspace, stages: Sequence[str]) -> None:
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
        checks.append(lambda: check_models(experiment, workspace))
    if prepares:
        checks += [_entry(experiment, name) for name in intake_catalog.entries(experiment)]
        if experiment.sources.staged and "stage" not in stages:
            checks += [_copy(experiment, name) for name in intake_catalog.entries(experiment)]
    trains = {"prepare", "train"} & {*stages} and experiment.models is None
    if trains or "evaluate" in stages:
        judged = (*experiment.baselines, experiment.sources.truth)
        checks += [_entry(experiment, name) for name in judged if name]
    folds = experiment.folds
    if "folds" in stages and folds.kind == "region" and folds.by not in REGIONS:
        nowhere = np.zeros(1)
        checks.append(lambda: regions.named(nowhere, nowhere, folds.by))
    _all(f"experiment {experiment.name}", checks)


def check_judging(experiment: Experiment) -> None:
    """Open what results will be judged by: the products, and the truth; nothing is read.

    Raises:
      SoilweaveError: one of them is absent or not as the catalog says.
    """
    experiment_sources.check(experiment)
    if experiment.models is not None:
        return
    checks: list[Callable[[], object]] = [lambda: products.opened(experiment)]
    if experiment.sources.truth is not None:
        checks.append(lambda: experiment_sources.open_truth(experiment))
    _all(f"experiment {experiment.name}", checks)


def _entry(experiment: Experiment, name: str) -> Callable[[], object]:
    return lambda: intake_catalog.find(experiment.sources.catalog, name)


def _copy(experiment: Experiment, name: str) -> Callable[[], object]:
    return lambda: source_copies.digest_of(str(experiment.sources.staged), name)


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
