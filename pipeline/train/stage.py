"""Stage `train`: read the cube and the folds, train every model, write models/ and sites.parquet.

Models are many, small and independent: one for each arm, fold and seed. Ray Train starts the
workers, and each worker trains its share of the models (`work`). Training data are packed once and
shared by all workers of a node through Ray's object store. The models exchange nothing while they
train, so `ray.train.report` is not used: each checkpoint is written to the workspace.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import uuid
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from model import checkpoint, stacked_trainer
from model.checkpoint import TrainedModel
from model.ridge import fit_ridge
from model.stacked_trainer import StackedTrainer
from model.trainer import DivergedError, Trainer
from pipeline import files
from pipeline.catalog import preflight
from pipeline.cluster import ray_cluster
from pipeline.errors import ConfigError, SoilweaveError, TrainingError
from pipeline.storage import artefacts, ensemble, models, schema, tables
from pipeline.storage.cube import Cube
from pipeline.storage.ensemble import join_names
from pipeline.train import predict_sites, training_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ray.train.v2.api.config import ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from model.recipe import ModelKey
    from model.sampling import TrainingData
    from model.trainer import Divergence
    from pipeline.experiment.config import Experiment
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace
    from pipeline.train.training_data import PackedData


log = logging.getLogger(__name__)
MAX_FAILURES = 8  # lost workers or nodes that a run survives


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Train the models that are missing, then predict at the sites and calibrate.

    Raises:
      SoilweaveError: If the recipe does not fit the cube, the workspace cannot be used, or models
        could not be trained; the other models are kept.
    """
    if experiment.models is not None:
        progress.start("train", 0, "models")
        progress.finish(f"nothing to train: the models of {experiment.models} are used")
        return
    artefact = workspace.artefact("models")
    url, digest = Cube.source(experiment, workspace)
    folds = workspace.artefact("folds").digest(experiment)
    inputs = schema.identity(experiment, "models", cube=digest, folds=folds)
    if experiment.folds.drop_footprints:
        inputs["judging.max_footprint_km"] = experiment.judging.max_footprint_km
    all_models = models.list_workspace_models(workspace, experiment)
    if not artefact.claim(inputs, overwrite, progress):
        progress.start("train", len(all_models), "models")
        progress.finish(f"{len(all_models)} models complete")
        return
    preflight.check_judging(experiment)
    cube = Cube.open(url)
    fold_table = tables.read_table(workspace.url("folds.parquet"))
    packed = training_data.pack_data(experiment, cube, fold_table)
    _check_trainable(experiment, packed, all_models)
    root = workspace.url("models")
    artefact.begin(inputs)
    workspace.describe(experiment)
    updates = updates_per_model(experiment, packed)
    identity = files.sha256_of_json(artefact.recorded(inputs))
    nodes = _train_unfinished(experiment, root, identity, packed, updates, all_models, progress)
    outliers = predict_sites.write_predictions(experiment, workspace, cube, packed)
    keys = _object_keys(experiment, root, all_models)
    shards = [artefacts.shard_record(root, key) for key in keys]
    names = predict_sites.PREDICTION_TABLES
    site_tables = [artefacts.shard_record(workspace.root, name) for name in names]
    record = {"features": packed.features.names} | (
        {"unlike_members": outliers} if outliers else {}
    )
    site_tables = [table for table in site_tables if table["size"]]
    artefact.commit(inputs, shards, updates=updates, nodes=nodes, tables=site_tables, **record)
    for member in outliers:
        progress.note(f"warning: {ensemble.outlier_warning(member)}")
    warning = f"; members unlike the others: {len(outliers)}" if outliers else ""
    progress.finish(f"{len(all_models)} models of {updates} updates{warning}")


def _train_unfinished(
    experiment: Experiment,
    root: str,
    identity: str,
    packed: PackedData,
    updates: int,
    all_models: list[ModelKey],
    progress: Progress,
) -> Counter[str]:
    """Train the unfinished models; return the number of updates made on each node.

    Raises:
      TrainingError: If models could not be trained; it names them, and why.
    """
    unfinished = models.unfinished_models(root, all_models)
    progress.start("train", len(unfinished) * updates, "updates")
    if not unfinished:
        return Counter()
    for key in unfinished:
        files.remove(models.failure_url(root, key))
    nodes = run_workers(experiment, root, identity, packed, updates, len(unfinished), progress)
    if problems := models.read_failures(root, unfinished):
        raise TrainingError(root, *problems, remedy=ensemble.divergence_hint(experiment.train))
    return nodes


