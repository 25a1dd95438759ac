"""Stage `train`: read the cube and the folds, train every model, write models/ and sites.parquet.

Models are many, small and independent: one for each arm, fold and seed. Ray Train starts the
workers, and each worker takes one group of models after the other from a queue (`worker.py`).
Training data are packed once and shared by all workers of a node through Ray's object store.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import uuid
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from model.device import models_side_by_side
from pipeline import failures, files
from pipeline.catalog import preflight
from pipeline.cluster import ray_cluster, resources, turns
from pipeline.errors import ConfigError, SoilweaveError, TrainingError
from pipeline.storage import artefacts, ensemble, models, schema, tables
from pipeline.storage.cube import Cube
from pipeline.train import predict_sites, training_data, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ray.train import TrainingFailedError

    from model.recipe import ModelKey
    from pipeline.experiment.config import Experiment
    from pipeline.progress import Progress
    from pipeline.storage.artefacts import Workspace
    from pipeline.train.training_data import PackedData


RUN_PREFIX = ".train-"  # of Ray Train's folder in models/, which is removed after the run
MAX_FAILURES = 8  # lost workers or nodes that a run survives
# Seconds that workers wait for one another at the start. Ray's default of half an hour would be
# lost if a node went away just then.
PROCESS_GROUP_S = 300


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
    cube = Cube.open(url).within(experiment.period)
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
    nodes = run_workers(experiment, root, identity, packed, updates, progress)
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


def list_groups(experiment: Experiment, packed: PackedData, device: str) -> list[list[ModelKey]]:
    """List the groups of models that a worker trains together, the most expensive ones first.

    They follow from the experiment and the kind of device alone, and not from the number of workers
    or from what is finished: on a CPU a single model, on a GPU as many models of an arm as its
    memory allows, but with groups enough for all GPUs that the experiment declares.
    """
    all_models = models.list_models(experiment, packed.fold)
    costs = update_costs(experiment, packed)
    groups: list[list[ModelKey]] = []
    for arm in experiment.arms:
        of_arm, most = [key for key in all_models if key.arm == arm], 1
        if device == "cuda":
            most = models_side_by_side(packed.model_bytes(experiment.recipe_sections, arm))
            n_groups = -(-(experiment.compute.gpus or 1) // len(experiment.arms))  # at least
            most = min(most, -(-len(of_arm) // n_groups))
        groups += models.split_evenly(of_arm, most)
    return sorted(groups, key=lambda group: -len(group) * costs[group[0].arm])


def update_costs(experiment: Experiment, packed: PackedData) -> dict[str, float]:
    """Return the relative cost of an update, by arm: the number of sequences that it runs."""
    recipe, cells = experiment.recipe_sections, packed.cells_per_footprint
    return {arm: recipe.sequences(arm, cells) for arm in experiment.arms}


def run_workers(
    experiment: Experiment,
    root: str,
    identity: str,
    packed: PackedData,
    updates: int,
    progress: Progress,
) -> Counter[str]:
    """Run Ray Train over the unfinished models of the URL `root`.

    Returns the number of updates made on each node. A worker's error that a user can correct is
    raised as it is, any other as Ray Train's TrainingFailedError.
    """
    with ray_cluster.connected():
        import ray

        workers = resources.wait_for_workers(experiment.compute, progress)
        device = "cuda" if workers.on_gpus else "cpu"
        groups = [
            group
            for group in list_groups(experiment, packed, device)
            if models.unfinished_models(root, group)
        ]
        with ray_cluster.progress_queue(progress) as reported:
            spec = worker.TrainSpec(experiment, root, identity, updates, reported.queue)
            queue = turns.start(len(groups))
            function = partial(worker.train_groups, spec, ray.put(packed), groups, queue, device)
            _fit(function, root, min(len(groups), workers.count), workers.resources)
    return reported.nodes


def _remove_run_folders(root: str) -> None:
    """Remove Ray Train's own folders in models/, also those of a run that was killed.

    No other run can be using them, because this one holds the lease on the workspace.
    """
    for name in files.list_folder(root):
        if name.startswith(RUN_PREFIX):
            files.remove(files.join(root, name))


def _fit(
    function: Callable[[], None], root: str, n_workers: int, per_worker: dict[str, float]
) -> None:
    """Run a function on a group of Ray Train's workers until each of them has returned.

    The group may shrink to one worker if nodes are lost.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    filesystem, path = files.arrow_filesystem(files.make_absolute(root))
    _remove_run_folders(root)
    trainer = TorchTrainer(
        function,
        torch_config=TorchConfig(timeout_s=PROCESS_GROUP_S),
        scaling_config=ScalingConfig(
            # mypy takes this for the class of the same name in Ray Train v1.
            num_workers=(1, n_workers),  # type: ignore[arg-type]
            use_gpu="GPU" in per_worker,
            resources_per_worker=per_worker,
        ),
        run_config=RunConfig(
            name=f"{RUN_PREFIX}{uuid.uuid4().hex[:8]}",
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
        _remove_run_folders(root)


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
        if error.code:  # not Ray Train's exit: SIGTERM, as `run_stages` turns it into SystemExit
            raise
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, previous)


def _worker_error(error: TrainingFailedError) -> Exception:
    """Return the error of a worker, as one of ours if a user can correct it."""
    raised = [*getattr(error, "worker_failures", {}).values()]
    raised += [e] if (e := getattr(error, "controller_failure", None)) is not None else []
    for each in raised:
        for link in failures.chain(each):
            if isinstance(link, SoilweaveError):
                return link
    for each in raised:
        found = failures.explain(each)
        if found.known:
            return TrainingError("a worker of Ray Train", found.reason, remedy=found.remedy)
    return raised[0] if raised else error


def _object_keys(experiment: Experiment, root: str, all_models: list[ModelKey]) -> Iterator[str]:
    """Yield the key of every object of the artefact."""
    for key in all_models:
        folder = models.model_folder("", key).lstrip("/")
        yield f"{folder}/checkpoint.safetensors"
        yield f"{folder}/history.parquet"
    yield from (f"{arm}/calibration.json" for arm in experiment.arms)
    yield from models.list_ridges(root)
    yield "attributes.json"
