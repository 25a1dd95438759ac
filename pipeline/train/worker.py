"""What Ray Train runs on every worker: train groups of models and save them.

The models exchange nothing while they train, so `ray.train.report` is not used: each checkpoint is
written to the workspace.
"""

from __future__ import annotations

import itertools
import logging
import uuid
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from model import checkpoint
from model.checkpoint import TrainedModel
from model.device import models_side_by_side
from model.ridge import fit_ridge
from model.stacked_trainer import StackedTrainer
from model.trainer import DivergedError, Trainer
from pipeline import files
from pipeline.cluster import ray_cluster
from pipeline.storage import ensemble, models, tables
from pipeline.storage.ensemble import join_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from model.recipe import ModelKey
    from model.sampling import TrainingData
    from model.trainer import Divergence
    from pipeline.experiment.config import Experiment
    from pipeline.train.training_data import PackedData


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSpec:
    """What every worker of a run needs to train models.

    Attributes:
      experiment: The resolved experiment.
      root: URL of models/.
      identity: Digest of the settings and artefacts that the models are made from.
      updates: Number of updates of every model.
      queue: Receives the number of updates made and points of training curves, for progress; None
        reports nothing.
    """

    experiment: Experiment
    root: str
    identity: str
    updates: int
    queue: Any


def train_groups(
    spec: TrainSpec, packed_ref: Any, groups: list[list[ModelKey]], queue: Any, device: str
) -> None:
    """Train groups of models from a queue until none is left; Ray Train calls it on every worker.

    After a worker is lost, Ray Train calls it again in a group of workers of any size, and training
    continues from what was saved. The random numbers of a model depend on (seed, fold, step) alone,
    so its result does not depend on which worker trains it, nor on interruptions.

    Args:
      spec: What every worker of the run needs.
      packed_ref: Reference to the training data in Ray's object store: one copy per node.
      groups: The groups of models.
      queue: The queue that hands out their numbers, see pipeline/cluster/turns.py.
      device: "cpu" or "cuda".
    """
    import ray
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    torch.set_num_threads(spec.experiment.compute.cpus_per_worker)
    packed: PackedData = ray.get(packed_ref)
    attempt: str = broadcast_from_rank_zero(uuid.uuid4().hex)
    rank, turns = ray.train.get_context().get_world_rank(), itertools.count()

    def take() -> list[ModelKey]:
        number = ray.get(queue.take.remote(attempt, rank, next(turns)))
        return [] if number is None else groups[number]

    train_from_queue(spec, packed, take, device)


def train_from_queue(
    spec: TrainSpec, packed: PackedData, take: Callable[[], list[ModelKey]], device: str
) -> None:
    """Train the unfinished models of every group that `take` returns, until it returns none.

    Which models are finished is seen in the workspace. Those of a group that are not yet finished
    are trained together, as long as they are at the same step (see `train_models`).
    """
    data: TrainingData | None = None
    while group := take():
        if unfinished := models.unfinished_models(spec.root, group):
            data = train_models(spec, unfinished, packed, device, data)


def train_models(
    spec: TrainSpec,
    team: Sequence[ModelKey],
    packed: PackedData,
    device: str,
    like: TrainingData | None = None,
) -> TrainingData:
    """Train models of one arm from where they stopped, and save them.

    Models are trained side by side, as many as this GPU has memory for; on a CPU, each worker
    trains one at a time. A model that diverges, or predicts nothing, is not saved;
    `models.read_failures` says why.

    Args:
      spec: What every worker of the run needs.
      team: The models, all of one arm.
      packed: The training data.
      device: "cpu" or "cuda".
      like: Data of another model on the same device, to share arrays with.

    Returns:
      The data of the last model, to share arrays with the next team.
    """
    trainers, recipe = [], spec.experiment.recipe_sections
    for model_key in team:
        like = packed.data(model_key, spec.experiment.folds.buffer_km, device, like)
        trainers.append(Trainer(recipe, model_key, like, spec.updates))
        trainers[-1].on_point = partial(ray_cluster.report_point, spec.queue)
        _restore_progress(trainers[-1], _progress_url(spec, model_key))
    trainers.sort(key=lambda trainer: trainer.step)
    most = models_side_by_side(packed.model_bytes(recipe, team[0].arm), device)
    for _, same_step in itertools.groupby(trainers, lambda trainer: trainer.step):
        for together in models.split_evenly(list(same_step), most):
            for trainer in _train_or_split(spec, together, packed):
                _save_model(spec, trainer, packed)
    assert like is not None
    return like


def _restore_progress(trainer: Trainer, progress_url: str) -> None:
    """Restore a model's saved state; a damaged state is ignored, so the model starts again."""
    try:
        trainer.restore(*checkpoint.unpack_safetensors(files.read_bytes(progress_url)))
    except FileNotFoundError:
        return
    except ValueError as error:
        log.warning("%s is damaged; the model is trained from the start: %s", progress_url, error)


