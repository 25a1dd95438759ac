"""What stage `train` costs besides training, on a warm cluster: seconds of each part, and processor
seconds of each kind of process, which a busy machine changes little."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from unittest import mock

import psutil
import ray
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from bench import demo
from bench.fixed import STAGE_S, TRIVIAL
from bench.rows import Aim, Row
from pipeline import train
from pipeline.cluster import ray_cluster, resources, turns
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Artefact
from pipeline.train import predict_sites, stage, training_data

SECTION = "stage train, part by part, next to no work, on a warm local cluster"
STAMPS, CALLBACKS = "SOILWEAVE_BENCH_STAMPS", "RAY_TRAIN_CALLBACKS"
SAMPLE_S = 0.2

# Functions of the driver that are timed.
TIMED = {
    "training data packed": (training_data, "pack_data"),
    "workers counted": (resources, "wait_for_workers"),
    "training data put into the object store": (ray, "put"),
    "queue of groups started": (turns, "start"),
    "predictions at sites, calibration": (predict_sites, "write_predictions"),
    "artefact committed": (Artefact, "commit"),
}

# Parts of the run of Ray Train, each from one stamp to the next.
TRAINER = {
    "controller started": ("fit", "controller"),
    "worker group started: processes, imports, process group": ("controller", "group"),
    "workers: training data taken, models trained": ("group", "trained"),
    "end noticed": ("trained", "ending"),
    "worker group ended": ("ending", "ended"),
    "controller ended": ("ended", "done"),
}


def stamp(name):
    """Note the time, in a file that all processes append to."""
    with Path(os.environ[STAMPS]).open("a") as file:
        file.write(f"{name} {time.time()}\n")


class Stamps(WorkerGroupCallback, ControllerCallback):
    """Called in the controller of Ray Train."""

    def after_controller_start(self, train_run_context):
        stamp("controller")

    def after_worker_group_training_start(self, worker_group):
        stamp("group")

    def before_worker_group_shutdown(self, worker_group):
        stamp("ending")

    def after_worker_group_shutdown(self, worker_group_context):
        stamp("ended")


def stamped(function):
    """What a worker runs."""
    function()
    stamp("trained")


@contextlib.contextmanager
def timed(taken):
    """Collect the seconds of the parts of the driver while the block runs."""

    def wrap(name, function):
        def run(*args, **kwargs):
            begun = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                taken[name] += time.perf_counter() - begun

        return run

    def fit(function, *args):
        stamp("fit")
        original(partial(stamped, function), *args)
        stamp("done")

    original = stage._fit
    with contextlib.ExitStack() as stack:
        for name, (place, attribute) in TIMED.items():
            wrapped = wrap(name, getattr(place, attribute))
            if isinstance(place, type):  # a method
                wrapped = partial_method(wrapped)
            stack.enter_context(mock.patch.object(place, attribute, wrapped))
        stack.enter_context(mock.patch.object(stage, "_fit", fit))
        yield


def partial_method(function):
    """A function that may stand in a class."""
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


@contextlib.contextmanager
def processor_seconds(found):
    """Collect the processor seconds of all processes below this one, by kind, in the block."""
    stopped, before, last = threading.Event(), {}, {}

    def watch():
        while not stopped.wait(SAMPLE_S):
            sample(last)

    sample(before)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        stopped.set()
        watcher.join()
        sample(last)
        for key, (kind, seconds) in last.items():
            found[kind] += seconds - before.get(key, ("", 0.0))[1]


def sample(seen):
    """Processor seconds so far of this process and all below it."""
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.Error, IndexError):
            key, times = (process.pid, process.create_time()), process.cpu_times()
            title = "driver" if process.pid == this.pid else " ".join(process.cmdline())
            kind = re.sub(r"[.(].*", "", title.split(" ")[0].split("/")[-1])
            known = seen.get(key, ("ray::IDLE", 0))[0]  # a process that ends loses its title
            kind = known if kind in ("", "ray::IDLE") else kind
            seen[key] = (kind, times.user + times.system)


def rows(context):
    """A row for each part and each kind of process."""
    folder = context.scratch("train_parts")
    parts, kinds = {}, {}
    change = {STAMPS: str(folder / "stamps"), CALLBACKS: f"{__name__}.Stamps"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, change))
        stack.enter_context(ray_cluster.session(str(folder)))
        stack.enter_context(ray_cluster.connected())
        context.told("a cube", "is made")
        _, cube = demo.prepared(folder, "cube", TRIVIAL)
        for turn in range(1 + context.rounds(3, 7)):
            context.told("stage train", f"round {turn}")
            seconds, processors = one(folder, f"turn{turn}", cube)
            for name, value in seconds.items() if turn else ():  # the first warms up
                parts.setdefault(name, []).append(value)
            for name, value in processors.items() if turn else ():
                kinds.setdefault(name, []).append(value)
    for name, samples in parts.items():
        aim = Aim(STAGE_S, least=False, of_ratio=False) if name == "all" else None
        yield Row(SECTION, name, "s", samples, aim=aim, way="processes that import Ray and torch")
    for name, samples in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        if sum(samples) / len(samples) >= 0.1:
            yield Row(SECTION, f"processors: {name}", "s of a core", samples)


def one(folder, name, cube):
    """Seconds of each part of a run, and processor seconds of each kind of process."""
    experiment, workspace = demo.variant(folder, name, TRIVIAL, cube)
    stamps = Path(os.environ[STAMPS])
    stamps.write_text("")
    driver, kinds = Counter(), Counter()
    begun = time.perf_counter()
    with timed(driver), processor_seconds(kinds):
        train.run(experiment, workspace, SilentProgress())
    total = time.perf_counter() - begun
    workspace.lease.release()
    at = {}
    for line in stamps.read_text().splitlines():
        key, moment = line.split()
        at[key] = float(moment)  # of several workers the last
    seconds = {name: driver[name] for name in TIMED}
    seconds |= {name: at[last] - at[first] for name, (first, last) in TRAINER.items()}
    seconds["the rest: manifests, checks, queue of progress"] = total - sum(seconds.values())
    return seconds | {"all": total}, kinds
