"""The models of an experiment: which ones it needs, where they are stored, and reading them.

A model is identified by its arm, fold and seed (`ModelKey`).
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from model import checkpoint
from model.attribute_space import AttributeSpace
from model.calibration import Calibration
from model.recipe import ModelKey
from model.ridge import Ridge
from model.sampling import steps_per_epoch
from pipeline import files
from pipeline.errors import ConfigError, DamagedError, StoreError
from pipeline.experiment import shipped_models
from pipeline.storage import tables
from pipeline.storage.artefacts import Artefact, Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from model.checkpoint import TrainedModel
    from model.recipe import Arm
    from pipeline.experiment.config import Experiment


T = TypeVar("T")
REPAIR_HINT = "soilweave verify --repair makes it again"
ALL_SITES = -1  # the fold of a model that is trained on all sites


def list_models(experiment: Experiment, fold_numbers: Iterable[int]) -> list[ModelKey]:
    """List all models of an experiment, the most expensive arms first.

    An arm that is trained on sites has one model per fold, which is evaluated at the sites of that
    fold, and one model of all sites, which makes the maps. Arm `satellite` uses no sites, so it has
    only the latter, unless `folds.drop_footprints` leaves out footprints by fold.

    Args:
      experiment: The experiment, for its arms and seeds.
      fold_numbers: The folds of the sites, each at least once; ALL does not count as a fold.
    """
    folds = {int(fold) for fold in fold_numbers}
    cost = {"multiscale": 0, "insitu": 1, "satellite": 2}
    return [
        ModelKey(arm, fold, seed)
        for arm in sorted(experiment.arms, key=cost.__getitem__)
        for fold in folds_of_arm(experiment, arm, folds)
        for seed in range(experiment.n_seeds)
    ]


def folds_of_arm(experiment: Experiment, arm: str, fold_numbers: Iterable[int]) -> list[int]:
    """List the folds of an arm's models, ALL last; `fold_numbers` as in `jobs`."""
    own = (
        {int(fold) for fold in fold_numbers} - {ALL_SITES}
        if has_folds(experiment, arm)
        else set[int]()
    )
    return [*sorted(own), ALL_SITES]


def has_folds(experiment: Experiment, arm: str) -> bool:
    """Return whether the training data of an arm depend on the fold."""
    return arm != "satellite" or experiment.folds.drop_footprints


def list_workspace_models(workspace: Workspace, experiment: Experiment) -> list[ModelKey]:
    """List all models of an experiment with the folds of its workspace, if they are made."""
    url = workspace.url("folds.parquet")
    return list_models(experiment, tables.read_table(url)["fold"] if files.exists(url) else ())


def fold_name(fold: int) -> str:
    """Return the name of a fold: its number, or `all`."""
    return "all" if fold == ALL_SITES else str(fold)


def model_folder(root: str, key: ModelKey) -> str:
    """Return the URL of a model's folder, `{root}/{arm}/fold={number or all}/seed={seed}`."""
    return files.join(root, key.arm, f"fold={fold_name(key.fold)}", f"seed={key.seed}")


def checkpoint_url(root: str, key: ModelKey) -> str:
    """Return the URL of a model's checkpoint."""
    return files.join(model_folder(root, key), "checkpoint.safetensors")


def model_name(key: ModelKey) -> str:
    """Return the name of a model in messages."""
    return f"arm {key.arm}, fold {fold_name(key.fold)}, seed {key.seed}"


def failure_url(root: str, key: ModelKey) -> str:
    """Return the URL of the file that says why a model could not be trained."""
    return files.join(model_folder(root, key), "failed.json")


def read_failures(root: str, keys: Sequence[ModelKey]) -> list[str]:
    """Read why models could not be trained, one sentence for each failed model."""
    records = (files.read_json(failure_url(root, key)) for key in keys)
    return [str(record["problem"]) for record in records if record is not None]


def load_model(root: str, key: ModelKey) -> TrainedModel:
    """Read a trained model.

    Raises:
      DamagedError: If the checkpoint is damaged or has another format version.
    """
    return _read_and_decode(checkpoint_url(root, key), checkpoint.model_from_bytes)


