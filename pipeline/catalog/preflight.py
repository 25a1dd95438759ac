"""Checks before a command starts its work, which may take hours.

Only cheap checks are made here: whether the URLs and catalog entries that any of the stages needs
exist. Each stage reports the problems that it finds when it opens its sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pipeline.catalog import experiment_sources, intake_catalog, products
from pipeline.errors import ConfigError, SoilweaveError
from pipeline.experiment import regions
from pipeline.experiment.folds_config import REGIONS
from pipeline.storage import source_copies
from pipeline.storage.cube import Cube
from pipeline.storage.models import load_ensembles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pipeline.experiment.config import Experiment
    from pipeline.storage.artefacts import Workspace


def check_verb(experiment: Experiment, workspace: Workspace, stages: Sequence[str]) -> None:
    """Check that what an experiment names exists, as far as some stages need it.

    Args:
      experiment: The settings.
      workspace: The workspace of the experiment.
      stages: The names of the stages, in order.

    Raises:
      SoilweaveError: If something does not exist; one error lists all such problems.
    """
    prepares = "prepare" in stages and experiment.cube is None
    checks: list[Callable[[], object]] = []
    if experiment.cube is not None:
        checks.append(lambda: Cube.source(experiment, workspace))
    if experiment.models is not None and "predict" in stages:
        checks.append(lambda: load_ensembles(experiment, workspace))
    if prepares:
        checks += [
            _entry_check(experiment, name) for name in intake_catalog.cube_entries(experiment)
        ]
        if experiment.sources.staged and "stage" not in stages:
            checks += [
                _copy_check(experiment, name) for name in intake_catalog.cube_entries(experiment)
            ]
    trains = {"prepare", "train"} & {*stages} and experiment.models is None
    if trains or "evaluate" in stages:
        references = (*experiment.baselines, experiment.sources.truth)
        checks += [_entry_check(experiment, name) for name in references if name]
    folds = experiment.folds
    if "folds" in stages and folds.kind == "region" and folds.by not in REGIONS:
        lat_lon = np.zeros(1)  # any place; this checks the file of regions only
        checks.append(lambda: regions.regions_from_polygons(lat_lon, lat_lon, folds.by))
    _run_checks(f"experiment {experiment.name}", checks)


def check_judging(experiment: Experiment) -> None:
    """Check the products and the truth that results are scored against, without reading values.

    Raises:
      SoilweaveError: If one of them is missing or not as the catalog describes it, or if statics
        describe only days of the test period.
    """
    experiment_sources.check_static_periods(experiment)
    if experiment.models is not None:
        return
    checks: list[Callable[[], object]] = [lambda: products.open_products(experiment)]
    if experiment.sources.truth is not None:
        checks.append(lambda: experiment_sources.open_truth(experiment))
    _run_checks(f"experiment {experiment.name}", checks)


def _entry_check(experiment: Experiment, name: str) -> Callable[[], object]:
    """Return a check that a catalog entry exists."""
    return lambda: intake_catalog.find_entry(experiment.sources.catalog, name)


def _copy_check(experiment: Experiment, name: str) -> Callable[[], object]:
    """Return a check that the copy of a source is complete."""
    return lambda: source_copies.copied_digest(str(experiment.sources.staged), name)


def _run_checks(place: str, checks: Iterable[Callable[[], object]]) -> None:
    """Run all checks, and raise their errors as one."""
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
