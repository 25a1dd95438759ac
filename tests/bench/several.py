"""Models that share data, trained by the stage `train` on all cores, beside one model alone.

What a run costs whatever it trains is taken off: each is run with few updates and with many.
"""

from __future__ import annotations

import os
import time

from bench import demo
from bench.rows import Aim, Row
from pipeline import train
from pipeline.cluster import ray_cluster
from pipeline.progress import SilentProgress

SECTION = "models that share data, on all cores"
FEW, FOLDS = 2, 5
PLAIN = ("arms=[multiscale]", "n_seeds=1", "network.linear_weight=0")
KINDS = {1: ("folds.kind=none",), FOLDS + 1: (f"folds.n_folds={FOLDS}", "folds.kind=random")}


def rows(context):
    """One model, and one for each of five folds beside it."""
    many = context.rounds(150, 300)
    folder = context.scratch("several")
    seconds = {n: [] for n in KINDS}
    with ray_cluster.session(str(folder)), ray_cluster.connected():
        context.told("a cube", "is made")
        _, cube = demo.prepared(folder, "cube", (*demo.TINY, *PLAIN))
        for turn in range(context.rounds(1, 3)):
            for n, settings in KINDS.items():
                taken = {}
                for updates in (FEW, FEW + many):
                    context.told(f"{n} models of {updates} updates", f"round {turn + 1}")
                    name = f"{n}-{updates}-{turn}"
                    given = (*demo.TINY, *PLAIN, *settings, f"train.updates={updates}")
                    taken[updates] = trained(folder, name, given, cube)
                seconds[n].append(taken[FEW + many] - taken[FEW])
    one, several = seconds.values()
    n, cores = FOLDS + 1, os.cpu_count()
    yield Row(
        SECTION,
        f"{n} models ({FOLDS} folds and all sites), {many} updates of the demo's settings",
        "s",
        several,
        f"{n} times one model alone",
        [n * s for s in one],
        Aim(1.2 / min(n, cores), least=False),
        way="cores share memory and cache; the last model runs alone",
        note=f"{cores} cores: 1/{min(n, cores)} were ideal",
    )


def trained(folder, name, settings, cube):
    """Seconds of the stage, in a workspace of its own."""
    experiment, workspace = demo.variant(folder, name, settings, cube)
    begun = time.perf_counter()
    train.run(experiment, workspace, SilentProgress())
    seconds = time.perf_counter() - begun
    workspace.lease.release()
    return seconds
