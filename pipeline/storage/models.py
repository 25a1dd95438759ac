"""The models of an experiment: which there are, where each lies, and how they are dealt out."""

from __future__ import annotations

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
from pipeline.storage import tables
from pipeline.storage.artefacts import Artefact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from model.checkpoint import TrainedModel
    from model.recipe import Arm
    from pipeline.experiment.config import Experiment
    from pipeline.storage.artefacts import Workspace


T = TypeVar("T")
ALL = -1  # the fold of a model that leaves no site out


def jobs(experiment: Experiment, dealt: Iterable[int]) -> list[ModelKey]:
    """Every model of an experiment, costly ones first.

    An arm that sees sites has one model per fold, to be judged, and one on all sites, the product;
    arm `satellite` sees no site and has only the latter, unless footprints are left out by fold.

    Args:
      experiment: names arms and seeds.
      dealt: the folds that sites are dealt into, each at least once; ALL is none.
    """
    folds = {int(fold) for fold in dealt}
    cost = {"multiscale": 0, "insitu": 1, "satellite": 2}
    return [
        ModelKey(arm, fold, seed)
        for arm in sorted(experiment.arms, key=cost.__getitem__)
        for fold in folds_of(experiment, arm, folds)
        for seed in range(experiment.n_seeds)
    ]


def folds_of(experiment: Experiment, arm: str, dealt: Iterable[int]) -> list[int]:
    """Folds of an arm, the model of all sites last; `dealt` as of `jobs`."""
    own = {int(fold) for fold in dealt} - {ALL} if has_folds(experiment, arm) else set[int]()
    return [*sorted(own), ALL]


def has_folds(experiment: Experiment, arm: str) -> bool:
    """Whether what an arm learns from depends on the fold."""
    return arm != "satellite" or experiment.folds.drop_footprints


def jobs_in(workspace: Workspace, experiment: Experiment) -> list[ModelKey]:
    """Every model of an experiment, by the folds of its workspace, if it has them yet."""
    url = workspace.url("folds.parquet")
    return jobs(experiment, tables.read(url)["fold"] if files.exists(url) else ())


def fold_name(fold: int) -> str:
    """A fold as people read it."""
    return "all" if fold == ALL else str(fold)


def folder(root: str, job: ModelKey) -> str:
    """URL of a model's folder, `{root}/{arm}/fold={k or all}/seed={s}`."""
    return files.join(root, job.arm, f"fold={fold_name(job.fold)}", f"seed={job.seed}")


def checkpoint_url(root: str, job: ModelKey) -> str:
    """URL of a trained model."""
    return files.join(folder(root, job), "checkpoint.safetensors")


def name(job: ModelKey) -> str:
    """A model as messages have it."""
    return f"arm {job.arm}, fold {fold_name(job.fold)}, seed {job.seed}"


def failure_url(root: str, job: ModelKey) -> str:
    """URL of the record of why a model could not be trained, where there is one."""
    return files.join(folder(root, job), "failed.json")


def failures(root: str, every: Sequence[ModelKey]) -> list[str]:
    """Why models could not be trained, one sentence for each that could not."""
    found = (files.read_json(failure_url(root, job)) for job in every)
    return [str(record["problem"]) for record in found if record is not None]


def load(root: str, job: ModelKey) -> TrainedModel:
    """A trained model.

    Raises:
      DamagedError: it is not whole, or of another format.
    """
    return _decoded(checkpoint_url(root, job), checkpoint.model_from_bytes)


def _decoded(url: str, decode: Callable[[bytes], T]) -> T:
    """What an object decodes to.

    Raises:
      DamagedError: it cannot be decoded.
    """
    data = files.read_bytes(url)
    try:
        return decode(data)
    except ValueError as error:
        raise DamagedError(url, f"is damaged: {error}", remedy=files.DAMAGED) from error


def source(experiment: Experiment, workspace: Workspace) -> tuple[str, str]:
    """Where the models that predict lie, and their digest: trained here, or named by URL.

    Raises:
      StoreError: there are no complete models.
    """
    if experiment.models is None:
        return workspace.url("models"), workspace.artefact("models").digest(experiment)
    root = files.absolute(experiment.models).rstrip("/")
    return root, Artefact("models", f"{root}/").digest()


def updates_made(experiment: Experiment, workspace: Workspace) -> int | None:
    """Updates that each model was trained with; None where the models do not say."""
    root, _ = source(experiment, workspace)
    made = (Artefact("models", f"{root}/").manifest() or {}).get("updates")
    return None if made is None else int(made)