def _check_trainable(
    experiment: Experiment, packed: PackedData, all_models: list[ModelKey]
) -> None:
    """Check that every model has data to learn from.

    Raises:
      ConfigError: If a fold leaves no training sites, or no footprints with values; all such folds
        are named.
    """
    buffer_km = experiment.folds.buffer_km
    missing = [
        (fold, "footprint")
        for fold in sorted({key.fold for key in all_models if key.arm != "insitu"})
        if not len(packed.training_footprints(fold))
    ]
    missing += [
        (fold, "site")
        for fold in sorted({key.fold for key in all_models if key.arm != "satellite"})
        if not len(packed.training_sites(fold, buffer_km))
    ]
    problems = [
        f"fold {models.fold_name(fold)} has no {places} to train on" for fold, places in missing
    ]
    if problems:
        hint = "widen train_period or the domain, or change the folds"
        raise ConfigError(f"experiment {experiment.name}", *problems, remedy=hint)


def updates_per_model(experiment: Experiment, packed: PackedData) -> int:
    """Return the number of updates of a model, from the number of places and days it draws from."""
    n_footprints, n_sites = len(packed.members), len(packed.site_ids)
    return models.updates_per_model(experiment, n_footprints, n_sites, packed.n_days)


def update_costs(experiment: Experiment, packed: PackedData) -> dict[str, float]:
    """Return the relative cost of an update, by arm: the number of sequences that it runs."""
    sampling = experiment.train
    cells = 1.0 if sampling.footprint_operator == "inputs" else (packed.members >= 0).sum(1).mean()
    satellite = sampling.footprints_per_step * float(cells)
    return {
        "multiscale": satellite + sampling.sites_per_step,
        "insitu": float(sampling.sites_per_step),
        "satellite": satellite,
    }


def run_workers(
    experiment: Experiment,
    root: str,
    identity: str,
    packed: PackedData,
    updates: int,
    n_models: int,
    progress: Progress,
) -> Counter[str]:
    """Run Ray Train over the `n_models` unfinished models of the URL `root`.

    Returns the number of updates made on each node. A worker's error that a user can correct is
    raised as it is, any other as Ray Train's TrainingFailedError.
    """
    with ray_cluster.connected():
        import ray
        from ray.train import FailureConfig, RunConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError

        filesystem, path = files.arrow_filesystem(files.make_absolute(root))
        run_name = f".train-{uuid.uuid4().hex[:8]}"
        with ray_cluster.progress_queue(progress) as reported:
            spec = TrainSpec(
                experiment,
                root,
                identity,
                updates,
                update_costs(experiment, packed),
                ray.put(packed),
                reported.queue,
            )
            trainer = DataParallelTrainer(
                partial(train_share, spec),
                scaling_config=_scaling_config(experiment, n_models),
                run_config=RunConfig(
                    name=run_name,
                    storage_path=path,
                    storage_filesystem=filesystem,
                    failure_config=FailureConfig(max_failures=MAX_FAILURES),
                ),
            )
            try:
                with sigint_as_interrupt():
                    trainer.fit()
            except TrainingFailedError as error:
                raise _worker_error(error) from error
            finally:
                files.remove(files.join(root, run_name))
    return reported.nodes


@contextlib.contextmanager
def sigint_as_interrupt() -> Iterator[None]:
    """Let SIGINT (Ctrl-C) end the block as KeyboardInterrupt, and restore its handler afterwards.

    Ray Train 2.60 sets a handler of its own, which ends the process with status 0, as if training
    had completed, and does not remove it.
    """
    previous = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, previous)