def _progress_url(spec: TrainSpec, key: ModelKey) -> str:
    """Return the URL of the state that an unfinished model continues from."""
    return files.join(models.model_folder(spec.root, key), "progress.safetensors")


def _train_or_split(spec: TrainSpec, trainers: list[Trainer], packed: PackedData) -> list[Trainer]:
    """Train models that are at the same step, half of them at a time if memory does not suffice.

    Returns those that reach their last update.
    """
    try:
        return _train_to_end(spec, trainers, packed)
    except torch.OutOfMemoryError:
        if len(trainers) == 1:
            raise
    # The error is gone here, and with it what it held on the GPU.
    log.warning("%d models do not fit into the GPU's memory; half at a time", len(trainers))
    halves = models.split_evenly(trainers, -(-len(trainers) // 2))
    return [trainer for half in halves for trainer in _train_or_split(spec, half, packed)]


def _train_to_end(spec: TrainSpec, trainers: list[Trainer], packed: PackedData) -> list[Trainer]:
    """Train models that are at the same step; return those that reach their last update."""
    while trainers and not trainers[0].done:
        trainers = _train_until_divergence(spec, trainers, packed)
    return trainers


def _train_until_divergence(
    spec: TrainSpec, trainers: list[Trainer], packed: PackedData
) -> list[Trainer]:
    """Train to the last update or until some models diverge, saving the state regularly.

    Returns the models that have not diverged.
    """
    first, healthy = trainers[0], trainers
    diverged: set[ModelKey] = set()
    # On a GPU, a single model too is trained faster as a group of one.
    alone = len(trainers) == 1 and first.device != "cuda"
    stacked = first if alone else StackedTrainer(trainers)
    while not first.done and not diverged:
        before = first.step
        try:
            stacked.advance(spec.experiment.compute.checkpoint_every_updates)
        except DivergedError as error:
            for divergence in error.divergences:
                _record_failure(spec, divergence.job, describe_divergence(divergence, packed))
                diverged.add(divergence.job)
        healthy = [trainer for trainer in trainers if trainer.job not in diverged]
        for trainer in healthy if not first.done else ():
            files.write_bytes(
                _progress_url(spec, trainer.job), checkpoint.pack_safetensors(*trainer.state())
            )
        ray_cluster.report_progress(spec.queue, len(healthy) * (first.step - before))
    return healthy


def _record_failure(spec: TrainSpec, key: ModelKey, problem: str) -> None:
    """Log and record why a model is not saved."""
    log.error("%s", problem)
    files.write_json(models.failure_url(spec.root, key), {"problem": problem})


def describe_divergence(divergence: Divergence, packed: PackedData) -> str:
    """Return a sentence on a model that diverged: step, quantity and the places of the batch."""
    update, quantity = divergence.fault
    verb = "are" if quantity == "weights" else "is"
    sites = [packed.site_ids[i] for i in divergence.sites]
    footprints = [
        f"{row},{col}" for row, col in packed.footprints[list(divergence.footprints)].tolist()
    ]
    batch = [join_names("sites", sites), join_names("footprints (row,column)", footprints)]
    return (
        f"{models.model_name(divergence.job)}: the {quantity} {verb} not finite at step {update} "
        f"of {divergence.updates}, whose batch has {' and '.join(part for part in batch if part)}"
    )


def _save_model(spec: TrainSpec, trainer: Trainer, packed: PackedData) -> None:
    """Write a trained model and its training history, unless its predictions are not usable."""
    experiment, key, data = spec.experiment, trainer.job, trainer.data
    origin = {
        "arm": key.arm,
        "fold": models.fold_name(key.fold),
        "seed": key.seed,
        "updates": spec.updates,
        "target": experiment.target,
        "units": experiment.table[experiment.target].units,
        "inputs_sha256": spec.identity,
        "recipe": experiment.recipe_sections.model_dump(mode="json"),
        "training_sites": [packed.site_ids[i] for i in data.trainable.tolist()],
    }
    heads = models.trained_heads(experiment, key.arm)
    linear = None
    if experiment.network.linear_weight > 0 and "site" in heads:
        sites, observed = packed.sites("cpu"), packed.learn_insitu
        linear = fit_ridge(sites, observed, data.trainable, packed.fold, packed.place)
    trained = TrainedModel(
        trainer.network, data.features, data.scaler, data.target, heads, origin, linear
    )
    if problems := ensemble.check_model(key, trained, data):
        return _record_failure(spec, key, problems[0])
    _write_history(files.join(models.model_folder(spec.root, key), "history.parquet"), trainer)
    files.write_bytes(models.checkpoint_url(spec.root, key), checkpoint.model_to_bytes(trained))
    files.remove(_progress_url(spec, key))
    files.remove_parts(models.model_folder(spec.root, key))


def _write_history(url: str, trainer: Trainer) -> None:
    """Write loss and other quantities of a model by step."""
    import pandas as pd

    tables.write_table(url, pd.DataFrame(trainer.history))
