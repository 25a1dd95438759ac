"""One worker of a Ray Train run: trains its share of the models, saving as it goes.

Train every model of an experiment: cube.zarr, folds -> models/.

Ray Train deals the models to its workers. The data are packed once and shared by all workers of a
node through Ray's object store. There is no collective between the models, and no
`ray.train.report`: checkpoints go through the workspace, model by model.
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
from pipeline.storage.ensemble import _listed
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
    from pipeline.train.training_data import Packed


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainSpec:
    """What every worker of a run is told.

    `packed` is a reference into Ray's object store: one copy a node, mapped by all its workers.
    `updates` is the length of a model; `queue` takes the number of updates made, for progress.
    """

    experiment: Experiment
    root: str
    identity: str
    updates: int
    costs: dict[str, float]
    packed: Any
    queue: Any


def work(orders: TrainSpec) -> None:
    """Train this worker's share of whatever is unfinished; Ray Train calls it on every worker.

    Called anew in a group of any size after a loss, it goes on from what was saved: a model's
    draws depend on (seed, fold, step) alone, so who trains it, and in how many runs, changes
    nothing.
    """
    import ray
    import ray.train
    import torch

    torch.set_num_threads(orders.experiment.compute.threads_per_worker)
    context = ray.train.get_context()
    packed: Packed = ray.get(orders.packed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    every = models.jobs(orders.experiment, packed.fold)
    todo = _agreed(orders.root, every, context.get_world_rank())
    shares = models.deal(todo, orders.costs, context.get_world_size())
    share, most = (
        shares[context.get_world_rank()],
        stacked_trainer.MAX_STACKED_MODELS if device == "cuda" else 1,
    )
    like: TrainingData | None = None
    for team in models.teams(share, most):
        like = train_models(orders, team, packed, device, like)


def train_models(
    orders: TrainSpec,
    team: Sequence[ModelKey],
    packed: Packed,
    device: str,
    like: TrainingData | None = None,
) -> TrainingData:
    """Train models of one arm from where they were left, and save them; returns their data.

    Several are trained side by side, which pays on a GPU: a CPU's cores have a worker each. A model
    that cannot be trained, or predicts nothing, is not saved: `models.failures` says why.
    """
    fittings = []
    for job in team:
        like = packed.data(job, orders.experiment.folds.buffer_km, device, like)
        recipe = orders.experiment.recipe_sections
        fittings.append(Trainer(recipe, job, like, orders.updates))
        _resume(fittings[-1], _progress(orders, job))
    fittings.sort(key=lambda fitting: fitting.step)
    for _, alike in groupby(fittings, lambda fitting: fitting.step):
        for fitting in _advance(orders, list(alike), packed):
            _save(orders, fitting, packed)
    assert like is not None
    return like


def _advance(orders: TrainSpec, fittings: list[Trainer], packed: Packed) -> list[Trainer]:
    """Train models that are at one step; returns those that reach their end."""
    while fittings and not fittings[0].done:
        fittings = _until_failure(orders, fittings, packed)
    return fittings


def _until_failure(orders: TrainSpec, fittings: list[Trainer], packed: Packed) -> list[Trainer]:
    """Train, saving on the way, to the end or until some fail; returns those that have not."""
    first, left = fittings[0], fittings
    lost: set[ModelKey] = set()
    trained = StackedTrainer(fittings) if len(fittings) > 1 else first
    while not first.done and not lost:
        before = first.step
        try:
            trained.advance(orders.experiment.compute.checkpoint_every_updates)
        except DivergedError as error:
            for divergence in error.divergences:
                _fail(orders, divergence.job, describe_divergence(divergence, packed))
                lost.add(divergence.job)
        left = [fitting for fitting in fittings if fitting.job not in lost]
        for fitting in left if not first.done else ():
            files.write_bytes(
                _progress(orders, fitting.job), checkpoint.pack_safetensors(*fitting.state())
            )
        ray_cluster.report_progress(orders.queue, len(left) * (first.step - before))
    return left


def _fail(orders: TrainSpec, job: ModelKey, problem: str) -> None:
    """Record why a model is not saved."""
    log.error("%s", problem)
    files.write_json(models.failure_url(orders.root, job), {"problem": problem})


def _progress(orders: TrainSpec, job: ModelKey) -> str:
    return files.join(models.folder(orders.root, job), "progress.safetensors")


def _save(orders: TrainSpec, fitting: Trainer, packed: Packed) -> None:
    """Write a trained model, and what its training was like, if it predicts what it should."""
    experiment, job, data = orders.experiment, fitting.job, fitting.data
    origin = {
        "arm": job.arm,
        "fold": models.fold_name(job.fold),
        "seed": job.seed,
        "updates": orders.updates,
        "target": experiment.target,
        "units": experiment.table[experiment.target].units,
        "inputs_sha256": orders.identity,
        "recipe": experiment.recipe_sections.model_dump(mode="json"),
        "training_sites": [packed.site_ids[i] for i in data.trainable.tolist()],
    }
    heads = models.heads(experiment, job.arm)
    linear = None
    if experiment.network.linear_weight > 0 and "site" in heads:
        places, observed = packed.sites("cpu"), packed.learn_insitu
        linear = fit_ridge(places, observed, data.trainable, packed.fold, packed.place)
    trained = TrainedModel(
        fitting.network, data.features, data.scaler, data.target, heads, origin, linear
    )
    if problems := ensemble.examined(job, trained, data):
        return _fail(orders, job, problems[0])
    _write_history(files.join(models.folder(orders.root, job), "history.parquet"), fitting)
    files.write_bytes(models.checkpoint_url(orders.root, job), checkpoint.model_to_bytes(trained))
    files.remove(_progress(orders, job))
    files.remove_parts(models.folder(orders.root, job))


def _agreed(root: str, every: list[ModelKey], rank: int) -> list[ModelKey]:
    """The unfinished models, as rank 0 lists them once for all: later listings may differ."""
    from ray.train.collective import broadcast_from_rank_zero

    unfinished = set(models.unfinished(root, every)) if rank == 0 else set()
    # Ray broadcasts no more than 1 kB, so each model is one bit.
    own_bits = np.packbits([job in unfinished for job in every]).tobytes()
    agreed_bytes = np.frombuffer(broadcast_from_rank_zero(own_bits), np.uint8)
    is_unfinished = np.unpackbits(agreed_bytes, count=len(every))
    return [job for job, bit in zip(every, is_unfinished, strict=True) if bit]


def _resume(fitting: Trainer, progress: str) -> None:
    """Go on from what was saved, if there is anything whole."""
    try:
        fitting.restore(*checkpoint.unpack_safetensors(files.read_bytes(progress)))
    except FileNotFoundError:
        return
    except ValueError as error:
        log.warning("%s is damaged, the model starts anew: %s", progress, error)


def _write_history(url: str, fitting: Trainer) -> None:
    import pandas as pd

    tables.write(url, pd.DataFrame(fitting.history))


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
    preflight.check_judging(experiment)
    cube = Cube.open(url)
    packed = training_data.pack(experiment, cube, tables.read(workspace.url("folds.parquet")))
    _check(experiment, packed, every)
    root = workspace.url("models")
    artefact.begin(inputs)
    workspace.describe(experiment)
    updates = updates_per_model(experiment, packed)
    identity = files.sha256_of(artefact.recorded(inputs))
    nodes = _train(experiment, root, identity, packed, updates, every, progress)
    unlike = predict_sites.write(experiment, workspace, cube, packed)
    shards = [artefacts.record(root, key) for key in _keys(experiment, every)]
    beside = [artefacts.record(workspace.root, name) for name in predict_sites.TABLES]
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
        progress.note(f"warning: {ensemble.odd(member)}")
    warned = f"; unlike the other members: {len(unlike)}" if unlike else ""
    progress.finish(f"{len(every)} models of {updates} updates{warned}")


def _train(
    experiment: Experiment,
    root: str,
    identity: str,
    packed: Packed,
    updates: int,
    every: list[ModelKey],
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
        raise TrainingError(root, *failed, remedy=ensemble.remedy(experiment.train))
    return nodes


def _check(experiment: Experiment, packed: Packed, every: list[ModelKey]) -> None:
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
    with ray_cluster.connected():
        import ray
        from ray.train import FailureConfig, RunConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
        from ray.train.v2.api.exceptions import TrainingFailedError

        filesystem, path = files.arrow(files.absolute(root))
        run_name = f".train-{uuid.uuid4().hex[:8]}"
        with ray_cluster.progress_queue(progress) as told:
            orders = TrainSpec(
                experiment,
                root,
                identity,
                updates,
                costs(experiment, packed),
                ray.put(packed),
                told.queue,
            )
            trainer = DataParallelTrainer(
                partial(work, orders),
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


def _keys(experiment: Experiment, every: list[ModelKey]) -> Iterator[str]:
    """Every object of the artefact."""
    for job in every:
        folder = models.folder("", job).lstrip("/")
        yield f"{folder}/checkpoint.safetensors"
        yield f"{folder}/history.parquet"
    yield from (f"{arm}/calibration.json" for arm in experiment.arms)
    yield "attributes.json"


def describe_divergence(found: Divergence, packed: Packed) -> str:
    """A model that could not be trained further, with the places of the batch, in one sentence."""
    update, quantity = found.fault
    be = "are" if quantity == "weights" else "is"
    sites = [packed.site_ids[i] for i in found.sites]
    footprints = [f"{row},{col}" for row, col in packed.footprints[list(found.footprints)].tolist()]
    batch = [_listed("sites", sites), _listed("footprints (row,column)", footprints)]
    return (
        f"{models.name(found.job)}: the {quantity} {be} not finite at step {update} of "
        f"{found.updates}, whose batch has {' and '.join(part for part in batch if part)}"
    )
