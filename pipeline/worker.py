"""One worker of a Ray Train run: trains its share of the models, saving as it goes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from model import checkpoint, stack
from model.checkpoint import Trained
from model.divergence import DivergedError
from model.fit import Fitting
from model.ridge import fitted
from model.stack import Stack
from pipeline import cluster, files, models, soundness, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from model.recipe import Job
    from model.sampling import TrainingData
    from pipeline.config import Experiment
    from pipeline.packing import Packed

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Orders:
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


def work(orders: Orders) -> None:
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
    share, most = shares[context.get_world_rank()], stack.MOST if device == "cuda" else 1
    like: TrainingData | None = None
    for team in models.teams(share, most):
        like = train_models(orders, team, packed, device, like)


def train_models(
    orders: Orders,
    team: Sequence[Job],
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
        fittings.append(Fitting(recipe, job, like, orders.updates))
        _resume(fittings[-1], _progress(orders, job))
    fittings.sort(key=lambda fitting: fitting.step)
    for _, alike in groupby(fittings, lambda fitting: fitting.step):
        for fitting in _advance(orders, list(alike), packed):
            _save(orders, fitting, packed)
    assert like is not None
    return like


def _advance(orders: Orders, fittings: list[Fitting], packed: Packed) -> list[Fitting]:
    """Train models that are at one step; returns those that reach their end."""
    while fittings and not fittings[0].done:
        fittings = _until_failure(orders, fittings, packed)
    return fittings


def _until_failure(orders: Orders, fittings: list[Fitting], packed: Packed) -> list[Fitting]:
    """Train, saving on the way, to the end or until some fail; returns those that have not."""
    first, left = fittings[0], fittings
    lost: set[Job] = set()
    trained = Stack(fittings) if len(fittings) > 1 else first
    while not first.done and not lost:
        before = first.step
        try:
            trained.advance(orders.experiment.compute.checkpoint_every_updates)
        except DivergedError as error:
            for divergence in error.divergences:
                _fail(orders, divergence.job, soundness.diverged(divergence, packed))
                lost.add(divergence.job)
        left = [fitting for fitting in fittings if fitting.job not in lost]
        for fitting in left if not first.done else ():
            files.write_bytes(_progress(orders, fitting.job), checkpoint.pack(*fitting.state()))
        cluster.tell(orders.queue, len(left) * (first.step - before))
    return left


def _fail(orders: Orders, job: Job, problem: str) -> None:
    """Record why a model is not saved."""
    log.error("%s", problem)
    files.write_json(models.failure_url(orders.root, job), {"problem": problem})


def _progress(orders: Orders, job: Job) -> str:
    return files.join(models.folder(orders.root, job), "progress.safetensors")


def _save(orders: Orders, fitting: Fitting, packed: Packed) -> None:
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
        linear = fitted(places, observed, data.trainable, packed.fold, packed.place)
    trained = Trained(
        fitting.network, data.features, data.scaler, data.target, heads, origin, linear
    )
    if problems := soundness.examined(job, trained, data):
        return _fail(orders, job, problems[0])
    _write_history(files.join(models.folder(orders.root, job), "history.parquet"), fitting)
    files.write_bytes(models.checkpoint_url(orders.root, job), checkpoint.save(trained))
    files.remove(_progress(orders, job))


def _agreed(root: str, every: list[Job], rank: int) -> list[Job]:
    """The unfinished models, as rank 0 lists them once for all: later listings may differ."""
    from ray.train.collective import broadcast_from_rank_zero

    unfinished = set(models.unfinished(root, every)) if rank == 0 else set()
    # Ray broadcasts no more than 1 kB, so each model is one bit.
    own_bits = np.packbits([job in unfinished for job in every]).tobytes()
    agreed_bytes = np.frombuffer(broadcast_from_rank_zero(own_bits), np.uint8)
    is_unfinished = np.unpackbits(agreed_bytes, count=len(every))
    return [job for job, bit in zip(every, is_unfinished, strict=True) if bit]


def _resume(fitting: Fitting, progress: str) -> None:
    """Go on from what was saved, if there is anything whole."""
    try:
        fitting.restore(*checkpoint.unpack(files.read_bytes(progress)))
    except FileNotFoundError:
        return
    except ValueError as error:
        log.warning("%s is damaged, the model starts anew: %s", progress, error)


def _write_history(url: str, fitting: Fitting) -> None:
    import pandas as pd

    tables.write(url, pd.DataFrame(fitting.history))