def updates_per_model(experiment: Experiment, footprints: int, sites: int, days: int) -> int:
    """Updates of a model: as configured, or epochs by the published rule.

    An epoch draws from footprints, or from sites where the experiment has no satellite.

    Args:
      experiment: has updates or epochs.
      footprints: that may be drawn.
      sites: that may be drawn.
      days: of the training period.
    """
    train = experiment.train
    if train.updates is not None:
        return train.updates
    assert train.epochs is not None
    places, drawn = footprints, train.footprints_per_step
    if experiment.sources.satellite is None:
        places, drawn = sites, train.sites_per_step
    return train.epochs * steps_per_epoch(drawn, train.window_days, places, days)


def seeds(root: str, arm: str) -> list[int]:
    """Seeds of the members of an arm's ensemble, as they lie there."""
    names = files.listing(files.join(root, arm, f"fold={fold_name(ALL)}"))
    return sorted(int(name.removeprefix("seed=")) for name in names)


def ensemble(root: str, arm: Arm) -> list[TrainedModel]:
    """The members that are an arm's product.

    Raises:
      StoreError: there is none.
    """
    members = [load(root, ModelKey(arm, ALL, seed)) for seed in seeds(root, arm)]
    if not members:
        found = f"no models of arm {arm} here; it has {files.listing(root)}"
        raise StoreError(root, found, remedy="choose among its arms with --set arms=[...]")
    return members


def calibrations(root: str, arm: str) -> dict[str, Calibration]:
    """Calibration of an arm by fold, as text."""
    stored = files.read_json(files.join(root, arm, "calibration.json")) or {}
    return {fold: Calibration(**values) for fold, values in stored.items()}


def attributes_url(root: str) -> str:
    """URL of the attributes of the sites."""
    return files.join(root, "attributes.json")


def space(root: str) -> AttributeSpace | None:
    """The attributes of the sites; None where models were made before they were kept."""
    stored = files.read_json(attributes_url(root))
    return None if stored is None else AttributeSpace.from_dict(stored)


def unfinished(root: str, every: Sequence[ModelKey]) -> list[ModelKey]:
    """The models that are not trained to their end."""
    return [job for job in every if not files.exists(checkpoint_url(root, job))]


def deal(
    every: Sequence[ModelKey], costs: dict[str, float], n_workers: int
) -> list[list[ModelKey]]:
    """Deal models to workers, the costliest first, each to the worker with least to do so far."""
    shares: list[list[ModelKey]] = [[] for _ in range(n_workers)]
    load_of = [0.0] * n_workers
    for job in sorted(every, key=lambda job: -costs[job.arm]):
        least = load_of.index(min(load_of))
        shares[least].append(job)
        load_of[least] += costs[job.arm]
    return shares


def teams(share: Sequence[ModelKey], most: int) -> Iterator[list[ModelKey]]:
    """Models that a worker trains side by side: of one arm, up to `most` of them."""
    for arm in dict.fromkeys(job.arm for job in share):
        of = [job for job in share if job.arm == arm]
        yield from (of[i : i + most] for i in range(0, len(of), most))


def heads(experiment: Experiment, arm: Any) -> tuple[str, ...]:
    """The heads an arm trains, hence may predict with."""
    weight = experiment.recipe_sections.insitu_weight(arm)
    trained = {"site": weight > 0, "satellite": weight < 1}
    return tuple(head for head, is_trained in trained.items() if is_trained)


def ridge_url(root: str, fold: int) -> str:
    """URL of the linear baseline of a fold."""
    return files.join(root, "ridge", f"fold={fold_name(fold)}", "ridge.safetensors")


def save_ridge(root: str, fold: int, ridge: Ridge) -> None:
    """Write the linear baseline of a fold."""
    weights = {"weights": torch.from_numpy(ridge.weights)}
    files.write_bytes(
        ridge_url(root, fold), checkpoint.pack_safetensors(weights, {"penalty": ridge.penalty})
    )


def load_ridge(root: str, fold: int) -> Ridge:
    """The linear baseline of a fold."""
    tensors, values = _decoded(ridge_url(root, fold), checkpoint.unpack_safetensors)
    return Ridge(tensors["weights"].numpy(), values["penalty"])


def check_models(
    experiment: Experiment, workspace: Workspace
) -> tuple[str, dict[str, list[TrainedModel]]]:
    """Load the models that are to predict: their folder, and the members of every arm.

    Raises:
      SoilweaveError: there are none, or they are not of the experiment's target.
    """
    root, _ = source(experiment, workspace)
    members: dict[str, list[TrainedModel]] = {arm: ensemble(root, arm) for arm in experiment.arms}
    problems = [
        f"{arm} predicts {ensemble[0].origin['target']}, the experiment wants {experiment.target}"
        for arm, ensemble in members.items()
        if ensemble[0].origin["target"] != experiment.target
    ]
    if problems:
        raise ConfigError(f"models {root}", *problems, remedy="name other models")
    return root, members


def check_inputs(
    root: str,
    members: dict[str, list[TrainedModel]],
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
