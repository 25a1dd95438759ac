"""The workers of a stage: those that the experiment declares, or as many as the cluster holds.

A cluster that scales from zero has no node until somebody asks for one, and a cluster that has just
been started may have only its head. Neither means that there is no CPU or no GPU, so a stage asks
for its workers and waits for them.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.cluster import connect, ray_cluster
from pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.experiment.config import ComputeConfig
    from pipeline.progress import Progress


WAIT_S = 600.0  # longest time to wait for nodes; a cloud may take minutes to start one with a GPU
NOTE_EVERY_S = 30.0
POLL_S = 1.0
GB = 1e9


@dataclass(frozen=True)
class Workers:
    """The workers that a stage can use.

    Attributes:
      count: Number of workers: those declared or, if the cluster has room for fewer, that number.
      resources: What Ray reserves for each of them, such as {"CPU": 1.0, "GPU": 1.0}.
    """

    count: int
    resources: dict[str, float]

    @property
    def on_gpus(self) -> bool:
        """Whether each worker has a GPU."""
        return "GPU" in self.resources


def wait_for_workers(compute: ComputeConfig, progress: Progress, gpus: bool = True) -> Workers:
    """Return the workers of a stage, after waiting until the cluster has room for them.

    Where none are declared, a single worker is waited for, and all that fit are returned. If only
    some of those declared have come after WAIT_S seconds, the stage uses these. Ray must be
    connected. Nothing is waited for where RAY_ADDRESS names no cluster: this machine does not grow.

    Args:
      compute: What the experiment declares.
      progress: Receives a line every NOTE_EVERY_S seconds while nothing comes.
      gpus: Whether the stage can use GPUs.

    Raises:
      StoreError: If there is no room for any worker; it says what the cluster has.
    """
    each = _worker_resources(compute, gpus)
    declared = compute.gpus if "GPU" in each else compute.workers
    wanted = declared or 1
    patience = WAIT_S if connect.names_cluster() else 0.0
    deadline, next_note = time.monotonic() + patience, -math.inf
    with contextlib.ExitStack() as stack:
        if patience and _count_fitting(each) < wanted:
            stack.enter_context(_requested(wanted, each))
        while (fitting := _count_fitting(each)) < wanted and time.monotonic() < deadline:
            if time.monotonic() >= next_note:
                next_note = time.monotonic() + NOTE_EVERY_S
                left = max(0.0, deadline - time.monotonic())
                text = f"waiting for {_describe(wanted, each)}, for at most {left:.0f} s"
                progress.note(f"{text}; the cluster has {_describe_cluster(each)}")
            time.sleep(min(POLL_S, patience))
    if not fitting:
        waited = f" after {patience:.0f} s" if patience else ""
        problem = f"no room for {_describe(1, each)}{waited}; it has {_describe_cluster(each)}"
        raise StoreError(_place(), problem, remedy=_remedy(compute, each))
    if fitting < wanted:
        progress.note(f"continues with {fitting} instead of {_describe(wanted, each)}")
    return Workers(min(fitting, declared or fitting), each)


def wait_for_cpus(compute: ComputeConfig, progress: Progress) -> None:
    """Wait for the workers of a stage that uses no GPU, as `wait_for_workers` does.

    This machine always has CPUs, so that without RAY_ADDRESS no Ray is started here.
    """
    if connect.names_cluster():
        with ray_cluster.connected():
            wait_for_workers(compute, progress, gpus=False)


def _worker_resources(compute: ComputeConfig, gpus: bool) -> dict[str, float]:
    """Return what Ray reserves for a worker.

    It has a GPU if GPUs are declared, or if nothing is declared and the cluster has any.
    """
    import ray

    each = {"CPU": float(compute.cpus_per_worker)}
    if gpus and compute.gpus != 0:
        has_gpus = ray.cluster_resources().get("GPU", 0) >= 1  # type: ignore[no-untyped-call]
        each |= {"GPU": 1.0} if compute.gpus or has_gpus else {}
    return each | ({"memory": compute.memory * GB} if compute.memory else {})


def _count_fitting(each: dict[str, float]) -> int:
    """Return the number of workers that the living nodes have room for, used or not."""
    return sum(
        int(min(node["Resources"].get(name, 0.0) // amount for name, amount in each.items()))
        for node in _alive_nodes()
    )


def _alive_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def _requested(count: int, each: dict[str, float]) -> Iterator[None]:
    """Ask the cluster's autoscaler, if it has one, for room for workers while the block runs.

    A placement group that waits for its place is such a request, and it ends with this driver. That
    of `ray.autoscaler.sdk.request_resources` would outlive a driver that is killed, and replaces
    those of other drivers.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([each] * count, strategy="PACK")
    try:
        yield
    finally:
        remove_placement_group(group)


def _describe(count: int, each: dict[str, float]) -> str:
    """Return a number of workers in words, such as `2 workers of 1 CPU and 1 GPU`."""
    parts = [_plural(int(each["CPU"]), "CPU")]
    parts += ["1 GPU"] if "GPU" in each else []
    parts += [f"{each['memory'] / GB:g} GB of memory"] if "memory" in each else []
    return f"{_plural(count, 'worker')} of {' and '.join(parts)}"


def _describe_cluster(each: dict[str, float]) -> str:
    """Return the nodes of the cluster in words, and their memory if workers reserve any."""
    nodes = _alive_nodes()
    amounts = {name: [n["Resources"].get(name, 0.0) for n in nodes] for name in ("CPU", "GPU")}
    totals = [_plural(int(sum(values)), name) for name, values in amounts.items()]
    text = f"{_plural(len(nodes), 'node')} with {' and '.join(totals)}"
    if "memory" in each:
        most = max(node["Resources"].get("memory", 0.0) for node in nodes)
        text += f", at most {most / GB:.1f} GB of memory on one"
    return text


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _place() -> str:
    """Return the cluster's name in messages."""
    if connect.names_cluster():
        return f"Ray cluster {os.environ['RAY_ADDRESS']}"
    return "Ray on this machine"


def _remedy(compute: ComputeConfig, each: dict[str, float]) -> str:
    """Return what a user can do if there is no room for a worker."""
    settings = ["compute.cpus_per_worker"] if compute.cpus_per_worker > 1 else []
    settings += ["compute.gpus"] if "GPU" in each and compute.gpus else []
    settings += ["compute.memory"] if compute.memory else []
    remedies = [f"lower {' or '.join(settings)}"] if settings else []
    if connect.names_cluster():
        remedies.append("start nodes that have it, or raise the limits of the cluster's autoscaler")
    else:
        remedies.append("set RAY_ADDRESS to a cluster that has it")
    return ", or ".join(remedies)