def _read_and_decode(url: str, decode: Callable[[bytes], T]) -> T:
    """Read and decode an object.

    Raises:
      DamagedError: If the object does not exist or cannot be decoded.
    """
    try:
        return decode(files.read_bytes(url))
    except FileNotFoundError as error:
        raise DamagedError(url, "not found", remedy=REPAIR_HINT) from error
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DamagedError(url, f"is damaged: {reason}", remedy=files.DAMAGED_HINT) from error


def find_models(experiment: Experiment, workspace: Workspace) -> tuple[str, str]:
    """Return the URL and the digest of an experiment's models: its own ones, or those of `models`.

    Raises:
      StoreError: If there are no complete models, or they were trained with other settings.
    """
    if experiment.models is None:
        return workspace.url("models"), workspace.artefact("models").digest(experiment)
    root = shipped_models.models_url(experiment.models)
    return root, Artefact("models", f"{root}/").digest()


def trained_in(experiment: Experiment, workspace: Workspace) -> Experiment | None:
    """Return the experiment that an experiment's models were trained in, itself or another.

    Returns:
      The experiment; None if the models that `models` names have no experiment.yaml beside them.

    Raises:
      StoreError: If there are no complete models.
    """
    if experiment.models is None:
        return experiment
    root, _ = find_models(experiment, workspace)
    home = Workspace(root.rpartition("/")[0])
    return home.described() if files.exists(home.url("experiment.yaml")) else None


def recorded_updates(experiment: Experiment, workspace: Workspace) -> int | None:
    """Return how many updates each model was trained with; None if the manifest does not say."""
    root, _ = find_models(experiment, workspace)
    updates = (Artefact("models", f"{root}/").manifest() or {}).get("updates")
    return None if updates is None else int(updates)


def updates_per_model(experiment: Experiment, footprints: int, sites: int, days: int) -> int:
    """Return the number of updates of a model: `train.updates`, or that of `train.epochs`.

    The length of an epoch follows `steps_per_epoch`. It counts footprints, or sites if the
    experiment has no satellite.

    Args:
      experiment: The experiment, with updates or epochs.
      footprints: Number of footprints that are trained on.
      sites: Number of sites that are trained on.
      days: Number of days in the training period.
    """
    train = experiment.train
    if train.updates is not None:
        return train.updates
    assert train.epochs is not None
    places, drawn = footprints, train.footprints_per_step
    if experiment.sources.satellite is None:
        places, drawn = sites, train.sites_per_step
    return train.epochs * steps_per_epoch(drawn, train.window_days, places, days)


def list_seeds(root: str, arm: str) -> list[int]:
    """List the seeds of an arm's models of all sites, sorted, from the folders that exist."""
    names = files.list_folder(files.join(root, arm, f"fold={fold_name(ALL_SITES)}"))
    return sorted(int(name.removeprefix("seed=")) for name in names)


def load_ensemble(root: str, arm: Arm) -> list[TrainedModel]:
    """Read the ensemble that makes an arm's maps: its models of all sites.

    Raises:
      StoreError: If there is no such model.
    """
    members = [load_model(root, ModelKey(arm, ALL_SITES, seed)) for seed in list_seeds(root, arm)]
    if not members:
        problem = f"no models of arm {arm} here; the folder contains {files.list_folder(root)}"
        raise StoreError(root, problem, remedy="choose one of its arms with --set arms=[...]")
    return members


def read_calibrations(root: str, arm: str) -> dict[str, Calibration]:
    """Read the calibrations of an arm, by the name of the fold.

    Raises:
      DamagedError: If they do not exist, cannot be decoded, or lack that of the maps.
    """

    def decode(data: bytes) -> dict[str, Calibration]:
        stored = json.loads(data)
        if fold_name(ALL_SITES) not in stored:
            raise ValueError(f"it has no {fold_name(ALL_SITES)}")
        return {fold: Calibration(**values) for fold, values in stored.items()}

    return _read_and_decode(files.join(root, arm, "calibration.json"), decode)


def attributes_url(root: str) -> str:
    """Return the URL of the file with the attribute space of the sites."""
    return files.join(root, "attributes.json")


def read_attribute_space(root: str) -> AttributeSpace | None:
    """Read the attribute space of the sites; None if the models have none or are too old.

    Raises:
      DamagedError: If the file exists but cannot be decoded.
    """
    url = attributes_url(root)
    if not files.exists(url):
        return None
    return _read_and_decode(url, lambda data: AttributeSpace.from_dict(json.loads(data)))


