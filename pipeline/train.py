"""Train every model of an experiment: cube.zarr, folds -> models/.

Ray Train deals the models to its workers. The data are packed once and shared by all workers of a
node through Ray's object store. There is no collective between the models, and no
`ray.train.report`: checkpoints go through the workspace, model by model.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import uuid
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from pipeline import (
    cluster,
    files,
    models,
    outcome,
    packing,
    precheck,
    schema,
    soundness,
    store,
    tables,
    worker,
)
from pipeline.cube import Cube
from pipeline.errors import ConfigError, SoilweaveError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ray.train.v2.api.config import ScalingConfig
    from ray.train.v2.api.exceptions import TrainingFailedError

    from model.recipe import Job
    from pipeline.config import Experiment
    from pipeline.packing import Packed
    from pipeline.progress import Progress
    from pipeline.store import Workspace

MAX_FAILURES = 8  # lost workers or nodes that a run survives


def run(
    experiment: Experiment, workspace: Workspace, progress: Progress, overwrite: bool = False
) -> None:
    """Train what is not trained yet, then predict at the sites and calibrate.

    Raises:
      SoilweaveError: the recipe does not fit the cube, the workspace cannot be used, or models
        could not be trained; all others are kept then.
    """
    if experiment.models is not None:
        progress.start("train", 0, "models")
        progress.finish(f"nothing: the models of {experiment.models} are used")
        return
    artefact = workspace.artefact("models")
    url, digest = Cube.source(experiment, workspace)
    folds = workspace.artefact("folds").digest(experiment)
    inputs = schema.identity(experiment, "models", cube=digest, folds=folds)
    if experiment.folds.drop_footprints:
        inputs["judging.max_footprint_km"] = experiment.judging.max_footprint_km
    every = models.jobs_in(workspace, experiment)
    if not artefact.claim(inputs, overwrite, progress):
        progress.start("train", len(every), "models")
        progress.finish(f"{len(every)} models complete")
        return
    precheck.of_judging(experiment)
    cube = Cube.open(url)
    packed = packing.pack(experiment, cube, tables.read(workspace.url("folds.parquet")))
    _check(experiment, packed, every)
    root = workspace.url("models")
    artefact.begin(inputs)
    workspace.describe(experiment)
    updates = updates_per_model(experiment, packed)
    identity = files.sha256_of(artefact.recorded(inputs))
    nodes = _train(experiment, root, identity, packed, updates, every, progress)
    unlike = outcome.write(experiment, workspace, cube, packed)
    shards = [store.record(root, key) for key in _keys(experiment, every)]
    beside = [store.record(workspace.root, name) for name in outcome.TABLES]
    artefact.commit(
        inputs,
        shards,
        updates=updates,
        nodes=nodes,
        features=packed.features.names,
        tables=[table for table in beside if table["size"]],
        **({"unlike_members": unlike} if unlike else {}),
    )
    for member in unlike:
        progress.note(f"warning: {soundness.odd(member)}")
    warned = f"; unlike the other members: {len(unlike)}" if unlike else ""
    progress.finish(f"{len(every)} models of {updates} updates{warned}")


def _train(
    experiment: Experiment,
    root: str,
    identity: str,
    packed: Packed,
    updates: int,
    every: list[Job],
    progress: Progress,
) -> Counter[str]:
    """Train the models that are not trained to their end; returns the updates made on each node.

    Raises:
      TrainingError: naming the models that could not be trained, and why.
    """
    todo = models.unfinished(root, every)
    progress.start("train", len(todo) * updates, "updates")
    if not todo:
        return Counter()
    for job in todo:
        files.remove(models.failure_url(root, job))
    nodes = fit(experiment, root, identity, packed, updates, len(todo), progress)
    if failed := models.failures(root, todo):
        raise TrainingError(root, *failed, remedy=soundness.remedy(experiment.train))
    return nodes


def _check(experiment: Experiment, packed: Packed, every: list[Job]) -> None:
    """Every model must have something to learn from.

    Raises:
      ConfigError: naming the folds without training sites, or footprints without values.
    """
    buffer_km = experiment.folds.buffer_km
    lacking = [
        (fold, "footprint")
        for fold in sorted({job.fold for job in every if job.arm != "insitu"})
        if not len(packed.training_footprints(fold))
    ]
    lacking += [
        (fold, "site")
        for fold in sorted({job.fold for job in every if job.arm != "satellite"})
        if not len(packed.training_sites(fold, buffer_km))
    ]
    problems = [f"fold {models.fold_name(fold)} has no {of} to train on" for fold, of in lacking]
    if problems:
        remedy = "widen train_period or the domain, or deal the folds otherwise"
        raise ConfigError(f"experiment {experiment.name}", *problems, remedy=remedy)


def updates_per_model(experiment: Experiment, packed: Packed) -> int:
    """Updates of one model, from the places and days that it may draw from."""
    footprints, sites = len(packed.members), len(packed.site_ids)
    return models.updates_per_model(experiment, footprints, sites, packed.n_days)


def costs(experiment: Experiment, packed: Packed) -> dict[str, float]:
    """Relative cost of an update of each arm: the sequences it runs."""
    train = experiment.train
    inner = 1.0 if train.footprint_operator == "inputs" else (packed.members >= 0).sum(1).mean()
    satellite = train.footprints_per_step * float(inner)
    return {
        "multiscale": satellite + train.sites_per_step,
        "insitu": float(train.sites_per_step),
        "satellite": satellite,
    }


def fit(
    experiment: Experiment,
    root: str,
    identity: str,
    packed: Packed,
    updates: int,
    n_models: int,
    progress: Progress,
) -> Counter[str]:
    """Run Ray Train over the unfinished models; returns the updates made on each node."""
    with cluster.connected():
        import ray
        from ray.train import FailureConfig, RunConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError

        filesystem, path = files.arrow(files.absolute(root))
        run_name = f".train-{uuid.uuid4().hex[:8]}"
        with cluster.told(progress) as told:
            orders = worker.Orders(
                experiment,
                root,
                identity,
                updates,
                costs(experiment, packed),
                ray.put(packed),
                told.queue,
            )
            trainer = DataParallelTrainer(
                partial(worker.work, orders),
                scaling_config=_scaling(experiment, n_models),
                run_config=RunConfig(
                    name=run_name,
                    storage_path=path,
                    storage_filesystem=filesystem,
                    failure_config=FailureConfig(max_failures=MAX_FAILURES),
                ),
            )
            try:
                with interruptible():
                    trainer.fit()
            except TrainingFailedError as error:
                raise _cause(error) from error
            finally:
                files.remove(files.join(root, run_name))
    return told.nodes


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT ends the block as KeyboardInterrupt, and afterwards is what it was.

    Ray Train 2.60 sets a handler of its own, which ends the process with status 0, as if training
    had been completed, and leaves it behind.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _scaling(experiment: Experiment, n_models: int) -> ScalingConfig:
    """A worker per GPU, or per so many threads of a CPU; a lost node makes the group smaller."""
    import ray
    from ray.train.v2.api.config import ScalingConfig

    has = ray.cluster_resources()  # type: ignore[no-untyped-call]
    threads = experiment.compute.threads_per_worker
    gpus = int(has.get("GPU", 0))
    workers = min(n_models, gpus or max(1, int(has.get("CPU", 1)) // threads))
    each = {"GPU": 1.0, "CPU": 1.0} if gpus else {"CPU": float(threads)}
    return ScalingConfig(num_workers=(1, workers), use_gpu=gpus > 0, resources_per_worker=each)


def _cause(error: TrainingFailedError) -> Exception:
    """The worker's own error, where it is one a user can mend."""
    failures = getattr(error, "worker_failures", {}).values()
    return next((e for e in failures if isinstance(e, SoilweaveError)), error)


def _keys(experiment: Experiment, every: list[Job]) -> Iterator[str]:
    """Every object of the artefact."""
    for job in every:
        folder = models.folder("", job).lstrip("/")
        yield f"{folder}/checkpoint.safetensors"
        yield f"{folder}/history.parquet"
    yield from (f"{arm}/calibration.json" for arm in experiment.arms)
    yield "attributes.json"