def _scaling_config(experiment: Experiment, n_models: int) -> ScalingConfig:
    """Return the size of the worker group: one worker per GPU, or per `threads_per_worker` CPUs.

    The group may shrink to one worker if nodes are lost.
    """
    import ray
    from ray.train.v2.api.config import ScalingConfig

    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    threads = experiment.compute.threads_per_worker
    gpus = int(resources.get("GPU", 0))
    workers = min(n_models, gpus or max(1, int(resources.get("CPU", 1)) // threads))
    per_worker = {"GPU": 1.0, "CPU": 1.0} if gpus else {"CPU": float(threads)}
    return ScalingConfig(
        num_workers=(1, workers), use_gpu=gpus > 0, resources_per_worker=per_worker
    )


def _worker_error(error: TrainingFailedError) -> Exception:
    """Return the worker's own error if a user can correct it, else Ray Train's error."""
    failures = getattr(error, "worker_failures", {}).values()
    return next((e for e in failures if isinstance(e, SoilweaveError)), error)


def _object_keys(experiment: Experiment, root: str, all_models: list[ModelKey]) -> Iterator[str]:
    """Yield the key of every object of the artefact."""
    for key in all_models:
        folder = models.model_folder("", key).lstrip("/")
        yield f"{folder}/checkpoint.safetensors"
        yield f"{folder}/history.parquet"
    yield from (f"{arm}/calibration.json" for arm in experiment.arms)
    yield from models.list_ridges(root)
    yield "attributes.json"


@dataclass(frozen=True)
class TrainSpec:
    """What every worker of a run needs to train models.

    Attributes:
      experiment: The resolved experiment.
      root: URL of models/.
      identity: Digest of the settings and artefacts that the models are made from.
      updates: Number of updates of every model.
      costs: Relative cost of an update, by arm.
      packed: Reference to the training data in Ray's object store: one copy per node.
      queue: Receives the number of updates made, for progress; None reports nothing.
    """

    experiment: Experiment
    root: str
    identity: str
    updates: int
    costs: dict[str, float]
    packed: Any
    queue: Any


def train_share(spec: TrainSpec) -> None:
    """Train this worker's share of the unfinished models; Ray Train calls it on every worker.

    After a worker is lost, Ray Train calls it again in a group of any size, and training continues
    from what was saved. The random numbers of a model depend on (seed, fold, step) alone, so its
    result does not depend on which worker trains it, nor on interruptions.
    """
    import ray
    import ray.train
    import torch

    torch.set_num_threads(spec.experiment.compute.threads_per_worker)
    context = ray.train.get_context()
    packed: PackedData = ray.get(spec.packed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    all_models = models.list_models(spec.experiment, packed.fold)
    unfinished = _agree_unfinished(spec.root, all_models, context.get_world_rank())
    shares = models.distribute_models(unfinished, spec.costs, context.get_world_size())
    share = shares[context.get_world_rank()]
    most = stacked_trainer.MAX_STACKED_MODELS if device == "cuda" else 1
    data: TrainingData | None = None
    for team in models.group_models(share, most):
        data = train_models(spec, team, packed, device, data)


def _agree_unfinished(root: str, all_models: list[ModelKey], rank: int) -> list[ModelKey]:
    """Return the unfinished models, as worker 0 lists them.

    Every worker uses the same list, because a worker that lists them later may see other models.
    """
    from ray.train.collective import broadcast_from_rank_zero

    unfinished = set(models.unfinished_models(root, all_models)) if rank == 0 else set()
    # Ray broadcasts no more than 1 kB, so each model is one bit.
    own_bits = np.packbits([key in unfinished for key in all_models]).tobytes()
    agreed_bytes = np.frombuffer(broadcast_from_rank_zero(own_bits), np.uint8)
    is_unfinished = np.unpackbits(agreed_bytes, count=len(all_models))
    return [key for key, bit in zip(all_models, is_unfinished, strict=True) if bit]


def train_models(
    spec: TrainSpec,
    team: Sequence[ModelKey],
    packed: PackedData,
    device: str,
    like: TrainingData | None = None,
) -> TrainingData:
    """Train models of one arm from where they stopped, and save them.

    Several models are trained side by side, which is faster on a GPU; on a CPU, each worker trains
    one at a time. A model that diverges, or predicts nothing, is not saved;
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
    trainers = []
    for model_key in team:
        like = packed.data(model_key, spec.experiment.folds.buffer_km, device, like)
        recipe = spec.experiment.recipe_sections
        trainers.append(Trainer(recipe, model_key, like, spec.updates))
        _restore_progress(trainers[-1], _progress_url(spec, model_key))
    trainers.sort(key=lambda trainer: trainer.step)
    for _, same_step in groupby(trainers, lambda trainer: trainer.step):
        for trainer in _train_to_end(spec, list(same_step), packed):
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
    stacked = StackedTrainer(trainers) if len(trainers) > 1 else first
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
