"""One worker of a Ray Train run: trains its share of the models, saving as it goes."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model import checkpoint
from model.checkpoint import Trained
from model.fit import Fitting
from model.ridge import fitted
from pipeline import cluster, files, models, tables

if TYPE_CHECKING:
    from model.recipe import Job
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
    for job in shares[context.get_world_rank()]:
        train_model(orders, job, packed, device)


def train_model(orders: Orders, job: Job, packed: Packed, device: str) -> None:
    """Train one model from where it was left, and save it."""
    experiment, folder = orders.experiment, models.folder(orders.root, job)
    data = packed.data(job, experiment.folds.buffer_km, device)
    fitting = Fitting(experiment.recipe_sections, job, data, orders.updates)
    progress = files.join(folder, "progress.safetensors")
    _resume(fitting, progress)
    while not fitting.done:
        before = fitting.step
        fitting.advance(experiment.compute.checkpoint_every_updates)
        if not fitting.done:
            files.write_bytes(progress, checkpoint.pack(*fitting.state()))
        cluster.tell(orders.queue, fitting.step - before)
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
        trainable = data.trainable.cpu().numpy()
        linear = fitted(packed.sites("cpu"), packed.learn_insitu, trainable, packed.fold)
    trained = Trained(
        fitting.network, data.features, data.scaler, data.target, heads, origin, linear
    )
    _write_history(files.join(folder, "history.parquet"), fitting)
    files.write_bytes(models.checkpoint_url(orders.root, job), checkpoint.save(trained))
    files.remove(progress)


def _agreed(root: str, every: list[Job], rank: int) -> list[Job]:
    """The unfinished models, as rank 0 lists them once for all: later listings may differ."""
    from ray.train.collective import broadcast_from_rank_zero

    left = set(models.unfinished(root, every)) if rank == 0 else set()
    bits = "1" + "".join("01"[job in left] for job in every)
    agreed = bin(int(broadcast_from_rank_zero(hex(int(bits, 2))), 16))[3:]
    return [job for job, bit in zip(every, agreed, strict=True) if bit == "1"]


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