def unfinished_models(root: str, keys: Sequence[ModelKey]) -> list[ModelKey]:
    """List the models that have no checkpoint yet."""
    return [key for key in keys if not files.exists(checkpoint_url(root, key))]


def split_evenly(items: Sequence[T], most: int) -> Iterator[list[T]]:
    """Split a sequence into as few parts of at most `most` as possible, of nearly equal sizes."""
    n_parts = -(-len(items) // most)
    ends = [len(items) * i // n_parts for i in range(n_parts + 1)]
    yield from ([*items[first:last]] for first, last in pairwise(ends))


def trained_heads(experiment: Experiment, arm: Any) -> tuple[str, ...]:
    """Return the heads of the network that an arm trains and can predict with."""
    weight = experiment.recipe_sections.insitu_weight(arm)
    trained = {"site": weight > 0, "satellite": weight < 1}
    return tuple(head for head, is_trained in trained.items() if is_trained)


def ridge_url(root: str, fold: int) -> str:
    """Return the URL of the ridge regression of a fold."""
    return files.join(root, "ridge", f"fold={fold_name(fold)}", "ridge.safetensors")


def list_ridges(root: str) -> list[str]:
    """List the keys of all ridge regressions, relative to the folder of the models."""
    folds = files.list_folder(files.join(root, "ridge"))
    return [f"ridge/{fold}/ridge.safetensors" for fold in folds]


def save_ridge(root: str, fold: int, ridge: Ridge) -> None:
    """Write the ridge regression of a fold."""
    weights = {"weights": torch.from_numpy(ridge.weights)}
    files.write_bytes(
        ridge_url(root, fold), checkpoint.pack_safetensors(weights, {"penalty": ridge.penalty})
    )


def load_ridge(root: str, fold: int) -> Ridge:
    """Read the ridge regression of a fold.

    Raises:
      DamagedError: If the file is damaged.
    """
    tensors, values = _read_and_decode(ridge_url(root, fold), checkpoint.unpack_safetensors)
    return Ridge(tensors["weights"].numpy(), values["penalty"])


def load_ensembles(
    experiment: Experiment, workspace: Workspace
) -> tuple[str, dict[str, list[TrainedModel]]]:
    """Read the ensembles that make the maps, and check their target.

    Returns:
      URL of the models, and the members of every arm.

    Raises:
      StoreError: If there are no complete models, or none of an arm.
      ConfigError: If models predict another variable than the experiment's target.
    """
    root, _ = find_models(experiment, workspace)
    members: dict[str, list[TrainedModel]] = {
        arm: load_ensemble(root, arm) for arm in experiment.arms
    }
    problems = [
        f"{arm} predicts {ensemble[0].origin['target']}, "
        f"but the experiment's target is {experiment.target}"
        for arm, ensemble in members.items()
        if ensemble[0].origin["target"] != experiment.target
    ]
    if problems:
        hint = "use models of this target, or change target"
        raise ConfigError(f"models {root}", *problems, remedy=hint)
    return root, members


def with_arms_of(root: str, experiment: Experiment) -> Experiment:
    """Return an experiment with those of its arms that a folder has models of, if there are any.

    Args:
      root: URL of the models.
      experiment: The experiment.
    """
    here = files.list_folder(root)
    arms = tuple(arm for arm in experiment.arms if arm in here)
    return experiment.model_copy(update={"arms": arms or experiment.arms})


def check_inputs(
    root: str,
    members: dict[str, list[TrainedModel]],
    forcing: Iterable[str],
    static: Iterable[str],
) -> None:
    """Check that all inputs of the models are available.

    Args:
      root: URL of the models.
      members: The members of every arm.
      forcing: Names of the available forcing variables.
      static: Names of the available static attributes.

    Raises:
      ConfigError: If inputs are missing; it names all of them.
    """
    available = {"forcing": {*forcing}, "static": {*static}}
    problems = []
    for arm, ensemble in members.items():
        features = ensemble[0].features
        for key, names in (("forcing", features.forcing), ("static", features.static)):
            absent = [name for name in names if name not in available[key]]
            problems += [
                f"{arm} needs {key} {name}, which the cube does not have" for name in absent
            ]
    if problems:
        hint = "use sources that have these variables, or other models"
        raise ConfigError(f"models {root}", *problems, remedy=hint)
