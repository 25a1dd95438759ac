"""What is paid whatever the size: the command line, every stage, the demo from nothing."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench import demo
from bench.measure import in_turn
from bench.rows import Aim, Row
from pipeline.cli.run_stages import RUN
from pipeline.cluster import ray_cluster
from pipeline.experiment import load
from pipeline.progress import SilentProgress
from pipeline.storage.artefacts import Workspace

SECTION = "fixed costs"
HELP_S, STAGE_S, DEMO_S = 0.5, 10.0, 180.0

# As little work as a stage can have.
TRIVIAL = (
    *demo.TINY,
    *(f"{key}=[2016-01-05, 2016-03-01]" for key in ("period", "train_period", "test_period")),
    "judging.min_days=5",
    "arms=[multiscale]",
    "n_seeds=1",
    "folds.n_folds=2",
    "network.hidden_size=4",
    "train.updates=2",
    "train.footprints_per_step=1",
    "train.sites_per_step=1",
    "judging.bootstrap_draws=100",
)

WAYS = {
    "prepare": "workers of Ray start, each of which imports xarray and zarr",
    "train": "Ray Train starts a controller and a group of workers, each of which imports torch",
}


def rows(context):
    """Help, stages on a warm cluster, and, in full, the demo."""
    yield from command_line(context)
    yield from stages(context)
    if not context.quick:
        yield the_demo(context)


def command_line(context):
    """`soilweave --help`, beside a Python that does nothing."""
    soilweave = Path(sys.executable).parent / "soilweave"

    def run(*command):
        return lambda: subprocess.run(command, check=True, capture_output=True)

    actions = {
        "help": run(str(soilweave), "--help"),
        "nothing": run(sys.executable, "-c", "pass"),
    }
    taken = in_turn(
        actions, context.rounds(7, 21), told=lambda text: context.told("soilweave --help", text)
    )
    yield Row(
        SECTION,
        "soilweave --help",
        "s",
        taken["help"],
        "python -c pass",
        taken["nothing"],
        Aim(HELP_S, least=False, of_ratio=False),
        way="imports",
    )


def stages(context):
    """Every stage of `run` on next to nothing, on a cluster that has run it before."""
    folder = context.scratch("stages")
    taken = {name: [] for name in RUN}
    with ray_cluster.session(str(folder)), ray_cluster.connected():
        for turn in range(1 + context.rounds(2, 5)):
            name = f"turn{turn}"
            workspace = Workspace(str(folder / name))
            experiment = workspace.place(load.load_experiment("demo", TRIVIAL, name))
            for stage in RUN:
                context.told(f"stage {stage}", f"round {turn}")
                begun = time.perf_counter()
                importlib.import_module(f"pipeline.{stage}").run(
                    experiment, workspace, SilentProgress()
                )
                if turn:  # the first warms up
                    taken[stage].append(time.perf_counter() - begun)
            workspace.lease.release()
            shutil.rmtree(workspace.root, ignore_errors=True)
    for stage, seconds in taken.items():
        yield Row(
            SECTION,
            f"stage {stage}, next to no work, on a warm local cluster",
            "s",
            seconds,
            aim=Aim(STAGE_S, least=False, of_ratio=False),
            way=WAYS.get(stage, "the work itself"),
        )


def the_demo(context):
    """`make demo` after the installation: a process of its own, a workspace of its own."""
    folder = context.scratch("demo")
    context.told("make demo", "")
    command = [Path(sys.executable).parent / "soilweave", "run", "demo", "--workspace", folder]
    begun = time.perf_counter()
    with (folder / "log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return Row(
        SECTION,
        "make demo, after the installation",
        "s",
        [time.perf_counter() - begun],
        aim=Aim(DEMO_S, least=False, of_ratio=False),
        way="training of 12 models and predicting",
    )
