"""Seconds before the first update on a GPU, part by part; the whole of `scan`, by stage."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from unittest import mock

import torch

from bench import data, demo
from bench.aside import PATHS
from bench.fixed import TRIVIAL
from bench.rows import Aim, Row
from model.recipe import ModelKey
from model.stacked_trainer import StackedTrainer
from model.trainer import Trainer
from pipeline.cli.run_stages import RUN
from pipeline.cluster import ray_cluster
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace
from pipeline.train import stage

START, SCAN = "before the first update on a GPU", "the whole of scan on a GPU"
AIM, MODELS = 10.0, 18
SIZES = {"n_footprints": 412, "per_footprint": 1, "n_sites": 123, "n_days": 731}


def rows(context, device="cuda", sizes=None, settings=()):
    """The start of a worker; that of Ray Train around it; the stages of `scan`."""
    parts = [
        _in_a_new_process(device, sizes or SIZES, settings) for _ in range(context.rounds(1, 3))
    ]
    for name in parts[0]:
        aim = Aim(AIM, least=False, of_ratio=False) if name == "all" else None
        samples = [part[name] for part in parts]
        yield Row(START, f"worker: {name}", "s", samples, aim=aim, way="see the other parts")
    if device == "cuda":
        yield from _ray_train(context)
        yield from _scan(context)


def _in_a_new_process(device, sizes, settings):
    """Seconds of each part, in a process that has not used the GPU before."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(PATHS)}
    given = json.dumps([device, sizes, settings])
    command = [sys.executable, "-m", "bench.gpu_stages", given]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def start(device, sizes, settings=()):
    """Seconds of each part of what a worker does before its first update, and of the next two."""
    of = data.recipe("default", *settings)
    packed = data.packed(of, **sizes)
    parts, begun = {}, time.perf_counter()

    def took(name):
        nonlocal begun
        if device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        parts[name], begun = now - begun, now

    torch.zeros(1, device=device)
    took("the device is set up")
    held = {}
    keys = [ModelKey("multiscale", k % 6 - 1, k // 6) for k in range(MODELS)]
    for k, key in enumerate(keys):
        held[k] = packed.data(key, 0.0, device, held.get(0))
    took("data are moved to the device")
    trainers = [Trainer(of, key, held[k], 1000) for k, key in enumerate(keys)]
    took("networks are made")
    group = StackedTrainer(trainers)
    took("networks are stacked")
    group.advance(1)
    took("first update: kernels are loaded or compiled")
    parts["all"] = sum(parts.values())
    group.advance(1)
    took("second update")
    group.advance(1)
    took("third update: the step is recorded as a graph")
    return parts


def _ray_train(context):
    """A run of a few updates by Ray Train, beside an empty function that it runs."""
    folder = context.scratch("gpu_stages")
    seconds = {"train": [], "empty": []}
    with ray_cluster.session(str(folder)), ray_cluster.connected():
        context.told("a cube", "is made")
        _, cube = demo.prepared(folder, "cube", TRIVIAL)
        for turn in range(context.rounds(2, 4)):
            for kind, samples in seconds.items():
                context.told("stage train", f"{kind}, round {turn}")
                experiment, workspace = demo.variant(folder, f"{kind}{turn}", TRIVIAL, cube)
                taken = _seconds_of_fit(experiment, workspace, kind == "empty")
                workspace.lease.release()
                samples += [taken] if turn else []  # the first warms up
    yield Row(
        START,
        "Ray Train's run with a few updates",
        "s",
        seconds["train"],
        "an empty function",
        seconds["empty"],
        note="the difference is what is paid besides the trainer itself",
    )


def _seconds_of_fit(experiment, workspace, empty):
    """Seconds of the trainer; the models are trained in any case, so that the stage completes."""
    taken, original = [], stage._fit

    def fit(function, *args):
        if empty:
            begun = time.perf_counter()
            original(_nothing, *args)
            taken.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        original(function, *args)
        taken.append(time.perf_counter() - begun)

    with mock.patch.object(stage, "_fit", fit):
        stage.run(experiment, workspace, SilentProgress())
    return taken[0]


def _nothing():
    """What Ray Train runs."""


def _scan(context):
    """Every stage of `scan`; none without the real files."""
    if not os.environ.get("SOILWEAVE_DATA"):
        context.console.print("gpu_stages: SOILWEAVE_DATA is not set; the whole of scan is not run")
        return
    workspace = Workspace(str(context.scratch("scan") / "scan"))
    experiment, seconds = workspace.place(load.load_experiment("scan")), {}
    with ExitStack() as stack:
        stack.enter_context(ray_cluster.session(workspace.root))
        stack.enter_context(ray_cluster.connected())
        for name in RUN[1:]:  # there is no planet
            context.told("scan", name)
            module, begun = importlib.import_module(f"pipeline.{name}"), time.perf_counter()
            module.run(experiment, workspace, SilentProgress())
            seconds[name] = time.perf_counter() - begun
    workspace.lease.release()
    for name, value in (seconds | {"all": sum(seconds.values())}).items():
        yield Row(SCAN, f"stage {name}" if name != "all" else "all stages", "s", [value])


if __name__ == "__main__":
    print(json.dumps(start(*json.loads(sys.argv[1]))))
