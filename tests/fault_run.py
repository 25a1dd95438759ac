"""Trains 7 small models on 3 nodes and loses a worker, then a node; run by test_faults.py.

Usage: fault_run.py EXPERIMENT.yaml WORKSPACE. Prints what was killed and the size of each group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import ray
from ray.cluster_utils import Cluster

from pipeline import folds, prepare, resolve, train
from pipeline.progress import Silent
from pipeline.store import Workspace

WAIT_S, POLL_S = 300, 0.1


def finished(root: Path) -> int:
    """Models trained to their end."""
    return len(list(root.rglob("checkpoint.safetensors")))


def saved(root: Path) -> int:
    """Models saved on their way."""
    return len(list(root.rglob("progress.safetensors")))


def train_workers(parent: int) -> list[psutil.Process]:
    """Processes that train, among the children of a process."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone, or a zombie
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def wait_for(condition, what: str) -> None:
    """Poll until something holds."""
    end = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(POLL_S)


def disturb(root: Path, cluster: Cluster, nodes: list) -> None:
    """SIGKILL a worker once models are under way; later take the node of another away."""
    wait_for(lambda: saved(root) >= 2, "no model under way")
    me = os.getpid()
    first = train_workers(me)
    victim = first[0]
    print("killed worker", victim.pid, "of", len(first), flush=True)
    victim.send_signal(signal.SIGKILL)
    gone = {p.pid for p in first}
    wait_for(lambda: any(p.pid not in gone for p in train_workers(me)), "no new group")
    before = finished(root)
    wait_for(lambda: finished(root) > before, "no model finished after the restart")
    print("removed a node of", len(train_workers(me)), "workers", flush=True)
    cluster.remove_node(nodes[-1], allow_graceful=False)
    wait_for(lambda: len(train_workers(me)) == 2 or finished(root) == 7, "no group of two")
    print("group of", len(train_workers(me)), flush=True)


def main() -> None:
    experiment = resolve.experiment(sys.argv[1])
    workspace = Workspace(sys.argv[2])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    nodes = [cluster.add_node(num_cpus=1, num_gpus=0) for _ in range(3)]
    ray.init(address=cluster.address, log_to_driver=False)
    prepare.run(experiment, workspace, Silent())
    folds.run(experiment, workspace, Silent())
    root = Path(workspace.url("models"))
    killer = threading.Thread(target=disturb, args=(root, cluster, nodes), daemon=True)
    killer.start()
    train.run(experiment, workspace, Silent())
    killer.join(timeout=30)
    print("finished", finished(root), "killer done", not killer.is_alive(), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
