"""Random windows of training: gathered by soilweave, by numpy, and copied as one piece."""

from __future__ import annotations

import numpy as np
import torch

from bench import data, machine
from bench.measure import in_turn, per_second
from bench.rows import Row
from model.recipe import ModelKey
from model.sampling import draw_batch, gather_inputs

SECTION = "random windows in memory, one thread"


def rows(context):
    """Windows of recipe `default`: the gathering alone, features too, and a whole batch."""
    torch.set_num_threads(context.threads or 1)
    of = data.recipe("default")
    held = data.training_data(of, n_footprints=1024)
    rng = np.random.default_rng(0)
    n, days, lead = 4096, data.days(of), held.features.lead_days
    place = rng.integers(0, len(held.cells.static), n)
    start = rng.integers(lead, held.n_days - days, n)
    where = [torch.from_numpy(a) for a in (place, start)]
    forcing = held.cells.forcing.numpy()
    out = np.empty((n, days + lead, forcing.shape[2]), np.float16)
    megabytes = out.nbytes / 1e6
    steps = iter(range(10**9))
    job = ModelKey("multiscale", 0, 0)
    copy = machine.copying(megabytes)

    def slices():
        for k, (p, s) in enumerate(zip(place, start, strict=True)):
            out[k] = forcing[p, s - lead : s + days]

    actions = {
        "gathered": lambda: held.cells.window(*where, days, lead),
        "inputs": lambda: gather_inputs(held.cells, *where, days, held.features, held.scaler),
        "batch": lambda: draw_batch(of, job, held, next(steps)),
        "slices": slices,
        "copied": lambda: copy() * megabytes,
    }
    taken = in_turn(actions, context.rounds(15, 50), told=lambda text: context.told("", text))
    gigabytes, copied = megabytes / 1e3, per_second(taken["copied"], megabytes / 1e3)
    size = f"{days + lead} days of {forcing.shape[2]} forcings"
    yield Row(
        SECTION,
        f"windows gathered, {size}, made float32",
        "GB/s",
        per_second(taken["gathered"], gigabytes),
        "numpy, a slice a window, float16",
        per_second(taken["slices"], gigabytes),
        limit_of="memcpy",
        limit=copied,
    )
    batch = data.sequences(of)
    share = batch / n
    for name, what, windows in (
        ("gathered", "windows gathered", n),
        ("inputs", "network inputs made: windows, slow features, statics", n),
        ("batch", f"whole batches of {batch} windows: drawn, inputs, noise, targets", batch),
    ):
        yield Row(
            SECTION,
            what,
            "windows/s",
            per_second(taken[name], windows),
            limit_of="memcpy",
            limit=per_second([s * share for s in taken["copied"]], batch),
        )
