"""The models that `score` scores probes with, and what is known of their training.

They are those of the experiment itself, or those that its setting `models` names. The latter must
lie in a folder like that of an experiment, beside experiment.yaml and folds.parquet, which say how
and where they were trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from model.bias_adjustment import OffsetPrior
from model.recipe import ModelKey
from pipeline import files
from pipeline.errors import ConfigError, DataError, StoreError
from pipeline.evaluate import bias_adjustment
from pipeline.storage import models, tables
from pipeline.storage.artefacts import Workspace
from pipeline.storage.cube import Cube

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model.checkpoint import TrainedModel
    from pipeline.evaluate.bias_adjustment import Priors
    from pipeline.experiment.config import Experiment


OFFSETS = "offsets.json"  # beside shipped models: the priors of the offsets of new sites


@dataclass(frozen=True)
class KnownModels:
    """Trained models.

    Attributes:
      trained: the experiment that they were trained in, with the arms that there are models of.
      home: its folder.
      root: URL of the models.
      folds: the table folds.parquet: the sites that the models know.
      updates: number of updates that each was trained with; None if that is not recorded.
    """

    trained: Experiment
    home: Workspace
    root: str
    folds: pd.DataFrame
    updates: int | None

    def load_any(self) -> TrainedModel:
        """Read one of the models; all of them have the same inputs."""
        return models.load_model(self.root, ModelKey(self.trained.arms[0], models.ALL_SITES, 0))

    def folds_with_models(self, fold: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the (site,) folds, with ALL instead of those that there are no models of."""
        names = {
            name
            for arm in self.trained.arms
            if models.has_folds(self.trained, arm)
            for name in files.list_folder(files.join(self.root, arm))
        }
        there = [k for k in np.unique(fold).tolist() if f"fold={models.fold_name(k)}" in names]
        return np.where(np.isin(fold, there), fold, models.ALL_SITES)


def find(experiment: Experiment, workspace: Workspace) -> KnownModels:
    """Find the models of an experiment, or those that it names.

    Args:
      experiment: the experiment.
      workspace: its folder.

    Raises:
      SoilweaveError: If there are no complete models, or those that the experiment names predict
        another variable, or nothing says what they were trained on.
    """
    root, _ = models.find_models(experiment, workspace)
    if experiment.models is None:
        Cube.source(experiment, workspace)
        workspace.artefact("folds").digest(experiment)
        trained, home = experiment, workspace
    else:
        home = Workspace(root.rpartition("/")[0])
        absent = [n for n in ("experiment.yaml", "folds.parquet") if not files.exists(home.url(n))]
        if absent:
            problem = (
                f"{' and '.join(absent)} not found, which say what the models have learnt from"
            )
            hint = "copy the whole folder of the experiment, and name its models/"
            raise StoreError(home.root, problem, remedy=hint)
        trained = models.with_arms_of(root, models.trained_in(experiment, workspace) or experiment)
        if trained.target != experiment.target:
            problem = f"they predict {trained.target}, but the target is {experiment.target}"
            raise ConfigError(f"models {experiment.models}", problem, remedy="change target")
    folds = tables.read_table(home.url("folds.parquet"))
    return KnownModels(trained, home, root, folds, models.recorded_updates(experiment, workspace))


def check_priors(known: KnownModels) -> None:
    """Check, without reading much, that the offsets of new sites can be estimated.

    Raises:
      SoilweaveError: If there are no errors at held-out sites.
    """
    if not files.exists(known.home.url(OFFSETS)):
        cube = Cube.of(known.trained, known.home)
        bias_adjustment.check_held_out_errors(known.trained, cube)


def read_priors(known: KnownModels) -> Priors:
    """Read the priors of the offsets of new sites, or estimate them from errors at held-out sites.

    Raises:
      DataError: If there are no errors at held-out sites, or at too few.
    """
    url = known.home.url(OFFSETS)
    stored = files.read_json(url)
    if stored is None:
        cube = Cube.of(known.trained, known.home)
        return bias_adjustment.learn_priors(known.trained, known.home, cube, known.folds)
    try:
        return {name: {models.ALL_SITES: OffsetPrior(**v)} for name, v in stored.items()}
    except TypeError as error:
        raise DataError(url, f"is damaged: {error}", remedy=files.DAMAGED_HINT) from error
